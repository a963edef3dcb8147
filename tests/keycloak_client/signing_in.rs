//! The token: asked for once, renewed in time and after a 401, and never shown.

use std::{fs, time::Duration};

use hallpass::keycloak::{Client, Kind, Target};
use serde_json::json;
use wiremock::{
    Mock, ResponseTemplate,
    matchers::{method, path},
};

use crate::peer::{Peer, REALM_ID, SECRET, TOKEN, TOKEN_PATH, answer, answer_json, realm, token_answer};

async fn sign_in_answers(peer: &Peer, response: ResponseTemplate, times: u64) {
    let mock = Mock::given(method("POST")).and(path(TOKEN_PATH)).respond_with(response);
    mock.up_to_n_times(times).mount(&peer.server).await;
}

async fn all_at_once(client: &Client, count: usize) -> Vec<Result<(), String>> {
    let calls = (0..count).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.realm().await.map(drop).map_err(|error| error.to_string()) })
    });
    let mut outcomes = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        outcomes.push(call.await.expect("joined"));
    }
    outcomes
}

#[tokio::test]
async fn twenty_calls_at_once_sign_in_once() {
    let peer = Peer::without_sign_in().await;
    sign_in_answers(&peer, token_answer().set_delay(Duration::from_millis(100)), 100).await;
    peer.realm_is(REALM_ID).await;
    let outcomes = all_at_once(&peer.client(), 20).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(peer.sign_ins().await, 1);
}

#[tokio::test]
async fn those_who_waited_for_a_failed_sign_in_share_its_failure() {
    let peer = Peer::without_sign_in().await;
    let wrong = answer(401).set_body_json(
        json!({"error": "unauthorized_client", "error_description": "Invalid client or Invalid client credentials"}),
    );
    sign_in_answers(&peer, wrong.set_delay(Duration::from_millis(200)), 100).await;
    let outcomes = all_at_once(&peer.client(), 8).await;
    for outcome in outcomes {
        let text = outcome.expect_err("must fail");
        let start =
            format!("cannot sign in to {} realm acme as client hallpass: 401 unauthorized_client", peer.server.uri());
        assert!(text.starts_with(&start) && text.ends_with("(is the client secret right?)"), "{text}");
    }
    assert_eq!(peer.sign_ins().await, 1);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_call_repeated() {
    let peer = Peer::start().await;
    peer.once("POST", "/users/u1/role-mappings/realm", answer(401)).await;
    peer.always("POST", "/users/u1/role-mappings/realm", answer(204)).await;
    let client = peer.client();
    let role = Target::RealmRole { id: "r1".into(), name: "admin".into() };
    client.map("u1", &role).await.expect("repeated");
    let bodies = peer.sent("POST").await;
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0], bodies[1], "the repetition carries its body");
    assert_eq!(peer.sign_ins().await, 2);
}

#[tokio::test]
async fn a_token_that_is_refused_twice_is_an_error_after_one_renewal() {
    let peer = Peer::start().await;
    peer.always("GET", "", answer(401).set_body_json(json!({"error": "HTTP 401 Unauthorized"}))).await;
    let error = peer.client().realm().await.expect_err("must fail");
    assert_eq!(error.kind(), Kind::Unauthorized, "{error}");
    assert_eq!(peer.sign_ins().await, 2);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let peer = Peer::without_sign_in().await;
    sign_in_answers(&peer, answer_json(json!({"access_token": TOKEN, "expires_in": 4})), 100).await;
    peer.realm_is(REALM_ID).await;
    let client = peer.client();
    client.realm().await.expect("answer");
    client.realm().await.expect("answer");
    assert_eq!(peer.sign_ins().await, 1);
    // Time is the subject here: three quarters of the token's life.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    client.realm().await.expect("answer");
    assert_eq!(peer.sign_ins().await, 2);
}

#[tokio::test]
async fn a_rotated_secret_needs_no_restart() {
    let peer = Peer::start().await;
    let realm = answer_json(json!({"id": REALM_ID, "accessTokenLifespan": 60}));
    peer.once("GET", "", realm.clone()).await;
    peer.once("GET", "", answer(401)).await;
    peer.always("GET", "", realm).await;
    let client = peer.client();
    client.realm().await.expect("answer");
    fs::write(&peer.secret_file, "second & more").expect("write");
    client.realm().await.expect("answer");
    let requests = peer.requests().await;
    let forms = requests.iter().filter(|request| request.url.path() == TOKEN_PATH);
    let forms: Vec<_> = forms.map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect();
    let form = |secret: &str| format!("grant_type=client_credentials&client_id=hallpass&client_secret={secret}");
    assert_eq!(forms, [form(SECRET), form("second+%26+more")]);
}

