//! The Keycloak client against a real Keycloak. Each scenario makes what it needs and takes it away again.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

use hallpass::{
    config::{Auth, Identity, Realm, UserMatch},
    keycloak::{Client, ClientRole, Kind, Removal, Target},
};

use crate::{
    keycloak_admin::{Admin, Group, Person, Robot, Role, unique},
    world::file,
};

/// All that names can hold and URLs cannot.
const NAMES: [&str; 10] =
    ["a b", "a/b", "a;b=c", "100%25 _*", "a#b?c&d", "a+b", "it's \"q\"", "äöü-日本-🔑", "a\\b//c", "~.-_"];

const RIGHTS: [&str; 3] = ["manage-users", "view-realm", "view-clients"];

fn configured(admin: &Admin, robot: &Robot) -> Realm {
    let file = file("secret", &robot.secret);
    Realm {
        former_urls: Vec::new(),
        name: "prod".into(),
        url: admin.stack.url.clone(),
        realm: admin.stack.realm.clone(),
        auth: Auth { client_id: robot.client_id.clone(), client_secret_file: Some(file), ..Auth::default() },
        ca_file: Some(admin.stack.ca_file.clone()),
        identity: Identity::default(),
        service_accounts: Vec::new(),
        settle_time: None,
        check_interval: None,
        allow_admin_roles: false,
    }
}

/// A client with an account of its own that has these rights.
async fn client_with(admin: &Admin, rights: &[&str]) -> Client {
    Client::new(&configured(admin, &admin.robot(rights).await)).expect("valid configuration")
}

async fn realm_id(client: &Client) -> String {
    client.realm().await.expect("realm").id
}

fn target(role: &Role) -> Target {
    let (id, name) = (role.id.clone(), role.name.clone());
    match role.client.clone() {
        None => Target::RealmRole { id, name },
        Some(client) => Target::ClientRole { client, id, name },
    }
}

fn membership(group: &Group) -> Target {
    Target::Group { id: group.id.clone(), name: group.path.clone() }
}

/// Maps, maps again, unmaps, unmaps again, and compares with what the administrator sees.
async fn there_and_back(client: &Client, user: &Person, target: &Target) {
    let realm = realm_id(client).await;
    let user = &user.id;
    assert!(!client.has(user, target).await.expect("has"), "{target} before");
    for _ in 0..2 {
        client.map(user, target).await.expect("map");
        assert!(client.has(user, target).await.expect("has"), "{target} mapped");
    }
    for _ in 0..2 {
        assert_eq!(client.unmap(user, target, &realm).await.expect("unmap"), Removal::Removed);
        assert!(!client.has(user, target).await.expect("has"), "{target} unmapped");
    }
}

#[tokio::test]
async fn realm_roles_with_any_name_are_found_mapped_and_unmapped() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let user = admin.user("names").await;
    let mut names: Vec<String> = NAMES.iter().map(|name| unique(name)).collect();
    names.extend([".".into(), "..".into()]);
    for name in names {
        let role = admin.named_realm_role(&name).await;
        let found = client.realm_role(&name).await.expect("asked").unwrap_or_else(|| panic!("{name:?} is there"));
        assert_eq!((&found.id, &found.name), (&role.id, &name));
        assert_eq!(
            client.realm_role(&name.to_uppercase()).await.expect("asked").map(|role| role.name == name),
            (name.to_uppercase() == name).then_some(true),
            "{name:?} in another case is another role"
        );
        there_and_back(&client, &user, &Target::from(&found)).await;
    }
    assert_eq!(client.realm_role(&unique("none")).await.expect("asked"), None);
    admin.clean_up().await;
}

#[tokio::test]
async fn client_roles_with_any_name_are_found_mapped_and_unmapped() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let user = admin.user("names").await;
    let owner = admin.robot(&[]).await.client_id;
    for name in NAMES.iter().copied().chain([".", ".."]) {
        let role = admin.client_role(&owner, name).await;
        let ClientRole::Found(found) = client.client_role(&owner, name).await.expect("asked") else {
            panic!("{name:?} is there")
        };
        assert_eq!((&found.id, found.name.as_str()), (&role.id, name));
        there_and_back(&client, &user, &Target::from(&found)).await;
    }
    assert_eq!(client.client_role(&owner, "none").await.expect("asked"), ClientRole::NoRole);
    assert_eq!(client.client_role(&unique("none"), "none").await.expect("asked"), ClientRole::NoClient);
    admin.clean_up().await;
}

