//! A policy under which nobody could approve says so before anybody asks, and to whoever asks.

use hallpass::api::Phase;
use serde_json::json;

use crate::{
    keycloak_admin::{Group, unique},
    policy::PolicyBuilder,
    world::World,
};

async fn group(w: &World) -> Group {
    w.keycloak.group(None, &unique("leads")).await
}

/// What everybody may ask for.
async fn policy(w: &World, start: &str) -> PolicyBuilder {
    let role = w.keycloak.realm_role("admin").await;
    w.policy(start).realm_role("admin", &role.name).everybody()
}

/// Creates a policy that must not be Ready because of its stages, for these words.
async fn is_unsatisfiable(policy: PolicyBuilder, words: &[&str]) {
    let policy = policy.create().await.unwrap();
    let message = policy.is_not_ready("StageUnsatisfiable").await;
    for words in words {
        assert!(message.contains(words), "{words:?} is missing in: {message}");
    }
}

#[tokio::test]
async fn a_group_that_is_empty_or_too_small_is_told_and_enough_once_somebody_joins() {
    // given
    let w = World::new().await;
    let (empty, small, enough) = (group(&w).await, group(&w).await, group(&w).await);
    let _bob = w.person("bob").await.in_group(&small).await;
    let _carol = w.person("carol").await.in_group(&enough).await;
    let dave = w.person("dave").await;
    // A member of a child is none of the group.
    let child = w.keycloak.group(Some(&empty), &unique("child")).await;
    let erin = w.person("erin").await.in_group(&child).await;
    // when, then
    policy(&w, "enough").await.stage_group("lead", 1, &enough).ready().await;
    let too_few = policy(&w, "small").await.stage_group("lead", 2, &small);
    is_unsatisfiable(too_few, &["stage lead wants 2 approvals, and 1 person could give one", &small.path]).await;
    let waits = policy(&w, "empty").await.stage_group("lead", 1, &empty).create().await.unwrap();
    let message = waits.is_not_ready("StageUnsatisfiable").await;
    let words = format!(
        "spec.approval.stages: stage lead wants 1 approval, and nobody could give one; add people to Group oidc:{}, or \
         approvers to the policy",
        empty.path
    );
    assert_eq!(message, words);
    let request = erin.asks(&waits).create().await.unwrap();
    assert!(request.says(Phase::Pending, "PolicyNotReady").await.contains(&words));
    // when
    let dave = dave.in_group(&empty).await;
    // then
    waits.is_ready().await;
    request.says(Phase::Pending, "WaitingForVotes").await;
    dave.approves(&request, "lead").await.unwrap();
    request.reaches(Phase::Active).await;
    w.clean_up().await;
}

#[tokio::test]
async fn who_is_nobody_or_disabled_or_there_already_is_no_approver() {
    // given
    let w = World::new().await;
    let (leads, security) = (group(&w).await, group(&w).await);
    let bob = w.person("bob").await.in_group(&leads).await.in_group(&security).await;
    let carol = w.person("carol").await.in_group(&leads).await;
    w.keycloak.update_user(&carol.user, &json!({"enabled": false})).await;
    let gone = w.person("gone").await;
    w.keycloak.delete_user(&gone.user).await;
    // when, then
    let disabled = policy(&w, "disabled").await.stage_group("lead", 2, &leads);
    is_unsatisfiable(disabled, &["stage lead wants 2 approvals, and 1 person could give one"]).await;
    let named = policy(&w, "named").await.stage("lead", 2, [&bob, &gone]);
    let nobody = format!("{} leads to no user of the Keycloak realm", gone.username);
    is_unsatisfiable(named, &["1 person could give one; add approvers to the policy; ", &nobody]).await;
    let shut_out = policy(&w, "shut-out").await.stage("lead", 1, [&carol]);
    is_unsatisfiable(shut_out, &["nobody could give one", "leads to a disabled user of the Keycloak realm"]).await;
    let twice = policy(&w, "twice").await.stage_group("lead", 1, &leads).stage_group("security", 1, &security);
    is_unsatisfiable(twice, &["stages lead and security want 2 approvals, and 1 person could give one"]).await;
    let both_names = policy(&w, "both").await.stage("lead", 1, [&bob]).stage_group("security", 1, &security);
    is_unsatisfiable(both_names, &["stages lead and security want 2 approvals, and 1 person could give one"]).await;
    let one_of_them = policy(&w, "one").await.stage("lead", 1, [&bob, &gone]);
    one_of_them.ready().await;
    w.clean_up().await;
}

#[tokio::test]
async fn who_would_have_to_approve_her_own_request_is_told_so() {
    // given
    let w = World::new().await;
    let (team, leads) = (group(&w).await, group(&w).await);
    let alice = w.person("alice").await.in_group(&team).await.in_group(&leads).await;
    let role = w.keycloak.realm_role("admin").await;
    let lent = |start: &str| w.policy(start).realm_role("admin", &role.name).stage_group("lead", 1, &leads);
    let words = "stage lead wants 1 approval, and without the requester nobody could give one";
    // when, then
    is_unsatisfiable(lent("team").requester_group(&team), &["whoever asks, ", words]).await;
    is_unsatisfiable(lent("alone").requester(&alice), &["whoever asks, ", words]).await;
    // when
    let policy = lent("all").everybody().ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    // then
    let message = request.says(Phase::Pending, "WaitingForVotes").await;
    let begin = format!("cannot be approved as it is: {words}; add people to Group oidc:{}, ", leads.path);
    assert!(message.starts_with(&begin), "{message}");
    // when
    let bob = w.person("bob").await.in_group(&leads).await;
    bob.approves(&request, "lead").await.unwrap();
    // then
    request.reaches(Phase::Active).await;
    w.clean_up().await;
}
