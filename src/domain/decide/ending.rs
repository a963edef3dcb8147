//! The end of the access: why it ends, Revoking, and the proof that it is gone.

use super::{Decision, Draft, Effect, Next, sessions};
use crate::{
    api::{self, End, EndReason, GrantStatus, Phase, TargetState, TargetStatus},
    domain::{
        Guard, Lookup, Outcome, OutcomeResult, PolicyView, Request, Signal, SignalKind,
        conditions::{Reason, shortened},
        duration::later,
        holdings::{self, Fate},
        policy,
    },
};

/// `maxItems` of `status.ends`.
const MAX_ENDS: usize = 16;
/// Said in `why` of an end whose author could not be looked up.
const NOT_YET: &str = "not counted yet: ";
/// Said in `why` of an end that nobody vouches for.
const BEFORE_THE_EPOCH: &str = "the admission policies were changed, and this may be from before; end it once more";
/// A revocation that is this late is overdue.
pub(super) const OVERDUE_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

/// Whether it is not known yet if an end counts.
pub(super) fn is_undecided(end: &End) -> bool {
    !end.counted && end.why.as_ref().is_some_and(|why| why.starts_with(NOT_YET))
}

/// Ends that are not in status yet.
pub(super) fn unrecorded(request: &Request) -> impl Iterator<Item = &Signal> {
    let known = |signal: &Signal| request.status.ends.iter().any(|end| end.key == signal.key);
    request.signals.iter().filter(move |signal| signal.kind == SignalKind::End && !known(signal))
}

/// Copies ends to status, as long as the API server vouches for them, and says which count.
pub(super) fn record_ends(draft: &mut Draft<'_>) {
    if let Guard::InForce { epoch, .. } = &draft.observed.guard {
        let forged = draft.epoch_changed();
        for signal in unrecorded(draft.request) {
            let mut end = End {
                by: signal.by.clone(),
                user_id: None,
                at: draft.time(),
                key: signal.key.clone(),
                counted: false,
                why: Some(if forged { BEFORE_THE_EPOCH } else { NOT_YET }.into()),
            };
            if draft.status.ends.len() < MAX_ENDS {
                draft.status.ends.push(end);
                continue;
            }
            if forged {
                continue;
            }
            // Nobody keeps others from ending it by filling the list: what counts takes the place of what does not.
            judge(draft, &mut end);
            if let Some(place) = draft.status.ends.iter_mut().rfind(|end| !end.counted).filter(|_| end.counted) {
                *place = end;
            }
        }
        if draft.request.phase().is_some_and(|phase| matches!(phase, Phase::Activating | Phase::Active)) {
            draft.status.trust_epoch = Some(epoch.clone());
        }
    }
    let mut ends = std::mem::take(&mut draft.status.ends);
    for end in ends.iter_mut().filter(|end| is_undecided(end)) {
        judge(draft, end);
        end.why = end.why.take().map(|why| shortened(&why, api::MAX_WHY));
    }
    draft.status.ends = ends;
}

/// The requester may end, whoever submitted it, and every approver of any stage.
fn judge(draft: &Draft<'_>, end: &mut End) {
    if end.by == draft.request.requester || Some(end.by.as_str()) == draft.request.submitter() {
        (end.counted, end.why) = (true, None);
        return;
    }
    let person = match draft.observed.people.get(&end.by) {
        Some(Lookup::Person(person)) => person,
        Some(Lookup::Nobody(why)) => {
            end.why = Some(why.clone());
            return;
        }
        Some(Lookup::Unknown(why)) => {
            end.why = Some(format!("{NOT_YET}{why}"));
            return;
        }
        None => return,
    };
    end.user_id = Some(person.id.clone());
    let stages = draft.observed.policy.known().map(|policy| policy.approval.stages()).unwrap_or_default();
    let approvers = || stages.iter().flat_map(|stage| &stage.approvers);
    end.counted = approvers().any(|approver| approver.includes(&end.by, person));
    if end.counted {
        end.why = None;
        return;
    }
    end.why = match &draft.observed.policy {
        PolicyView::Ready(_) => {
            let all: Vec<_> = approvers().cloned().collect();
            Some(format!("only {} and an approver can end this: {}", draft.request.requester, policy::list(&all)))
        }
        // Who is in its groups may not be known.
        PolicyView::NotReady { why, .. } => Some(format!("{NOT_YET}the policy is not ready: {why}")),
        PolicyView::Absent => Some(format!("{NOT_YET}the policy is not there")),
    };
}

