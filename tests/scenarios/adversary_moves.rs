//! What the writers try, drawn from a seed: which kind of write, on which request, in which variation. The sequence of
//! each writer is a function of the seed alone; what it meets (ballots, phases) is not.

use crate::adversary_cast::{ADMIN, ALICE, LEA, MALLORY, NAMES, OPERATOR, ROB, ROBOT, SAM, STAGES, WRITERS};

/// Whether somebody writes statuses while the admission policies are away, and with the operator's own account at any
/// time.
pub const FORGE_STATUS: bool = true;

/// Whether somebody takes the operator's finalizer off while the admission policies are away, and with the operator's own
/// account at any time.
pub const TAKE_FINALIZERS: bool = true;

/// A kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A request for oneself.
    Ask,
    /// A request that claims to be somebody else's.
    AskForOther,
    /// The same, and says who submits it.
    AskSubmitted,
    /// The same, and says that it is approved already.
    AskPreApproved,
    /// A request with a vote in it.
    AskWithVote,
    /// A vote in one's own name.
    Vote,
    /// A vote in somebody else's name.
    VoteInName,
    /// A vote with an earlier ballot of this request, or an invented one.
    VoteOldBallot,
    /// A vote with the ballot of another request.
    VoteForeignBallot,
    /// A vote in a stage of one's choice, right or not.
    VoteAnyStage,
    /// Ends a request in one's own name.
    End,
    /// Ends a request in somebody else's name.
    EndInName,
    Delete,
    /// Deletes and asks again under the same name, with the old annotations.
    Recreate,
    /// Takes all annotations away.
    Wipe,
    /// Writes one's own name, or nothing, over somebody's signal.
    Overwrite,
    /// Takes one signal away.
    NullKey,
    Label,
    Owner,
    AddFinalizer,
    /// Takes all finalizers off.
    TakeFinalizer,
    EditSpec,
    /// Sends a whole copy with a forged vote, spec or status in it.
    ReplaceEdited,
    /// Sends an old copy, as it was or with the present resourceVersion.
    ReplaceStale,
    /// Server-side apply under somebody else's field manager, with force.
    Apply,
    /// Plants what `kubectl apply` believes was there before.
    PlantLastApplied,
    /// A status in a write that is not to the subresource.
    StatusInMain,
    /// A status through the subresource, which must be refused.
    Status,
    /// A status through the subresource where that can succeed ([`FORGE_STATUS`]).
    ForgeStatus,
    EditPolicy,
    /// Deletes a policy and makes it again.
    RemakePolicy,
    /// Keycloak's administrator takes an approver out of the group, or puts her back.
    Membership,
    /// Keycloak's administrator disables somebody, or enables them.
    Disable,
}

impl Kind {
    pub const ALL: [Self; 33] = [
        Self::Ask,
        Self::AskForOther,
        Self::AskSubmitted,
        Self::AskPreApproved,
        Self::AskWithVote,
        Self::Vote,
        Self::VoteInName,
        Self::VoteOldBallot,
        Self::VoteForeignBallot,
        Self::VoteAnyStage,
        Self::End,
        Self::EndInName,
        Self::Delete,
        Self::Recreate,
        Self::Wipe,
        Self::Overwrite,
        Self::NullKey,
        Self::Label,
        Self::Owner,
        Self::AddFinalizer,
        Self::TakeFinalizer,
        Self::EditSpec,
        Self::ReplaceEdited,
        Self::ReplaceStale,
        Self::Apply,
        Self::PlantLastApplied,
        Self::StatusInMain,
        Self::Status,
        Self::ForgeStatus,
        Self::EditPolicy,
        Self::RemakePolicy,
        Self::Membership,
        Self::Disable,
    ];

    /// Whether the run can have tried it.
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::ForgeStatus) || FORGE_STATUS
    }

    /// Whether it could succeed, and do what only the seal and the like protect from, while the admission policies are
    /// away.
    pub const fn waits_for_the_policies(self) -> bool {
        match self {
            Self::Status => true,
            Self::TakeFinalizer | Self::ReplaceEdited | Self::ReplaceStale | Self::Apply => !TAKE_FINALIZERS,
            _ => false,
        }
    }
}

