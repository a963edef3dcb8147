//! Asking a user for required actions: nothing of anybody else's is lost, and nothing but the list is ever written.

use std::collections::BTreeSet;

use hallpass::keycloak::{Error, Kind};
use serde_json::json;

use crate::peer::{Peer, answer, answer_json};

const USER: &str = "/users/u1";

async fn ask(peer: &Peer) -> Result<(), Error> {
    let outcome = peer.client().ask_for_actions("u1", &BTreeSet::from(["CONFIGURE_TOTP".to_owned()])).await;
    for (place, body) in peer.sent("PUT").await {
        assert_eq!(place, USER);
        // Attributes would take the place of all that the user has, names and address included.
        assert!(body.starts_with(r#"{"requiredActions":["#) && body.ends_with("]}"), "{body}");
    }
    outcome
}

fn user(actions: &[&str]) -> wiremock::ResponseTemplate {
    answer_json(json!({"id": "u1", "username": "alice", "requiredActions": actions, "attributes": {"team": ["a"]}}))
}

#[tokio::test]
async fn what_is_there_already_is_sent_along() {
    let peer = Peer::start().await;
    peer.once("GET", USER, user(&["theirs", "UPDATE_PASSWORD"])).await;
    peer.always("PUT", USER, answer(204)).await;
    peer.always("GET", USER, user(&["theirs", "UPDATE_PASSWORD", "CONFIGURE_TOTP"])).await;
    ask(&peer).await.expect("asked");
    let sent = r#"{"requiredActions":["CONFIGURE_TOTP","UPDATE_PASSWORD","theirs"]}"#;
    assert_eq!(peer.sent("PUT").await, [(USER.to_owned(), sent.to_owned())]);
}

#[tokio::test]
async fn nothing_is_written_that_is_there() {
    let peer = Peer::start().await;
    peer.always("GET", USER, user(&["CONFIGURE_TOTP"])).await;
    ask(&peer).await.expect("asked");
    assert!(peer.sent("PUT").await.is_empty());
}

#[tokio::test]
async fn a_204_is_no_proof() {
    let peer = Peer::start().await;
    peer.always("GET", USER, user(&[])).await;
    peer.always("PUT", USER, answer(204)).await;
    let error = ask(&peer).await.expect_err("dropped silently");
    assert_eq!((error.kind(), error.detail()), (Kind::Rejected, "Keycloak answered 204 and dropped CONFIGURE_TOTP"));
}

#[tokio::test]
async fn a_refusal_names_the_field() {
    let peer = Peer::start().await;
    peer.always("GET", USER, user(&[])).await;
    let complaint = json!({"errorMessage": "error-invalid-length", "field": "lastName"});
    peer.always("PUT", USER, answer(400).set_body_json(complaint)).await;
    let error = ask(&peer).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Rejected);
    assert!(error.to_string().contains("error-invalid-length (field lastName)"), "{error}");
}