/// Why access that is live ends now, if it does.
pub(super) fn cause(draft: &Draft<'_>) -> Option<EndReason> {
    if draft.request.is_due(draft.now) {
        Some(EndReason::Expired)
    } else if draft.request.deleting {
        Some(EndReason::Deleted)
    } else if draft.status.ends.iter().any(|end| end.counted) {
        Some(EndReason::Ended)
    } else if draft.policy_gone().is_some() {
        Some(EndReason::PolicyDeleted)
    } else if draft.policy_suspended() {
        Some(EndReason::PolicySuspended)
    } else {
        None
    }
}

/// From live to Revoking: recorded before anything is removed, but for what is due, which was recorded at the beginning.
pub(super) fn begin(mut draft: Draft<'_>, cause: EndReason) -> Decision {
    if let Some(grant) = draft.status.grant.as_mut() {
        grant.end_reason = Some(cause);
    }
    revoking(draft)
}

/// A live request without a grant cannot be: there is nothing to take away.
pub(super) fn without_grant(draft: Draft<'_>) -> Decision {
    draft.ends(Phase::Revoked, "NothingGranted", "nothing was granted")
}

/// Being taken away, until every target is proved gone or rightly left.
pub(super) fn revoking(mut draft: Draft<'_>) -> Decision {
    let Some(mut grant) = draft.status.grant.take() else { return without_grant(draft) };
    let mut failures = Vec::new();
    let mut effects = Vec::new();
    // Gone or left, but perhaps not for good: something that was sent before may still arrive.
    let mut settling = Vec::new();
    // To be given up without proof, once it was tried in vain: nothing is waited for but who else holds it.
    let released = draft.observed.released.is_some();
    for target in &mut grant.targets {
        let outcomes = draft.observed.outcomes.iter().filter(|outcome| outcome.target == target.name);
        let (mut removed, mut failed) = (false, false);
        let mut travelling = draft.travelling(target);
        for outcome in outcomes {
            match &outcome.result {
                OutcomeResult::Removed => {
                    removed = true;
                    travelling = travelling.max(outcome.travelling);
                }
                OutcomeResult::Failed(why) => {
                    failed = true;
                    failures.push(format!("{}: {why}", target.name));
                }
                OutcomeResult::Refused(_)
                | OutcomeResult::Asked
                | OutcomeResult::Mapped
                | OutcomeResult::Missing
                | OutcomeResult::HandedOver
                | OutcomeResult::SessionsEnded
                | OutcomeResult::SessionsLeft(_) => {}
            }
        }
        if target.state.is_over() {
            continue;
        }
        let fate = if removed { None } else { Some(holdings::fate(target, &draft.observed.siblings, draft.now)) };
        match (fate, travelling) {
            (None, None) => target.state = TargetState::Removed,
            (Some(Fate::Keep), _) if target.pre_existing || released => target.state = TargetState::Kept,
            (Some(Fate::Keep), None) => target.state = TargetState::Kept,
            (None, Some(_)) if released => target.state = TargetState::Released,
            (Some(Fate::Remove), _) if released && failed => target.state = TargetState::Released,
            // Whoever holds it now could be over before that arrives, and then nobody would know of it.
            (None | Some(Fate::Keep), Some(until)) => settling.push(until),
            (Some(Fate::HandOver { to }), _) if !failed => {
                effects.push(Effect::HandOver { target: target.clone(), to });
            }
            (Some(Fate::Remove), _) if !failed => effects.push(Effect::Unmap(target.clone())),
            (Some(Fate::HandOver { .. } | Fate::Remove), _) => {}
        }
    }
    let cause = grant.end_reason.unwrap_or(EndReason::Expired);
    let done = grant.targets.iter().all(|target| target.state.is_over());
    // Whoever watches sees Revoking first, also if nothing has to be removed, unless what was due is gone already, or given up.
    let at_once = draft.request.is_due(draft.now) && draft.observed.outcomes.iter().any(Outcome::is_of_a_removal);
    if done && (at_once || draft.request.phase() == Some(Phase::Revoking)) {
        return over(draft, grant, cause);
    }
    draft.status.grant = Some(grant);
    let sentence = sentence(&draft, cause);
    if !failures.is_empty() {
        return failed(draft, &sentence, &failures, effects);
    }
    if let (true, Some(until)) = (effects.is_empty(), settling.into_iter().max()) {
        let message = format!("{sentence}; an answer of Keycloak was lost, so it is looked at once more at {until}");
        return draft.goes(Phase::Revoking, &Reason::new("Settling", message), effects, Next::At(until));
    }
    let reason = Reason::new("Revoking", format!("{sentence}; the access is being taken away"));
    draft.goes_on(Phase::Revoking, &reason, effects)
}

