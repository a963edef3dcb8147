//! A status that the operator did not write, wherever it was written: it gives nothing and steers nothing.

use std::collections::BTreeMap;

use hallpass::{
    api::{AccessRequest, AccessRequestStatus, FINALIZER, Phase, TargetState},
    guard::seal::{self, Keys},
};
use jiff::{Timestamp, ToSpan};
use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    keycloak_admin::Role,
    people::Person,
    policy::Policy,
    request::{Request, condition},
    world::World,
};

const FORGED: &str = "somebody else has written the status of a request";

/// A role, and an automatic policy that lends it.
async fn lent(w: &World, alice: &Person) -> (Role, Policy) {
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("free").realm_role("admin", &role.name).requester(alice).automatic().ready().await;
    (role, policy)
}

/// Writes a status in etcd.
async fn forge(w: &World, request: &Request, edit: impl FnOnce(&mut Value)) {
    w.stack.edit_in_etcd(&request.namespace, &request.name, |object| edit(&mut object["status"])).await;
}

/// Waits until the status is as hoped, final or not.
async fn becomes(
    w: &World,
    request: &Request,
    what: &str,
    hoped: impl Fn(&AccessRequestStatus) -> bool,
) -> AccessRequestStatus {
    w.until(&format!("{}: {what}", request.name), async || hoped(&request.status().await)).await;
    request.status().await
}

/// Waits until it is said that the status was forged, and that it is done with; answers with the words.
async fn is_done_with(w: &World, request: &Request, phase: Phase) -> String {
    let done = |status: &AccessRequestStatus| condition(status, "Ready").reason == "StatusForged";
    let status = becomes(w, request, "StatusForged", done).await;
    assert_eq!(status.phase, Some(phase));
    assert!(status.seal.is_some(), "sealed, so that it is done once");
    w.until("the finalizer is off", async || request.get().await.metadata.finalizers.unwrap_or_default().is_empty())
        .await;
    condition(&status, "Ready").message
}

fn told(request: &Request) -> usize {
    request.log().iter().filter(|line| line["message"] == FORGED && line["level"] == "ERROR").count()
}

