//! A state of the world, small enough to have millions of them: what the API server, Keycloak and the operator's process
//! know, what is on its way between them, and what may still go wrong.

use std::hash::{Hash, Hasher};

use hallpass::api::Phase;

/// Requests of one person.
pub const REQUESTS: usize = 2;
/// Targets, by their number.
pub const TARGETS: usize = 2;

/// One of each for every target.
pub type PerTarget<T> = [T; TARGETS];

/// Everything, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Time, in ticks.
    pub now: u8,
    /// The requests in the API server.
    pub api: [Object; REQUESTS],
    pub keycloak: PerTarget<Mapping>,
    /// The process that leads. What an earlier one sent is among `late`.
    pub process: Process,
    /// What the other replica's watch has shown, if it goes by that when it takes over.
    pub standby: [Object; REQUESTS],
    /// Writes that nobody waits for any more, and that may arrive at any time or never. Sorted: their order says nothing.
    pub late: [Option<Late>; 2],
    /// How often something may still go wrong or be meddled with.
    pub budget: Budget,
    /// The first thing that happened and must not.
    pub broken: Option<Broken>,
}

/// A status that the real code wrote: the number of the text, and what the model has to know of it. It is equal to
/// another if the text is.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub number: u16,
    pub phase: Phase,
    /// In ticks; 0 if there is none.
    pub deadline: u8,
    /// Targets that are in it, one bit each.
    pub targets: u8,
    /// Those of them that the person had before.
    pub pre_existing: u8,
}

impl Default for Status {
    fn default() -> Self {
        Self { number: 0, phase: Phase::Pending, deadline: 0, targets: 0, pre_existing: 0 }
    }
}

impl PartialEq for Status {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Status {}

impl Hash for Status {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl Status {
    /// Whether its deadline has come.
    pub fn is_due(self, now: u8) -> bool {
        self.deadline > 0 && self.deadline <= now
    }
    pub fn has(self, target: usize) -> bool {
        self.targets >> target & 1 == 1
    }
    pub fn had_before(self, target: usize) -> bool {
        self.pre_existing >> target & 1 == 1
    }
    /// May have given something that is not proved gone.
    pub fn is_live(self) -> bool {
        matches!(self.phase, Phase::Activating | Phase::Active | Phase::Revoking)
    }
    /// Says that a target is ours.
    pub fn claims(self, target: usize) -> bool {
        self.is_live() && self.has(target) && !self.had_before(target)
    }
}

/// A request as the API server has it, or as somebody saw it there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Object {
    pub there: bool,
    pub status: Status,
    pub finalizer: bool,
    pub deleting: bool,
    /// Carries the requester's wish to end it.
    pub ends: bool,
}

impl Object {
    /// Over, or gone.
    pub fn is_over(self) -> bool {
        !self.there || self.status.phase.is_final()
    }
    /// Keycloak may have been written for it by the leader before.
    pub fn may_be_written(self, now: u8) -> bool {
        match self.status.phase {
            Phase::Activating | Phase::Revoking => true,
            Phase::Active => self.is_ending(now),
            _ => false,
        }
    }
    /// Ends by now, or somebody wants it to.
    pub fn is_ending(self, now: u8) -> bool {
        self.deleting || self.ends || self.status.is_due(now)
    }
}

/// What the person has of a target in Keycloak. Who made it is known to nobody but the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Mapping {
    pub there: bool,
    /// We made it.
    pub ours: bool,
    /// An administrator made it, or made it once more.
    pub admins: bool,
    /// An administrator made it when no request of ours claimed it: never to be removed.
    pub protected: bool,
    /// An administrator took it away since.
    pub meddled: bool,
    /// A request that gave it was destroyed, and then the process that knew of it: nobody can tell that it is ours.
    pub forgotten: bool,
    /// The role has another name by now.
    pub renamed: bool,
    /// The role was deleted.
    pub deleted: bool,
}

/// What the process knows of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    /// As it is decided on: the newest version with a status that is known to be ours.
    pub object: Object,
    /// Whether that is the version in the API server: what is written with its resourceVersion is taken.
    pub current: bool,
    /// The status in the API server, if it is not known to be ours.
    pub found: Option<Status>,
    /// Statuses that were sent, and nobody knows whether they have arrived.
    pub sent: [Option<Status>; 2],
    /// It was live and is not in the API server any more: it is known here only.
    pub vanished: bool,
    /// Whether a write of its status was acknowledged since this process leads, and none was left without an answer since.
    pub fenced: bool,
}

/// The operator's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    pub known: [Known; REQUESTS],
    /// What came of the effects of a request's last step, for its next one.
    pub outcomes: [PerTarget<Option<Came>>; REQUESTS],
    /// Writes to these targets may still be on their way to Keycloak.
    pub unsettled: PerTarget<bool>,
    /// So it was when that was sent of which the outcomes came.
    pub unsettled_then: [PerTarget<bool>; REQUESTS],
    /// The step that is under way. There is one at a time: both requests are of one person.
    pub work: Option<Work>,
}

/// A step under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    pub request: u8,
    /// Whether the version that the step goes by is still the one in the API server.
    pub current: bool,
    /// What was sent and not answered yet.
    pub sent: Option<Message>,
    /// The status that is still to be written, and whether it says nothing new and is a fence.
    pub write: Option<(Status, bool)>,
    /// What is left to do.
    pub todo: Todo,
    /// What came of it so far.
    pub came: PerTarget<Option<Came>>,
    /// What was unsettled when something was done.
    pub unsettled: PerTarget<bool>,
    /// Whether the next step hears of that.
    pub told: bool,
}

