//! A policy that was read once and stands: what [`crate::api::AccessPolicy`] says, checked.

mod parse;

use std::{collections::BTreeSet, fmt, time::Duration};

use regex::Regex;

use super::{Person, RequiredAction};
use crate::api::{self, AtEnd};

/// The group that everybody is in who leads to a Keycloak user.
pub const EVERYBODY: &str = "system:authenticated";

/// An `AccessPolicy` that stands, as far as one can say without asking Keycloak.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Its UID: a re-created policy is another policy.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// The realm's name in the operator's configuration.
    pub realm: String,
    /// Kill switch.
    pub suspended: bool,
    /// What can be lent.
    pub grants: Vec<Grant>,
    /// Who may ask.
    pub requesters: Vec<Subject>,
    /// Who may hand in requests for other people.
    pub submitters: Vec<Submitter>,
    /// Where requests may live; empty means anywhere.
    pub namespaces: BTreeSet<String>,
    /// For a request that names no duration.
    pub default_duration: Duration,
    /// The longest that a request may ask for.
    pub max_duration: Duration,
    /// What a request must say about its reason.
    pub reason: ReasonRule,
    /// Who must agree.
    pub approval: Approval,
    /// A request that nobody decided for this long is `TimedOut`.
    pub timeout: Duration,
    /// What happens to the subject's sessions when the access ends.
    pub at_end: AtEnd,
    /// Whether grants may lead to Keycloak's own administration, as far as the policy goes.
    pub allow_admin_roles: bool,
    /// What the subject must have done in Keycloak before anything is mapped.
    pub required_actions: Vec<RequiredAction>,
    /// Digest of what is voted on: realm, grants, requesters, submitters, approval, required actions.
    pub rules: String,
}

/// One thing that can be lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What requests call it.
    pub name: String,
    /// What it is.
    pub kind: GrantKind,
}

/// What a grant is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GrantKind {
    /// A realm role, by name.
    RealmRole(String),
    /// A client role, by the client's `clientId` and the role's name.
    ClientRole {
        /// The client's `clientId`.
        client: String,
        /// The role's name.
        role: String,
    },
    /// A group, by its full path.
    Group(String),
}

impl fmt::Display for GrantKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RealmRole(name) => write!(f, "realm role {name:?}"),
            Self::ClientRole { client, role } => write!(f, "role {role:?} of client {client:?}"),
            Self::Group(path) => write!(f, "group {path:?}"),
        }
    }
}

/// Somebody whom a policy names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A Kubernetes username, exactly.
    User(String),
    /// A Keycloak group, with the realm's prefix before its path.
    Group(String),
}

impl Subject {
    /// Whether this names the person with this Kubernetes username.
    pub fn includes(&self, username: &str, person: &Person) -> bool {
        match self {
            Self::User(name) => name == username,
            Self::Group(name) => name == EVERYBODY || person.groups.contains(name),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "User {name}"),
            Self::Group(name) => write!(f, "Group {name}"),
        }
    }
}

/// Somebody who may hand in requests for other people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitter {
    /// Kubernetes username, exactly.
    pub username: String,
    /// The stages for which the review in Git counts.
    pub pre_approves: Vec<String>,
}

/// Subjects as a list for people.
pub fn list(subjects: &[Subject]) -> String {
    subjects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a request must say about its reason.
#[derive(Clone, Debug, Default)]
pub struct ReasonRule {
    /// Whether a reason is needed.
    pub required: bool,
    /// What it must match somewhere.
    pub pattern: Option<Regex>,
    /// Shown to people whose reason does not match.
    pub hint: Option<String>,
}

/// Who must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Nobody.
    Automatic,
    /// Every one of these stages.
    Stages(Vec<Stage>),
}

impl Approval {
    /// The stages; none if automatic.
    pub fn stages(&self) -> &[Stage] {
        match self {
            Self::Automatic => &[],
            Self::Stages(stages) => stages,
        }
    }
}

/// One approval that a policy wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// How many distinct people.
    pub required: usize,
    /// Who may vote in it.
    pub approvers: Vec<Subject>,
}

/// A reason why a policy is not Ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For machines.
    pub reason: ProblemReason,
    /// For people: the field, the value, what would be right.
    pub message: String,
}

/// Reasons why a policy is not Ready, as they stand in the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemReason {
    /// A value that cannot stand.
    Invalid,
    /// The realm is not in the operator's configuration.
    RealmNotFound,
    /// Keycloak has no such role or group.
    GrantNotFound,
    /// A requester or approver group is not in Keycloak.
    GroupNotFound,
    /// Two grants lead to one target.
    DuplicateTarget,
    /// The realm does not ask for a required action.
    RequiredActionDisabled,
    /// A grant would make its holder an approver.
    GrantMakesApprover,
    /// A grant reaches Keycloak's administration.
    ReachesAdministration,
    /// The operator's rights in Keycloak do not reach so far.
    NotPermitted,
    /// A stage that can never be satisfied, or not by the people that there are: somebody may join them.
    StageUnsatisfiable,
    /// Keycloak could not be asked.
    KeycloakUnavailable,
}

impl ProblemReason {
    /// As it is written in the condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::RealmNotFound => "RealmNotFound",
            Self::GrantNotFound => "GrantNotFound",
            Self::GroupNotFound => "GroupNotFound",
            Self::DuplicateTarget => "DuplicateTarget",
            Self::RequiredActionDisabled => "RequiredActionDisabled",
            Self::StageUnsatisfiable => "StageUnsatisfiable",
            Self::GrantMakesApprover => "GrantMakesApprover",
            Self::ReachesAdministration => "ReachesAdministration",
            Self::NotPermitted => "NotPermitted",
            Self::KeycloakUnavailable => "KeycloakUnavailable",
        }
    }
}

impl Problem {
    /// A problem with this reason and message.
    pub fn new(reason: ProblemReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Policy {
    /// The policy as it is now, for a request to remember.
    pub fn pin(&self) -> api::PolicyPin {
        api::PolicyPin { uid: self.uid.clone(), generation: self.generation }
    }

    /// The grants that a request gets: those it names, or all.
    pub fn wanted<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a Grant> {
        self.grants.iter().filter(move |grant| names.is_empty() || names.contains(&grant.name))
    }

    /// Every group that the policy names, as it names them.
    pub fn groups(&self) -> BTreeSet<&str> {
        let approvers = self.approval.stages().iter().flat_map(|stage| &stage.approvers);
        let group = |subject: &'_ Subject| matches!(subject, Subject::Group(name) if name != EVERYBODY);
        self.requesters
            .iter()
            .chain(approvers)
            .filter(|subject| group(subject))
            .map(|subject| match subject {
                Subject::User(name) | Subject::Group(name) => name.as_str(),
            })
            .collect()
    }
}
