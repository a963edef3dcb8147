//! A request that was read once: what [`crate::api::AccessRequest`] says, checked.

use std::time::Duration;

use jiff::Timestamp;

use super::{conditions::RECONCILING, duration};
use crate::api::{self, AccessRequestStatus, Phase, VoteDecision};

/// An `AccessRequest` that was read.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug)]
pub struct Request {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// When it was created.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it carries our finalizer.
    pub has_finalizer: bool,
    /// Name of the policy.
    pub policy: String,
    /// Kubernetes username of who asks.
    pub requester: String,
    /// Kubernetes username of who handed it in, if the request says so.
    pub submitted_by: Option<String>,
    /// Whether the review in Git counts as a vote.
    pub pre_approved: bool,
    /// Names of the grants; empty means all.
    pub grants: Vec<String>,
    /// How long, if the request says so.
    pub duration: Option<Duration>,
    /// Why.
    pub reason: String,
    /// Not to start before.
    pub not_before: Option<Timestamp>,
    /// Not to last after.
    pub not_after: Option<Timestamp>,
    /// What is wrong with the spec by itself, for people.
    pub broken: Vec<String>,
    /// Votes and ends that its annotations carry.
    pub signals: Vec<Signal>,
    /// What the operator said so far.
    pub status: AccessRequestStatus,
    /// What the API server has in its place, if that is not the operator's.
    pub forged: Option<Forged>,
    /// Whether its time is up by a clock that nobody can set, whatever the wall clock says.
    pub time_is_up: bool,
}

/// A status that the operator did not write.
#[derive(Clone, Debug, PartialEq)]
pub struct Forged {
    /// What it says.
    pub found: AccessRequestStatus,
    /// What counts instead.
    pub instead: Instead,
}

/// What counts instead of a status that the operator did not write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// The status that the operator remembers.
    Remembered,
    /// Nothing is remembered: whom and what spec and policy name now.
    Named,
    /// They name nothing, for this reason.
    Nothing(String),
}

/// A vote or an end, as an annotation says it. The API server made sure that `by` is who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The annotation.
    pub key: String,
    /// Kubernetes username of who wrote it.
    pub by: String,
    /// What it says.
    pub kind: SignalKind,
}

/// What a signal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// A vote.
    Vote {
        /// Yes or no.
        decision: VoteDecision,
        /// The ballot it is for.
        ballot: String,
        /// The stage it is for.
        stage: String,
    },
    /// The wish to end the access early.
    End,
}

impl Request {
    /// Who gets the access, once that is known.
    pub fn subject(&self) -> Option<&api::PinnedSubject> {
        self.status.subject.as_ref()
    }

    /// Reads a request.
    pub fn parse(request: &api::AccessRequest) -> Self {
        // A new field that nobody reads here must not compile: it would be ignored silently.
        let api::AccessRequestSpec {
            policy_name,
            requester,
            grants,
            duration: wanted,
            reason,
            not_before,
            not_after,
            submitted_by,
            pre_approved,
            source: _,
        } = &request.spec;
        let metadata = &request.metadata;
        let requester = requester.clone().unwrap_or_default();
        let mut broken = Vec::new();
        if requester.is_empty() {
            broken.push("spec.requester is missing: set it to your own username".to_owned());
        }
        let parsed = wanted.as_deref().and_then(duration::parse);
        if let (Some(text), None) = (wanted, parsed) {
            broken.push(format!("spec.duration {text:?} must be a duration, as 30s or 1h30m"));
        }
        let annotations = metadata.annotations.iter().flatten();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            has_finalizer: metadata.finalizers.iter().flatten().any(|finalizer| finalizer == api::FINALIZER),
            policy: policy_name.clone(),
            requester,
            submitted_by: submitted_by.clone(),
            pre_approved: *pre_approved,
            grants: grants.clone(),
            duration: parsed,
            reason: reason.as_deref().unwrap_or_default().trim_end_matches('\n').to_owned(),
            not_before: not_before.as_ref().map(|time| time.0),
            not_after: not_after.as_ref().map(|time| time.0),
            broken,
            signals: annotations.filter_map(|(key, by)| Signal::parse(key, by)).collect(),
            status: request.status.clone().unwrap_or_default(),
            forged: None,
            time_is_up: false,
        }
    }

    /// Where it is in its life; `None` while nobody has looked.
    pub fn phase(&self) -> Option<Phase> {
        self.status.phase
    }

    /// Who handed it in, when that is not the requester.
    pub fn submitter(&self) -> Option<&str> {
        self.submitted_by.as_deref().filter(|by| *by != self.requester)
    }

    /// The deadline, once there is one.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.status.grant.as_ref().map(|grant| grant.deadline.0)
    }

    /// Since when what it gave should be gone, or when it should: since it is being taken away, or from its deadline on.
    pub fn due_since(&self) -> Option<Timestamp> {
        let revoking = self.phase() == Some(Phase::Revoking);
        let mut working = self.status.conditions.iter().filter(|condition| revoking && condition.type_ == RECONCILING);
        let since = working.next().map(|condition| condition.last_transition_time.0);
        self.deadline().map(|deadline| since.map_or(deadline, |since| since.min(deadline)))
    }

    /// Whether it is live, and its time is up.
    pub fn grant_is_due(&self, now: Timestamp) -> bool {
        matches!(self.phase(), Some(Phase::Activating | Phase::Active)) && self.is_due(now)
    }

    /// Whether its time is up, by either clock.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| self.time_is_up || deadline <= now)
    }
}

impl Signal {
    /// Reads an annotation; `None` if it is no signal, or none that could ever count.
    pub fn parse(key: &str, by: &str) -> Option<Self> {
        // Whom no policy and no status can name has no say.
        if by.chars().count() > api::MAX_USERNAME {
            return None;
        }
        let kind = if key.strip_prefix(api::END).is_some() {
            SignalKind::End
        } else {
            let (decision, rest) = match (key.strip_prefix(api::APPROVE), key.strip_prefix(api::DENY)) {
                (Some(rest), _) => (VoteDecision::Approve, rest),
                (None, Some(rest)) => (VoteDecision::Deny, rest),
                (None, None) => return None,
            };
            let mut parts = rest.splitn(3, '.');
            let (ballot, stage, _anything) = (parts.next()?, parts.next()?, parts.next()?);
            if stage.chars().count() > api::MAX_STAGE {
                return None;
            }
            SignalKind::Vote { decision, ballot: ballot.to_owned(), stage: stage.to_owned() }
        };
        Some(Self { key: key.to_owned(), by: by.to_owned(), kind })
    }
}