/// Everything is proved gone, rightly left, or given up.
fn over(mut draft: Draft<'_>, mut grant: GrantStatus, cause: EndReason) -> Decision {
    let phase = if cause == EndReason::Expired { Phase::Expired } else { Phase::Revoked };
    let released = |target: &&TargetStatus| target.state == TargetState::Released;
    let released: Vec<_> = grant.targets.iter().filter(released).map(|target| target.display.clone()).collect();
    let sentence = sentence(&draft, cause);
    if !released.is_empty() {
        draft.status.grant = Some(grant);
        let why = draft.observed.released.as_deref().unwrap_or("as the operator's configuration said");
        let whose = draft.status.subject.as_ref().map_or("nobody", |subject| subject.username.as_str());
        let message = format!(
            "{sentence}; given up without proof, {why}: if it comes back, {whose} may still have {}",
            released.join(", ")
        );
        return draft.ends(phase, "Released", message);
    }
    let ended = grant.ended_at.get_or_insert(draft.time()).0;
    draft.status.ends_at = Some(ended.min(grant.deadline.0).to_string());
    draft.status.grant = Some(grant);
    match sessions::end(draft, sentence) {
        Ok((draft, mut sentence)) => {
            sentence.extend(draft.status.grant.as_ref().map(what_is_left));
            draft.ends(phase, cause.as_str(), sentence)
        }
        Err(decision) => *decision,
    }
}

/// What a person should know of what has ended: what stays, and why, and until when older tokens may carry what is gone.
fn what_is_left(grant: &GrantStatus) -> String {
    let mut words = String::new();
    for (before, why) in [(true, "there before"), (false, "held by another request")] {
        let kept = grant.targets.iter().filter(|target| target.state == TargetState::Kept);
        let names: Vec<_> =
            kept.filter(|target| target.pre_existing == before).map(|target| target.name.as_str()).collect();
        if !names.is_empty() {
            words = format!("{words}; left in place: {} ({why})", names.join(", "));
        }
    }
    if let Some(until) = &grant.powerless_at {
        words = format!("{words}; tokens issued before may carry it until {}", until.0);
    }
    words
}

/// Not all of it could be taken away: again, without end.
fn failed(draft: Draft<'_>, sentence: &str, failures: &[String], effects: Vec<Effect>) -> Decision {
    let limit = later(draft.request.due_since().unwrap_or(draft.now), OVERDUE_AFTER);
    let overdue = limit <= draft.now;
    let word = if overdue { "Overdue" } else { "RevocationFailed" };
    let failures = failures.join("; ");
    let message = format!("{sentence}; the access cannot be taken away yet; trying again without end: {failures}");
    let until = (!overdue).then_some(limit);
    draft.goes(Phase::Revoking, &Reason::new(word, message), effects, Next::Retry { until })
}

fn sentence(draft: &Draft<'_>, cause: EndReason) -> String {
    match cause {
        EndReason::Expired => "its time is up".into(),
        EndReason::Deleted => "the request was deleted".into(),
        EndReason::PolicyDeleted => format!("policy {} was deleted", draft.request.policy),
        EndReason::PolicySuspended => format!("policy {} was suspended", draft.request.policy),
        EndReason::StatusForged => "somebody else has written the status".into(),
        EndReason::Ended => {
            let by = draft.status.ends.iter().find(|end| end.counted).map(|end| end.by.as_str());
            format!("ended by {}", by.unwrap_or("somebody"))
        }
    }
}
