//! Required actions: what was approved is not given before its subject has done what the policy wants.

use std::collections::BTreeSet;

use hallpass::api::Phase;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{browser::Browser, keycloak_admin::Person, world::World};

const TOTP: &str = "CONFIGURE_TOTP";

/// What is in a user's list in Keycloak.
async fn pending(w: &World, user: &Person) -> BTreeSet<String> {
    let user = w.keycloak.get(&format!("users/{}", user.id)).await;
    serde_json::from_value(user["requiredActions"].clone()).unwrap()
}

#[tokio::test]
async fn a_user_without_the_required_action_gets_nothing_before_it_is_done() {
    // given somebody whom another administrator wants to do something, too
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    alice.token().await;
    // Without the type Keycloak takes none of the others.
    let codes = json!({
        "otpPolicyType": "totp", "otpPolicyAlgorithm": "HmacSHA256", "otpPolicyDigits": 6, "otpPolicyPeriod": 30,
        "otpPolicyLookAheadWindow": 1, "otpPolicyInitialCounter": 0,
    });
    w.keycloak.call(Method::PUT, "", Some(&codes)).await;
    w.keycloak.update_user(&alice.user, &json!({"requiredActions": ["UPDATE_PASSWORD"]})).await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let policy = policy.with("requiredActions", json!([TOTP])).ready().await;
    // when
    let request = alice.asks(&policy).create().await.unwrap();
    bob.approves(&request, "lead").await.unwrap();
    let message = request.says(Phase::Approved, "WaitingForRequiredActions").await;
    // then it is said what she has to do, and Keycloak asks for it
    let words =
        format!("{} has to do CONFIGURE_TOTP in Keycloak first: sign in there anew in a browser", alice.user.username);
    assert!(message.contains(&words), "{message}");
    assert!(!w.keycloak.has(&alice.user, &role).await);
    let both = || BTreeSet::from([TOTP.to_owned(), "UPDATE_PASSWORD".to_owned()]);
    assert_eq!(pending(&w, &alice.user).await, both(), "what was not ours stays");
    let profile = w.keycloak.get(&format!("users/{}", alice.user.id)).await;
    assert_eq!((&profile["firstName"], &profile["emailVerified"]), (&json!("F"), &json!(true)), "{profile}");
    // when an administrator takes it out of the list: that is no evidence
    w.keycloak.update_user(&alice.user, &json!({"requiredActions": []})).await;
    w.until("it is put back", async || pending(&w, &alice.user).await.contains(TOTP)).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    // when she does it
    let mut browser = Browser::signs_in(&alice.user).await;
    assert!(!browser.is_through(), "Keycloak asks: {}", browser.page());
    browser.sets_up_codes().await;
    assert!(browser.is_through(), "done: {}", browser.page());
    // then
    let status = request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    let done = status.required_actions[0].done.clone();
    assert!(done.as_ref().is_some_and(|done| done.starts_with("a credential otp of 2")), "{done:?}");
    // when she asks once more: what was done needs nothing
    let again = alice.asks(&policy).create().await.unwrap();
    bob.approves(&again, "lead").await.unwrap();
    again.reaches(Phase::Active).await;
    assert_eq!(pending(&w, &alice.user).await, BTreeSet::new());
    w.clean_up().await;
}

#[tokio::test]
async fn a_policy_with_an_action_that_cannot_be_asked_or_proved_is_not_ready() {
    let w = World::new().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = |actions: Value| {
        let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic();
        policy.with("requiredActions", actions)
    };
    let disabled = policy(json!([TOTP, "TERMS_AND_CONDITIONS"])).create().await.unwrap();
    let message = disabled.is_not_ready("RequiredActionDisabled").await;
    assert!(message.contains("does not ask for TERMS_AND_CONDITIONS; enable it there"), "{message}");
    let unknown = policy(json!(["UPDATE_PROFILE"])).create().await.unwrap();
    let message = unknown.is_not_ready("Invalid").await;
    assert!(message.contains("spec.requiredActions[0]: \"UPDATE_PROFILE\" leaves no evidence"), "{message}");
    w.clean_up().await;
}

#[tokio::test]
async fn who_cannot_do_it_is_told_so() {
    // given a person, and a service account that a Kubernetes username leads to
    let w = World::new().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().timeout("5s");
    let policy = policy.with("requiredActions", json!([TOTP])).ready().await;
    alice.token().await;
    let robot = w.keycloak.robot(&[]).await;
    let username = format!("oidc:{}", robot.account.username);
    let open = w.policy("all").realm_role("admin", &role.name).everybody().automatic();
    let open = open.with("requiredActions", json!([TOTP])).ready().await;
    // when the service account asks
    let client = w.somebody_called(&username).await;
    let asked = alice.asks(&open).with("requester", json!(username)).create_with(&client).await.unwrap();
    // then
    let message = asked.says(Phase::Approved, "RequiredActionsImpossible").await;
    assert!(
        message.contains(&format!("{} is a service account, which never signs in", robot.account.username)),
        "{message}"
    );
    assert_eq!(pending(&w, &robot.account).await, BTreeSet::new(), "robots are not asked");
    // when a person asks and does nothing
    let request = alice.asks(&policy).create().await.unwrap();
    request.says(Phase::Approved, "WaitingForRequiredActions").await;
    // then it does not wait for ever, and what Keycloak was told to ask for stays: nobody knows who wants it by now
    let message = request.says(Phase::TimedOut, "TimedOut").await;
    assert!(message.contains("has not done CONFIGURE_TOTP in Keycloak within 5s"), "{message}");
    assert!(pending(&w, &alice.user).await.contains(TOTP));
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}
