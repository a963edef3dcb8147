//! Finding people, roles and groups: exactly, uniquely, and under any name.

use hallpass::{
    config::UserMatch,
    keycloak::{ClientRole, Container, Kind, Role, Target},
};
use serde_json::{Value, json};

use crate::peer::{Peer, answer, answer_json, missing};

fn alice() -> Value {
    json!({"id": "u1", "username": "alice", "email": "alice@example.com", "emailVerified": true, "enabled": true})
}

async fn urls(peer: &Peer) -> Vec<String> {
    let requests = peer.requests().await;
    let reads = requests.iter().filter(|request| request.method.as_str() == "GET");
    reads.map(|request| request.url.as_str().split("/admin/realms/acme").nth(1).expect("below").to_owned()).collect()
}

#[tokio::test]
async fn a_user_is_found_only_if_it_is_the_one() {
    let other = json!({"id": "u2", "username": "alice2", "email": "a@example.com", "enabled": true});
    let unverified = json!({"id": "u3", "username": "a", "email": "alice@example.com", "emailVerified": false});
    let transient = json!({"id": "lightweight-1", "username": "alice", "enabled": true});
    let by_name = UserMatch::Username;
    let by_email = UserMatch::Email;
    for (by, value, found, expected) in [
        (by_name, "alice", json!([alice()]), Some("u1")),
        (by_name, "ALICE", json!([alice()]), Some("u1")),
        (by_name, "alice", json!([other]), None),
        (by_name, "alice", json!([transient]), None),
        (by_name, "\u{212a}evin", json!([{"id": "u4", "username": "kevin"}]), None),
        (by_name, "alice", json!([]), None),
        (by_email, "alice@example.com", json!([alice()]), Some("u1")),
        (by_email, "alice@example.com", json!([unverified]), None),
        (by_email, "alice@example.com", json!([other]), None),
    ] {
        let peer = Peer::start().await;
        peer.always("GET", "/users", answer_json(found.clone())).await;
        let user = peer.client().find_user(by, value).await.expect("answer");
        assert_eq!(user.map(|user| user.id).as_deref(), expected, "{value:?} in {found}");
    }
}

