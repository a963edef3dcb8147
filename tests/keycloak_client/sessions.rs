//! Ending sessions: what is sent, and what is no end. How long tokens live.

use std::time::Duration;

use hallpass::keycloak::{Error, Kind, Sessions};
use serde_json::{Value, json};
use wiremock::{
    Mock,
    matchers::{method, path, query_param},
};

use crate::peer::{Peer, REALM_ID, answer, answer_json, missing};

const LOGOUT: &str = "/users/u1/logout";
const ONLINE: &str = "/users/u1/sessions";
const CONSENTS: &str = "/users/u1/consents";

fn session(id: &str, clients: &[&str]) -> Value {
    let clients: serde_json::Map<_, _> =
        clients.iter().map(|id| ((*id).into(), json!(format!("name of {id}")))).collect();
    json!({"id": id, "clients": clients})
}

/// Somebody with an offline session of the client `c1`.
async fn peer() -> Peer {
    let peer = Peer::start().await;
    peer.realm_is(REALM_ID).await;
    let offline = json!({"client": "c1", "key": "Offline Token"});
    let consent = json!({"clientId": "c2", "additionalGrants": [{"client": "c2", "key": "Something Else"}]});
    let consents = json!([{"clientId": "one", "additionalGrants": [offline]}, consent]);
    peer.always("GET", CONSENTS, answer_json(consents)).await;
    peer
}

async fn end(peer: &Peer, which: &Sessions) -> Result<(), Error> {
    peer.client().end_sessions("u1", which, REALM_ID).await
}

/// What was sent, with its query.
async fn sent(peer: &Peer) -> Vec<String> {
    let writes = |verb: &str| verb == "POST" || verb == "DELETE";
    let requests = peer.requests().await;
    let writes =
        requests.iter().filter(|request| writes(request.method.as_str()) && request.url.path().contains("/admin/"));
    let line = |request: &wiremock::Request| {
        let place = request.url.path().trim_start_matches("/admin/realms/acme");
        let query = request.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{} {place}{query}", request.method)
    };
    writes.map(line).collect()
}

#[tokio::test]
async fn all_sessions_are_ended_and_offline_ones_taken_out_by_their_ids() {
    let peer = peer().await;
    peer.once("GET", ONLINE, answer_json(json!([session("s1", &["c1", "c2"])]))).await;
    peer.always("GET", ONLINE, answer_json(json!([session("younger", &["c1"])]))).await;
    peer.once("GET", "/users/u1/offline-sessions/c1", answer_json(json!([session("o1", &["c1"])]))).await;
    peer.always("GET", "/users/u1/offline-sessions/c1", answer_json(json!([]))).await;
    peer.always("POST", LOGOUT, answer(204)).await;
    peer.always("DELETE", "/sessions/s1", missing("Sesssion not found")).await;
    peer.once("DELETE", "/sessions/o1", answer(204)).await;
    peer.always("DELETE", "/sessions/o1", missing("Sesssion not found")).await;
    end(&peer, &Sessions::All).await.expect("ended");
    let (online, offline) = ("DELETE /sessions/s1?isOffline=false", "DELETE /sessions/o1?isOffline=true");
    assert_eq!(sent(&peer).await, ["POST /users/u1/logout", offline, online, offline]);
}

#[tokio::test]
async fn a_session_that_comes_back_to_life_is_ended_until_it_is_dead() {
    for (lives, ended) in [(1, true), (3, true), (100, false)] {
        let peer = peer().await;
        peer.once("GET", ONLINE, answer_json(json!([session("s1", &["c1"])]))).await;
        peer.always("GET", ONLINE, answer_json(json!([]))).await;
        peer.always("GET", "/users/u1/offline-sessions/c1", answer_json(json!([]))).await;
        for _ in 0..=lives {
            peer.once("DELETE", "/sessions/s1", answer(204)).await;
        }
        peer.always("DELETE", "/sessions/s1", missing("Sesssion not found")).await;
        let outcome = end(&peer, &Sessions::OfClients(vec!["c1".into()])).await;
        if ended {
            outcome.expect("ended");
            assert_eq!(sent(&peer).await.len(), lives + 2);
        } else {
            let error = outcome.expect_err("not ended");
            assert_eq!(error.to_string(), "cannot end the sessions of user \"u1\": one of them came back 10 times");
        }
    }
}

#[tokio::test]
async fn only_the_sessions_end_in_which_a_client_takes_part() {
    let peer = peer().await;
    let online = json!([session("s1", &["c1", "c2"]), session("s2", &["c2"])]);
    peer.once("GET", ONLINE, answer_json(online)).await;
    peer.always("GET", ONLINE, answer_json(json!([session("s2", &["c2"])]))).await;
    peer.once("GET", "/users/u1/offline-sessions/c1", answer_json(json!([session("o1", &["c1"])]))).await;
    peer.always("GET", "/users/u1/offline-sessions/c1", answer_json(json!([]))).await;
    // A client that is gone took its sessions along, and so did one that ended by itself.
    peer.always("GET", "/users/u1/offline-sessions/gone", missing("Client not found")).await;
    peer.once("DELETE", "/sessions/s1", answer(204)).await;
    peer.always("DELETE", "/sessions/s1", missing("Sesssion not found")).await;
    peer.always("DELETE", "/sessions/o1", missing("Sesssion not found")).await;
    end(&peer, &Sessions::OfClients(vec!["c1".into(), "gone".into()])).await.expect("ended");
    let both = ["DELETE /sessions/s1?isOffline=false", "DELETE /sessions/o1?isOffline=true"];
    assert_eq!(sent(&peer).await, [both, both].concat());
}

