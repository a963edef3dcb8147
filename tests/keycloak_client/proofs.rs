//! Taking away: what proves that a mapping is gone, and what does not.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hallpass::keycloak::{Client, Error, Gate, Kind, Options, Removal, Target, Write};
use serde_json::json;

use crate::peer::{Peer, REALM_ID, answer, answer_json, missing};

const ROLE_PATH: &str = "/users/u1/role-mappings/realm";
const CLIENT_ROLE_PATH: &str = "/users/u1/role-mappings/clients/c1";

fn role() -> Target {
    Target::RealmRole { id: "r1".into(), name: "old".into() }
}

fn client_role() -> Target {
    Target::ClientRole { client: "c1".into(), id: "r1".into(), name: "old".into() }
}

fn group() -> Target {
    Target::Group { id: "g1".into(), name: "/a".into() }
}

async fn unmap(peer: &Peer, target: &Target) -> Result<Removal, Error> {
    let outcome = peer.client().unmap("u1", target, REALM_ID).await;
    for (place, body) in peer.sent("DELETE").await {
        let is_group = place == "/users/u1/groups/g1";
        let names_one_role =
            body.starts_with(r#"[{"id":"r1","name":""#) && body.len() > r#"[{"id":"r1","name":""}]"#.len();
        assert!(is_group || names_one_role, "a DELETE of {place} with the body {body:?} would remove every role");
    }
    outcome
}

#[tokio::test]
async fn a_204_is_a_proof() {
    for (target, place) in [(role(), ROLE_PATH), (client_role(), CLIENT_ROLE_PATH)] {
        let peer = Peer::start().await;
        peer.always("DELETE", place, answer(204)).await;
        assert_eq!(unmap(&peer, &target).await.expect("proof"), Removal::Removed);
        assert_eq!(peer.sent("DELETE").await, [(place.to_owned(), r#"[{"id":"r1","name":"old"}]"#.to_owned())]);
    }
}

/// Lets only what takes through, and only so often.
struct Closing(AtomicUsize);

impl Gate for Closing {
    fn may_send(&self, write: Write) -> Result<(), String> {
        let left = |left: usize| left.checked_sub(1);
        let open = write == Write::Take && self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, left).is_ok();
        if open { Ok(()) } else { Err("somebody else may lead".into()) }
    }
}

#[tokio::test]
async fn who_may_not_write_sends_nothing_and_is_asked_again_before_each_write() {
    let peer = Peer::start().await;
    peer.always("POST", ROLE_PATH, answer(204)).await;
    peer.always("DELETE", ROLE_PATH, missing("Role not found")).await;
    peer.always("GET", "/roles-by-id/r1", answer_json(json!({"id": "r1", "name": "new"}))).await;
    let options = Options { gate: Arc::new(Closing(AtomicUsize::new(1))), ..Options::default() };
    let client = Client::with(&peer.realm(), options).expect("valid configuration");
    let error = client.map("u1", &role()).await.expect_err("it gives");
    assert_eq!((error.kind(), error.detail()), (Kind::NotSent, "not sent: somebody else may lead"));
    assert!(peer.sent("POST").await.is_empty());
    // It was renamed: the first write is let through, the second is not.
    let error = client.unmap("u1", &role(), REALM_ID).await.expect_err("the gate is closed");
    assert_eq!((error.kind(), error.outcome_unknown()), (Kind::NotSent, false));
    assert_eq!(peer.sent("DELETE").await.len(), 1);
}

#[tokio::test]
async fn a_renamed_role_is_taken_away_under_its_present_name() {
    let peer = Peer::start().await;
    peer.once("DELETE", ROLE_PATH, missing("Role not found")).await;
    peer.always("GET", "/roles-by-id/r1", answer_json(json!({"id": "r1", "name": "new/name"}))).await;
    peer.always("DELETE", ROLE_PATH, answer(204)).await;
    assert_eq!(unmap(&peer, &role()).await.expect("proof"), Removal::Removed);
    assert_eq!(peer.sent("DELETE").await[1].1, r#"[{"id":"r1","name":"new/name"}]"#);
}

#[tokio::test]
async fn a_role_that_is_gone_from_the_pinned_realm_took_its_mappings_along() {
    for (target, place) in [(role(), ROLE_PATH), (client_role(), CLIENT_ROLE_PATH)] {
        let peer = Peer::start().await;
        peer.always("DELETE", place, missing("Role not found")).await;
        peer.always("GET", "/roles-by-id/r1", missing("Could not find role with id")).await;
        peer.realm_is(REALM_ID).await;
        assert_eq!(unmap(&peer, &target).await.expect("proof"), Removal::TargetGone);
    }
}

#[tokio::test]
async fn a_user_who_is_gone_from_the_pinned_realm_has_no_mappings() {
    let peer = Peer::start().await;
    peer.always("DELETE", ROLE_PATH, missing("User not found")).await;
    peer.always("GET", "/roles-by-id/r1", answer_json(json!({"id": "r1", "name": "old"}))).await;
    peer.always("GET", "/users/u1", missing("User not found")).await;
    peer.realm_is(REALM_ID).await;
    assert_eq!(unmap(&peer, &role()).await.expect("proof"), Removal::UserGone);
}

#[tokio::test]
async fn what_is_missing_proves_nothing_unless_the_pinned_realm_answers() {
    let realm = |id: &str| answer_json(json!({"id": id, "accessTokenLifespan": 60}));
    for (realm, kind) in [
        (realm("another-id"), Kind::OtherRealm),
        (missing("Realm not found."), Kind::NotFound),
        (answer_json(json!({"realm": "acme"})), Kind::Forbidden),
        (answer(503), Kind::Throttled),
        (answer(200).set_body_string("<html>"), Kind::Malformed),
    ] {
        for role_is_gone in [true, false] {
            let peer = Peer::start().await;
            peer.always("DELETE", ROLE_PATH, missing("not found")).await;
            let found = answer_json(json!({"id": "r1", "name": "old"}));
            let role_answer = if role_is_gone { missing("Could not find role with id") } else { found };
            peer.always("GET", "/roles-by-id/r1", role_answer).await;
            peer.always("GET", "/users/u1", missing("User not found")).await;
            peer.always("GET", "", realm.clone()).await;
            let error = unmap(&peer, &role()).await.expect_err("no proof");
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}

#[tokio::test]
async fn a_404_while_everything_is_there_proves_nothing() {
    let peer = Peer::start().await;
    peer.always("DELETE", ROLE_PATH, missing("Role not found")).await;
    peer.always("GET", "/roles-by-id/r1", answer_json(json!({"id": "r1", "name": "old"}))).await;
    let user = json!({"id": "u1", "username": "alice", "enabled": true});
    peer.always("GET", "/users/u1", answer_json(user)).await;
    peer.realm_is(REALM_ID).await;
    let error = unmap(&peer, &role()).await.expect_err("no proof");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("although the user and the role or group are there"), "{error}");
}

#[tokio::test]
async fn a_404_that_is_not_keycloaks_own_proves_nothing() {
    for response in [answer(404), answer(404).set_body_string("<html>"), missing("HTTP 404 Not Found")] {
        let peer = Peer::start().await;
        peer.always("DELETE", ROLE_PATH, missing("Role not found")).await;
        peer.always("GET", "/roles-by-id/r1", response).await;
        peer.realm_is(REALM_ID).await;
        let error = unmap(&peer, &role()).await.expect_err("no proof");
        assert_eq!(error.kind(), Kind::Malformed, "{error}");
    }
}

#[tokio::test]
async fn no_other_answer_to_a_removal_is_a_proof() {
    for status in [200, 201, 202, 302, 400, 401, 403, 405, 409, 429, 500, 502, 503, 504] {
        let peer = Peer::start().await;
        peer.always("DELETE", ROLE_PATH, answer(status).set_body_json(json!({"error": "x"}))).await;
        // The role is absent from the list, and that does not help.
        peer.always("GET", ROLE_PATH, answer_json(json!([]))).await;
        peer.always("GET", "/roles-by-id/r1", missing("Could not find role with id")).await;
        peer.realm_is(REALM_ID).await;
        unmap(&peer, &role()).await.expect_err(&format!("{status} is no proof"));
    }
}

#[tokio::test]
async fn a_role_without_id_or_name_is_never_sent() {
    let peer = Peer::start().await;
    let nameless = Target::RealmRole { id: "r1".into(), name: String::new() };
    let without_id = Target::RealmRole { id: String::new(), name: "old".into() };
    let without_client = Target::ClientRole { client: String::new(), id: "r1".into(), name: "old".into() };
    let without_group = Target::Group { id: String::new(), name: "/a".into() };
    let client = peer.client();
    for target in [nameless, without_id, without_client, without_group] {
        assert_eq!(client.unmap("u1", &target, REALM_ID).await.expect_err("refused").kind(), Kind::InvalidInput);
        assert_eq!(client.map("u1", &target).await.expect_err("refused").kind(), Kind::InvalidInput);
    }
    for user in ["", ".", ".."] {
        assert_eq!(client.unmap(user, &role(), REALM_ID).await.expect_err("refused").kind(), Kind::InvalidInput);
    }
    assert!(peer.requests().await.is_empty(), "nothing was sent");
}

#[tokio::test]
async fn a_membership_is_gone_when_keycloak_removed_it_and_does_not_list_it() {
    let peer = Peer::start().await;
    peer.always("DELETE", "/users/u1/groups/g1", answer(204)).await;
    let child = json!({"id": "g2", "path": "/a/b", "name": "b"});
    peer.once("GET", "/users/u1/groups", answer_json(json!([child]))).await;
    assert_eq!(unmap(&peer, &group()).await.expect("proof"), Removal::Removed);

    let itself = json!({"id": "g1", "path": "/a", "name": "a"});
    peer.always("GET", "/users/u1/groups", answer_json(json!([itself]))).await;
    let error = unmap(&peer, &group()).await.expect_err("no proof");
    assert!(error.to_string().contains("still in the group"), "{error}");
}

#[tokio::test]
async fn a_group_that_is_gone_took_its_memberships_along() {
    let peer = Peer::start().await;
    peer.always("DELETE", "/users/u1/groups/g1", missing("Group not found")).await;
    peer.always("GET", "/groups/g1", missing("Could not find group by id")).await;
    peer.realm_is(REALM_ID).await;
    assert_eq!(unmap(&peer, &group()).await.expect("proof"), Removal::TargetGone);
}

#[tokio::test]
async fn a_refused_mapping_that_is_there_all_the_same_is_in_place() {
    for status in [400, 409, 500] {
        let peer = Peer::start().await;
        peer.always("POST", ROLE_PATH, answer(status).set_body_json(json!({"error": "x"}))).await;
        peer.always("GET", ROLE_PATH, answer_json(json!([{"id": "r1", "name": "old"}]))).await;
        peer.client().map("u1", &role()).await.expect("it is there");
    }
    // The answer came from something before Keycloak: the write may still be on its way, so nothing is concluded.
    let peer = Peer::start().await;
    peer.always("POST", ROLE_PATH, answer(504)).await;
    peer.always("GET", ROLE_PATH, answer_json(json!([{"id": "r1", "name": "old"}]))).await;
    assert!(peer.client().map("u1", &role()).await.expect_err("unknown").outcome_unknown());
}

#[tokio::test]
async fn a_renamed_role_is_mapped_under_its_present_name_once() {
    let peer = Peer::start().await;
    peer.always("POST", ROLE_PATH, missing("Role not found")).await;
    peer.always("GET", "/roles-by-id/r1", answer_json(json!({"id": "r1", "name": "new"}))).await;
    assert_eq!(peer.client().map("u1", &role()).await.expect_err("still 404").kind(), Kind::NotFound);
    let bodies: Vec<_> = peer.sent("POST").await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, [r#"[{"id":"r1","name":"old"}]"#, r#"[{"id":"r1","name":"new"}]"#]);
}
