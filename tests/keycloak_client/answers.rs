//! Each answer that Keycloak, or something before it, can give.

use std::time::{Duration, Instant};

use hallpass::keycloak::{Error, Kind, Target};
use serde_json::json;
use wiremock::ResponseTemplate;

use crate::peer::{Peer, answer, hasty, limited, missing, raw_peer, realm, secret_file, watched};

fn role() -> Target {
    Target::RealmRole { id: "r1".into(), name: "admin".into() }
}

fn complaint(status: u16, words: &str) -> ResponseTemplate {
    answer(status).set_body_json(json!({"error": words}))
}

async fn read_of(response: ResponseTemplate) -> Error {
    let peer = Peer::start().await;
    peer.always("GET", "/users/u1/groups", response).await;
    peer.client().user_groups("u1").await.expect_err("must fail")
}

async fn write_of(response: ResponseTemplate) -> Error {
    let peer = Peer::start().await;
    peer.always("POST", "/users/u1/role-mappings/realm", response).await;
    peer.always("GET", "/users/u1/role-mappings/realm", answer(200).set_body_json(json!([]))).await;
    peer.always("GET", "/roles-by-id/r1", answer(200).set_body_json(json!({"id": "r1", "name": "admin"}))).await;
    peer.client().map("u1", &role()).await.expect_err("must fail")
}

