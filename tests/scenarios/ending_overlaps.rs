//! One role, several reasons to have it: it stays until the last is gone, and what was there before stays for good.

use std::collections::BTreeMap;

use futures::future::join_all;
use hallpass::api::{AccessRequest, Phase, TargetState};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{keycloak_admin::unique, removals::removals, request::Request, world::World};

/// Requests of one person for one role, under two policies in turn. `+a` starts a request and `-a` ends it. After each
/// step the role is there while a request is live, or always if the person had it before. It was removed as often as the
/// last request has ended, and not for a moment in between.
async fn story(w: &World, had_it_before: bool, steps: &str) {
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    if had_it_before {
        w.keycloak.map(&alice.user, &role).await;
    }
    let policy = |start: &str| w.policy(start).realm_role("admin", &role.name).requester(&alice).automatic();
    let policies = [policy("oncall").ready().await, policy("release").ready().await];
    let mut live: BTreeMap<&str, Request> = BTreeMap::new();
    let (mut started, mut removed) = (0, 0);
    for step in steps.split(' ') {
        let name = &step[1..];
        if step.starts_with('+') {
            let request = alice.asks(&policies[started % 2]).create().await.unwrap();
            request.reaches(Phase::Active).await;
            live.insert(name, request);
            started += 1;
        } else {
            let request = live.remove(name).expect("started");
            alice.ends(&request).await.unwrap();
            let status = request.reaches(Phase::Revoked).await;
            let state = if had_it_before || !live.is_empty() { TargetState::Kept } else { TargetState::Removed };
            assert_eq!(status.grant.unwrap().targets[0].state, state, "{steps}, at {step}");
            removed += usize::from(state == TargetState::Removed);
        }
        let times = removals(&w.keycloak, &alice.user, &role.id).await;
        assert_eq!(times.len(), removed, "{steps}, after {step}: removed at {times:?}");
        let expected = had_it_before || !live.is_empty();
        assert_eq!(w.keycloak.has(&alice.user, &role).await, expected, "{steps}, after {step}");
        assert_eq!(alice.has_role_in_token(&role.name).await, expected, "{steps}, after {step}");
    }
}

#[tokio::test]
async fn of_two_requests_for_one_role_the_last_takes_it() {
    let w = World::new().await;
    join_all([story(&w, false, "+a +b -a -b"), story(&w, false, "+a +b -b -a")]).await;
    w.clean_up().await;
}

#[tokio::test]
async fn of_three_requests_for_one_role_the_last_takes_it_in_whatever_order() {
    let w = World::new().await;
    join_all([
        story(&w, false, "+a +b +c -b -c -a"),
        story(&w, false, "+a +b -a +c -c -b"),
        story(&w, false, "+a +b -b +c -a -c"),
        story(&w, false, "+a -a +b +c -b -c"),
    ])
    .await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_role_that_was_there_before_stays_however_many_requests_come_and_go() {
    let w = World::new().await;
    join_all([story(&w, true, "+a -a"), story(&w, true, "+a +b -a -b"), story(&w, true, "+a +b -b +c -a -c")]).await;
    w.clean_up().await;
}

#[tokio::test]
async fn access_is_extended_by_another_request_without_a_moment_without_the_role() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    let first = alice.asks(&policy).lasting("20s").create().await.unwrap();
    first.reaches(Phase::Active).await;
    // when
    let second = alice.asks(&policy).lasting("35s").create().await.unwrap();
    let deadline = second.reaches(Phase::Active).await.grant.unwrap().deadline.0;
    assert_eq!(first.status().await.phase, Some(Phase::Active), "the machine is too slow");
    // then
    let status = first.reaches(Phase::Expired).await;
    assert_eq!(status.grant.unwrap().targets[0].state, TargetState::Kept);
    assert!(w.keycloak.has(&alice.user, &role).await);
    assert!(alice.has_role_in_token(&role.name).await);
    second.reaches(Phase::Expired).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    let times = removals(&w.keycloak, &alice.user, &role.id).await;
    assert_eq!(times.len(), 1, "removed at {times:?}");
    assert!(times[0] >= deadline, "removed at {}, and held until {deadline}", times[0]);
    w.clean_up().await;
}

