//! The operator dies, and servers hang: what is due goes, late but surely, and it is said that it is late.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hallpass::api::{AccessRequestStatus, Phase};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};

use crate::{
    request::condition,
    world::{PATIENCE, World},
};

fn deadline(status: &AccessRequestStatus) -> Timestamp {
    status.grant.as_ref().expect("a grant").deadline.0
}

async fn is_past(w: &World, deadline: Timestamp) {
    w.until("the deadline is past", async || Timestamp::now() > deadline).await;
}

#[tokio::test]
async fn what_fell_due_while_the_operator_was_dead_goes_right_after_its_start() {
    // given
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let (role, kept) = (w.keycloak.realm_role("admin").await, w.keycloak.realm_role("kept").await);
    let policy = w.policy("oncall").realm_role("admin", &role.name).realm_role("kept", &kept.name).requester(&alice);
    let policy = policy.automatic().ready().await;
    let request = alice.asks(&policy).grants(["admin"]).lasting("5s").create().await.unwrap();
    let due = deadline(&request.reaches(Phase::Active).await);
    let longer = alice.asks(&policy).grants(["kept"]).lasting("10m").create().await.unwrap();
    let later = deadline(&longer.reaches(Phase::Active).await);
    // when
    w.operator("kill").await;
    is_past(&w, due).await;
    assert!(w.keycloak.has(&alice.user, &role).await, "nobody was there to take it");
    w.operator("start").await;
    let started = Instant::now();
    // then
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &role).await).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?} after the start", started.elapsed());
    request.reaches(Phase::Expired).await;
    assert!(w.keycloak.has(&alice.user, &kept).await);
    assert_eq!(deadline(&longer.reaches(Phase::Active).await), later);
    w.clean_up().await;
}

#[tokio::test]
async fn an_operator_that_is_killed_right_after_approvals_leaves_nothing_half_done() {
    // given
    let w = World::alone().await;
    let bob = w.person("bob").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).everybody().stage("lead", 1, [&bob]).ready().await;
    let asking = (0..4).map(async |i| {
        let person = w.person(&format!("alice{i}")).await;
        let request = person.asks(&policy).lasting("5s").create().await.unwrap();
        request.ballot().await;
        (person, request)
    });
    let requests = join_all(asking).await;
    // when
    for (_, request) in &requests {
        bob.approves(request, "lead").await.unwrap();
    }
    w.operator("kill").await;
    w.operator("start").await;
    // then: what was agreed before is given after, or has ended by now
    for (person, request) in &requests {
        let status = request.reaches(Phase::Expired).await;
        let grant = status.grant.expect("a grant");
        assert!(grant.ended_at.expect("an end") >= grant.deadline);
        assert_eq!(status.approved_by.as_deref(), Some(bob.username.as_str()));
        assert!(!w.keycloak.has(&person.user, &role).await);
    }
    w.clean_up().await;
}

#[tokio::test]
async fn while_keycloak_hangs_what_is_due_is_said_to_be_overdue_and_goes_when_it_is_back() {
    // given
    let w = World::alone().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let (due, new) = (w.keycloak.realm_role("due").await, w.keycloak.realm_role("new").await);
    let free = w.policy("free").realm_role("due", &due.name).requester(&alice).automatic().ready().await;
    let policy = w.policy("oncall").realm_role("new", &new.name).requester(&alice).stage("lead", 1, [&bob]);
    let policy = policy.ready().await;
    let waiting = alice.asks(&policy).lasting("10m").create().await.unwrap();
    waiting.says(Phase::Pending, "WaitingForVotes").await;
    bob.signs_in().await;
    let request = alice.asks(&free).lasting("5s").create().await.unwrap();
    request.reaches(Phase::Active).await;
    // when
    let hanging = w.hang("keycloak");
    bob.approves(&waiting, "lead").await.unwrap();
    // then
    let words = request.says(Phase::Revoking, "Overdue").await;
    assert!(words.contains("trying again without end"), "{words}");
    let metrics = w.stack.ask_operator("/metrics").await.unwrap().1;
    assert!(metrics.contains("hallpass_overdue_revocations 1\n"), "{metrics}");
    let events: Api<Event> = Api::namespaced(w.admin.clone(), &w.namespace);
    w.until("an Event says so", async || {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        all.iter().any(|event| event.reason.as_deref() == Some("Overdue") && event.type_.as_deref() == Some("Warning"))
    })
    .await;
    let status = waiting.status().await;
    assert!(matches!(status.phase, Some(Phase::Pending | Phase::Approved)), "{:?}", status.phase);
    assert_eq!(condition(&status, "Ready").reason, "KeycloakUnavailable");
    // when it is back
    drop(hanging);
    request.reaches(Phase::Expired).await;
    waiting.reaches(Phase::Active).await;
    assert!(!w.keycloak.has(&alice.user, &due).await);
    assert!(w.keycloak.has(&alice.user, &new).await);
    w.clean_up().await;
}

#[tokio::test]
async fn while_the_api_server_hangs_the_role_goes_and_the_status_follows() {
    // given
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    let request = alice.asks(&policy).lasting("5s").create().await.unwrap();
    let due = deadline(&request.reaches(Phase::Active).await);
    // when
    let hanging = w.hang("kube-apiserver");
    is_past(&w, due).await;
    // then
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &role).await).await;
    let late = Timestamp::now().duration_since(due);
    // The lease is stale at most five seconds after it is due. Then a renewal must fail, which takes two, and that is noticed.
    assert!(late.as_secs() < 11, "{late}");
    drop(hanging);
    let status = request.reaches_within(Phase::Expired, PATIENCE * 2).await;
    assert_eq!(deadline(&status), due);
    w.clean_up().await;
}