#[tokio::test]
async fn a_status_that_is_edited_in_etcd_is_put_right_and_the_access_ends_on_time() {
    // given
    let w = World::new().await;
    let (alice, mallory) = (w.person("alice").await, w.person("mallory").await);
    let (role, policy) = lent(&w, &alice).await;
    w.keycloak.map(&mallory.user, &role).await;
    let request = alice.asks(&policy).lasting("10s").create().await.unwrap();
    let before = request.reaches(Phase::Active).await;
    let deadline = before.grant.clone().unwrap().deadline.0;
    // when
    forge(&w, &request, |status| {
        status["grant"]["deadline"] = json!((deadline + 1.hours()).to_string());
        status["grant"]["targets"][0]["preExisting"] = json!(true);
        status["subject"]["userId"] = json!(mallory.user.id);
    })
    .await;
    // then
    let after = becomes(&w, &request, "put right", |status| status.grant == before.grant).await;
    assert_eq!((after.phase, after.subject, after.seal), (before.phase, before.subject, before.seal));
    assert!(w.keycloak.has(&alice.user, &role).await);
    assert_eq!(told(&request), 1);
    let events: Api<Event> = Api::namespaced(w.admin.clone(), &w.namespace);
    w.until("an Event says so", async || {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let of_it = |event: &Event| event.regarding.as_ref().is_some_and(|of| of.name.as_ref() == Some(&request.name));
        all.iter().any(|event| {
            of_it(event) && event.reason.as_deref() == Some("StatusForged") && event.type_.as_deref() == Some("Warning")
        })
    })
    .await;
    let metrics = w.stack.ask_operator("/metrics").await.unwrap().1;
    assert!(
        metrics.contains("hallpass_forged_statuses_total ") && !metrics.contains("hallpass_forged_statuses_total 0\n")
    );
    let ended = request.reaches(Phase::Expired).await.grant.unwrap();
    assert!(ended.ended_at.unwrap().0.duration_since(deadline).as_secs() < 3);
    assert_eq!((ended.deadline.0, ended.targets[0].state), (deadline, TargetState::Removed));
    assert!(!w.keycloak.has(&alice.user, &role).await);
    assert!(w.keycloak.has(&mallory.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_status_that_makes_no_sense_hides_no_access() {
    // given: no phase of this version, and no list of votes
    for nonsense in [json!({"phase": "Bogus"}), json!({"phase": "Active", "votes": "all of them"})] {
        let w = World::new().await;
        let alice = w.person("alice").await;
        let (role, policy) = lent(&w, &alice).await;
        let request = alice.asks(&policy).lasting("8s").create().await.unwrap();
        request.reaches(Phase::Active).await;
        // when
        w.stack.edit_in_etcd(&request.namespace, &request.name, |object| object["status"] = nonsense.clone()).await;
        // then: it is put right, or the access is over, and gone on time in any case
        w.until(&format!("{nonsense} gives nothing"), async || !w.keycloak.has(&alice.user, &role).await).await;
        w.until("told", async || told(&request) > 0).await;
        w.clean_up().await;
    }
}

#[tokio::test]
async fn what_the_api_server_does_not_take_back_ends_the_access() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let victim = w.person("victim").await;
    let (role, policy) = lent(&w, &alice).await;
    let had = w.keycloak.realm_role("had").await;
    w.keycloak.map(&alice.user, &had).await;
    w.keycloak.map(&victim.user, &role).await;
    let both = w.policy("both").realm_role("admin", &role.name).realm_role("had", &had.name).requester(&alice);
    let both = both.automatic().ready().await;
    let target = json!({"name": "more", "type": "RealmRole", "id": had.id, "display": had.name, "preExisting": false, "state": "Mapped"});
    for (what, phase, edit) in [
        ("an earlier deadline", Phase::Revoked, json!({"grant": {"deadline": "2001-01-01T00:00:00Z"}})),
        ("one more target", Phase::Revoked, json!({"grant": {"more": target}})),
        ("a final phase", Phase::Expired, json!({"phase": "Expired"})),
        ("another final phase", Phase::Denied, json!({"phase": "Denied", "grant": null})),
    ] {
        let request = alice.asks(&both).create().await.unwrap();
        request.reaches(Phase::Active).await;
        // when
        forge(&w, &request, |status| {
            if let Some(deadline) = edit["grant"].get("deadline") {
                status["grant"]["deadline"] = deadline.clone();
            }
            if let Some(target) = edit["grant"].get("more") {
                status["grant"]["targets"].as_array_mut().unwrap().push(target.clone());
            }
            if edit.get("grant").is_some_and(Value::is_null) {
                status.as_object_mut().unwrap().remove("grant");
            }
            if let Some(phase) = edit.get("phase") {
                status["phase"] = phase.clone();
            }
            status["subject"]["userId"] = json!(victim.user.id);
        })
        .await;
        // then
        let words = is_done_with(&w, &request, phase).await;
        assert!(words.contains(&format!("taken away from {}: {}", alice.user.username, role.name)), "{what}: {words}");
        assert!(!w.keycloak.has(&alice.user, &role).await, "{what}");
        assert!(w.keycloak.has(&alice.user, &had).await, "{what}: she had it before, and that is remembered");
        assert!(w.keycloak.has(&victim.user, &role).await, "{what}");
        assert_eq!(request.status().await.subject.unwrap().user_id, alice.user.id, "{what}");
    }
    // The same with one that waits: nothing was given.
    let staged = w.policy("staged").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&victim]);
    let waiting = alice.asks(&staged.ready().await).create().await.unwrap();
    waiting.ballot().await;
    let live = alice.asks(&policy).create().await.unwrap();
    let mut status = serde_json::to_value(live.reaches(Phase::Active).await).unwrap();
    status["subject"]["userId"] = json!(victim.user.id);
    forge(&w, &waiting, |found| *found = status).await;
    let words = is_done_with(&w, &waiting, Phase::Revoked).await;
    assert!(words.contains("nothing had to be taken away"), "{words}");
    assert!(w.keycloak.has(&victim.user, &role).await);
    live.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await, "by the other request");
    w.clean_up().await;
}