#[tokio::test]
async fn each_refusal_of_a_read_has_its_kind_and_its_words() {
    for (response, kind, words) in [
        (complaint(400, "nope"), Kind::Rejected, "400: nope"),
        (complaint(401, "HTTP 401 Unauthorized"), Kind::Unauthorized, "refuses the token that it issued"),
        (complaint(403, "HTTP 403 Forbidden"), Kind::Forbidden, "lacks the right manage-users of realm-management"),
        (answer(403).set_body_string("<html>"), Kind::Forbidden, "403: a web page"),
        (missing("User not found"), Kind::NotFound, "404: User not found"),
        (missing("HTTP 404 Not Found"), Kind::Malformed, "404"),
        (answer(404).set_body_string("<html>no such page"), Kind::Malformed, "a web page instead of JSON"),
        (answer(404), Kind::Malformed, "an empty body"),
        (complaint(429, "slow down").insert_header("Retry-After", "7"), Kind::Throttled, "429: slow down"),
        (complaint(503, "Bootstrap in progress").insert_header("Retry-After", "7"), Kind::Throttled, "Bootstrap"),
        (complaint(500, "unknown_error"), Kind::Unavailable, "500: unknown_error"),
        (answer(502).set_body_string("<html>bad gateway"), Kind::Unavailable, "502"),
        (answer(504), Kind::Unavailable, "504"),
        (answer(302).insert_header("Location", "https://login.example/"), Kind::Malformed, "https://login.example/"),
        (answer(204), Kind::Malformed, "204"),
        (answer(200).set_body_string("<html>welcome"), Kind::Malformed, "a web page"),
        (answer(200).set_body_string(r#"[{"id": "g1", "na"#), Kind::Malformed, "not Keycloak's JSON"),
        (answer(200).set_body_json(json!([{"id": 1}])), Kind::Malformed, "JSON that Keycloak does not send"),
        (answer(200).set_body_string("x".repeat(5 << 20)), Kind::Malformed, "larger than 4 MiB"),
    ] {
        let status = format!("{response:?}").chars().take(60).collect::<String>();
        let error = read_of(response).await;
        assert_eq!(error.kind(), kind, "{status}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(words) && text.starts_with("cannot read the groups of user \"u1\": "),
            "{status}: {text}"
        );
        assert!(!error.outcome_unknown(), "a read has no outcome: {error}");
        let asked_to_wait = (kind == Kind::Throttled).then_some(Duration::from_secs(7));
        assert_eq!(error.retry_after(), asked_to_wait, "{error}");
    }
}

#[tokio::test]
async fn each_refusal_of_a_write_says_whether_it_may_have_happened() {
    for (response, kind, words) in [
        (complaint(400, "Could not add user role mappings!"), Kind::Rejected, "Could not add"),
        (
            answer(409).set_body_json(json!({"errorMessage": "taken", "field": "name"})),
            Kind::Rejected,
            "409: taken (field name)",
        ),
        (complaint(403, "HTTP 403 Forbidden"), Kind::Forbidden, "may not map this role"),
        (missing("User not found"), Kind::NotFound, "404: User not found"),
        (complaint(429, "slow down"), Kind::Throttled, "429"),
        (complaint(500, "unknown_error"), Kind::ServerError, "500: unknown_error"),
        (answer(500), Kind::Unknown, "500: an empty body"),
        (answer(500).set_body_string("<html>oops"), Kind::Unknown, "500: a web page"),
        (answer(502), Kind::Unknown, "502"),
        (answer(503).set_body_string("<html>down"), Kind::Unknown, "503: a web page"),
        (complaint(503, "Bootstrap in progress"), Kind::Unknown, "503: Bootstrap in progress"),
        (answer(504), Kind::Unknown, "504"),
        (answer(408), Kind::Unknown, "408"),
        (answer(200).set_body_string("<html>"), Kind::Unknown, "where Keycloak answers 204"),
        (answer(200).set_body_string("x".repeat(5 << 20)), Kind::Unknown, "where Keycloak answers 204"),
        (answer(202), Kind::Unknown, "where Keycloak answers 204"),
        (answer(400).set_body_string("<html>bad"), Kind::Rejected, "400: a web page"),
        (answer(404).set_body_string("<html>no"), Kind::Malformed, "404: a web page"),
        (answer(307).insert_header("Location", "/elsewhere"), Kind::Malformed, "redirected to /elsewhere"),
    ] {
        let error = write_of(response).await;
        assert_eq!(error.kind(), kind, "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && text.starts_with("cannot map realm role \"admin\" to user \"u1\": "), "{text}");
        assert_eq!(error.outcome_unknown(), kind == Kind::Unknown, "{error}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_got_nothing() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let plain = Peer::start().await.server.uri().replace("http:", "https:");
    for (url, words) in [
        (format!("http://{dead}"), "connection refused"),
        ("http://keycloak.invalid".into(), "failed to lookup"),
        (plain, "corrupt message"),
    ] {
        let client = hallpass::keycloak::Client::new(&realm(&url, secret_file("s"))).expect("valid");
        let error = client.map("u1", &role()).await.expect_err("must fail");
        assert_eq!(error.kind(), Kind::NotSent, "{error}");
        let text = error.to_string();
        let start = format!("cannot sign in to {url} realm acme as client hallpass: ");
        assert!(text.starts_with(&start) && text.to_lowercase().contains(words), "{text}");
    }
}

#[tokio::test]
async fn no_answer_in_time_leaves_a_write_unknown_and_a_read_unavailable() {
    let peer = Peer::start().await;
    let slow = answer(204).set_delay(Duration::from_secs(10));
    peer.always("POST", "/users/u1/role-mappings/realm", slow.clone()).await;
    peer.always("DELETE", "/users/u1/role-mappings/realm", slow.clone()).await;
    peer.always("GET", "/users/u1/groups", slow).await;
    let client = peer.hasty_client();
    let begin = Instant::now();
    let map = client.map("u1", &role()).await.expect_err("must fail");
    let unmap = client.unmap("u1", &role(), "realm-id").await.expect_err("must fail");
    let read = client.user_groups("u1").await.expect_err("must fail");
    assert!(begin.elapsed() < Duration::from_secs(8), "the limits were kept: {:?}", begin.elapsed());
    assert!(map.outcome_unknown() && unmap.outcome_unknown(), "{map}; {unmap}");
    assert_eq!(read.kind(), Kind::Unavailable, "{read}");
    assert!(map.to_string().contains("no answer within"), "{map}");
}

#[tokio::test]
async fn nothing_is_repeated_in_a_call_whose_outcome_is_not_known() {
    let peer = Peer::start().await;
    peer.always("POST", "/users/u1/role-mappings/realm", answer(502)).await;
    peer.always("DELETE", "/users/u1/role-mappings/realm", answer(502)).await;
    let client = peer.client();
    assert!(client.map("u1", &role()).await.expect_err("must fail").outcome_unknown());
    assert!(client.unmap("u1", &role(), "realm-id").await.expect_err("must fail").outcome_unknown());
    assert_eq!((peer.sent("POST").await.len(), peer.sent("DELETE").await.len()), (1, 1));
    assert_eq!(peer.sent("GET").await, [], "a look says nothing about what may still come");
}

#[tokio::test]
async fn a_repetition_under_another_name_may_leave_it_unknown_too() {
    for verb in ["POST", "DELETE"] {
        let peer = Peer::start().await;
        peer.once(verb, "/users/u1/role-mappings/realm", missing("Role not found")).await;
        peer.always(verb, "/users/u1/role-mappings/realm", answer(504)).await;
        peer.always("GET", "/roles-by-id/r1", answer(200).set_body_json(json!({"id": "r1", "name": "new"}))).await;
        let client = peer.client();
        let error = match verb {
            "POST" => client.map("u1", &role()).await.expect_err("must fail"),
            _ => client.unmap("u1", &role(), "realm-id").await.expect_err("must fail"),
        };
        assert!(error.outcome_unknown(), "{error}");
        // After a 401 as well: it was refused before anything was done, and what follows may be.
        let peer = Peer::start().await;
        peer.once(verb, "/users/u1/role-mappings/realm", answer(401)).await;
        peer.always(verb, "/users/u1/role-mappings/realm", answer(504)).await;
        let client = peer.client();
        let error = match verb {
            "POST" => client.map("u1", &role()).await.expect_err("must fail"),
            _ => client.unmap("u1", &role(), "realm-id").await.expect_err("must fail"),
        };
        assert!(error.outcome_unknown(), "{error}");
    }
}

#[tokio::test]
async fn all_of_a_write_ends_with_its_limit() {
    let peer = Peer::start().await;
    peer.once("DELETE", "/users/u1/role-mappings/realm", missing("Role not found")).await;
    let slow = answer(200).set_body_json(json!({"id": "r1", "name": "new"})).set_delay(Duration::from_secs(2));
    peer.always("GET", "/roles-by-id/r1", slow).await;
    peer.always("DELETE", "/users/u1/role-mappings/realm", answer(204).set_delay(Duration::from_secs(10))).await;
    let begin = Instant::now();
    let client = limited(&peer.realm(), Duration::from_secs(3));
    let error = client.unmap("u1", &role(), "realm-id").await.expect_err("must fail");
    assert!(begin.elapsed() < Duration::from_millis(4500), "a limit for each call: {:?}", begin.elapsed());
    assert!(error.outcome_unknown(), "the second DELETE was on its way: {error}");
}

#[tokio::test]
async fn what_waits_for_a_connection_for_too_long_was_not_sent() {
    let peer = Peer::start().await;
    peer.always("POST", "/users/u1/role-mappings/realm", answer(204).set_delay(Duration::from_secs(10))).await;
    let client = peer.hasty_client();
    let writes = (0..9).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.map("u1", &role()).await.expect_err("must fail").kind() })
    });
    let mut kinds = Vec::new();
    for write in writes.collect::<Vec<_>>() {
        kinds.push(write.await.expect("joined"));
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::NotSent).count(), 1, "{kinds:?}");
    assert_eq!(peer.sent("POST").await.len(), 8, "eight at a time");
}