/// One write, before it is known what it meets.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub kind: Kind,
    /// Which name.
    pub name: usize,
    /// Who else.
    pub other: usize,
    pub policy: usize,
    pub stage: usize,
    pub deny: bool,
    /// How long access is asked for.
    pub seconds: u64,
    /// Which variation.
    pub style: u64,
    /// Makes keys unique.
    pub n: u64,
}

/// Random numbers from a seed (splitmix64).
pub struct Dice(u64);

impl Dice {
    /// Of this seed, for this one of several who roll.
    pub fn new(seed: u64, who: usize) -> Self {
        let mut dice = Self(seed ^ (who as u64 + 1).wrapping_mul(0xd1b5_4a32_d192_ed03));
        dice.roll();
        dice
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than this.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % limit as u64).expect("small")
    }

    /// What one writer does next.
    pub fn next_move(&mut self, who: usize) -> Move {
        let table = weights(who);
        let total: usize = table.iter().map(|(_, weight)| weight).sum();
        let mut point = self.below(total);
        let mut kind = Kind::Ask;
        for (candidate, weight) in table {
            if point < weight {
                kind = candidate;
                break;
            }
            point -= weight;
        }
        self.with(kind)
    }

    /// A write of this kind.
    pub fn with(&mut self, kind: Kind) -> Move {
        Move {
            kind,
            name: self.below(NAMES.len()),
            other: self.below(WRITERS),
            policy: self.below(2),
            stage: self.below(STAGES.len()),
            deny: self.below(24) == 0,
            seconds: 5 + self.roll() % 6,
            style: self.roll() % 64,
            n: self.roll() % 1_000_000_000,
        }
    }
}

/// What anybody tries.
const ATTACKS: [(Kind, usize); 27] = [
    (Kind::AskForOther, 2),
    (Kind::AskSubmitted, 2),
    (Kind::AskPreApproved, 1),
    (Kind::AskWithVote, 2),
    (Kind::Vote, 2),
    (Kind::VoteInName, 5),
    (Kind::VoteOldBallot, 3),
    (Kind::VoteForeignBallot, 3),
    (Kind::VoteAnyStage, 3),
    (Kind::End, 1),
    (Kind::EndInName, 2),
    (Kind::Recreate, 1),
    (Kind::Wipe, 2),
    (Kind::Overwrite, 3),
    (Kind::NullKey, 3),
    (Kind::Label, 1),
    (Kind::Owner, 2),
    (Kind::AddFinalizer, 2),
    (Kind::TakeFinalizer, 2),
    (Kind::EditSpec, 2),
    (Kind::ReplaceEdited, 3),
    (Kind::ReplaceStale, 3),
    (Kind::Apply, 3),
    (Kind::PlantLastApplied, 1),
    (Kind::StatusInMain, 2),
    (Kind::Status, 3),
    (Kind::EditPolicy, 1),
];

/// What one writer tries, and how often. Most of what people may do is done by those who may.
fn weights(who: usize) -> Vec<(Kind, usize)> {
    let mut table = ATTACKS.to_vec();
    table.extend_from_slice(match who {
        ALICE => &[(Kind::Ask, 60), (Kind::Delete, 2)],
        ROB => &[(Kind::Ask, 20), (Kind::Vote, 50)],
        LEA | SAM => &[(Kind::Vote, 80)],
        ROBOT | MALLORY => &[(Kind::Ask, 3), (Kind::Delete, 1)],
        ADMIN => &[(Kind::Delete, 1), (Kind::EditPolicy, 9), (Kind::RemakePolicy, 1)],
        OPERATOR => &[(Kind::Ask, 2), (Kind::Status, 10)],
        _ => &[],
    });
    if FORGE_STATUS {
        table.push((Kind::ForgeStatus, 8));
    }
    table
}
