//! How a phase is said to machines and people: the five conditions of a request.
//!
//! kstatus (and with it Flux, Argo CD and `kubectl wait`) reads `Ready`, `Reconciling` and `Stalled`. The last two are
//! never both true: whichever comes first in the list would win.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{TAKEN_AWAY, duration::whole_seconds};
use crate::api::{AccessRequestStatus, Phase};

/// Longest message of a condition (Kubernetes, metav1.Condition).
const MAX_MESSAGE: usize = 32768;

/// Why a request is where it is: one word for machines, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// One word.
    pub word: &'static str,
    /// A sentence: what is going on and what to do about it.
    pub message: String,
}

impl Reason {
    /// A reason.
    pub fn new(word: &'static str, message: impl Into<String>) -> Self {
        Self { word, message: message.into() }
    }
}

/// True while Keycloak is being written for a request.
pub const RECONCILING: &str = "Reconciling";

/// Sets the conditions of a request that is in its phase for this reason.
pub fn set(status: &mut AccessRequestStatus, phase: Phase, reason: &Reason, generation: i64, now: Timestamp) {
    let approved = status.approved_by.is_some();
    let approval = match &status.approved_by {
        Some(by) => Reason::new("Approved", format!("approved by {by}")),
        None => reason.clone(),
    };
    let (ready, reconciling, stalled) = match phase {
        Phase::Pending | Phase::Approved => (false, false, false),
        Phase::Activating | Phase::Revoking => (false, true, false),
        Phase::Active | Phase::Expired | Phase::Revoked => (true, false, false),
        Phase::Denied | Phase::TimedOut | Phase::Rejected => (false, false, true),
    };
    let working = |on: bool| if on { reason.clone() } else { Reason::new("Settled", "") };
    for (type_, on, reason) in [
        ("Approved", approved, approval),
        ("Granted", phase == Phase::Active && reason.word != TAKEN_AWAY, reason.clone()),
        ("Ready", ready, reason.clone()),
        (RECONCILING, reconciling, working(reconciling)),
        ("Stalled", stalled, working(stalled)),
    ] {
        put(&mut status.conditions, type_, on, &reason, generation, now);
    }
}

/// A text of at most so many characters: what is longer than the schema allows would keep the whole status from being
/// written.
pub fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => text.chars().take(limit - 1).chain(['…']).collect(),
    }
}

/// Sets one condition. Its time changes only when its status does: a status that says the same is never written.
pub fn put(conditions: &mut Vec<Condition>, type_: &str, on: bool, reason: &Reason, generation: i64, now: Timestamp) {
    let status = if on { "True" } else { "False" };
    let old = conditions.iter_mut().find(|condition| condition.type_ == type_);
    let since = match &old {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        _ => Time(whole_seconds(now)),
    };
    let new = Condition {
        last_transition_time: since,
        message: shortened(&reason.message, MAX_MESSAGE),
        observed_generation: Some(generation),
        reason: reason.word.to_owned(),
        status: status.to_owned(),
        type_: type_.to_owned(),
    };
    match old {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}
