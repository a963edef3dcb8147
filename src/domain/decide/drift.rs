//! Somebody takes away in Keycloak what a live request has put there: the request says so, and nobody repairs it behind
//! their back.

use jiff::Timestamp;

use super::{Decision, Draft, Effect, Next};
use crate::{
    api::{Phase, TargetStatus},
    domain::{Missing, conditions::Reason},
};

/// The reason of a live request that lacks something of what it gave.
pub const TAKEN_AWAY: &str = "TakenAway";

/// The access is in place, as far as anybody has looked. What was said about it stands until somebody has looked again.
pub(super) fn active(draft: Draft<'_>, deadline: Timestamp, effects: Vec<Effect>) -> Decision {
    let in_place = || Reason::new("Active", format!("the access is in place until {deadline}"));
    let said = draft.status.conditions.iter().find(|condition| condition.reason == TAKEN_AWAY);
    let reason = match (&draft.observed.missing, said) {
        (None, Some(said)) => Reason::new(TAKEN_AWAY, said.message.clone()),
        (None, None) => in_place(),
        (Some(missing), _) => message(&draft, missing, deadline).unwrap_or_else(in_place),
    };
    draft.goes(Phase::Active, &reason, effects, Next::At(deadline))
}

fn message(draft: &Draft<'_>, missing: &[Missing], deadline: Timestamp) -> Option<Reason> {
    let targets = draft.status.grant.as_ref().map(|grant| grant.targets.as_slice()).unwrap_or_default();
    let words = |target: &TargetStatus| {
        let missing = missing.iter().find(|missing| missing.target == target.name)?;
        Some(format!("{} ({:?}) by {}", target.name, target.display, missing.by))
    };
    let all: Vec<String> = targets.iter().filter_map(words).collect();
    (!all.is_empty()).then(|| {
        let all = all.join(", ");
        Reason::new(
            TAKEN_AWAY,
            format!("taken away in Keycloak: {all}; it is not put back; the request ends at {deadline}"),
        )
    })
}