#[tokio::test]
async fn what_was_edited_while_the_operator_was_stopped_is_taken_away() {
    // given
    let w = World::alone().await;
    let (alice, victim) = (w.person("alice").await, w.person("victim").await);
    let (role, policy) = lent(&w, &alice).await;
    let other = w.keycloak.realm_role("other").await;
    let others = w.policy("other").realm_role("other", &other.name).requester(&alice).automatic().ready().await;
    let third = w.keycloak.realm_role("third").await;
    let staged = w.policy("staged").realm_role("third", &third.name).requester(&alice).stage("lead", 1, [&victim]);
    w.keycloak.map(&victim.user, &role).await;
    w.keycloak.map(&victim.user, &third).await;
    let longer = alice.asks(&policy).create().await.unwrap();
    let over = alice.asks(&others).create().await.unwrap();
    let waiting = alice.asks(&staged.ready().await).create().await.unwrap();
    let wiped = w.person("wiped").await;
    let fourth = w.keycloak.realm_role("fourth").await;
    let free = w.policy("fourth").realm_role("fourth", &fourth.name).requester(&wiped).automatic().ready().await;
    let blank = wiped.asks(&free).create().await.unwrap();
    let active = longer.reaches(Phase::Active).await;
    over.reaches(Phase::Active).await;
    blank.reaches(Phase::Active).await;
    waiting.ballot().await;
    // when
    w.operator("stop").await;
    forge(&w, &longer, |status| status["grant"]["deadline"] = json!((Timestamp::now() + 99.hours()).to_string())).await;
    forge(&w, &over, |status| status["phase"] = json!("Expired")).await;
    forge(&w, &blank, |status| *status = json!({"observedGeneration": -1})).await;
    forge(&w, &waiting, |status| {
        let mut forged = serde_json::to_value(&active).unwrap();
        forged["subject"]["userId"] = json!(victim.user.id);
        forged["grant"]["targets"][0]["id"] = json!(third.id);
        *status = forged;
    })
    .await;
    w.operator("start").await;
    // then
    let words = is_done_with(&w, &longer, Phase::Revoked).await;
    assert!(words.contains(&format!("taken away from {}: {}", alice.user.username, role.name)), "{words}");
    is_done_with(&w, &over, Phase::Expired).await;
    is_done_with(&w, &waiting, Phase::Revoked).await;
    is_done_with(&w, &blank, Phase::Revoked).await;
    for (person, role) in [(&alice, &role), (&alice, &other), (&alice, &third), (&wiped, &fourth)] {
        assert!(!w.keycloak.has(&person.user, role).await, "{}", role.name);
    }
    for role in [&role, &third] {
        assert!(w.keycloak.has(&victim.user, role).await, "{}", role.name);
    }
    for request in [&longer, &over, &waiting, &blank] {
        assert_eq!(told(request), 1);
    }
    // and it is done once
    w.keycloak.map(&alice.user, &other).await;
    w.operator("restart").await;
    let again = alice.asks(&policy).create().await.unwrap();
    again.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &other).await);
    assert_eq!(told(&over), 1);
    w.clean_up().await;
}

#[tokio::test]
async fn while_keycloak_is_away_it_is_tried_again_until_it_is_taken_away() {
    // given
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let (role, policy) = lent(&w, &alice).await;
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    w.operator("stop").await;
    forge(&w, &request, |status| status["phase"] = json!("Expired")).await;
    // when
    let hanging = w.hang("keycloak");
    let meanwhile = async {
        let says =
            |line: &Value| line["error"].as_str().is_some_and(|error| error.contains("cannot be taken away yet"));
        w.until("the operator says so", async || w.stack.log(&request.name).iter().any(says)).await;
        assert_eq!(request.get().await.metadata.finalizers.unwrap_or_default().len(), 1);
        assert_ne!(condition(&request.status().await, "Ready").reason, "StatusForged");
        drop(hanging);
    };
    tokio::join!(w.operator("start"), meanwhile);
    // then
    let words = is_done_with(&w, &request, Phase::Expired).await;
    assert!(words.contains(&format!("taken away from {}: {}", alice.user.username, role.name)), "{words}");
    assert!(!w.keycloak.has(&alice.user, &role).await);
    assert_eq!(told(&request), 1);
    w.clean_up().await;
}

