//! The gate before the access: what the policy wants the subject to have done in Keycloak.
//!
//! Nothing is given before there is evidence of each action. What was not done before is asked for at the subject's next
//! sign-in: that we ask is on record first, and what is in the subject's list already stays, whoever put it there. An
//! action that somebody took out of the list without evidence is put back.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Decision, Draft, Effect, Next, earliest};
use crate::{
    api::{self, ActionStatus, Phase},
    domain::{
        Account, OutcomeResult, Policy, Request, RequiredAction,
        conditions::{Reason, shortened},
        duration::{self, later, whole_seconds},
    },
};

/// Times in Kubernetes are whole seconds: a password of the second in which the request was made may be older than it.
const ONE_SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// What proves that an action was done for this request.
fn evidence(request: &Request, account: &Account, action: RequiredAction) -> Option<String> {
    account.evidence(action, later(request.created, ONE_SECOND))
}

/// Whether the subject has done all that the policy wants.
pub fn actions_are_done(request: &Request, policy: &Policy, account: &Account) -> bool {
    policy.required_actions.iter().all(|action| evidence(request, account, *action).is_some())
}

/// Lets a request go on whose subject has done everything; otherwise it waits.
pub(super) fn pass<'a>(mut draft: Draft<'a>, policy: &Policy) -> Result<Draft<'a>, Box<Decision>> {
    if policy.required_actions.is_empty() {
        draft.status.required_actions.clear();
        return Ok(draft);
    }
    let account = match &draft.observed.account {
        None => return Err(Box::new(draft.keycloak_unavailable("nobody asked what the subject has done"))),
        Some(Err(why)) => return Err(Box::new(draft.keycloak_unavailable(why))),
        Some(Ok(account)) => account,
    };
    record(&mut draft, policy, account);
    let open = |action: &&RequiredAction| evidence(draft.request, account, **action).is_none();
    let open: Vec<RequiredAction> = policy.required_actions.iter().filter(open).copied().collect();
    if open.is_empty() { Ok(draft) } else { Err(Box::new(waits(draft, policy, account, &open))) }
}

/// Puts on record since when the request waits for each action, and what proves that it was done.
fn record(draft: &mut Draft<'_>, policy: &Policy, account: &Account) {
    let action = |action: &RequiredAction| {
        let known = draft.status.required_actions.iter().find(|known| known.name == action.as_str());
        ActionStatus {
            name: action.to_string(),
            since: known.map_or_else(|| Time(whole_seconds(draft.now)), |known| known.since.clone()),
            done: evidence(draft.request, account, *action).map(|done| shortened(&done, api::MAX_EVIDENCE)),
        }
    };
    let actions = policy.required_actions.iter().map(action).collect();
    draft.status.required_actions = actions;
}

/// These actions are not done yet.
fn waits(draft: Draft<'_>, policy: &Policy, account: &Account, open: &[RequiredAction]) -> Decision {
    let names = open.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let began =
        draft.status.required_actions.iter().filter(|action| action.done.is_none()).map(|action| action.since.0);
    let limit = began.min().map(|began| later(began, policy.timeout));
    let who = draft.status.subject.as_ref().map(|subject| subject.username.clone()).unwrap_or_default();
    if let Some(limit) = limit.filter(|limit| *limit <= draft.now) {
        let message = format!(
            "approved, but {who} has not done {names} in Keycloak within {} (until {limit})",
            duration::format(policy.timeout)
        );
        return draft.ends(Phase::TimedOut, "TimedOut", message);
    }
    let until = earliest([limit, draft.request.not_after]);
    let stays = |draft: Draft<'_>, word, message: String| {
        draft.goes(Phase::Approved, &Reason::new(word, message), Vec::new(), Next::Retry { until })
    };
    let impossible = |draft, why: String| {
        stays(
            draft,
            "RequiredActionsImpossible",
            format!("approved, and nothing is given before {names} is done in Keycloak, but {why}"),
        )
    };
    if account.is_service_account {
        let why = format!(
            "{who} is a service account, which never signs in: ask for a person, or under a policy without requiredActions"
        );
        return impossible(draft, why);
    }
    let never = |action: &&RequiredAction| !account.realm_asks_for.contains(action.as_str());
    if let Some(action) = open.iter().find(never) {
        let why = format!(
            "the realm does not ask for {action}: enable it in Keycloak under Authentication, Required actions"
        );
        return impossible(draft, why);
    }
    for outcome in &draft.observed.outcomes {
        match &outcome.result {
            OutcomeResult::Refused(why) => {
                let why = format!("Keycloak does not let {who} be asked for it: {why}");
                return impossible(draft, why);
            }
            OutcomeResult::Failed(why) => return stays(draft, "KeycloakUnavailable", why.clone()),
            OutcomeResult::Asked
            | OutcomeResult::Mapped
            | OutcomeResult::Missing
            | OutcomeResult::Removed
            | OutcomeResult::HandedOver
            | OutcomeResult::SessionsEnded
            | OutcomeResult::SessionsLeft(_) => {}
        }
    }
    let missing = open.iter().map(ToString::to_string).filter(|action| !account.pending.contains(action));
    let missing: BTreeSet<String> = missing.collect();
    let until = until.map(|until| format!(" (it waits until {})", whole_seconds(until))).unwrap_or_default();
    let reason = Reason::new(
        "WaitingForRequiredActions",
        format!(
            "approved; {who} has to do {names} in Keycloak first: sign in there anew in a browser, and it asks for that{until}"
        ),
    );
    if missing.is_empty() || draft.observed.outcomes.iter().any(|outcome| outcome.result == OutcomeResult::Asked) {
        return stays(draft, reason.word, reason.message);
    }
    draft.goes_on(Phase::Approved, &reason, vec![Effect::AskForActions(missing)])
}