#[tokio::test]
async fn groups_with_any_name_are_found_joined_and_left() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let user = admin.user("names").await;
    let top = admin.group(None, &unique("top")).await;
    for name in NAMES.iter().copied().chain([".", ".."]) {
        let group = admin.group(Some(&top), name).await;
        assert_eq!(group.path, format!("{}/{name}", top.path), "nothing is escaped");
        let found = client.group(&group.path).await.expect("asked").unwrap_or_else(|| panic!("{name:?} is there"));
        assert_eq!((&found.id, found.name.as_str()), (&group.id, name));
        there_and_back(&client, &user, &Target::from(&found)).await;
    }
    assert_eq!(client.group(&format!("{}/none", top.path)).await.expect("asked"), None);
    admin.clean_up().await;
}

#[tokio::test]
async fn a_path_that_two_groups_share_is_ambiguous() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let outer = unique("outer");
    let nested = admin.group(Some(&admin.group(None, &outer).await), "inner").await;
    assert_eq!(client.group(&nested.path).await.expect("asked").map(|group| group.id), Some(nested.id));
    let slashed = admin.group(None, &format!("{outer}/inner")).await;
    assert_eq!(slashed.path, nested.path, "Keycloak gives both the same path");
    assert_eq!(client.group(&nested.path).await.expect_err("ambiguous").kind(), Kind::Ambiguous);
    admin.clean_up().await;
}

#[tokio::test]
async fn a_role_or_group_among_many_with_like_names_is_found() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let name = unique("zz");
    let top = admin.group(None, &unique("top")).await;
    for i in 0..105 {
        admin.named_realm_role(&format!("{i}-{name}")).await;
        admin.group(Some(&admin.group(Some(&top), &format!("team-{i}")).await), &name).await;
    }
    assert_eq!(client.realm_role(&name).await.expect("asked"), None);
    let role = admin.named_realm_role(&name).await;
    assert_eq!(client.realm_role(&name).await.expect("asked").map(|role| role.id), Some(role.id));
    for i in 0..105 {
        let path = format!("{}/team-{i}/{name}", top.path);
        assert_eq!(client.group(&path).await.expect("asked").map(|group| group.path), Some(path));
    }
    admin.clean_up().await;
}

#[tokio::test]
async fn a_renamed_role_is_mapped_and_unmapped_by_its_id() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let realm = realm_id(&client).await;
    let user = admin.user("renamed").await;
    let owner = admin.robot(&[]).await.client_id;
    for role in [admin.realm_role("before").await, admin.client_role(&owner, "before").await] {
        let known = target(&role);
        admin.rename_role(&role, &unique("between")).await;
        client.map(&user.id, &known).await.expect("found by id");
        assert!(admin.has(&user, &role).await);
        admin.rename_role(&role, &unique("after")).await;
        assert_eq!(client.unmap(&user.id, &known, &realm).await.expect("found by id"), Removal::Removed);
        assert!(!admin.has(&user, &role).await);
    }
    admin.clean_up().await;
}

#[tokio::test]
async fn a_deleted_role_client_group_or_user_is_proved_gone() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let realm = realm_id(&client).await;
    let user = admin.user("stays").await;
    let role = admin.realm_role("deleted").await;
    let owner = admin.robot(&[]).await;
    let client_role = admin.client_role(&owner.client_id, "deleted").await;
    let group = admin.group(None, &unique("deleted")).await;
    let targets = [target(&role), target(&client_role), membership(&group)];
    for target in &targets {
        client.map(&user.id, target).await.expect("map");
        let leaver = admin.user("leaves").await;
        client.map(&leaver.id, target).await.expect("map");
        admin.delete_user(&leaver).await;
        assert_eq!(client.unmap(&leaver.id, target, &realm).await.expect("proof"), Removal::UserGone);
        assert_eq!(client.map(&leaver.id, target).await.expect_err("gone").kind(), Kind::NotFound);
        assert_eq!(client.user(&leaver.id).await.expect("asked"), None);
    }
    admin.delete_role(&role).await;
    admin.call(reqwest::Method::DELETE, &format!("clients/{}", owner.id), None).await;
    admin.delete_group(&group).await;
    for target in &targets {
        assert_eq!(client.unmap(&user.id, target, &realm).await.expect("proof"), Removal::TargetGone);
        let error = client.unmap(&user.id, target, "another realm's id").await.expect_err("another realm");
        assert_eq!(error.kind(), Kind::OtherRealm);
        assert_eq!(client.map(&user.id, target).await.expect_err("gone").kind(), Kind::NotFound);
        assert_eq!(client.reaches_admin(target).await.expect_err("gone").kind(), Kind::NotFound);
    }
    admin.clean_up().await;
}