/// A realm that is not there must not read as a user, role or mapping that is not there.
#[tokio::test]
async fn a_sign_in_that_is_not_found_is_not_somebody_who_is_not_found() {
    let peer = Peer::without_sign_in().await;
    sign_in_answers(&peer, answer(404).set_body_json(json!({"error": "Realm does not exist"})), 100).await;
    let client = peer.client();
    let error = client.user("u1").await.expect_err("must fail");
    assert_eq!(error.kind(), Kind::Unauthorized, "{error}");
    assert!(error.to_string().contains("Realm does not exist (is the realm's name right?)"), "{error}");
    let role = Target::RealmRole { id: "r1".into(), name: "admin".into() };
    client.unmap("u1", &role, REALM_ID).await.expect_err("no proof");
}

#[tokio::test]
async fn each_failure_to_sign_in_has_its_kind() {
    for (response, kind, words) in [
        (answer(503).insert_header("Retry-After", "9"), Kind::Throttled, "503"),
        (answer(500), Kind::Unavailable, "500"),
        (answer(404).set_body_string("<html>"), Kind::Malformed, "404 a web page"),
        (answer(302), Kind::Malformed, "302"),
        (answer_json(json!({"access_token": [TOKEN]})), Kind::Malformed, "not Keycloak's JSON"),
        (token_answer().set_delay(Duration::from_secs(5)), Kind::Unavailable, "no answer within 2s"),
    ] {
        let peer = Peer::without_sign_in().await;
        sign_in_answers(&peer, response, 100).await;
        let limits = hallpass::keycloak::Limits { write: Duration::from_secs(2), ..Default::default() };
        let options = hallpass::keycloak::Options { limits, ..Default::default() };
        let client = Client::with(&peer.realm(), options).expect("valid");
        let error = client.realm().await.expect_err("must fail");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error:?}").contains(TOKEN), "{error:?}");
    }
}

#[tokio::test]
async fn who_has_less_time_than_a_sign_in_is_told_which_server_took_it() {
    let peer = Peer::without_sign_in().await;
    sign_in_answers(&peer, token_answer().set_delay(Duration::from_secs(2)), 100).await;
    let limits = hallpass::keycloak::Limits { read: Duration::from_millis(100), ..Default::default() };
    let options = hallpass::keycloak::Options { limits, ..Default::default() };
    let client = Client::with(&peer.realm(), options).expect("valid");
    let error = client.user("u1").await.expect_err("must fail");
    assert_eq!(error.kind(), Kind::NotSent, "{error}");
    let words = format!("{}: no time left: signing in took too long", peer.server.uri());
    assert!(error.to_string().contains(&words), "{error}");
}

#[tokio::test]
async fn neither_the_secret_nor_the_token_is_ever_printed() {
    let peer = Peer::start().await;
    peer.always("GET", "", answer(500)).await;
    let client = peer.client();
    let error = client.realm().await.expect_err("must fail");
    let printed = format!("{client:?} {error} {error:?} {:?}", peer.realm());
    assert!(printed.contains("hallpass"), "{printed}");
    assert!(!printed.contains(SECRET) && !printed.contains(TOKEN), "{printed}");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let peer = Peer::start().await;
    for (file, words) in [("/nonexistent/secret", "no such file"), ("/dev/null", "is empty")] {
        let client = Client::new(&realm(&peer.server.uri(), file.into())).expect("read later");
        let error = client.realm().await.expect_err("must fail");
        assert_eq!(error.kind(), Kind::Config, "{error}");
        assert!(error.to_string().contains(file) && error.to_string().contains(words), "{error}");
    }
    for (file, words) in [("/nonexistent/ca", "no such file"), ("/dev/null", "no certificate")] {
        let mut realm = peer.realm();
        realm.ca_file = Some(file.into());
        let error = Client::new(&realm).expect_err("must fail");
        assert_eq!(error.kind(), Kind::Config, "{error}");
        assert!(error.to_string().contains(file) && error.to_string().contains(words), "{error}");
    }
}
