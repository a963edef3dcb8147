//! Faults planted into the domain from outside: what `decide` sees or says is changed.

use std::time::Duration;

use hallpass::{
    api::{Phase, TargetState, TargetStatus},
    domain::{Decision, Effect, Observed, Request, duration::later},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rules::Domain;

/// As `decide` sees the world.
pub fn before(rules: &Domain, mut request: Request, observed: &mut Observed, now: Timestamp) -> Request {
    let approved = request.phase() == Some(Phase::Approved);
    request.has_finalizer |= approved && !rules.finalizer_first;
    if approved && let Some(Ok(targets)) = &mut observed.targets {
        for target in targets {
            target.mapped &= rules.keeps_theirs;
        }
    }
    for sibling in &mut observed.siblings {
        let revoking = sibling.phase() == Some(Phase::Revoking);
        if approved && revoking && !rules.waits_for_revoking {
            sibling.status.phase = Some(Phase::Active);
        }
        let Some(grant) = &mut sibling.status.grant else { continue };
        if approved && !rules.inherits_ours {
            grant.targets.iter_mut().for_each(|target| target.pre_existing = true);
        }
        if (approved && !rules.inherits_only_ours) || (!approved && !rules.hands_over) {
            grant.targets.iter_mut().for_each(|target| target.pre_existing = false);
        }
        if !approved && !rules.strict_holders {
            grant.deadline = Time(later(now, Duration::from_hours(1)));
            sibling.status.ends.clear();
            sibling.deleting = false;
            if revoking {
                sibling.status.phase = Some(Phase::Active);
            }
        }
    }
    let revoking = request.phase() == Some(Phase::Revoking);
    if !approved && !rules.heeds_holders {
        observed.siblings.clear();
    }
    if revoking && !rules.removes_intents {
        let targets = request.status.grant.iter_mut().flat_map(|grant| &mut grant.targets);
        targets
            .filter(|target| target.state == TargetState::Intended)
            .for_each(|target| target.state = TargetState::Removed);
    }
    let has_heirs = !observed.siblings.is_empty() && revoking;
    if !rules.settles || (has_heirs && !rules.settles_at_hand_over) {
        observed.travelling.clear();
        observed.outcomes.iter_mut().for_each(|outcome| outcome.travelling = None);
    }
    request
}

/// What `decide` says.
pub fn after(rules: &Domain, mut decision: Decision, request: &Request, now: Timestamp) -> Decision {
    if !rules.confirms_only {
        for effect in &mut decision.effects {
            if let Effect::Confirm(target) = effect {
                *effect = Effect::Map(TargetStatus { pre_existing: false, ..target.clone() });
            }
        }
    }
    let goes_on = request.phase() == Some(Phase::Activating) && !request.is_due(now);
    if !rules.keeps_deadline && goes_on {
        let status = decision.status.get_or_insert_with(|| Box::new(request.status.clone()));
        if let Some(grant) = &mut status.grant {
            grant.deadline = Time(later(now, request.duration.unwrap_or_default()));
        }
    }
    decision
}
