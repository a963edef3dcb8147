//! A status that the operator did not write: it gives nothing and steers nothing.
//!
//! * If the operator remembers the status before it, that one counts, and is written back.
//! * If the API server would not take that back (a final phase, a deadline and targets never change for the better), or if
//!   nothing is remembered, the request is over: what it may have given is taken away, and its status then says so.

use super::{Decision, Draft, by_phase, ending};
use crate::{
    api::{AccessRequestStatus, EndReason, GrantStatus, Phase, TargetState, TargetStatus},
    domain::{
        Forged, Instead, Request,
        conditions::{self, Reason},
    },
};

/// Most targets of a grant (`maxItems` of `status.grant.targets`).
const MAX_TARGETS: usize = 32;

impl Forged {
    /// Whether the request goes on with this status, which the operator remembers.
    pub(super) fn is_put_right_by(&self, status: &AccessRequestStatus) -> bool {
        match self.instead {
            Instead::Remembered => status.may_follow(&self.found),
            Instead::Named | Instead::Nothing(_) => false,
        }
    }
}

/// What becomes of a request whose status in the API server is not ours.
pub(super) fn decide(draft: Draft<'_>, forged: &Forged) -> Decision {
    if forged.is_put_right_by(&draft.status) {
        let remembered = draft.status.clone();
        let mut decision = by_phase(draft);
        decision.status.get_or_insert_with(|| Box::new(remembered));
        return decision;
    }
    take_away(draft, forged)
}

/// Taken away like any other access. In status is what was found, until it is gone.
fn take_away(draft: Draft<'_>, forged: &Forged) -> Decision {
    let nothing = GrantStatus {
        starts_at: draft.time(),
        deadline: draft.time(),
        end_reason: None,
        ended_at: None,
        powerless_at: None,
        sessions: None,
        token_lifespan: None,
        targets: Vec::new(),
    };
    let Draft { request, observed, now, mut status } = draft;
    status.grant.get_or_insert(nothing).end_reason = Some(EndReason::StatusForged);
    status.phase = Some(Phase::Revoking);
    let revoking = Request { status: status.clone(), forged: None, ..request.clone() };
    let Decision { status, effects, next } = ending::revoking(Draft { request: &revoking, observed, now, status });
    let gone = status.filter(|status| status.phase.is_some_and(Phase::is_final));
    let told = gone.map(|mut status| {
        let phase = forged.found.phase.filter(|phase| phase.is_final()).unwrap_or(Phase::Revoked);
        let reason = Reason::new(EndReason::StatusForged.as_str(), message(&status, &forged.instead));
        status.phase = Some(phase);
        conditions::set(&mut status, phase, &reason, request.generation, now);
        status.grant = match (status.grant.take(), &forged.found.grant) {
            (Some(grant), None) => Some(grant).filter(|grant| !grant.targets.is_empty()),
            (Some(grant), Some(found)) => Some(fitting(grant, found)),
            (None, found) => found.clone(),
        };
        status.ends_at = status.grant.as_ref().map(|grant| grant.deadline.0.to_string());
        status
    });
    Decision { status: told, effects, next }
}

/// A grant that has what the API server does not let go of: every target that was found, and no later deadline.
fn fitting(mut grant: GrantStatus, found: &GrantStatus) -> GrantStatus {
    if found.deadline < grant.deadline {
        grant.deadline = found.deadline.clone();
    }
    let mut targets = Vec::new();
    for old in &found.targets {
        let ours = grant.targets.iter().find(|target| old.is_same_as(target));
        targets.push(match ours {
            Some(ours) => TargetStatus { pre_existing: ours.pre_existing && old.pre_existing, ..ours.clone() },
            // It was never ours, and nothing was done about it.
            None => TargetStatus { state: TargetState::Kept, ..old.clone() },
        });
    }
    grant.targets.retain(|target| targets.iter().all(|other| other.name != target.name));
    targets.extend(grant.targets);
    targets.truncate(MAX_TARGETS);
    GrantStatus { targets, ..grant }
}

fn message(status: &AccessRequestStatus, instead: &Instead) -> String {
    let whose = status.subject.as_ref().map_or("nobody", |subject| subject.username.as_str());
    let targets = status.grant.iter().flat_map(|grant| &grant.targets);
    let removed: Vec<_> =
        targets.filter(|target| target.state == TargetState::Removed).map(|target| target.display.as_str()).collect();
    let taken = if removed.is_empty() {
        "nothing had to be taken away".to_owned()
    } else {
        format!("taken away from {whose}: {}", removed.join(", "))
    };
    let done = match instead {
        Instead::Remembered => taken,
        Instead::Named => {
            format!("the operator does not remember what it was, so what spec and policy name counts; {taken}")
        }
        Instead::Nothing(why) => format!("nothing was taken away: {why}"),
    };
    format!("somebody else has written the status of this request; {done}")
}