#[tokio::test]
async fn a_role_made_anew_under_an_old_name_is_another_role() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let realm = realm_id(&client).await;
    let user = admin.user("again").await;
    let old = admin.realm_role("again").await;
    admin.delete_role(&old).await;
    let new = admin.named_realm_role(&old.name).await;
    admin.map(&user, &new).await;
    assert!(!client.has(&user.id, &target(&old)).await.expect("compared by id"));
    assert_eq!(client.unmap(&user.id, &target(&old), &realm).await.expect("proof"), Removal::TargetGone);
    assert!(admin.has(&user, &new).await, "the new role was not touched");
    admin.clean_up().await;
}

#[tokio::test]
async fn leaving_a_group_leaves_membership_of_its_child_alone() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let realm = realm_id(&client).await;
    let user = admin.user("child").await;
    let parent = admin.group(None, &unique("parent")).await;
    let child = admin.group(Some(&parent), "child").await;
    admin.join(&user, &child).await;
    assert!(!client.has(&user.id, &membership(&parent)).await.expect("direct membership only"));
    client.map(&user.id, &membership(&parent)).await.expect("join");
    assert_eq!(client.user_groups(&user.id).await.expect("groups").len(), 2, "both are direct");
    assert_eq!(client.unmap(&user.id, &membership(&parent), &realm).await.expect("leave"), Removal::Removed);
    assert_eq!(client.unmap(&user.id, &membership(&parent), &realm).await.expect("leave"), Removal::Removed);
    assert_eq!(admin.groups(&user).await, [child.path]);
    admin.clean_up().await;
}

#[tokio::test]
async fn what_leads_to_keycloaks_administration_is_recognised() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let manage = admin.find_client_role("realm-management", "manage-users").await;
    let inner = admin.realm_role("inner").await;
    let outer = admin.client_role(&admin.robot(&[]).await.client_id, "outer").await;
    let harmless = admin.realm_role("harmless").await;
    admin.compose(&harmless, &[&admin.realm_role("plain").await]).await;
    admin.compose(&outer, &[&inner]).await;
    admin.compose(&inner, &[&outer, &harmless]).await;
    for role in [&inner, &outer, &harmless, &admin.find_realm_role("default-roles-acme").await] {
        assert_eq!(client.reaches_admin(&target(role)).await.expect("asked"), None, "{role:?}");
    }
    assert_eq!(
        client.reaches_admin(&target(&manage)).await.expect("asked").as_deref(),
        Some("role realm-management/manage-users")
    );
    admin.compose(&inner, &[&manage]).await;
    let words = client.reaches_admin(&target(&outer)).await.expect("asked").expect("reaches");
    let expected =
        format!("role realm-management/manage-users through composite {:?} through composite \"outer\"", inner.name);
    assert_eq!(words, expected);

    let parent = admin.group(None, &unique("parent")).await;
    let child = admin.group(Some(&admin.group(Some(&parent), "middle").await), "child").await;
    assert_eq!(client.reaches_admin(&membership(&child)).await.expect("asked"), None);
    admin.map_to_group(&parent, &harmless).await;
    assert_eq!(client.reaches_admin(&membership(&child)).await.expect("asked"), None);
    admin.map_to_group(&parent, &outer).await;
    let words = client.reaches_admin(&membership(&child)).await.expect("asked").expect("reaches");
    assert!(words.ends_with(&format!("through group {:?}", parent.path)), "{words}");

    let direct = admin.group(None, &unique("direct")).await;
    admin.map_to_group(&direct, &manage).await;
    let words = client.reaches_admin(&membership(&direct)).await.expect("asked");
    assert_eq!(words, Some(format!("role realm-management/manage-users through group {:?}", direct.path)));
    admin.clean_up().await;
}

