//! Roles that lead to Keycloak's own administration: refused, unless both the policy and whoever installs allow it.

use hallpass::api::{AtEnd, Phase};
use serde_json::json;

use crate::{
    keycloak_admin::Role,
    realms::{BLIND, TRUSTING},
    world::World,
};

/// A realm role that contains `realm-admin`.
async fn power(w: &World) -> Role {
    let power = w.keycloak.realm_role("power").await;
    let administration = w.keycloak.find_client_role("realm-management", "realm-admin").await;
    w.keycloak.compose(&power, &[&administration]).await;
    power
}

#[tokio::test]
async fn a_policy_and_whoever_installs_must_both_allow_administration() {
    let w = World::new().await;
    let power = power(&w).await;
    let leads = format!("role realm-management/realm-admin through composite {:?} leads to", power.name);
    for (realm, allows, words) in [
        ("prod", false, "lend another role"),
        ("prod", true, "the operator's configuration does not: it needs allowAdminRoles at realm prod"),
        (TRUSTING, false, "the policy does not: set spec.allowAdminRoles"),
    ] {
        let policy = w.policy("power").realm(realm).realm_role("power", &power.name).everybody().automatic();
        let policy = policy.with("allowAdminRoles", json!(allows)).create().await.unwrap();
        let message = policy.is_not_ready("ReachesAdministration").await;
        assert!(message.contains(&leads) && message.contains(words), "{words:?} is missing in: {message}");
    }
    w.clean_up().await;
}

#[tokio::test]
async fn administration_that_both_allow_is_lent_and_whoever_had_it_is_signed_out() {
    // given a policy that says nothing about sessions
    let w = World::new().await;
    let alice = w.person("alice").await;
    let power = power(&w).await;
    let harmless = w.keycloak.realm_role("harmless").await;
    let policy = w.policy("power").realm(TRUSTING).realm_role("power", &power.name);
    let policy = policy.realm_role("harmless", &harmless.name).requester(&alice).automatic();
    let policy = policy.with("allowAdminRoles", json!(true)).ready().await;
    // when
    let app = w.keycloak.app().await;
    let tokens = w.keycloak.signs_in_at(&alice.user, &app, "openid").await;
    let other = alice.asks(&policy).grants(["harmless"]).create().await.unwrap();
    other.reaches(Phase::Active).await;
    alice.ends(&other).await.unwrap();
    other.reaches(Phase::Revoked).await;
    // then only who administered is signed out
    assert!(w.keycloak.refresh(&app, &tokens).await.is_ok());
    // when
    let request = alice.asks(&policy).grants(["power"]).create().await.unwrap();
    let status = request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &power).await);
    assert_eq!(status.grant.unwrap().sessions, Some(AtEnd::EndAll));
    alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    // then
    assert!(!w.keycloak.has(&alice.user, &power).await);
    assert!(w.keycloak.refresh(&app, &tokens).await.is_err());
    w.clean_up().await;
}

#[tokio::test]
async fn a_right_that_the_operator_does_not_have_itself_is_not_lent() {
    let w = World::new().await;
    let policy = w.policy("root").realm(TRUSTING).client_role("root", "realm-management", "realm-admin").everybody();
    let policy = policy.automatic().with("allowAdminRoles", json!(true)).create().await.unwrap();
    let message = policy.is_not_ready("ReachesAdministration").await;
    for words in
        ["only if it has it itself", "to the service account of client \"hallpass\"", "a role that contains it"]
    {
        assert!(message.contains(words), "{words:?} is missing in: {message}");
    }
    w.clean_up().await;
}

#[tokio::test]
async fn where_the_operator_cannot_see_what_a_role_contains_nothing_is_given() {
    // given a role that looks harmless without view-clients
    let w = World::new().await;
    let alice = w.person("alice").await;
    let power = power(&w).await;
    let policy = w.policy("blind").realm(BLIND).realm_role("power", &power.name).requester(&alice).automatic();
    let policy = policy.with("allowAdminRoles", json!(true)).create().await.unwrap();
    // when
    let request = alice.asks(&policy).create().await.unwrap();
    // then
    let message = policy.is_not_ready("KeycloakUnavailable").await;
    assert!(message.contains("lacks the right view-clients of realm-management"), "{message}");
    let message = request.says(Phase::Pending, "PolicyNotReady").await;
    assert!(message.contains("view-clients"), "{message}");
    assert!(!w.keycloak.has(&alice.user, &power).await);
    w.clean_up().await;
}
