//! The Secret of the keys, against a scripted API server.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

use std::time::Instant;

use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

use super::*;

const SECRETS: &str = "/api/v1/namespaces/hallpass-system/secrets";

/// An API server that nothing was said to yet.
async fn api_server() -> (MockServer, Client) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = MockServer::start().await;
    let config = kube::Config::new(server.uri().parse().expect("a URL"));
    (server, Client::try_from(config).expect("a client"))
}

fn secret(data: &[(&str, u8)]) -> ResponseTemplate {
    let data: BTreeMap<_, _> = data.iter().map(|(id, byte)| (*id, ByteString(vec![*byte; KEY_BYTES]))).collect();
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": SECRET }, "data": data });
    ResponseTemplate::new(200).set_body_json(secret)
}

fn refusal(code: u16, reason: &str) -> ResponseTemplate {
    let status =
        json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "so it is" });
    ResponseTemplate::new(code).set_body_json(status)
}

/// Answers the next so many reads.
async fn reads(server: &MockServer, times: u64, answer: ResponseTemplate) {
    let read = Mock::given(method("GET")).and(path(format!("{SECRETS}/{SECRET}"))).respond_with(answer);
    read.up_to_n_times(times).mount(server).await;
}

/// Answers the next creation.
async fn creates(server: &MockServer, answer: ResponseTemplate) {
    Mock::given(method("POST")).and(path(SECRETS)).respond_with(answer).up_to_n_times(1).mount(server).await;
}

async fn open(client: &Client) -> Result<Keyring, KeyError> {
    Keyring::open(client.clone(), "hallpass-system").await
}

/// What was sent to be created, in order.
async fn created(server: &MockServer) -> Vec<Value> {
    let all = server.received_requests().await.expect("recorded");
    assert!(all.iter().all(|request| ["GET", "POST"].contains(&request.method.as_str())), "never overwritten");
    let created = all.iter().filter(|request| request.method.as_str() == "POST");
    created.map(|request| request.body_json().expect("JSON")).collect()
}

/// Answers with what was sent.
fn echo() -> impl wiremock::Respond {
    |request: &wiremock::Request| ResponseTemplate::new(201).set_body_json(request.body_json::<Value>().expect("JSON"))
}

#[tokio::test]
async fn the_secret_is_made_if_it_is_not_there_and_again_if_it_goes() {
    let (server, client) = api_server().await;
    reads(&server, 2, refusal(404, "NotFound")).await;
    Mock::given(method("POST")).and(path(SECRETS)).respond_with(echo()).mount(&server).await;
    let ring = open(&client).await.expect("a keyring");
    ring.keep().await.expect("made again");
    let made = created(&server).await;
    assert_eq!((made.len(), &made[0]), (2, &made[1]));
    let data = made[0]["data"].as_object().expect("data");
    let (id, key) = data.iter().next().expect("a key");
    assert_eq!((data.len(), ring.keys().newest()), (1, Some(id.as_str())));
    assert_eq!(key.as_str().map(str::len), Some(44), "32 bytes in base64");
    assert!(key.as_str().is_some_and(|key| !key.starts_with("AAAA")), "drawn");
}

#[tokio::test]
async fn a_secret_that_somebody_else_has_just_made_is_read() {
    let (server, client) = api_server().await;
    reads(&server, 1, refusal(404, "NotFound")).await;
    creates(&server, refusal(409, "AlreadyExists")).await;
    reads(&server, 1, secret(&[("theirs", 1)])).await;
    assert_eq!(open(&client).await.expect("a keyring").keys().ids(), ["theirs"]);
}

#[tokio::test]
async fn it_waits_for_an_api_server_in_trouble_and_not_for_a_right() {
    let (server, client) = api_server().await;
    reads(&server, 1, refusal(500, "InternalError")).await;
    reads(&server, 1, secret(&[("a", 1)])).await;
    let begin = Instant::now();
    assert_eq!(open(&client).await.expect("a keyring").keys().ids(), ["a"]);
    assert!(begin.elapsed() >= FIRST_WAIT);
    reads(&server, 1, refusal(403, "Forbidden")).await;
    let error = open(&client).await.err().expect("refused");
    assert_eq!(error.to_string(), "cannot read Secret hallpass-seal, which keeps the keys of the seals");
    reads(&server, 1, refusal(404, "NotFound")).await;
    creates(&server, refusal(403, "Forbidden")).await;
    let error = open(&client).await.err().expect("refused");
    assert_eq!(error.to_string(), "cannot create Secret hallpass-seal, which keeps the keys of the seals");
}

#[tokio::test]
async fn a_secret_without_a_key_is_not_overwritten() {
    let (server, client) = api_server().await;
    for (data, words) in [
        (json!({}), "has no usable key: restore it"),
        (json!({ "k1": "c2hvcnQ=" }), "(key \"k1\": a key has at least 32 random bytes)"),
        (json!({ "K.1": "c2hvcnQ=" }), "(key \"K.1\": an id has at most 32 lower-case letters, digits and dashes)"),
    ] {
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": SECRET }, "data": data });
        reads(&server, 1, ResponseTemplate::new(200).set_body_json(secret)).await;
        let error = open(&client).await.err().expect("refused").to_string();
        assert!(error.contains(words) && !error.contains("c2hvcnQ"), "{error}");
    }
    assert!(created(&server).await.is_empty());
}

#[tokio::test]
async fn keys_come_and_go_and_never_change() {
    let (server, client) = api_server().await;
    reads(&server, 1, secret(&[("a", 1)])).await;
    let ring = open(&client).await.expect("a keyring");
    let status = AccessRequestStatus::default();
    let sealed = |ring: &Keyring| AccessRequestStatus { seal: ring.keys().seal("u1", &status), ..status.clone() };
    let by_a = sealed(&ring);
    for (data, ids, newest, knows_a) in [
        (vec![("a", 1), ("b", 2)], vec!["a", "b"], "b", true),
        (vec![("a", 7), ("b", 2)], vec!["a", "b"], "b", true),
        (vec![("b", 2)], vec!["b"], "b", false),
        // Without any key the known ones stay.
        (vec![], vec!["b"], "b", false),
        (vec![("a", 1)], vec!["a"], "a", true),
    ] {
        reads(&server, 1, secret(&data)).await;
        assert_eq!(ring.keep().await.is_err(), data.is_empty());
        assert_eq!((ring.keys().ids(), ring.keys().newest()), (ids, Some(newest)), "{data:?}");
        assert_eq!(ring.verify("u1", &by_a), knows_a, "{data:?}");
        assert!(ring.verify("u1", &sealed(&ring)));
    }
}