#[tokio::test]
async fn masters_own_way_to_power_is_recognised() {
    let admin = Admin::of_master();
    let client = client_with(&admin, &RIGHTS).await;
    assert_eq!(client.self_test().await.expect("asked"), []);
    for (role, expected) in [
        (admin.find_realm_role("admin").await, Some("role master/admin")),
        (admin.find_realm_role("create-realm").await, Some("role master/create-realm")),
        (admin.find_client_role("acme-realm", "manage-users").await, Some("role acme-realm/manage-users")),
        (admin.find_realm_role("default-roles-master").await, None),
    ] {
        assert_eq!(client.reaches_admin(&target(&role)).await.expect("asked").as_deref(), expected);
    }
    admin.clean_up().await;
}

/// Without `view-clients` Keycloak answers with the harmless part of a composite, and with no admin roles of a group.
#[tokio::test]
async fn nothing_is_declared_harmless_by_an_account_that_cannot_see() {
    let admin = Admin::new();
    let role = admin.realm_role("mixed").await;
    let manage = admin.find_client_role("realm-management", "manage-users").await;
    admin.compose(&role, &[&manage, &admin.realm_role("plain").await]).await;
    let group = admin.group(None, &unique("mixed")).await;
    admin.map_to_group(&group, &role).await;
    for rights in [
        &["manage-users", "view-realm"][..],
        &["manage-users", "view-realm", "query-clients"],
        &["manage-users", "view-clients"],
    ] {
        let client = client_with(&admin, rights).await;
        for target in [target(&role), membership(&group)] {
            let error = client.reaches_admin(&target).await.expect_err("cannot see");
            assert_eq!(error.kind(), Kind::Forbidden, "{rights:?}: {error}");
        }
    }
    admin.clean_up().await;
}

#[tokio::test]
async fn the_self_test_names_what_is_missing() {
    let admin = Admin::new();
    for (rights, expected) in [
        (&RIGHTS[..], &[][..]),
        (&["realm-admin"], &[]),
        (&[], &RIGHTS),
        (&["view-users", "view-realm", "view-clients"], &["manage-users"]),
        (&["manage-users", "view-clients"], &["view-realm"]),
        (&["manage-users", "view-realm"], &["view-clients"]),
        (&["manage-users", "view-realm", "query-clients"], &["view-clients"]),
    ] {
        let client = client_with(&admin, rights).await;
        let missing = client.self_test().await.expect("asked");
        let missing: Vec<_> = missing.iter().map(|missing| missing.right).collect();
        assert_eq!(missing, expected, "with {rights:?}");
    }
    admin.clean_up().await;
}

#[tokio::test]
async fn people_are_found_by_username_email_and_id() {
    let admin = Admin::new();
    let robot = admin.robot(&RIGHTS).await;
    let client = Client::new(&configured(&admin, &robot)).expect("valid");
    let user = admin.user("jörg_b+x").await;
    let email = format!("{}@example.com", user.username.replace(|c: char| !c.is_ascii_alphanumeric(), ""));
    admin.update_user(&user, &serde_json::json!({"email": email, "emailVerified": true})).await;
    let other = admin.user("other").await;
    for (by, value, expected) in [
        (UserMatch::Username, user.username.clone(), Some(&user.id)),
        (UserMatch::Username, user.username.to_ascii_uppercase(), Some(&user.id)),
        (UserMatch::Username, user.username[..user.username.len() - 1].into(), None),
        (UserMatch::Username, "%".into(), None),
        (UserMatch::Username, robot.account.username.clone(), Some(&robot.account.id)),
        (UserMatch::Email, email.clone(), Some(&user.id)),
        (UserMatch::Id, user.id.clone(), Some(&user.id)),
        (UserMatch::Id, user.username.clone(), None),
        (UserMatch::Id, "..".into(), None),
    ] {
        let found = client.find_user(by, &value).await.expect("asked");
        assert_eq!(found.as_ref().map(|user| &user.id), expected, "{by:?} {value:?}");
    }
    admin.update_user(&user, &serde_json::json!({"emailVerified": false, "enabled": false})).await;
    assert_eq!(client.find_user(UserMatch::Email, &email).await.expect("asked"), None, "not verified");
    assert!(!client.user(&user.id).await.expect("asked").expect("there").enabled);
    assert_ne!(
        client.find_user(UserMatch::Username, &other.username).await.expect("asked").map(|user| user.id),
        Some(user.id)
    );
    admin.clean_up().await;
}