#[tokio::test]
async fn what_names_nothing_is_said() {
    // given
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let (role, policy) = lent(&w, &alice).await;
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    // when
    w.operator("stop").await;
    forge(&w, &request, |status| status["approvedBy"] = json!("oidc:mallory")).await;
    policy.delete().await;
    w.operator("start").await;
    // then
    let words = is_done_with(&w, &request, Phase::Revoked).await;
    let expected = format!("nothing was taken away: what it gave cannot be told, for policy {} is gone", policy.name);
    assert!(words.contains(&expected), "{words}");
    assert!(w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn votes_that_are_written_into_status_do_not_count() {
    // given
    let w = World::alone().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let request = alice.asks(&policy.ready().await).create().await.unwrap();
    let ballot = request.ballot().await;
    // when
    let away = w.weaken(&["delete", "validatingadmissionpolicybindings", "hallpass-identity"]);
    let vote = json!({
        "stage": "lead", "decision": "Approve", "by": bob.username, "userId": bob.user.id, "at": Timestamp::now(),
        "key": format!("approve.hallpass.dev/{ballot}.lead.forged"), "counted": true,
    });
    let forged = json!({"status": {"phase": "Approved", "approvedBy": bob.username, "votes": [vote]}});
    w.until("the admission policies let it through", async || {
        let api = request.api(w.admin.clone());
        api.patch_status(&request.name, &PatchParams::default(), &Patch::Merge(&forged)).await.is_ok()
    })
    .await;
    // then
    let put_right = |status: &AccessRequestStatus| status.votes.is_empty() && status.phase == Some(Phase::Pending);
    let status = becomes(&w, &request, "put right", put_right).await;
    assert_eq!(status.approved_by, None);
    away.mended(&w).await;
    let status = request.until("another ballot", |status| status.ballot.as_ref() != Some(&ballot)).await;
    assert!(status.votes.is_empty() && status.approved_by.is_none());
    assert!(!w.keycloak.has(&alice.user, &role).await);
    assert_eq!(told(&request), 1);
    bob.approves(&request, "lead").await.unwrap();
    request.reaches(Phase::Active).await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_sealed_status_of_another_request_fits_no_other() {
    // given
    let w = World::alone().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let (role, policy) = lent(&w, &alice).await;
    let staged = w.policy("staged").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let live = alice.asks(&policy).create().await.unwrap();
    let status = serde_json::to_value(live.reaches(Phase::Active).await).unwrap();
    let waiting = alice.asks(&staged.ready().await).create().await.unwrap();
    waiting.ballot().await;
    // when
    w.operator("stop").await;
    forge(&w, &waiting, |found| *found = status).await;
    w.operator("start").await;
    // then
    let words = is_done_with(&w, &waiting, Phase::Revoked).await;
    assert!(words.contains("does not carry the operator's finalizer, so it holds nothing"), "{words}");
    live.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await, "the other request holds it");
    alice.ends(&live).await.unwrap();
    live.reaches(Phase::Revoked).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn an_older_status_that_is_put_back_is_noticed() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let (role, policy) = lent(&w, &alice).await;
    let request = alice.asks(&policy).create().await.unwrap();
    let older = serde_json::to_value(request.reaches(Phase::Active).await).unwrap();
    alice.ends(&request).await.unwrap();
    let ended = request.reaches(Phase::Revoked).await;
    // when
    forge(&w, &request, |status| *status = older).await;
    // then
    becomes(&w, &request, "put right", |status| status.phase == Some(Phase::Revoked) && status.seal == ended.seal)
        .await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    assert_eq!(told(&request), 1);
    w.clean_up().await;
}

/// It would look as if access was given, and would be taken away from whomever it names.
#[tokio::test]
async fn nobody_makes_a_request_with_the_operator_s_finalizer() {
    let w = World::new().await;
    let alice = w.person("alice").await;
    let mut manifest = alice.asks_under("not-there").manifest();
    for (finalizers, refused) in [(json!(["example.com/mine"]), false), (json!([FINALIZER]), true)] {
        // when
        manifest["metadata"]["finalizers"] = finalizers;
        let request: AccessRequest = serde_json::from_value(manifest.clone()).unwrap();
        let params = PostParams { dry_run: true, ..PostParams::default() };
        for client in [&alice.client().await, &w.admin] {
            let api: Api<AccessRequest> = Api::namespaced(client.clone(), &w.namespace);
            let answer = api.create(&params, &request).await.map_err(|error| error.to_string());
            // then
            let words = answer.err().unwrap_or_default();
            assert_eq!(words.contains("a new AccessRequest cannot carry the operator's finalizer"), refused, "{words}");
        }
    }
    w.clean_up().await;
}

fn secrets(w: &World) -> Api<Secret> {
    Api::namespaced(w.admin.clone(), "hallpass-system")
}

async fn keys(w: &World) -> BTreeMap<String, ByteString> {
    secrets(w).get("hallpass-seal").await.expect("the Secret").data.unwrap_or_default()
}

async fn key_of(request: &Request) -> Option<String> {
    let seal = request.status().await.seal?;
    seal::key_id(&seal).map(ToOwned::to_owned)
}

/// Has it that a request ended so long ago that nothing is to be done about it any more.
async fn has_been_over_for_long(w: &World, request: &Request) {
    let mut sealing = Keys::default();
    for (id, ByteString(bytes)) in keys(w).await {
        sealing.add(&id, &bytes).expect("a key");
    }
    let long_ago = Time(Timestamp::now() - 1.hours());
    w.stack
        .edit_in_etcd(&request.namespace, &request.name, |object| {
            let mut status: AccessRequestStatus = serde_json::from_value(object["status"].take()).expect("a status");
            let grant = status.grant.as_mut().expect("a grant");
            (grant.deadline, grant.ended_at) = (long_ago.clone(), Some(long_ago.clone()));
            status.seal = None;
            status.seal = sealing.seal(object["metadata"]["uid"].as_str().expect("a UID"), &status);
            object["status"] = serde_json::to_value(status).expect("JSON");
        })
        .await;
}

#[tokio::test]
async fn keys_can_be_changed_without_losing_anything() {
    // given
    let w = World::alone().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let (role, policy) = lent(&w, &alice).await;
    let staged = w.policy("staged").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let waiting = alice.asks(&staged.ready().await).create().await.unwrap();
    let over = alice.asks(&policy).create().await.unwrap();
    over.reaches(Phase::Active).await;
    alice.ends(&over).await.unwrap();
    over.reaches(Phase::Revoked).await;
    let long_over = alice.asks(&policy).create().await.unwrap();
    long_over.reaches(Phase::Active).await;
    alice.ends(&long_over).await.unwrap();
    long_over.reaches(Phase::Revoked).await;
    w.operator("stop").await;
    has_been_over_for_long(&w, &long_over).await;
    w.operator("start").await;
    let live = alice.asks(&policy).create().await.unwrap();
    let before = live.reaches(Phase::Active).await;
    waiting.ballot().await;
    let all = [&waiting, &over, &long_over, &live];
    let old = keys(&w).await;
    let newest = format!("key-{}", Timestamp::now().as_second());
    // when
    let key: String = (0..48).map(|i: u8| char::from(b'!' + i)).collect();
    let patch = json!({"stringData": { newest.as_str(): key }});
    secrets(&w).patch("hallpass-seal", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a new key");
    // then
    for request in all {
        w.until("sealed with the new key", async || key_of(request).await.as_ref() == Some(&newest)).await;
    }
    let removable = "no status carries an older key any more; older keys can be removed";
    w.until("the operator says so", async || w.stack.log(removable).iter().any(|line| line["key"] == json!(newest)))
        .await;
    let metrics = w.stack.ask_operator("/metrics").await.unwrap().1;
    assert!(metrics.contains("hallpass_seals_with_older_key 0\n"), "{metrics}");
    // when the older ones are removed
    let without: BTreeMap<_, _> = old.keys().map(|id| (id.clone(), Value::Null)).collect();
    let patch = json!({"data": without});
    secrets(&w).patch("hallpass-seal", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("removed");
    w.operator("restart").await;
    // then
    bob.approves(&waiting, "lead").await.unwrap();
    waiting.reaches(Phase::Active).await;
    let after = live.status().await;
    assert_eq!((after.phase, &after.grant), (Some(Phase::Active), &before.grant));
    assert_eq!(over.status().await.phase, Some(Phase::Revoked));
    assert_eq!(all.map(told), [0; 4]);
    for request in [&waiting, &live] {
        alice.ends(request).await.unwrap();
        request.reaches(Phase::Revoked).await;
    }
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_secret_that_is_deleted_or_damaged_while_the_operator_runs_costs_nothing() {
    // given
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let (role, policy) = lent(&w, &alice).await;
    let live = alice.asks(&policy).create().await.unwrap();
    live.reaches(Phase::Active).await;
    let before = keys(&w).await;
    // when
    secrets(&w).delete("hallpass-seal", &DeleteParams::default()).await.expect("deleted");
    // then
    w.until("it is made again", async || secrets(&w).get_opt("hallpass-seal").await.is_ok_and(|found| found.is_some()))
        .await;
    assert_eq!(keys(&w).await, before);
    // when a key is changed in place
    let damaged: BTreeMap<_, _> = before.keys().map(|id| (id.clone(), ByteString(vec![7; 32]))).collect();
    let patch = json!({"data": damaged});
    secrets(&w).patch("hallpass-seal", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("changed");
    w.until("the operator says so", async || {
        w.stack.log("has changed, the known one stays").iter().any(|line| line["level"] == "ERROR")
    })
    .await;
    let other = alice.asks(&policy).create().await.unwrap();
    other.reaches(Phase::Active).await;
    let patch = json!({"data": before});
    secrets(&w).patch("hallpass-seal", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("put right");
    w.operator("restart").await;
    // then
    for request in [&live, &other] {
        alice.ends(request).await.unwrap();
        request.reaches(Phase::Revoked).await;
        assert_eq!(condition(&request.status().await, "Ready").reason, "Ended");
        assert_eq!(told(request), 0);
    }
    assert!(!w.keycloak.has(&alice.user, &role).await);
    for ByteString(key) in before.values() {
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(w.stack.log(&hex).is_empty());
    }
    w.clean_up().await;
}