#[tokio::test]
async fn an_empty_or_ambiguous_name_is_refused() {
    let peer = Peer::start().await;
    peer.always("GET", "/users", answer_json(json!([alice(), alice()]))).await;
    let client = peer.client();
    for by in [UserMatch::Username, UserMatch::Email, UserMatch::Id] {
        for value in ["", "  "] {
            assert_eq!(client.find_user(by, value).await.expect_err("refused").kind(), Kind::InvalidInput);
        }
    }
    assert!(peer.requests().await.is_empty(), "nothing was asked");
    let error = client.find_user(UserMatch::Email, "alice@example.com").await.expect_err("ambiguous");
    assert_eq!(error.kind(), Kind::Ambiguous);
    let text = "cannot find user \"alice@example.com\": several users have the email \"alice@example.com\"";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn transient_users_are_nobody_and_nobody_is_asked_about_them() {
    let peer = Peer::start().await;
    let client = peer.client();
    assert_eq!(client.user("lightweight-1").await.expect("known"), None);
    assert_eq!(client.find_user(UserMatch::Id, "lightweight-1").await.expect("known"), None);
    assert!(peer.requests().await.is_empty());
}

#[tokio::test]
async fn names_are_escaped_in_paths_and_queries() {
    let name = "a b/c;d%e#f?g+h\"i'ü&j=~.-_";
    let escaped = "a%20b%2Fc%3Bd%25e%23f%3Fg%2Bh%22i%27%C3%BC%26j%3D~.-_";
    let peer = Peer::start().await;
    peer.always("GET", "/users", answer_json(json!([]))).await;
    peer.always("GET", "/roles", answer_json(json!([]))).await;
    peer.always("GET", &format!("/roles/{escaped}"), missing("Could not find role")).await;
    peer.always("GET", "/groups", answer_json(json!([]))).await;
    let client = peer.client();
    client.find_user(UserMatch::Username, name).await.expect("answer");
    client.realm_role(name).await.expect("answer");
    client.realm_role("..").await.expect("answer");
    client.group("/x y/;").await.expect("answer");
    assert_eq!(
        urls(&peer).await,
        [
            format!("/users?username={escaped}&exact=true&first=0&max=2"),
            format!("/roles?search={escaped}&first=0&max=1000"),
            format!("/roles/{escaped}"),
            "/roles?search=..&first=0&max=1000".into(),
            "/groups?search=x%20y%2F%3B&exact=true&populateHierarchy=false&first=0&max=1000".into(),
            "/groups?search=%3B&exact=true&populateHierarchy=false&first=0&max=1000".into(),
        ]
    );
}

#[tokio::test]
async fn the_user_agent_says_who_asks() {
    let peer = Peer::start().await;
    peer.realm_is("r").await;
    peer.client().realm().await.expect("answer");
    for request in peer.requests().await {
        assert_eq!(request.headers["user-agent"], concat!("hallpass/", env!("CARGO_PKG_VERSION")));
    }
}

#[tokio::test]
async fn a_role_on_a_later_page_is_found() {
    let peer = Peer::start().await;
    let page: Vec<Value> = (0..1000).map(|i| json!({"id": format!("r{i}"), "name": format!("admin-{i}")})).collect();
    peer.once("GET", "/roles", answer_json(json!(page))).await;
    peer.always("GET", "/roles", answer_json(json!([{"id": "x", "name": "Admin"}, {"id": "wanted", "name": "admin"}])))
        .await;
    let role = peer.client().realm_role("admin").await.expect("answer").expect("found");
    assert_eq!(role, Role { id: "wanted".into(), name: "admin".into(), composite: false, container: Container::Realm });
}

#[tokio::test]
async fn a_list_without_end_is_an_error() {
    let peer = Peer::start().await;
    let page: Vec<Value> = (0..1000).map(|i| json!({"id": format!("g{i}"), "path": "/x", "name": "x"})).collect();
    peer.always("GET", "/users/u1/groups", answer_json(json!(page))).await;
    let error = peer.client().user_groups("u1").await.expect_err("must end");
    assert_eq!(error.kind(), Kind::Malformed, "{error}");
}

#[tokio::test]
async fn a_missing_client_is_told_from_a_missing_role() {
    let peer = Peer::start().await;
    let clients = json!([{"id": "c0", "clientId": "Checkout"}, {"id": "c1", "clientId": "checkout"}]);
    peer.always("GET", "/clients", answer_json(clients)).await;
    peer.always("GET", "/clients/c1/roles", answer_json(json!([{"id": "r1", "name": "debug"}]))).await;
    peer.always("GET", "/clients/c1/roles/other", missing("Could not find role")).await;
    let client = peer.client();
    let container = Container::Client { id: "c1".into(), client_id: "checkout".into() };
    let role = Role { id: "r1".into(), name: "debug".into(), composite: false, container };
    assert_eq!(client.client_role("checkout", "debug").await.expect("answer"), ClientRole::Found(role));
    assert_eq!(client.client_role("checkout", "other").await.expect("answer"), ClientRole::NoRole);
    assert_eq!(client.client_role("nope", "debug").await.expect("answer"), ClientRole::NoClient);
    assert_eq!(client.client_role("", "debug").await.expect_err("refused").kind(), Kind::InvalidInput);
}

#[tokio::test]
async fn a_path_that_two_groups_share_is_ambiguous() {
    let peer = Peer::start().await;
    let whole = json!([{"id": "g1", "path": "/a/b", "name": "a/b"}]);
    let nested =
        json!([{"id": "g2", "path": "/a/b", "name": "b", "parentId": "g0"}, {"id": "g3", "path": "/c/b", "name": "b"}]);
    peer.once("GET", "/groups", answer_json(whole)).await;
    peer.once("GET", "/groups", answer_json(nested)).await;
    peer.always("GET", "/groups", answer_json(json!([]))).await;
    let error = peer.client().group("/a/b").await.expect_err("ambiguous");
    assert_eq!(error.kind(), Kind::Ambiguous);
    assert_eq!(
        error.to_string(),
        "cannot find group \"/a/b\": 2 groups have this path, because the name of one contains /"
    );
    for path in ["", "/", "a/b"] {
        assert_eq!(peer.client().group(path).await.expect_err("refused").kind(), Kind::InvalidInput);
    }
}

#[tokio::test]
async fn a_closure_survives_cycles_and_suspects_what_it_cannot_see() {
    let peer = Peer::start().await;
    peer.realm_is("r").await;
    peer.always("GET", "/clients", answer_json(json!([{"id": "rm", "clientId": "realm-management"}]))).await;
    let composite = |id: &str| json!({"id": id, "name": format!("role-{id}"), "composite": true, "clientRole": false});
    for id in ["a", "b", "hidden"] {
        peer.always("GET", &format!("/roles-by-id/{id}"), answer_json(composite(id))).await;
    }
    peer.always("GET", "/roles-by-id/a/composites", answer_json(json!([composite("b")]))).await;
    peer.always("GET", "/roles-by-id/b/composites", answer_json(json!([composite("a"), composite("b")]))).await;
    peer.always("GET", "/roles-by-id/hidden/composites", answer_json(json!([]))).await;
    let client = peer.client();
    let role = |id: &str| Target::RealmRole { id: id.into(), name: id.into() };
    assert_eq!(client.reaches_admin(&role("a")).await.expect("answer"), None);
    let words = client.reaches_admin(&role("hidden")).await.expect("answer").expect("suspected");
    assert_eq!(words, "composite \"role-hidden\", whose roles cannot be seen");
}

/// With `query-clients` instead of `view-clients` the list of clients is empty, and composites look harmless.
#[tokio::test]
async fn a_closure_is_not_judged_without_the_sight_of_the_management_client() {
    let peer = Peer::start().await;
    peer.realm_is("r").await;
    peer.always("GET", "/clients", answer_json(json!([]))).await;
    peer.always("GET", "/roles-by-id/a", answer_json(json!({"id": "a", "name": "a", "composite": false}))).await;
    let role = Target::RealmRole { id: "a".into(), name: "a".into() };
    let error = peer.client().reaches_admin(&role).await.expect_err("not judged");
    assert_eq!(error.kind(), Kind::Forbidden);
    assert!(error.to_string().ends_with("lacks the right view-clients of realm-management"), "{error}");
}

#[tokio::test]
async fn a_self_test_says_what_is_missing_and_fails_only_when_it_cannot_ask() {
    let peer = Peer::start().await;
    peer.always("GET", "/users", answer(403).set_body_json(json!({"error": "HTTP 403 Forbidden"}))).await;
    peer.always("GET", "/clients", answer_json(json!([]))).await;
    peer.always("GET", "/roles", answer_json(json!([{"id": "r", "name": "r"}]))).await;
    peer.once("GET", "", answer_json(json!({"id": "r", "accessTokenLifespan": 60}))).await;
    peer.always("GET", "", answer(500)).await;
    let client = peer.client();
    let missing = client.self_test().await.expect("asked");
    assert_eq!(missing.iter().map(|missing| missing.right).collect::<Vec<_>>(), ["manage-users", "view-clients"]);
    for word in ["manage-users", "\"hallpass\"", "realm-management", "Service accounts roles"] {
        assert!(missing[0].to_string().contains(word), "{}", missing[0]);
    }
    assert_eq!(client.self_test().await.expect_err("server in trouble").kind(), Kind::Unavailable);
    assert_eq!(peer.sign_ins().await, 2, "each self-test signs in anew");
}

#[tokio::test]
async fn members_of_a_group_are_read_up_to_a_number_and_say_who_is_disabled() {
    let peer = Peer::start().await;
    let disabled = json!({"id": "u2", "username": "bob", "enabled": false});
    peer.always("GET", "/groups/g1/members", answer_json(json!([alice(), disabled]))).await;
    peer.always("GET", "/groups/gone/members", missing("Could not find group by id")).await;
    let client = peer.client();
    let members = client.group_members("g1", 2).await.expect("answer");
    let seen: Vec<(&str, bool)> = members.iter().map(|user| (user.id.as_str(), user.enabled)).collect();
    assert_eq!(seen, [("u1", true), ("u2", false)]);
    let error = client.group_members("gone", 2).await.expect_err("there is none");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().starts_with("cannot read the members of group \"gone\": "), "{error}");
    let window = "first=0&max=2&briefRepresentation=true";
    assert_eq!(urls(&peer).await, [format!("/groups/g1/members?{window}"), format!("/groups/gone/members?{window}")]);
}
