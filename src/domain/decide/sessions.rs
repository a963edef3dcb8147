//! After the end: the subject's sessions, and until when old access tokens may still carry what is gone.
//!
//! The order is: every target proved gone, then the sessions, then the final phase. Whoever was signed out before that would
//! sign in and have it again. Only the final phase says that it was done: killed before, it is done once more.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Decision, Draft, Effect, Next, ending::OVERDUE_AFTER, is_ending};
use crate::{
    api::{AtEnd, GrantStatus, Phase, TargetState, TargetStatus},
    domain::{Observed, Outcome, OutcomeResult, Policy, Request, Sessions, conditions::Reason, duration::later},
};

/// For refreshes that are under way at the end, for caches of Keycloak's nodes, and for clocks.
const MARGIN: Duration = Duration::from_mins(1);

/// What a request records about sessions when its access begins. Who administered Keycloak is signed out, whatever the
/// policy says.
pub fn at_end(policy: &Policy, administers: bool) -> Option<AtEnd> {
    match policy.at_end {
        _ if administers => Some(AtEnd::EndAll),
        AtEnd::Keep => None,
        at_end @ (AtEnd::EndClientSessions | AtEnd::EndAll) => Some(at_end),
    }
}

/// How long an access token lives now, as a request records it.
pub(super) fn asked_lifespan(observed: &Observed) -> Option<i64> {
    let lifespan = observed.token_lifespan.as_ref()?.as_ref().ok()?;
    i64::try_from(lifespan.as_secs()).ok()
}

/// Whether nothing is left of what a request lent, its sessions included: it can be final, and how long tokens live is
/// asked.
pub fn is_over(request: &Request, outcomes: &[Outcome], now: Timestamp) -> bool {
    let Some(grant) = &request.status.grant else { return false };
    let came_out = |name: &str, result: &OutcomeResult| {
        outcomes.iter().any(|outcome| outcome.target == name && outcome.result == *result)
    };
    let removed =
        |target: &TargetStatus| target.state == TargetState::Removed || came_out(&target.name, &OutcomeResult::Removed);
    let left = |target: &TargetStatus| {
        target.pre_existing || target.state == TargetState::Kept || came_out(&target.name, &OutcomeResult::HandedOver)
    };
    is_ending(request, now)
        && !request.phase().is_some_and(Phase::is_final)
        && grant.targets.iter().any(removed)
        && grant.targets.iter().all(|target| removed(target) || left(target))
        && (grant.sessions.is_none() || came_out("", &OutcomeResult::SessionsEnded))
}

/// Everything is proved gone or rightly left: ends the sessions if something is gone, and says then until when tokens may
/// carry it. The error is what there is to do before.
pub(super) fn end(mut draft: Draft<'_>, mut why: String) -> Result<(Draft<'_>, String), Box<Decision>> {
    let Some(grant) = draft.status.grant.as_mut() else { return Ok((draft, why)) };
    let gone: Vec<&TargetStatus> = grant.targets.iter().filter(|target| target.state == TargetState::Removed).collect();
    let (Some(ended_at), false) = (grant.ended_at.clone(), gone.is_empty()) else { return Ok((draft, why)) };
    let outcomes = draft.observed.outcomes.iter();
    let ended = outcomes.clone().any(|outcome| outcome.result == OutcomeResult::SessionsEnded);
    let to_end = which(grant, &gone).filter(|_| !ended);
    if let (Some(given_up), Some(_)) = (&draft.observed.released, &to_end) {
        why = format!("{why}; its sessions are given up, {given_up}");
    } else if let Some(which) = to_end {
        let left = outcomes.filter_map(|outcome| match &outcome.result {
            OutcomeResult::SessionsLeft(why) => Some(why.as_str()),
            OutcomeResult::Mapped
            | OutcomeResult::Missing
            | OutcomeResult::Removed
            | OutcomeResult::HandedOver
            | OutcomeResult::SessionsEnded
            | OutcomeResult::Asked
            | OutcomeResult::Refused(_)
            | OutcomeResult::Failed(_) => None,
        });
        let left: Vec<&str> = left.collect();
        if !left.is_empty() {
            return Err(Box::new(failed(draft, ended_at.0, &left.join("; "))));
        }
        let removed = gone.iter().map(|target| target.name.clone()).collect();
        let message = format!("{why}; the access is gone, and its sessions are being ended");
        let reason = Reason::new("EndingSessions", message);
        return Err(Box::new(draft.goes_on(Phase::Revoking, &reason, vec![Effect::EndSessions { which, removed }])));
    }
    if ended {
        why = format!("{why}; its sessions were ended");
    }
    let again = asked_lifespan(draft.observed);
    let longest = grant.token_lifespan.max(again).and_then(|seconds| u64::try_from(seconds).ok());
    grant.powerless_at = longest.map(|seconds| Time(later(ended_at.0, Duration::from_secs(seconds) + MARGIN)));
    if let Some(Err(unknown)) = &draft.observed.token_lifespan {
        let instead = match grant.powerless_at {
            Some(_) => "powerlessAt goes by how it was when the access began",
            None => "powerlessAt is left out",
        };
        why = format!("{why}; how long tokens live could not be read ({unknown}), so {instead}");
    }
    Ok((draft, why))
}

/// Which sessions end with these targets, if any.
fn which(grant: &GrantStatus, gone: &[&TargetStatus]) -> Option<Sessions> {
    match grant.sessions {
        None | Some(AtEnd::Keep) => None,
        Some(AtEnd::EndAll) => Some(Sessions::All),
        Some(AtEnd::EndClientSessions) => {
            Some(Sessions::OfClients(gone.iter().filter_map(|target| target.client.clone()).collect()))
        }
    }
}

/// The sessions are not ended yet: again, without end.
fn failed(draft: Draft<'_>, ended_at: Timestamp, why: &str) -> Decision {
    let limit = later(ended_at, OVERDUE_AFTER);
    let overdue = limit <= draft.now;
    let word = if overdue { "Overdue" } else { "SessionsFailed" };
    let message = format!("the access is gone, and its sessions cannot be ended yet; trying again without end: {why}");
    let until = (!overdue).then_some(limit);
    draft.goes(Phase::Revoking, &Reason::new(word, message), Vec::new(), Next::Retry { until })
}
