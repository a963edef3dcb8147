//! Access ends: whoever or whatever ends it, it is gone from Keycloak and from the next token.

use hallpass::api::{EndReason, Phase, TargetState};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::{
    keycloak_admin::{Role, unique},
    people::Person,
    policy::Policy,
    request::Request,
    world::World,
};

/// Alice has a role that Bob approved.
struct Lent {
    alice: Person,
    bob: Person,
    role: Role,
    policy: Policy,
    request: Request,
}

impl Lent {
    async fn new(w: &World) -> Self {
        let (alice, bob) = (w.person("alice").await, w.person("bob").await);
        let role = w.keycloak.realm_role("admin").await;
        let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
        let policy = policy.ready().await;
        let request = alice.asks(&policy).create().await.unwrap();
        bob.approves(&request, "lead").await.unwrap();
        request.reaches(Phase::Active).await;
        assert!(alice.has_role_in_token(&role.name).await);
        Self { alice, bob, role, policy, request }
    }

    async fn is_gone(&self, w: &World) {
        assert!(!w.keycloak.has(&self.alice.user, &self.role).await);
        assert!(!self.alice.has_role_in_token(&self.role.name).await);
    }
}

#[tokio::test]
async fn everything_that_one_request_lent_ends_together() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let (admin, debug) =
        (w.keycloak.realm_role("admin").await, w.keycloak.client_role("checkout", &unique("debug")).await);
    let oncall = w.keycloak.group(None, &unique("oncall")).await;
    let policy = w.policy("oncall").realm_role("admin", &admin.name).client_role("debug", "checkout", &debug.name);
    let policy = policy.group("oncall", &oncall.path).requester(&alice).automatic().ready().await;
    let token_says = async || {
        let claims = alice.claims().await;
        let has = |list: &serde_json::Value, name: &str| list.as_array().is_some_and(|all| all.contains(&json!(name)));
        [
            has(&claims["realm_access"]["roles"], &admin.name),
            has(&claims["resource_access"]["checkout"]["roles"], &debug.name),
            has(&claims["groups"], &oncall.path),
        ]
    };
    // when
    let request = alice.asks(&policy).lasting("6s").create().await.unwrap();
    request.reaches(Phase::Active).await;
    assert_eq!(token_says().await, [true; 3]);
    let status = request.reaches(Phase::Expired).await;
    // then
    assert_eq!(token_says().await, [false; 3]);
    assert!(!w.keycloak.has(&alice.user, &admin).await && !w.keycloak.has(&alice.user, &debug).await);
    assert!(!w.keycloak.groups(&alice.user).await.contains(&oncall.path));
    let grant = status.grant.unwrap();
    assert!(grant.targets.iter().all(|target| target.state == TargetState::Removed), "{grant:?}");
    assert_eq!(grant.end_reason, Some(EndReason::Expired));
    assert!(grant.ended_at.unwrap() >= grant.deadline);
    w.clean_up().await;
}

#[tokio::test]
async fn the_requester_ends_it_early() {
    let w = World::new().await;
    let lent = Lent::new(&w).await;
    lent.alice.ends(&lent.request).await.unwrap();
    let message = lent.request.says(Phase::Revoked, "Ended").await;
    let until = lent.request.status().await.grant.and_then(|grant| grant.powerless_at).expect("a time").0;
    let words = format!("ended by {}; tokens issued before may carry it until {until}", lent.alice.username);
    assert_eq!(message, words);
    lent.is_gone(&w).await;
    w.clean_up().await;
}

#[tokio::test]
async fn an_approver_ends_it_early_and_nobody_else() {
    let w = World::new().await;
    let lent = Lent::new(&w).await;
    let mallory = w.person("mallory").await;
    let refused = mallory.ends(&lent.request).await.unwrap_err();
    let words =
        format!("only {} and the approvers of policy {} can end this request", lent.alice.username, lent.policy.name);
    assert!(refused.contains(&words), "{refused}");
    assert!(w.keycloak.has(&lent.alice.user, &lent.role).await);
    lent.bob.ends(&lent.request).await.unwrap();
    let message = lent.request.says(Phase::Revoked, "Ended").await;
    assert!(message.starts_with(&format!("ended by {};", lent.bob.username)), "{message}");
    lent.is_gone(&w).await;
    w.clean_up().await;
}

#[tokio::test]
async fn deleting_the_request_takes_the_access_first() {
    let w = World::new().await;
    let lent = Lent::new(&w).await;
    lent.alice.deletes(&lent.request).await.unwrap();
    lent.request.is_gone().await;
    lent.is_gone(&w).await;
    w.clean_up().await;
}

#[tokio::test]
async fn deleting_the_policy_ends_what_it_gave() {
    let w = World::new().await;
    let lent = Lent::new(&w).await;
    lent.policy.delete().await;
    lent.request.says(Phase::Revoked, "PolicyDeleted").await;
    lent.is_gone(&w).await;
    w.clean_up().await;
}

#[tokio::test]
async fn suspending_the_policy_ends_what_it_gave() {
    let w = World::new().await;
    let lent = Lent::new(&w).await;
    lent.policy.change(json!({"suspended": true})).await;
    lent.request.says(Phase::Revoked, "PolicySuspended").await;
    lent.is_gone(&w).await;
    w.clean_up().await;
}

#[tokio::test]
async fn deleting_the_namespace_takes_the_access_and_the_namespace_goes() {
    let w = World::new().await;
    let lent = Lent::new(&w).await;
    let namespaces: Api<Namespace> = Api::all(w.admin.clone());
    namespaces.delete(&w.namespace, &DeleteParams::default()).await.unwrap();
    w.until("the namespace is gone", async || namespaces.get_opt(&w.namespace).await.unwrap().is_none()).await;
    lent.is_gone(&w).await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_role_that_was_renamed_meanwhile_is_taken_all_the_same() {
    let w = World::new().await;
    let lent = Lent::new(&w).await;
    let renamed = w.keycloak.rename_role(&lent.role, &unique("renamed")).await;
    assert!(lent.alice.has_role_in_token(&renamed.name).await);
    lent.alice.ends(&lent.request).await.unwrap();
    lent.request.reaches(Phase::Revoked).await;
    lent.is_gone(&w).await;
    assert!(!lent.alice.has_role_in_token(&renamed.name).await);
    w.clean_up().await;
}

#[tokio::test]
async fn what_was_deleted_in_keycloak_meanwhile_holds_nothing_up() {
    // given
    let w = World::new().await;
    let (role, user, group) = (Lent::new(&w).await, Lent::new(&w).await, w.person("alice").await);
    let oncall = w.keycloak.group(None, &unique("oncall")).await;
    let policy = w.policy("oncall").group("oncall", &oncall.path).requester(&group).automatic().ready().await;
    let in_group = group.asks(&policy).create().await.unwrap();
    in_group.reaches(Phase::Active).await;
    // when
    w.keycloak.delete_role(&role.role).await;
    w.keycloak.delete_user(&user.alice.user).await;
    w.keycloak.delete_group(&oncall).await;
    // then
    for (request, who) in [(&role.request, &role.alice), (&user.request, &user.bob), (&in_group, &group)] {
        who.ends(request).await.unwrap();
        let status = request.reaches(Phase::Revoked).await;
        assert_eq!(status.grant.unwrap().targets[0].state, TargetState::Removed);
    }
    w.clean_up().await;
}
