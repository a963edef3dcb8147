//! What should happen. Pure: no server, no clock, no chance; time and random words are arguments.
//!
//! [`decide()`] is the heart: every rule of the life cycle is there or in the files it names: [`rules`] (what a policy
//! asks of a request), [`votes`] (who counts), [`Rosters`] (who could), [`delegation`] (who asks for others), [`holdings`]
//! (whose mapping it is), [`conditions`] (how it is said). [`RequiredAction`] says what proves that somebody has done
//! one.

mod actions;
pub mod conditions;
mod decide;
pub mod delegation;
pub mod duration;
pub mod holdings;
mod policy;
mod request;
mod rosters;
pub mod rules;
pub mod votes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

pub use actions::{Account, Credential, RequiredAction, TERMS_ATTRIBUTE};
pub use decide::{
    Decision, Effect, Needs, Next, REQUIRED_ACTIONS, TAKEN_AWAY, actions_are_done, decide, is_ending, is_over, needs,
    sessions_at_end,
};
pub use policy::{Approval, Grant, GrantKind, Policy, Problem, ProblemReason, ReasonRule, Stage, Subject, Submitter};
pub use request::{Forged, Instead, Request, Signal, SignalKind};
pub use rosters::{Directory, Members, Rosters};

use crate::api::TargetType;

/// What was seen in the world around a request, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Whether the admission policies are in force.
    pub guard: Guard,
    /// The policy that the request names.
    pub policy: PolicyView,
    /// What Keycloak says about people, by Kubernetes username.
    pub people: People,
    /// Who could vote at all, as the policy's condition was last told; nothing if nobody has asked yet.
    pub rosters: Option<Arc<Rosters>>,
    /// The realm's id in Keycloak, if it was asked.
    pub realm_id: Option<String>,
    /// Base URL of the server that was asked.
    pub url: Option<String>,
    /// The request's grants as they are in Keycloak now, if [`Needs::targets`] asked for them.
    pub targets: Option<Result<Vec<Resolved>, TargetsError>>,
    /// What the subject has done in Keycloak, if [`Needs::targets`] asked for it and the policy wants something done; the
    /// error says why that is not known.
    pub account: Option<Result<Account, String>>,
    /// Whether the same has started before without a fresh vote, if [`Needs::record`] asked for it; the error says why that
    /// is not known.
    pub record: Option<Result<delegation::Record, String>>,
    /// Why a deadline would be wrong, if the clocks differ too much.
    pub clocks: Option<String>,
    /// The other requests for the same subject that are not final.
    pub siblings: Vec<Request>,
    /// Ids of targets of this subject to which a write may still be on its way because its answer was lost, and until when (in
    /// whole seconds).
    pub travelling: BTreeMap<String, Timestamp>,
    /// What a live request lacks of what it has put in place; nothing if nobody has looked yet.
    pub missing: Option<Vec<Missing>>,
    /// Why the access is given up without proof that it is gone, if the operator's configuration says so.
    pub released: Option<String>,
    /// How long an access token lives at most, if it was asked: at activation, and once nothing is left. The error says why
    /// that is not known.
    pub token_lifespan: Option<Result<Duration, String>>,
    /// What became of the effects of the decision before.
    pub outcomes: Vec<Outcome>,
    /// A fresh random word, for a new ballot.
    pub ballot: String,
}

/// Whether the admission policies are in force, so that annotations and requests can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nobody needed to know.
    NotAsked,
    /// They are.
    InForce {
        /// The trust epoch: a ballot is drawn in one and void in the next.
        epoch: String,
        /// Since when, unchanged.
        since: Timestamp,
        /// Whether the API server turns a literal `yes` into the caller's name.
        stamp: bool,
    },
    /// They are not, for this reason.
    NotInForce(String),
    /// The API server could not be asked, for this reason.
    Unknown(String),
}

/// The policy that a request names, as far as it can be used.
#[derive(Clone, Debug)]
pub enum PolicyView {
    /// There is none of this name.
    Absent,
    /// It is there, and cannot be used now.
    NotReady {
        /// Its UID.
        uid: String,
        /// Whether it is suspended.
        suspended: bool,
        /// Why it cannot be used.
        why: String,
        /// What it says, if it says something that could stand: approvers may end under it all the same.
        policy: Option<Arc<Policy>>,
    },
    /// It is there and stands.
    Ready(Arc<Policy>),
}

impl PolicyView {
    /// What the policy says, as far as it could stand.
    pub fn known(&self) -> Option<&Policy> {
        match self {
            Self::Absent => None,
            Self::NotReady { policy, .. } => policy.as_deref(),
            Self::Ready(policy) => Some(policy),
        }
    }
}

/// What Keycloak says about people, by Kubernetes username.
pub type People = BTreeMap<String, Lookup>;

/// What Keycloak says about a Kubernetes username.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It could not be asked.
    Unknown(String),
    /// The name leads to no user who may act, for this reason.
    Nobody(String),
    /// The name leads to this user.
    Person(Person),
}

/// A Keycloak user who is enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// The user's id: people count by it, not by their names.
    pub id: String,
    /// The user's name in Keycloak.
    pub username: String,
    /// Those of the policy's groups that the user is directly in, named as the policy names them.
    pub groups: BTreeSet<String>,
}

/// A grant as it is in Keycloak now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The grant's name in the policy.
    pub grant: String,
    /// What it is.
    pub type_: TargetType,
    /// Id of the role or group.
    pub id: String,
    /// Id of the client that a client role belongs to.
    pub client: Option<String>,
    /// Name or path.
    pub display: String,
    /// Whether the subject has it directly.
    pub mapped: bool,
    /// Whether it leads to Keycloak's own administration.
    pub administers: bool,
}

/// Which sessions of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// All.
    All,
    /// Those in which one of these clients (ids) takes part.
    OfClients(BTreeSet<String>),
}

/// Why the grants could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetsError {
    /// Keycloak could not be asked: try again.
    Unknown(String),
    /// Keycloak was asked, and they cannot be given.
    Refused(Vec<String>),
}

/// A target of a live request that somebody took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The grant's name.
    pub target: String,
    /// Who did it and when, as far as that is known; in words.
    pub by: String,
}

/// What became of one target of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The grant's name.
    pub target: String,
    /// What happened.
    pub result: OutcomeResult,
    /// Until when a write that was sent before could still arrive, if one could when this was done: it could come after it.
    pub travelling: Option<Timestamp>,
}

impl Outcome {
    /// Whether it came to nothing.
    pub fn has_failed(&self) -> bool {
        matches!(self.result, OutcomeResult::Failed(_))
    }

    /// Whether somebody tried to take a target away.
    pub fn is_of_a_removal(&self) -> bool {
        matches!(self.result, OutcomeResult::Removed | OutcomeResult::Failed(_))
    }
}

/// What happened to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutcomeResult {
    /// It is in Keycloak.
    Mapped,
    /// A target that the subject had before is not in Keycloak any more.
    Missing,
    /// It is proved gone.
    Removed,
    /// Another request took it over.
    HandedOver,
    /// The sessions are ended. It is about no target.
    SessionsEnded,
    /// Not all of them are, for this reason.
    SessionsLeft(String),
    /// Keycloak asks the subject for required actions at the next sign-in.
    Asked,
    /// Keycloak refuses, and will again, for this reason.
    Refused(String),
    /// It did not work, for this reason.
    Failed(String),
}

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
