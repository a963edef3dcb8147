//! Required actions: nothing is given before there is evidence, and it is on record that we ask before we do.

use hallpass::{
    api::Phase::{Activating, Approved, Pending, Rejected, TimedOut},
    domain::{Account, Credential, Next, OutcomeResult, Policy, REQUIRED_ACTIONS},
};

use super::world::*;

const TOTP: &str = "CONFIGURE_TOTP";
const MAIL: &str = "VERIFY_EMAIL";
const PASSWORD: &str = "UPDATE_PASSWORD";

fn strict() -> PolicyBuilder {
    policy().wants_done(&[TOTP, MAIL])
}

fn agreed(policy: &PolicyBuilder) -> RequestBuilder {
    request("fix").approved_by(BOB, policy).with_finalizer()
}

/// Keycloak asks for everything, and Alice's account is as this makes it.
fn keycloak(policy: &PolicyBuilder, account: impl FnOnce(&mut Account)) -> World {
    let mut world = world(policy);
    world.account.realm_asks_for = [TOTP, MAIL, PASSWORD].map(str::to_owned).into();
    account(&mut world.account);
    world
}

fn credential(type_: &str, seconds: i64) -> Credential {
    Credential { type_: type_.into(), created: Some(at(seconds)) }
}

#[test]
fn what_is_not_done_is_recorded_then_asked_for_then_waited_for() {
    let answer = keycloak(&strict(), |_| {}).at(5).decide(&agreed(&strict()));
    answer.is(Approved).does(&["ask for CONFIGURE_TOTP, VERIFY_EMAIL"]).next(Next::Now);
    let recorded = &answer.status().required_actions;
    assert_eq!(
        recorded.iter().map(|action| (&*action.name, action.since.0)).collect::<Vec<_>>(),
        [(TOTP, at(5)), (MAIL, at(5))]
    );
    // Once Keycloak has it in its list.
    let asked = |account: &mut Account| account.pending = [TOTP, MAIL, "UPDATE_PROFILE"].map(str::to_owned).into();
    let waiting = keycloak(&strict(), asked).at(6).decide_on(&answer.after());
    waiting.is_for(Approved, "WaitingForRequiredActions").does(&[]).next(Next::Retry { until: Some(at(3605)) });
    waiting.says("alice has to do CONFIGURE_TOTP, VERIFY_EMAIL in Keycloak first");
}

#[test]
fn what_was_done_before_needs_nothing() {
    let done = |account: &mut Account| {
        account.credentials = vec![credential("otp", -9999)];
        account.email_verified = true;
    };
    let answer = keycloak(&strict(), done).decide(&agreed(&strict()));
    answer.is(Activating).does(&["map admin"]);
    let done: Vec<_> = answer.status().required_actions.iter().map(|action| action.done.clone()).collect();
    assert!(done.iter().all(Option::is_some), "{done:?}");
}

#[test]
fn only_what_is_open_is_asked_for() {
    let answer = keycloak(&strict(), |account| account.email_verified = true).decide(&agreed(&strict()));
    answer.is(Approved).does(&["ask for CONFIGURE_TOTP"]);
}

#[test]
fn what_is_out_of_the_list_without_evidence_is_asked_for_again() {
    let first = keycloak(&strict(), |account| account.email_verified = true).decide(&agreed(&strict()));
    let pending = |account: &mut Account| {
        account.email_verified = true;
        account.pending = [TOTP.to_owned()].into();
    };
    let waits = keycloak(&strict(), pending).decide_on(&first.after());
    let again = keycloak(&strict(), |account| account.email_verified = true).at(60).decide_on(&waits.after());
    again.is_for(Approved, "WaitingForRequiredActions").does(&["ask for CONFIGURE_TOTP"]).writes_nothing();
}

#[test]
fn a_password_must_be_newer_than_the_request() {
    let policy = policy().wants_done(&[PASSWORD]);
    for (seconds, temporary, open) in [(-9000, false, false), (100, true, false), (100, false, true)] {
        let account = |account: &mut Account| {
            account.credentials = vec![credential("password", seconds)];
            account.pending = if temporary { [PASSWORD.to_owned()].into() } else { [].into() };
        };
        let answer = keycloak(&policy, account).at(120).decide(&agreed(&policy));
        answer.is(if open { Activating } else { Approved });
    }
}

#[test]
fn who_cannot_do_it_is_told_and_not_asked() {
    let robot = keycloak(&strict(), |account| account.is_service_account = true).decide(&agreed(&strict()));
    robot.is_for(Approved, "RequiredActionsImpossible").says("never signs in").does(&[]);
    robot.next(Next::Retry { until: Some(at(3600)) });
    let disabled = keycloak(&strict(), |account| account.realm_asks_for.retain(|action| action != MAIL))
        .decide(&agreed(&strict()));
    disabled.is_for(Approved, "RequiredActionsImpossible").says("the realm does not ask for VERIFY_EMAIL").does(&[]);
    let refused = |world: World| world.outcome(REQUIRED_ACTIONS, OutcomeResult::Refused("400: lastName".into()));
    let first = keycloak(&strict(), |_| {}).decide(&agreed(&strict()));
    let broken = refused(keycloak(&strict(), |_| {})).decide_on(&first.after());
    broken
        .is_for(Approved, "RequiredActionsImpossible")
        .says("400: lastName")
        .next(Next::Retry { until: Some(at(3600)) });
    // It is tried again, and what was said stands.
    let again = keycloak(&strict(), |_| {}).at(30).decide_on(&broken.after());
    again.writes_nothing().does(&["ask for CONFIGURE_TOTP, VERIFY_EMAIL"]);
    refused(keycloak(&strict(), |_| {})).at(30).decide_on(&broken.after()).writes_nothing();
    let away = keycloak(&strict(), |_| {}).fails(REQUIRED_ACTIONS).decide_on(&first.after());
    away.is_for(Approved, "KeycloakUnavailable");
}

#[test]
fn it_waits_as_long_as_for_votes_and_not_past_not_after() {
    let first = keycloak(&strict(), |_| {}).at(100).decide(&agreed(&strict()));
    let late = keycloak(&strict(), |_| {}).at(3700).decide_on(&first.after());
    late.is_for(TimedOut, "TimedOut").says("has not done CONFIGURE_TOTP, VERIFY_EMAIL in Keycloak within 1h");
    late.does(&["remove finalizer"]);
    let first = keycloak(&strict(), |_| {}).at(100).decide(&agreed(&strict()).not_after(600));
    keycloak(&strict(), |_| {}).at(600).decide_on(&first.after()).is(TimedOut);
}

#[test]
fn what_has_to_be_done_is_voted_on() {
    let done = |account: &mut Account| account.credentials = vec![credential("otp", 1)];
    for other in [policy(), policy().wants_done(&[MAIL])] {
        keycloak(&other, done).decide(&agreed(&strict())).is_for(Pending, "RulesChanged");
    }
    let automatic = strict().automatic();
    let asked = request("fix").approved_automatically(&automatic).with_finalizer();
    let looser = keycloak(&policy().automatic(), done).decide(&asked);
    keycloak(&policy().automatic(), done).decide_on(&looser.after()).is_for(Rejected, "RulesChanged");
}

#[test]
fn only_actions_that_leave_evidence_can_be_asked_for() {
    for name in ["configure_totp", "UPDATE_PROFILE", "nonsense"] {
        let problems = Policy::parse(&policy().wants_done(&[TOTP, name]).0).expect_err("cannot stand");
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(
            problem.message.contains(&format!("spec.requiredActions[1]: {name:?} leaves no evidence")),
            "{problem:?}"
        );
    }
}
