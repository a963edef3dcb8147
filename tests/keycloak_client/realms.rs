//! A realm of the configuration, and the realm that is there.

use hallpass::{
    controller::Realm,
    keycloak::Options,
    leader::{Leadership, Times},
};

use crate::peer::{Peer, REALM_ID, answer};

fn realm(peer: &Peer) -> Realm {
    let leadership = Leadership::new(Times::default());
    Realm::new(peer.realm(), Options::default().observer, &leadership).expect("valid configuration")
}

#[tokio::test]
async fn which_realm_is_there_is_known_before_anything_is_touched() {
    let peer = Peer::start().await;
    peer.realm_is("another").await;
    let why = realm(&peer).is_another_than(REALM_ID).await.expect("it is another one");
    assert!(why.contains(&format!("has the id \"another\" now, not {REALM_ID:?}: nothing is touched in it")), "{why}");
    let peer = Peer::start().await;
    peer.realm_is(REALM_ID).await;
    assert_eq!(realm(&peer).is_another_than(REALM_ID).await, None);
}

#[tokio::test]
async fn what_cannot_be_asked_refuses_the_write_itself() {
    let peer = Peer::start().await;
    peer.always("GET", "", answer(500)).await;
    assert_eq!(realm(&peer).is_another_than(REALM_ID).await, None);
}