#[tokio::test]
async fn what_is_mapped_is_in_the_token() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let user = admin.user("token").await;
    let role = admin.realm_role("role").await;
    let roles = async || admin.claims(&user).await["realm_access"]["roles"].to_string();
    assert!(!roles().await.contains(&role.name));
    client.map(&user.id, &target(&role)).await.expect("map");
    assert!(roles().await.contains(&role.name));
    client.unmap(&user.id, &target(&role), &realm_id(&client).await).await.expect("unmap");
    assert!(!roles().await.contains(&role.name));
    admin.clean_up().await;
}

/// Keycloak answers some of them with 400 although the mapping is there.
#[tokio::test]
async fn concurrent_mappings_of_one_role_all_succeed() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let user = admin.user("busy").await;
    let role = admin.realm_role("busy").await;
    let calls = (0..16).map(|_| {
        let (client, user, target) = (client.clone(), user.id.clone(), target(&role));
        tokio::spawn(async move { client.map(&user, &target).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("joined").expect("mapped");
    }
    assert!(admin.has(&user, &role).await);
    admin.clean_up().await;
}

#[tokio::test]
async fn a_failure_to_get_in_says_why() {
    let admin = Admin::new();
    let robot = admin.robot(&RIGHTS).await;
    let good = configured(&admin, &robot);
    let mut wrong_secret = good.clone();
    wrong_secret.auth.client_secret_file.clone_from(&good.ca_file);
    let mut wrong_client = good.clone();
    wrong_client.auth.client_id = unique("none");
    let mut wrong_realm = good.clone();
    wrong_realm.realm = unique("none");
    let mut no_authority = good.clone();
    no_authority.ca_file = None;
    let mut nobody_there = good.clone();
    nobody_there.url = "https://127.0.0.1:1".into();
    for (realm, kind, words) in [
        (
            &wrong_secret,
            Kind::Unauthorized,
            "401 unauthorized_client: Invalid client or Invalid client credentials (is the client secret right?)",
        ),
        (&wrong_client, Kind::Unauthorized, "401 invalid_client"),
        (&wrong_realm, Kind::Unauthorized, "404 Realm does not exist (is the realm's name right?)"),
        (&no_authority, Kind::NotSent, "(does caFile hold the server's certificate authority?)"),
        (&nobody_there, Kind::NotSent, "connection refused"),
    ] {
        let error = Client::new(realm).expect("valid").realm().await.expect_err("must fail");
        assert_eq!(error.kind(), kind, "{error}");
        let start =
            format!("cannot sign in to {} realm {} as client {}: ", realm.url, realm.realm, realm.auth.client_id);
        assert!(error.to_string().starts_with(&start) && error.to_string().contains(words), "{error}");
    }
    admin.clean_up().await;
}

#[tokio::test]
async fn the_realm_tells_its_id_its_lifespans_and_its_clock() {
    let admin = Admin::new();
    let client = client_with(&admin, &RIGHTS).await;
    let realm = client.realm().await.expect("realm");
    let seen = admin.get("").await;
    assert_eq!(seen["id"], realm.id);
    assert_eq!(seen["accessTokenLifespan"], realm.access_token_lifespan.as_secs());
    assert_eq!(seen["accessTokenLifespanForImplicitFlow"], realm.implicit_token_lifespan.as_secs());
    let skew = client.clock_skew().expect("signed in");
    assert!(skew.abs() <= 1, "one machine, one clock: {skew} s");
    let blind = client_with(&admin, &["manage-users"]).await;
    let error = blind.realm().await.expect_err("no right");
    assert_eq!(error.kind(), Kind::Forbidden);
    assert!(error.to_string().ends_with("lacks the right view-realm of realm-management"), "{error}");
    admin.clean_up().await;
}
