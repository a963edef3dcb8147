//! A live request disappears although its finalizer has not run: what it gave goes all the same.

use hallpass::api::{FINALIZER, Phase};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::{keycloak_admin::Role, people::Person, policy::Policy, request::Request, world::World};

/// Alice has one role of her own and one that is lent.
async fn lent(w: &World) -> (Person, [Role; 2], Policy, Request) {
    let alice = w.person("alice").await;
    let roles = [w.keycloak.realm_role("own").await, w.keycloak.realm_role("lent").await];
    w.keycloak.map(&alice.user, &roles[0]).await;
    let policy = w.policy("oncall").realm_role("own", &roles[0].name).realm_role("lent", &roles[1].name);
    let policy = policy.requester(&alice).automatic().ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    (alice, roles, policy, request)
}

#[tokio::test]
async fn what_a_request_gave_that_was_removed_from_etcd_goes() {
    // given
    let w = World::new().await;
    let (alice, [own, lent], _, request) = lent(&w).await;
    // when
    w.stack.remove_in_etcd(&request.namespace, &request.name).await;
    // then
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &lent).await).await;
    assert!(w.keycloak.has(&alice.user, &own).await);
    w.until("it is told", async || !w.stack.log(&request.name).is_empty()).await;
    let told = w.stack.log("disappeared before its access was taken away");
    assert!(told.iter().any(|line| line["request"] == format!("{}/{}", request.namespace, request.name)), "{told:?}");
    w.clean_up().await;
}

#[tokio::test]
async fn another_request_that_holds_the_same_keeps_it() {
    // given
    let w = World::new().await;
    let (alice, [own, lent], policy, request) = lent(&w).await;
    let other = alice.asks(&policy).create().await.unwrap();
    other.reaches(Phase::Active).await;
    // when
    w.stack.remove_in_etcd(&request.namespace, &request.name).await;
    let words = format!("{}/{}", request.namespace, request.name);
    w.until("it is dealt with", async || {
        w.stack.log("what a vanished request gave is gone").iter().any(|line| line["request"] == words)
    })
    .await;
    // then
    assert!(w.keycloak.has(&alice.user, &lent).await, "the other one holds it");
    alice.ends(&other).await.unwrap();
    other.reaches(Phase::Revoked).await;
    assert!(!w.keycloak.has(&alice.user, &lent).await);
    assert!(w.keycloak.has(&alice.user, &own).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_finalizer_that_was_taken_off_comes_back_and_what_is_deleted_before_goes_all_the_same() {
    // given: nobody keeps the finalizer
    let w = World::alone().await;
    let (alice, [_, role], _, first) = lent(&w).await;
    let weakened = w.weaken(&["delete", "validatingadmissionpolicybinding", "hallpass-identity"]);
    let off = json!({"metadata": {"finalizers": null}});
    let strip = async |request: &Request| {
        let api = w.requests();
        w.until("the finalizer is off", async || {
            let patch = api.patch(&request.name, &PatchParams::default(), &Patch::Merge(&off)).await;
            patch.is_ok_and(|patched| patched.metadata.finalizers.is_none())
        })
        .await;
    };
    // when it is only taken off
    strip(&first).await;
    w.until("it is back", async || {
        let now = w.requests().get(&first.name).await.unwrap();
        now.metadata.finalizers.is_some_and(|finalizers| finalizers.contains(&FINALIZER.to_owned()))
    })
    .await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    // when it is deleted before anybody could put it back
    let paused = w.hang("hallpass");
    strip(&first).await;
    w.requests().delete(&first.name, &DeleteParams::default()).await.unwrap();
    assert!(w.requests().get_opt(&first.name).await.unwrap().is_none(), "nothing held it");
    drop(paused);
    // then
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &role).await).await;
    weakened.mended(&w).await;
    w.clean_up().await;
}
