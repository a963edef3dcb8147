//! Votes that the API server lets through, and what the controller makes of them: people count once, by what Keycloak
//! says now, and only on what they were asked about.

use hallpass::api::{APPROVE, AccessRequestStatus, Phase, Vote};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{keycloak_admin::unique, request::condition, world::World};

/// Whether every vote has been recorded and says why it does not count, but for those that do.
fn judged(status: &AccessRequestStatus, votes: usize) -> bool {
    status.votes.len() == votes && status.votes.iter().all(|vote| vote.counted || vote.why.is_some())
}

fn why(vote: &Vote) -> &str {
    vote.why.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn one_person_counts_once_however_many_keys_and_stages() {
    // given
    let w = World::new().await;
    let (alice, bob, carol) = (w.person("alice").await, w.person("bob").await, w.person("carol").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
    let policy = policy.stage("lead", 1, [&bob, &carol]).stage("security", 1, [&bob, &carol]).ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    // when
    bob.approves(&request, "lead").await.unwrap();
    bob.approves(&request, "lead").await.unwrap();
    bob.approves(&request, "security").await.unwrap();
    // then
    let status = request.until("three votes", |status| judged(status, 3)).await;
    assert_eq!(status.phase, Some(Phase::Pending));
    assert_eq!(status.votes.iter().filter(|vote| vote.counted).count(), 1, "{:?}", status.votes);
    let whys: Vec<&str> = status.votes.iter().filter(|vote| !vote.counted).map(why).collect();
    assert!(whys.contains(&"this person has voted already"), "{whys:?}");
    assert!(whys.iter().any(|why| why.starts_with("this person counts in stage ")), "{whys:?}");
    assert!(!w.keycloak.has(&alice.user, &role).await);
    carol.approves(&request, "security").await.unwrap();
    request.reaches(Phase::Active).await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_group_that_only_the_token_still_knows_gives_no_vote() {
    // given
    let w = World::new().await;
    let leads = w.keycloak.group(None, &unique("leads")).await;
    let alice = w.person("alice").await;
    let bob = w.person("bob").await.in_group(&leads).await;
    let carol = w.person("carol").await.in_group(&leads).await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage_group("lead", 1, &leads);
    let policy = policy.ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    bob.signs_in().await;
    w.keycloak.leave(&bob.user, &leads).await;
    // when: the API server lets it through
    bob.approves(&request, "lead").await.unwrap();
    // then
    let status = request.until("Bob's vote", |status| judged(status, 1)).await;
    let words = format!("{} is not an approver of stage lead: Group oidc:{}", bob.username, leads.path);
    assert_eq!((status.phase, why(&status.votes[0])), (Some(Phase::Pending), words.as_str()));
    carol.approves(&request, "lead").await.unwrap();
    let status = request.reaches(Phase::Active).await;
    assert_eq!(status.approved_by.as_deref(), Some(carol.username.as_str()));
    w.clean_up().await;
}

#[tokio::test]
async fn the_requester_has_no_vote_under_another_of_her_names() {
    // given: usernames are compared without regard to case by Keycloak, and with it by Kubernetes
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let loud = format!("oidc:{}", alice.user.username.to_uppercase());
    let approvers = json!([{"kind": "User", "name": loud}, {"kind": "User", "name": bob.username}]);
    let stages = json!({"stages": [{"name": "lead", "required": 1, "approvers": approvers}]});
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).with("approval", stages);
    let policy = policy.ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    let ballot = request.ballot().await;
    // when
    let api = request.api(w.somebody_called(&loud).await);
    let vote = json!({"metadata": {"annotations": {format!("{APPROVE}{ballot}.lead.x"): loud}}});
    api.patch(&request.name, &PatchParams::default(), &Patch::Merge(vote)).await.unwrap();
    // then
    let status = request.until("her vote", |status| judged(status, 1)).await;
    assert_eq!(why(&status.votes[0]), format!("{loud} is the requester's own Keycloak user"));
    assert_eq!(status.phase, Some(Phase::Pending));
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_recorded_vote_stands_and_cannot_be_used_again() {
    // given
    let w = World::new().await;
    let (alice, bob, carol) = (w.person("alice").await, w.person("bob").await, w.person("carol").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
    let policy = policy.stage("lead", 2, [&bob, &carol]).ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    bob.approves(&request, "lead").await.unwrap();
    let recorded = request.until("Bob's vote", |status| judged(status, 1)).await.votes;
    // when: Alice may edit the object, and what is recorded may be tidied away
    alice.annotates(&request, &recorded[0].key, Value::Null).await.unwrap();
    // then
    for (what, answer) in [
        ("Bob again", bob.annotates(&request, &recorded[0].key, "yes").await),
        ("Alice, his", alice.annotates(&request, &recorded[0].key, &bob.username).await),
    ] {
        let words = answer.err().unwrap_or_else(|| panic!("{what}: done"));
        assert!(
            ["used before", "must be your own", "you made", "may not vote"].iter().any(|w| words.contains(w)),
            "{what}: {words}"
        );
    }
    assert_eq!(request.status().await.votes, recorded);
    carol.approves(&request, "lead").await.unwrap();
    let status = request.reaches(Phase::Active).await;
    assert_eq!(status.approved_by, Some(format!("{}, {}", bob.username, carol.username)));
    w.clean_up().await;
}

#[tokio::test]
async fn what_only_looks_like_a_vote_is_refused_or_means_nothing() {
    // given
    let w = World::new().await;
    let (alice, bob, carol) = (w.person("alice").await, w.person("bob").await, w.person("carol").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
    let policy = policy.stage("lead", 1, [&bob]).stage("security", 1, [&carol]).ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    let ballot = request.ballot().await;
    // when: whoever mistypes a vote is told so
    for key in [
        format!("Approve.hallpass.dev/{ballot}.lead.x"),
        format!("APPROVE.HALLPASS.DEV/{ballot}.lead.x"),
        format!("approve.Hallpass.dev/{ballot}.lead.x"),
        format!("approved.hallpass.dev/{ballot}.lead.x"),
        format!("hallpass.dev/approve.{ballot}.lead.x"),
        "ends.hallpass.dev/x".to_owned(),
    ] {
        let words = alice.annotates(&request, &key, &bob.username).await.unwrap_err();
        assert!(words.contains(&format!("{key} means nothing to Hallpass: votes and ends are annotations")), "{words}");
    }
    let label = json!({"metadata": {"labels": {"approve.hallpass.dev/x": "bob"}}});
    let words = alice.patches(&request, &label).await.unwrap_err();
    assert!(words.contains("approve.hallpass.dev/x means nothing to Hallpass"), "{words}");
    // when: what is nobody's can be written by Alice
    for key in
        [format!("approve.hallpass.dev.example/{ballot}.lead.x"), format!("nothallpass.dev/approve.{ballot}.lead.x")]
    {
        alice.annotates(&request, &key, &bob.username).await.unwrap();
    }
    // then: whoever sees Carol's vote has seen all of them
    carol.approves(&request, "security").await.unwrap();
    let status = request.until("Carol's vote", |status| !status.votes.is_empty()).await;
    assert_eq!((status.votes.len(), status.phase), (1, Some(Phase::Pending)), "{:?}", status.votes);
    assert!(condition(&status, "Ready").message.contains("1 approval in stage lead"));
    w.clean_up().await;
}

#[tokio::test]
async fn a_deny_is_final() {
    // given
    let w = World::new().await;
    let (alice, bob, carol) = (w.person("alice").await, w.person("bob").await, w.person("carol").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
    let policy = policy.stage("lead", 1, [&bob]).stage("security", 1, [&carol]).ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    // when
    carol.denies(&request, "security").await.unwrap();
    let message = request.says(Phase::Denied, "Denied").await;
    let late =
        bob.annotates(&request, &format!("{APPROVE}{}.lead.late", request.status().await.ballot.unwrap()), "yes").await;
    // then
    assert_eq!(message, format!("denied by {} in stage security", carol.username));
    assert!(late.unwrap_err().contains("only a Pending request can be voted on; this one is Denied"));
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_vote_is_for_this_request_and_not_for_another_of_its_name() {
    // given: Bob looks at what Alice asks for
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let policy = policy.ready().await;
    let harmless = alice.asks(&policy).named("fix").because("the log").create().await.unwrap();
    let seen = harmless.ballot().await;
    // when: she puts another in its place
    alice.deletes(&harmless).await.unwrap();
    harmless.is_gone().await;
    let other = alice.asks(&policy).named("fix").lasting("1h").because("the vault").create().await.unwrap();
    let present = other.ballot().await;
    let answer = bob.annotates(&other, &format!("{APPROVE}{seen}.lead.bob"), "yes").await;
    // then
    assert_ne!(seen, present);
    let words = answer.unwrap_err();
    assert!(words.contains(&format!("is an annotation named approve.hallpass.dev/{present}.STAGE")), "{words}");
    assert_eq!(other.status().await.phase, Some(Phase::Pending));
    w.clean_up().await;
}
