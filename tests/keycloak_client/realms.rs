//! A realm of the configuration, and the realm that is there.

use hallpass::{
    api::PinnedSubject,
    controller::Realm,
    keycloak::Options,
    leader::{Leadership, Times},
};

use crate::peer::{Peer, REALM_ID, answer};

fn realm(peer: &Peer, former_urls: &[&str]) -> Realm {
    let leadership = Leadership::new(Times::default());
    let former_urls = former_urls.iter().map(ToString::to_string).collect();
    let config = hallpass::config::Realm { former_urls, ..peer.realm() };
    Realm::new(config, Options::default().observer, &leadership).expect("valid configuration")
}

/// Who was given something on this server.
fn subject(url: &str) -> PinnedSubject {
    let (realm, realm_id, user_id) = ("prod".into(), REALM_ID.into(), "u1".into());
    PinnedSubject { realm, url: Some(url.into()), realm_id, user_id, username: "alice".into() }
}

#[tokio::test]
async fn which_realm_is_there_is_known_before_anything_is_touched() {
    let peer = Peer::start().await;
    peer.realm_is("another").await;
    let why = realm(&peer, &[]).is_another_than(&subject(&peer.server.uri())).await.expect("it is another one");
    assert!(why.contains(&format!("has the id \"another\" now, not {REALM_ID:?}: nothing is touched in it")), "{why}");
    let peer = Peer::start().await;
    peer.realm_is(REALM_ID).await;
    assert_eq!(realm(&peer, &[]).is_another_than(&subject(&peer.server.uri())).await, None);
}

#[tokio::test]
async fn what_cannot_be_asked_refuses_the_write_itself() {
    let peer = Peer::start().await;
    peer.always("GET", "", answer(500)).await;
    assert_eq!(realm(&peer, &[]).is_another_than(&subject(&peer.server.uri())).await, None);
}

#[tokio::test]
async fn a_copy_on_another_server_is_not_touched_though_all_ids_are_the_same() {
    let peer = Peer::start().await;
    peer.realm_is(REALM_ID).await;
    let elsewhere = subject("https://old.example.com");
    let why = realm(&peer, &[]).is_another_than(&elsewhere).await.expect("it is another one");
    let now = format!(
        "the access was given on https://old.example.com, and realm prod of the operator's configuration leads to {}",
        peer.server.uri()
    );
    assert!(why.starts_with(&now) && why.contains("add https://old.example.com to the realm's formerUrls"), "{why}");
    assert_eq!(realm(&peer, &["https://old.example.com"]).is_another_than(&elsewhere).await, None);
}