/// Effects, in their order: the finalizer, and one for each target.
pub type Todo = [Option<Do>; TARGETS + 1];

/// An effect of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Do {
    AddFinalizer,
    RemoveFinalizer,
    Map(u8),
    Confirm(u8),
    Unmap(u8),
    HandOver { target: u8, to: u8 },
}

impl Do {
    /// Something is done in Keycloak, or about who holds what there.
    pub const fn is_about_keycloak(self) -> bool {
        match self {
            Self::Map(_) | Self::Confirm(_) | Self::Unmap(_) | Self::HandOver { .. } => true,
            Self::AddFinalizer | Self::RemoveFinalizer => false,
        }
    }
}

/// What came of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Came {
    Mapped,
    Missing,
    Removed,
    HandedOver,
    Failed,
}

/// A write on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A request's status, with its resourceVersion: `current` says whether that is still the one in the API server.
    /// A `fence` is a new version also if it says nothing new.
    Status {
        request: u8,
        status: Status,
        current: bool,
        fence: bool,
        of: Of,
    },
    Finalizer {
        request: u8,
        on: bool,
        current: bool,
    },
    /// By the name that the role has now (`renamed`) or had when it was recorded; `again` after a 404.
    Map {
        target: u8,
        renamed: bool,
        again: bool,
    },
    Unmap {
        target: u8,
        renamed: bool,
        again: bool,
    },
}

/// Whose status is written in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Of {
    Itself,
    /// The one that takes a target over.
    Heir(u8),
    /// The other one, which is fenced.
    Other,
}

impl Message {
    /// Some order.
    fn rank(self) -> (u8, u8, bool, u16) {
        match self {
            Self::Status { request, status, current, fence: _, of: _ } => (0, request, current, status.number),
            Self::Finalizer { request, on, current } => (1, request, current, on.into()),
            Self::Map { target, renamed, again } => (2, target, again, renamed.into()),
            Self::Unmap { target, renamed, again } => (3, target, again, renamed.into()),
        }
    }

    /// The target of a write to Keycloak.
    pub fn target(self) -> Option<usize> {
        match self {
            Self::Map { target, .. } | Self::Unmap { target, .. } => Some(usize::from(target)),
            Self::Status { .. } | Self::Finalizer { .. } => None,
        }
    }
}

/// A write that nobody waits for any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Late {
    pub message: Message,
    /// What its sender does next, if it does not notice that it leads no longer.
    pub then: Option<Do>,
}

/// How often something may still go wrong or be meddled with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Crashes, lost and late answers.
    pub faults: u8,
    /// An administrator maps or unmaps.
    pub admin: u8,
    /// Somebody ends or deletes a request.
    pub user: u8,
    /// A role is renamed or deleted.
    pub role: u8,
    /// A request is destroyed or loses its finalizer.
    pub vanish: u8,
}

/// What must not happen in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// What was there before was removed.
    TookAway,
    /// A final phase changed.
    Revived,
    /// A deadline moved later.
    Prolonged,
    /// A replica without the lease wrote to Keycloak.
    TwoWriters,
}

impl State {
    /// The object has another version now: what was sent for the last one is refused.
    pub fn touched(&mut self, request: usize) {
        self.process.known[request].current = false;
        let stale = |message: &mut Message| match message {
            Message::Status { request: of, current, .. } | Message::Finalizer { request: of, current, .. } => {
                *current &= usize::from(*of) != request;
            }
            Message::Map { .. } | Message::Unmap { .. } => {}
        };
        if let Some(work) = &mut self.process.work {
            work.current &= usize::from(work.request) != request;
            work.sent.iter_mut().for_each(stale);
        }
        self.late.iter_mut().flatten().for_each(|late| stale(&mut late.message));
    }

    /// Their order says nothing.
    pub fn sort_late(&mut self) {
        let rank = |late: &Option<Late>| late.map_or((9, 0, false, 0), |late| late.message.rank());
        self.late.sort_by_key(rank);
    }

    pub fn breaks(&mut self, what: Broken) {
        self.broken.get_or_insert(what);
    }

    /// Whether a write to Keycloak is on its way.
    pub fn travels_to_keycloak(&self, target: usize) -> bool {
        let sent = self.process.work.and_then(|work| work.sent);
        let late = self.late.iter().flatten();
        late.map(|late| late.message).chain(sent).any(|message| message.target() == Some(target))
    }

    /// Whether a request of ours says that a target is its own, or will if what is on its way arrives, or because it was
    /// just seen to be missing: an administrator who maps it then gives what is ours already. Between looking and writing
    /// there is always a moment.
    pub fn is_claimed(&self, target: usize) -> bool {
        let sent = self.process.work.and_then(|work| work.sent);
        let mut coming = self.late.iter().flatten().map(|late| late.message).chain(sent);
        let claims = |message: Message| matches!(message, Message::Status { status, current: true, .. } if status.claims(target));
        let came = self.process.work.iter().map(|work| &work.came).chain(&self.process.outcomes);
        let missing = came.map(|came| came[target]).any(|came| came == Some(Came::Missing));
        let vanished =
            |request: usize| self.has_vanished(request) && self.process.known[request].object.status.claims(target);
        let here = self.api.iter().any(|object| object.there && object.status.claims(target));
        missing || here || (0..REQUESTS).any(vanished) || coming.any(claims)
    }

    /// Whether a live request is known to the process only, or soon will be.
    pub fn has_vanished(&self, request: usize) -> bool {
        let object = self.process.known[request].object;
        object.there && object.status.is_live() && !self.api[request].there
    }
}