#[tokio::test]
async fn a_session_that_is_still_there_is_no_end() {
    for offline in [false, true] {
        let peer = peer().await;
        let there = |there: bool, id: &str| answer_json(if there { json!([session(id, &["c1"])]) } else { json!([]) });
        peer.always("GET", ONLINE, there(!offline, "s1")).await;
        peer.always("GET", "/users/u1/offline-sessions/c1", there(offline, "o1")).await;
        peer.always("POST", LOGOUT, answer(204)).await;
        peer.always("DELETE", "/sessions/s1", missing("Sesssion not found")).await;
        peer.always("DELETE", "/sessions/o1", missing("Sesssion not found")).await;
        let error = end(&peer, &Sessions::All).await.expect_err("not ended");
        assert_eq!(error.kind(), Kind::ServerError);
        assert_eq!(error.to_string(), "cannot end the sessions of user \"u1\": 1 of them are still there");
    }
}

#[tokio::test]
async fn a_session_that_shows_up_late_and_was_begun_before_is_no_end() {
    let peer = peer().await;
    let mut late = session("late", &["c2"]);
    late["start"] = json!(1_700_000_000_000_i64);
    peer.once("GET", ONLINE, answer_json(json!([]))).await;
    peer.always("GET", ONLINE, answer_json(json!([late]))).await;
    peer.always("GET", "/users/u1/offline-sessions/c1", answer_json(json!([]))).await;
    peer.always("POST", LOGOUT, answer(204)).await;
    assert_eq!(end(&peer, &Sessions::All).await.expect_err("not ended").kind(), Kind::ServerError);
}

#[tokio::test]
async fn an_answer_that_is_lost_or_refused_is_no_end() {
    for (status, kind) in [(503, Kind::Unknown), (403, Kind::Forbidden), (500, Kind::ServerError)] {
        let peer = peer().await;
        peer.always("GET", ONLINE, answer_json(json!([]))).await;
        peer.always("GET", "/users/u1/offline-sessions/c1", answer_json(json!([]))).await;
        let refusal = answer(status).set_body_json(json!({"error": "no"}));
        peer.always("POST", LOGOUT, refusal).await;
        assert_eq!(end(&peer, &Sessions::All).await.expect_err("not ended").kind(), kind, "{status}");
    }
}

#[tokio::test]
async fn who_is_gone_has_no_sessions_if_it_is_the_very_realm() {
    for (realm, fine) in [(REALM_ID, true), ("another", false)] {
        let peer = Peer::start().await;
        peer.realm_is(realm).await;
        peer.always("GET", ONLINE, missing("User not found")).await;
        peer.always("POST", LOGOUT, missing("User not found")).await;
        let ended = end(&peer, &Sessions::All).await;
        assert_eq!(ended.as_ref().err().map(Error::kind), (!fine).then_some(Kind::OtherRealm), "{ended:?}");
    }
}

/// A realm with lifespans of 60 s, and 120 s in the implicit flow; sessions last 1000 s.
async fn realm_with(pages: &[Vec<Value>]) -> Peer {
    let peer = Peer::start().await;
    let realm = json!({
        "id": REALM_ID, "accessTokenLifespan": 60, "accessTokenLifespanForImplicitFlow": 120,
        "ssoSessionMaxLifespan": 1000, "ssoSessionMaxLifespanRememberMe": 0,
    });
    peer.always("GET", "", answer_json(realm)).await;
    for (number, page) in pages.iter().enumerate() {
        let place = path("/admin/realms/acme/clients");
        let first = query_param("first", (number * 100).to_string());
        Mock::given(method("GET"))
            .and(place)
            .and(first)
            .respond_with(answer_json(json!(page)))
            .mount(&peer.server)
            .await;
    }
    peer
}

#[tokio::test]
async fn the_longest_lifespan_of_any_client_counts() {
    let client = |lifespan: &str, implicit: bool| json!({"clientId": "c", "implicitFlowEnabled": implicit, "attributes": {"access.token.lifespan": lifespan, "x": "1"}});
    let plain = || json!({"clientId": "c"});
    for (clients, seconds) in [
        (vec![plain()], 60),
        (vec![client("30", false)], 60),
        (vec![plain(), client(" 300 ", false)], 300),
        (vec![client("", true)], 120),
        (vec![client("soon", false)], 60),
        (vec![client("-1", false)], 1000),
    ] {
        let lifespan = realm_with(std::slice::from_ref(&clients)).await.client().token_lifespan().await;
        assert_eq!(lifespan.expect("known"), Duration::from_secs(seconds), "{clients:?}");
    }
    let second = realm_with(&[vec![plain(); 100], vec![client("600", false)]]).await;
    assert_eq!(second.client().token_lifespan().await.expect("known"), Duration::from_mins(10));
    let blind = realm_with(&[Vec::new()]).await.client().token_lifespan().await.expect_err("nothing to see");
    assert_eq!(blind.kind(), Kind::Forbidden);
}
