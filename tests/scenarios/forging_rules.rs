//! The rules change under a request that waits: what was agreed under the old ones releases nothing.

use hallpass::api::{APPROVE, Phase};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{keycloak_admin::unique, world::World};

#[tokio::test]
async fn votes_are_void_once_approvers_or_grants_change() {
    // given
    let w = World::new().await;
    let (alice, bob, carol) = (w.person("alice").await, w.person("bob").await, w.person("carol").await);
    let (role, more) = (w.keycloak.realm_role("admin").await, w.keycloak.realm_role("more").await);
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
    let policy = policy.stage("lead", 2, [&bob, &carol]).ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    let approver = json!([{"kind": "User", "name": bob.username}]);
    for (what, change) in [
        ("approvers", json!({"approval": {"stages": [{"name": "lead", "required": 1, "approvers": approver}]}})),
        (
            "grants",
            json!({"grants": [{"name": "admin", "realmRole": role.name}, {"name": "more", "realmRole": more.name}]}),
        ),
    ] {
        if what == "approvers" {
            bob.approves(&request, "lead").await.unwrap();
            request.until("Bob's vote", |status| status.votes.iter().any(|vote| vote.counted)).await;
        }
        let old = request.ballot().await;
        // when
        policy.change(change).await;
        let status = request.until("another ballot", |status| status.ballot.as_ref() != Some(&old)).await;
        // then
        assert_eq!((status.phase, status.votes.len()), (Some(Phase::Pending), 1), "{what}");
        assert!(!status.votes[0].counted, "{what}");
        assert_eq!(status.votes[0].why.as_deref(), Some("cast on an earlier ballot"), "{what}");
        let message = request.says(Phase::Pending, "WaitingForVotes").await;
        assert!(
            message.contains("have changed, so earlier votes no longer count; waiting for 1 approval"),
            "{what}: {message}"
        );
        let late = bob.annotates(&request, &format!("{APPROVE}{old}.lead.late"), "yes").await;
        assert!(late.unwrap_err().contains("is an annotation named approve.hallpass.dev/"), "{what}");
    }
    bob.approves(&request, "lead").await.unwrap();
    let status = request.reaches(Phase::Active).await;
    assert_eq!(status.votes.iter().filter(|vote| vote.counted).count(), 1);
    w.clean_up().await;
}

#[tokio::test]
async fn a_policy_that_becomes_automatic_releases_nothing_that_waits() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let policy = policy.ready().await;
    let start = Timestamp::now() + SignedDuration::from_hours(1);
    let waiting = alice.asks(&policy).create().await.unwrap();
    let approved = alice.asks(&policy).with("notBefore", json!(start.to_string())).create().await.unwrap();
    waiting.reaches(Phase::Pending).await;
    bob.approves(&approved, "lead").await.unwrap();
    approved.reaches(Phase::Approved).await;
    // when
    policy.change(json!({"approval": {"automatic": true, "stages": null}})).await;
    // then
    for request in [&waiting, &approved] {
        let message = request.says(Phase::Rejected, "RulesChanged").await;
        assert!(message.contains("has changed since this was asked, and is automatic now; ask again"), "{message}");
    }
    assert!(!w.keycloak.has(&alice.user, &role).await);
    alice.asks(&policy).create().await.unwrap().reaches(Phase::Active).await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_policy_made_anew_under_the_same_name_is_another_policy() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let same = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let policy = same.clone().ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    let ballot = request.ballot().await;
    // when
    policy.delete().await;
    let policy = same.create().await.unwrap();
    // then
    let message = request.says(Phase::Rejected, "PolicyDeleted").await;
    assert!(message.contains("was deleted") && message.contains("ask again"), "{message}");
    let late = bob.annotates(&request, &format!("{APPROVE}{ballot}.lead.late"), "yes").await;
    assert!(late.unwrap_err().contains("this one is Rejected"));
    assert!(!w.keycloak.has(&alice.user, &role).await);
    policy.is_ready().await;
    alice.asks(&policy).create().await.unwrap().reaches(Phase::Pending).await;
    w.clean_up().await;
}

#[tokio::test]
async fn whoever_is_no_approver_any_more_at_the_start_has_not_approved() {
    // given: agreed now, to start in a moment
    let w = World::new().await;
    let leads = w.keycloak.group(None, &unique("leads")).await;
    let alice = w.person("alice").await;
    let bob = w.person("bob").await.in_group(&leads).await;
    let carol = w.person("carol").await.in_group(&leads).await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage_group("lead", 1, &leads);
    let policy = policy.ready().await;
    let start = Timestamp::now() + SignedDuration::from_secs(20);
    let ask = || alice.asks(&policy).with("notBefore", json!(start.to_string()));
    let (left, disabled) = (ask().create().await.unwrap(), ask().create().await.unwrap());
    for (request, voter) in [(&left, &bob), (&disabled, &carol)] {
        voter.approves(request, "lead").await.unwrap();
        request.says(Phase::Approved, "WaitingForStart").await;
    }
    // when
    w.keycloak.leave(&bob.user, &leads).await;
    w.keycloak.update_user(&carol.user, &json!({"enabled": false})).await;
    // then
    for (request, words) in [(&left, "is not an approver of stage lead"), (&disabled, "leads to a disabled user")] {
        let status = request.until("nobody's", |status| status.phase == Some(Phase::Pending)).await;
        assert!(Timestamp::now() >= start);
        let why = status.votes[0].why.clone().unwrap_or_default();
        assert!(why.contains(words), "{why}");
        assert_eq!(status.approved_by, None);
    }
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}
