//! During the access: Activating and Active.

use std::collections::BTreeMap;

use super::{Decision, Draft, Effect, Next, drift, ending};
use crate::{
    api::{Phase, TargetState, TargetStatus},
    domain::{Outcome, OutcomeResult, conditions::Reason},
};

/// What is still to be done in Keycloak for these targets. A target that the subject had before is never mapped: if it
/// is gone by now, that is recorded first, and then it is ours.
pub(super) fn effects_for<'a>(targets: impl IntoIterator<Item = &'a TargetStatus>) -> Vec<Effect> {
    targets
        .into_iter()
        .filter(|target| target.state == TargetState::Intended)
        .map(|target| if target.pre_existing { Effect::Confirm(target.clone()) } else { Effect::Map(target.clone()) })
        .collect()
}

/// Deadline and targets are recorded; Keycloak is being written.
pub(super) fn activating(mut draft: Draft<'_>) -> Decision {
    ending::record_ends(&mut draft);
    if let Some(cause) = ending::cause(&draft) {
        return ending::begin(draft, cause);
    }
    let Some(mut grant) = draft.status.grant.take() else { return ending::without_grant(draft) };
    let mut failures = Vec::new();
    // In place, but perhaps not for good: something that was sent before may still arrive.
    let mut settling = BTreeMap::new();
    for target in &mut grant.targets {
        for Outcome { target: _, result, travelling } in
            draft.observed.outcomes.iter().filter(|outcome| outcome.target == target.name)
        {
            match (result, draft.travelling(target).max(*travelling)) {
                (OutcomeResult::Mapped, None) => target.state = TargetState::Mapped,
                (OutcomeResult::Mapped, Some(until)) => drop(settling.insert(target.name.clone(), until)),
                (OutcomeResult::Missing, _) => target.pre_existing = false,
                (OutcomeResult::Failed(why), _) => failures.push(format!("{}: {why}", target.name)),
                (
                    OutcomeResult::Removed
                    | OutcomeResult::HandedOver
                    | OutcomeResult::SessionsEnded
                    | OutcomeResult::SessionsLeft(_)
                    | OutcomeResult::Asked
                    | OutcomeResult::Refused(_),
                    _,
                ) => {}
            }
        }
    }
    let deadline = grant.deadline.0;
    let open = grant.targets.iter().filter(|target| !settling.contains_key(&target.name));
    let effects = effects_for(open);
    draft.status.grant = Some(grant);
    if effects.is_empty() {
        let Some(until) = settling.into_values().max() else {
            let reason = Reason::new("Active", format!("the access is in place until {deadline}"));
            let effects = draft.finalizer();
            return draft.goes(Phase::Active, &reason, effects, Next::At(deadline));
        };
        let message = format!("the access is in place; an answer of Keycloak was lost, so it is confirmed at {until}");
        let reason = Reason::new("Settling", message);
        return draft.goes(Phase::Activating, &reason, Vec::new(), Next::At(until.min(deadline)));
    }
    let retry = Next::Retry { until: Some(deadline) };
    if let Some(reason) = draft.obstacle("nothing more is granted") {
        return draft.goes(Phase::Activating, &reason, Vec::new(), retry);
    }
    if failures.is_empty() {
        let reason = Reason::new("Activating", "the access is being put in place");
        return draft.goes_on(Phase::Activating, &reason, effects);
    }
    let message = format!("not all of the access is in place; trying again until {deadline}: {}", failures.join("; "));
    draft.goes(Phase::Activating, &Reason::new("MappingFailed", message), Vec::new(), retry)
}

/// The access is in place.
pub(super) fn active(mut draft: Draft<'_>) -> Decision {
    ending::record_ends(&mut draft);
    if let Some(cause) = ending::cause(&draft) {
        return ending::begin(draft, cause);
    }
    let Some(deadline) = draft.request.deadline() else { return ending::without_grant(draft) };
    let effects = draft.finalizer();
    drift::active(draft, deadline, effects)
}

impl Draft<'_> {
    /// Our finalizer, if it is not there: without it the request could disappear before its access is taken away.
    pub(super) fn finalizer(&self) -> Vec<Effect> {
        if self.request.has_finalizer { Vec::new() } else { vec![Effect::AddFinalizer] }
    }
}