#[tokio::test]
async fn two_requests_that_fall_due_together_leave_nothing() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    // when
    let ask = async || {
        let request = alice.asks(&policy).lasting("10s").create().await.unwrap();
        request.reaches(Phase::Active).await;
        request
    };
    let requests = join_all([ask(), ask(), ask()]).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    // then
    for request in &requests {
        request.reaches(Phase::Expired).await;
    }
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_group_that_the_person_was_in_stays() {
    // given
    let w = World::new().await;
    let (oncall, other) =
        (w.keycloak.group(None, &unique("oncall")).await, w.keycloak.group(None, &unique("other")).await);
    let alice = w.person("alice").await.in_group(&oncall).await;
    let policy = w.policy("oncall").group("oncall", &oncall.path).group("other", &other.path).requester(&alice);
    let policy = policy.automatic().ready().await;
    // when
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    let mut both = vec![oncall.path.clone(), other.path.clone()];
    both.sort();
    let mut groups = w.keycloak.groups(&alice.user).await;
    groups.sort();
    assert_eq!(groups, both);
    alice.ends(&request).await.unwrap();
    let status = request.reaches(Phase::Revoked).await;
    // then
    assert_eq!(w.keycloak.groups(&alice.user).await, [oncall.path]);
    let left: Vec<TargetState> = status.grant.unwrap().targets.iter().map(|target| target.state).collect();
    assert_eq!(left, [TargetState::Kept, TargetState::Removed]);
    w.clean_up().await;
}

/// Writes a request over and over, until the handle is aborted.
fn scribbles(w: &World, request: &Request, as_who: usize) -> JoinHandle<()> {
    let (api, name): (Api<AccessRequest>, _) = (request.api(w.admin.clone()), request.name.clone());
    tokio::spawn(async move {
        for n in 0_u64.. {
            let note = json!({"metadata": {"annotations": {format!("example.com/note-{as_who}"): n.to_string()}}});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&note)).await.expect("an annotation");
        }
    })
}

#[tokio::test]
async fn what_is_due_goes_although_another_request_of_the_person_is_written_all_the_time() {
    // given two requests of one person, and an operator that has written neither since its start
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let (due, kept) = (w.keycloak.realm_role("due").await, w.keycloak.realm_role("kept").await);
    let policy = w.policy("oncall").realm_role("due", &due.name).realm_role("kept", &kept.name).requester(&alice);
    let policy = policy.automatic().ready().await;
    let longer = alice.asks(&policy).grants(["kept"]).lasting("10m").create().await.unwrap();
    longer.reaches(Phase::Active).await;
    let request = alice.asks(&policy).grants(["due"]).lasting("15s").create().await.unwrap();
    let deadline = request.reaches(Phase::Active).await.grant.unwrap().deadline.0;
    w.operator("kill").await;
    w.operator("start").await;
    w.another_epoch(None).await;
    assert!(Timestamp::now() < deadline, "the machine is too slow: its time is up");
    // when
    let scribblers: Vec<JoinHandle<()>> = (0..8).map(|i| scribbles(&w, &longer, i)).collect();
    let before = longer.resource_version().await;
    // then
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &due).await).await;
    let late = Timestamp::now().duration_since(deadline);
    println!("gone {late:#} after the deadline, {before} -> {}", longer.resource_version().await);
    assert!(late.is_positive() && late < SignedDuration::from_secs(6), "{late:#} after the deadline");
    assert!(w.keycloak.has(&alice.user, &kept).await);
    for scribbler in scribblers {
        assert!(!scribbler.is_finished(), "it was written all the time");
        scribbler.abort();
    }
    request.reaches(Phase::Expired).await;
    longer.reaches(Phase::Active).await;
    w.clean_up().await;
}