#[tokio::test]
async fn a_connection_that_breaks_after_sending_leaves_a_write_unknown() {
    for (bytes, read, words) in [
        (&b""[..], Kind::Unavailable, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[{\"id\":", Kind::Malformed, "cut off after 7 bytes"),
        (b"SSH-2.0-OpenSSH\r\n", Kind::Unavailable, ""),
    ] {
        let client = hasty(&realm(&raw_peer(bytes).await, secret_file("s")));
        let error = client.user_groups("u1").await.expect_err("must fail");
        assert_eq!(error.kind(), read, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        let error = client.map("u1", &role()).await.expect_err("must fail");
        assert!(error.outcome_unknown(), "{error}");
    }
}

/// The head is an answer, whatever became of the rest.
#[tokio::test]
async fn an_answer_to_a_write_that_is_cut_off_counts_by_its_status() {
    for (bytes, kind) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], None),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 500\r\n\r\n{\"error\":", Some(Kind::Forbidden)),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 500\r\n\r\n", Some(Kind::Rejected)),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 500\r\n\r\n{\"error\":", Some(Kind::Unknown)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", Some(Kind::Unknown)),
        (b"HTTP/1.1 2", Some(Kind::Unknown)),
    ] {
        let client = hasty(&realm(&raw_peer(bytes).await, secret_file("s")));
        let outcome = client.unmap("u1", &role(), "realm-id").await;
        assert_eq!(outcome.err().map(|error| error.kind()), kind, "{}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test]
async fn each_call_is_told_with_labels_from_a_fixed_set() {
    let peer = Peer::start().await;
    peer.always("GET", "/users/u1", missing("User not found")).await;
    peer.realm_is("realm-id").await;
    let (client, calls) = watched(&peer);
    assert_eq!(client.user("u1").await.expect("answer"), None);
    client.realm().await.expect("answer");
    assert_eq!(*calls.0.lock().expect("lock"), [("token", "Ok"), ("user", "NotFound"), ("realm", "Ok")]);
}
