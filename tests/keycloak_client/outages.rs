//! A server that is away: it is left alone, by everybody, and found again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use hallpass::keycloak::{Client, Error, Kind, Target};
use serde_json::json;
use tokio::net::TcpListener;
use wiremock::ResponseTemplate;

use crate::peer::{Peer, REALM_ID, TOKEN_PATH, answer, answer_json, limited, realm, secret_file};

const ROLE_PATH: &str = "/users/u1/role-mappings/realm";

fn role() -> Target {
    Target::RealmRole { id: "r1".into(), name: "admin".into() }
}

async fn unmap(client: &Client) -> Error {
    client.unmap("u1", &role(), REALM_ID).await.expect_err("must fail")
}

/// So many at once.
async fn unmaps(client: &Client, count: usize) -> Vec<Error> {
    let calls = (0..count).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { unmap(&client).await })
    });
    let mut errors = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        errors.push(call.await.expect("joined"));
    }
    errors
}

/// How often the realm was read: that is how a server is tried.
async fn tries(peer: &Peer) -> usize {
    peer.requests().await.iter().filter(|request| request.url.path() == "/admin/realms/acme").count()
}

async fn is_away(peer: &Peer, response: ResponseTemplate) -> Client {
    peer.always("DELETE", ROLE_PATH, response.clone()).await;
    peer.always("GET", "", response).await;
    let client = peer.client();
    while client.outage().is_none() {
        assert!(unmap(&client).await.outcome_unknown(), "it was sent");
    }
    client
}

#[tokio::test]
async fn five_hundred_revocations_against_a_server_that_hangs_wait_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let accepting = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let limit = Duration::from_secs(3);
    let client = limited(&realm(&url, secret_file("s")), limit);
    let begin = Instant::now();
    let errors = unmaps(&client, 500).await;
    assert!(begin.elapsed() < Duration::from_secs(10), "one after the other they take minutes: {:?}", begin.elapsed());
    assert!(errors.iter().all(|error| !error.outcome_unknown()), "nothing but sign-ins was sent");
    while client.outage().is_none() {
        unmap(&client).await;
    }
    let begin = Instant::now();
    let errors = unmaps(&client, 500).await;
    assert!(begin.elapsed() < limit * 2, "at most one tries, and nobody waits for it: {:?}", begin.elapsed());
    for error in errors {
        assert_eq!(error.kind(), Kind::NotSent, "{error}");
        let text = error.to_string();
        assert!(text.contains(&url) && text.contains("not asked again until it answers"), "{text}");
    }
    accepting.abort();
    assert!(accepted.load(Ordering::Relaxed) < 20, "connections");
}

#[tokio::test]
async fn a_removal_does_not_queue_behind_reads_that_take_long() {
    let peer = Peer::start().await;
    peer.always("GET", "/users/u2/groups", answer_json(json!([])).set_delay(Duration::from_secs(3))).await;
    peer.always("DELETE", ROLE_PATH, answer(204)).await;
    let client = peer.client();
    client.unmap("u1", &role(), REALM_ID).await.expect("signed in");
    // More than there are connections.
    let reads: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.user_groups("u2").await })
        })
        .collect();
    while peer.sent("GET").await.is_empty() {
        tokio::task::yield_now().await;
    }
    client.unmap("u1", &role(), REALM_ID).await.expect("gone");
    assert!(reads.iter().all(|read| !read.is_finished()), "it was sent before any of them was answered");
    reads.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_last_of_many_removals_has_as_much_time_as_the_first() {
    let peer = Peer::start().await;
    peer.always("DELETE", ROLE_PATH, answer(204).set_delay(Duration::from_millis(700))).await;
    let client = limited(&peer.realm(), Duration::from_secs(2));
    // Five rounds: more time than one has.
    let role = role();
    let removals = (0..40).map(|_| client.unmap("u1", &role, REALM_ID));
    let refused: Vec<_> = join_all(removals).await.into_iter().filter_map(Result::err).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_tried_by_one_small_read_at_a_time_and_by_no_write() {
    let peer = Peer::start().await;
    let client = is_away(&peer, answer(503)).await;
    let writes = peer.sent("DELETE").await.len();
    assert_eq!(writes, 3);
    for tried in 1..3 {
        let next = client.try_again();
        next.await;
        assert_eq!(tries(&peer).await, tried);
        assert!(unmaps(&client, 50).await.iter().all(|error| error.kind() == Kind::NotSent));
    }
    assert_eq!(peer.sent("DELETE").await.len(), writes);
    assert_eq!(tries(&peer).await, 2);
}

#[tokio::test]
async fn whoever_comes_when_a_try_is_due_tries_and_goes_through_once_the_server_is_back() {
    let peer = Peer::start().await;
    let client = is_away(&peer, answer(504)).await;
    let before = peer.requests().await.len();
    peer.server.reset().await;
    let back = Peer { server: peer.server, secret_file: peer.secret_file };
    back.realm_is(REALM_ID).await;
    back.always("DELETE", ROLE_PATH, answer(204)).await;
    assert!(before > 3);
    let mut refused = 0;
    // Time is the subject here: half a second is the first pause.
    while client.unmap("u1", &role(), REALM_ID).await.is_err() {
        refused += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(refused > 2, "{refused}");
    assert_eq!((tries(&back).await, back.sent("DELETE").await.len()), (1, 1));
    assert_eq!(client.outage(), None);
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it_up_to_a_limit() {
    for status in [429, 503] {
        let peer = Peer::start().await;
        peer.always("DELETE", ROLE_PATH, answer(status).insert_header("Retry-After", "3600")).await;
        let client = peer.client();
        let error = unmap(&client).await;
        assert_eq!(error.retry_after(), Some(Duration::from_hours(1)));
        assert_eq!(error.outcome_unknown(), status == 503, "{error}");
        let again = unmap(&client).await;
        assert_eq!(again.kind(), Kind::NotSent, "{again}");
        assert!(again.to_string().contains(&status.to_string()), "{again}");
        assert_eq!((peer.sent("DELETE").await.len(), tries(&peer).await), (1, 0));
    }
}

#[tokio::test]
async fn a_sign_in_that_gets_no_answer_counts_as_well() {
    let peer = Peer::without_sign_in().await;
    let busy = wiremock::Mock::given(wiremock::matchers::path(TOKEN_PATH)).respond_with(answer(503));
    busy.mount(&peer.server).await;
    let client = peer.client();
    for _ in 0..10 {
        unmap(&client).await;
    }
    assert_eq!(peer.sign_ins().await, 3);
    let words = client.outage().expect("away");
    assert!(words.starts_with("cannot sign in to ") && words.contains("503"), "{words}");
}

#[tokio::test]
async fn what_only_concerns_one_call_leaves_the_others_alone() {
    for response in [
        answer(403),
        answer(400),
        answer(500).set_body_json(json!({"error": "unknown_error"})),
        answer(500),
        answer(200).set_body_string("<html>"),
        answer(401),
    ] {
        let peer = Peer::start().await;
        peer.always("DELETE", ROLE_PATH, response).await;
        peer.always("GET", "/users/u1/groups", answer_json(json!([]))).await;
        let client = peer.client();
        for _ in 0..5 {
            unmap(&client).await;
        }
        assert_eq!(client.outage(), None);
        client.user_groups("u1").await.expect("asked");
    }
}
