//! What was lent is known by its ids: it goes under whatever name it has at the end, and what has taken its name since is
//! left alone. What is missing proves nothing unless the very realm answers in which it was lent.

use std::time::{Duration, Instant};

use hallpass::api::{Phase, TargetState};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    chart,
    keycloak_admin::{Admin, unique},
    people::Person,
    policy::Policy,
    realms::{self, LIMITED, WANDERING},
    request::{Request, condition},
    world::World,
};

async fn ends(person: &Person, request: &Request) -> Vec<TargetState> {
    person.ends(request).await.unwrap();
    let status = request.reaches(Phase::Revoked).await;
    status.grant.expect("a grant").targets.iter().map(|target| target.state).collect()
}

#[tokio::test]
async fn what_is_called_otherwise_meanwhile_goes_all_the_same() {
    // given
    let w = World::new().await;
    let k = &w.keycloak;
    let alice = w.person("alice").await;
    let owner = k.robot(&[]).await;
    let role = k.client_role(&owner.client_id, "debug").await;
    let (parent, elsewhere) = (k.group(None, &unique("parent")).await, k.group(None, &unique("elsewhere")).await);
    let (moved, renamed) = (k.group(Some(&parent), "moved").await, k.group(Some(&parent), "renamed").await);
    let policy = w.policy("oncall").client_role("debug", &owner.client_id, "debug").requester(&alice);
    let policy = policy.group("moved", &moved.path).group("renamed", &renamed.path).automatic().ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    assert_eq!(k.groups(&alice.user).await.len(), 2);
    // when
    k.call(Method::PUT, &format!("clients/{}", owner.id), Some(&json!({"clientId": unique("other")}))).await;
    k.rename_role(&role, "other").await;
    k.call(Method::POST, &format!("groups/{}/children", elsewhere.id), Some(&json!({"id": moved.id, "name": "moved"})))
        .await;
    k.rename_group(&renamed, "other").await;
    k.update_user(&alice.user, &json!({"firstName": "Another"})).await;
    let paths = k.groups(&alice.user).await;
    assert!(paths.contains(&format!("{}/moved", elsewhere.path)) && paths.contains(&format!("{}/other", parent.path)));
    // what has the old names now
    let (again, group) = (k.robot(&[]).await, k.group(Some(&parent), "renamed").await);
    k.call(Method::PUT, &format!("clients/{}", again.id), Some(&json!({"clientId": owner.client_id}))).await;
    let impostor = k.client_role(&owner.client_id, "debug").await;
    k.map(&alice.user, &impostor).await;
    k.join(&alice.user, &group).await;
    // then
    assert_eq!(ends(&alice, &request).await, [TargetState::Removed; 3]);
    assert!(!k.has(&alice.user, &role).await);
    assert!(k.has(&alice.user, &impostor).await, "the role of another client");
    assert_eq!(k.groups(&alice.user).await, [group.path]);
    w.clean_up().await;
}

#[tokio::test]
async fn whoever_is_called_otherwise_meanwhile_loses_it_on_time_and_not_who_has_the_name_since() {
    // given
    let w = World::new().await;
    let k = &w.keycloak;
    let alice = w.person("alice").await;
    let role = k.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    let request = alice.asks(&policy).lasting("10s").create().await.unwrap();
    request.reaches(Phase::Active).await;
    // when
    let name = unique("married");
    k.update_user(&alice.user, &json!({"username": name})).await;
    assert_eq!(k.find_user(&name).await.id, alice.user.id, "renamed");
    let impostor = k.user_named(&alice.user.username).await;
    k.map(&impostor, &role).await;
    assert!(k.has(&alice.user, &role).await, "the name changes nothing");
    // then
    let status = request.reaches(Phase::Expired).await;
    assert_eq!(status.grant.unwrap().targets[0].state, TargetState::Removed);
    assert!(!k.has(&alice.user, &role).await);
    assert!(k.has(&impostor, &role).await, "another person");
    w.clean_up().await;
}

#[tokio::test]
async fn what_is_made_anew_under_an_old_name_is_left_alone() {
    // given
    let w = World::new().await;
    let k = &w.keycloak;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let owner = k.robot(&[]).await;
    let (role, kept) = (k.realm_role("admin").await, k.realm_role("kept").await);
    k.client_role(&owner.client_id, "debug").await;
    let group = k.group(None, &unique("oncall")).await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).client_role("debug", &owner.client_id, "debug");
    let policy = policy.group("oncall", &group.path).everybody().automatic().ready().await;
    let simple = w.policy("simple").realm_role("kept", &kept.name).everybody().automatic().ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    let of_bob = bob.asks(&simple).create().await.unwrap();
    request.reaches(Phase::Active).await;
    of_bob.reaches(Phase::Active).await;
    // when
    k.delete_role(&role).await;
    k.call(Method::DELETE, &format!("clients/{}", owner.id), None).await;
    k.delete_group(&group).await;
    k.delete_user(&bob.user).await;
    let role = k.named_realm_role(&role.name).await;
    let again = k.robot(&[]).await;
    k.call(Method::PUT, &format!("clients/{}", again.id), Some(&json!({"clientId": owner.client_id}))).await;
    let debug = k.client_role(&owner.client_id, "debug").await;
    let group = k.group(None, group.path.trim_start_matches('/')).await;
    let new_bob = k.user_named(&bob.user.username).await;
    k.map(&alice.user, &role).await;
    k.map(&alice.user, &debug).await;
    k.join(&alice.user, &group).await;
    k.map(&new_bob, &kept).await;
    // then
    assert_eq!(ends(&alice, &request).await, [TargetState::Removed; 3]);
    assert_eq!(ends(&bob, &of_bob).await, [TargetState::Removed]);
    assert!(k.has(&alice.user, &role).await && k.has(&alice.user, &debug).await);
    assert_eq!(k.groups(&alice.user).await, [group.path]);
    assert!(k.has(&new_bob, &kept).await, "another person");
    w.clean_up().await;
}

#[tokio::test]
async fn leaving_a_group_touches_neither_its_children_nor_its_parents() {
    // given
    let w = World::new().await;
    let k = &w.keycloak;
    let parent = k.group(None, &unique("parent")).await;
    let child = k.group(Some(&parent), "child").await;
    let (alice, bob) = (w.person("alice").await.in_group(&child).await, w.person("bob").await.in_group(&parent).await);
    let policy = w.policy("oncall").group("parent", &parent.path).group("child", &child.path).everybody();
    let policy = policy.automatic().ready().await;
    // when
    let up = alice.asks(&policy).grants(["parent"]).create().await.unwrap();
    let down = bob.asks(&policy).grants(["child"]).create().await.unwrap();
    up.reaches(Phase::Active).await;
    down.reaches(Phase::Active).await;
    for person in [&alice, &bob] {
        assert_eq!(k.groups(&person.user).await.len(), 2, "both are direct");
    }
    // then
    assert_eq!(ends(&alice, &up).await, [TargetState::Removed]);
    assert_eq!(ends(&bob, &down).await, [TargetState::Removed]);
    assert_eq!(k.groups(&alice.user).await, std::slice::from_ref(&child.path));
    assert_eq!(k.groups(&bob.user).await, std::slice::from_ref(&parent.path));
    // and one that somebody has left meanwhile is gone, although they are in its child
    let up = alice.asks(&policy).grants(["parent"]).create().await.unwrap();
    up.reaches(Phase::Active).await;
    k.leave(&alice.user, &parent).await;
    assert_eq!(ends(&alice, &up).await, [TargetState::Removed]);
    assert_eq!(k.groups(&alice.user).await, [child.path]);
    w.clean_up().await;
}

/// Somebody who has a role in the realm that scenarios rename and delete.
struct Wanderer {
    realm: Admin,
    person: Person,
    policy: Policy,
    request: Request,
}

impl Wanderer {
    async fn new(w: &World) -> Self {
        let (client, secret) = &realms::ready().await.client;
        let realm = Admin::of_realm(WANDERING);
        realm.delete_realm().await;
        realm.make_realm(client, secret).await;
        let person = w.person("alice").await;
        realm.user_named(&person.user.username).await;
        let role = realm.named_realm_role("admin").await;
        let policy = w.policy("there").realm(WANDERING).realm_role("admin", &role.name).requester(&person);
        let policy = policy.automatic().ready().await;
        let request = person.asks(&policy).create().await.unwrap();
        request.reaches(Phase::Active).await;
        Self { realm, person, policy, request }
    }

    async fn has_it(&self) -> bool {
        let user = self.realm.find_user(&self.person.user.username).await;
        self.realm.has(&user, &self.realm.find_realm_role("admin").await).await
    }
}

#[tokio::test]
async fn a_realm_that_is_renamed_or_replaced_proves_nothing_and_is_not_touched() {
    // given
    let w = World::new().await;
    let _turn = realms::wandering().await;
    let mut lent = Wanderer::new(&w).await;
    let (client, secret) = &realms::ready().await.client;
    let id = lent.request.status().await.subject.expect("a subject").realm_id;
    // when it has another name
    let other = unique("renamed");
    lent.realm.rename_realm(&other).await;
    lent.person.ends(&lent.request).await.unwrap();
    // then
    lent.request.says(Phase::Revoking, "RevocationFailed").await;
    assert!(lent.has_it().await);
    // when another realm has its name, with a user and a role called the same
    let impostor = Admin::of_realm(WANDERING);
    impostor.make_realm(client, secret).await;
    let user = impostor.user_named(&lent.person.user.username).await;
    let role = impostor.named_realm_role("admin").await;
    impostor.map(&user, &role).await;
    // then both ids are said, and nothing is touched
    let new = impostor.get("").await["id"].as_str().expect("an id").to_owned();
    let says_both = |message: &str| message.contains(&id) && message.contains(&new);
    lent.request
        .until("both ids", |status| status.conditions.iter().any(|condition| says_both(&condition.message)))
        .await;
    assert!(lent.has_it().await && impostor.has(&user, &role).await);
    // when the first has its name again
    impostor.delete_realm().await;
    lent.realm.rename_realm(WANDERING).await;
    // then
    lent.request.reaches(Phase::Revoked).await;
    assert!(!lent.has_it().await);
    lent.policy.delete().await;
    w.clean_up().await;
    lent.realm.delete_realm().await;
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_named_and_what_waited_goes_when_it_is_back() {
    // given
    let w = World::new().await;
    let _turn = realms::limited().await;
    let k = &w.keycloak;
    let robot = &realms::ready().await.limited;
    let account = k.find_user(&format!("service-account-{robot}")).await;
    let manage = k.find_client_role("realm-management", "manage-users").await;
    let alice = w.person("alice").await;
    let role = k.realm_role("admin").await;
    let policy = w.policy("there").realm(LIMITED).realm_role("admin", &role.name).requester(&alice);
    let policy = policy.automatic().ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    // when
    k.unmap(&account, &manage).await;
    alice.ends(&request).await.unwrap();
    // then
    let words = request.says(Phase::Revoking, "RevocationFailed").await;
    assert!(words.contains("lacks the right manage-users"), "{words}");
    assert!(k.has(&alice.user, &role).await);
    let health = async || w.stack.ask_operator("/readyz").await.unwrap().1;
    let line = format!("[-] realm {LIMITED}: the service account of client {robot:?} lacks the right manage-users");
    w.until("the realm is not ready", async || health().await.contains(&line)).await;
    // when it is back
    k.map(&account, &manage).await;
    // then
    request.reaches(Phase::Revoked).await;
    assert!(!k.has(&alice.user, &role).await);
    w.until("the realm is ready", async || health().await.contains(&format!("[+] realm {LIMITED}: ok"))).await;
    w.clean_up().await;
}

#[tokio::test]
async fn what_may_not_be_seen_for_a_while_is_not_said_to_be_taken_away() {
    // given a role of the realm, one of a client, and a group
    let w = World::new().await;
    let _turn = realms::limited().await;
    let k = &w.keycloak;
    let robot = &realms::ready().await.limited;
    let account = k.find_user(&format!("service-account-{robot}")).await;
    let alice = w.person("alice").await;
    let owner = k.robot(&[]).await;
    let (role, debug) = (k.realm_role("admin").await, k.client_role(&owner.client_id, "debug").await);
    let group = k.group(None, &unique("oncall")).await;
    let policy = w.policy("there").realm(LIMITED).realm_role("admin", &role.name).group("oncall", &group.path);
    let policy = policy.client_role("debug", &owner.client_id, "debug").requester(&alice).automatic().ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    let health = async || w.stack.ask_operator("/readyz").await.unwrap().1;
    for right in ["view-clients", "view-realm", "manage-users"] {
        // when
        let right_role = k.find_client_role("realm-management", right).await;
        k.unmap(&account, &right_role).await;
        // then nothing is said for some looks, of which there is one every three seconds
        let begin = Instant::now();
        w.until("some looks are over", async || {
            let said = condition(&request.status().await, "Ready");
            assert_eq!(said.reason, "Active", "without {right}: {}", said.message);
            begin.elapsed() > Duration::from_secs(10)
        })
        .await;
        k.map(&account, &right_role).await;
        w.until("the realm is ready", async || health().await.contains(&format!("[+] realm {LIMITED}: ok"))).await;
    }
    assert!(w.events(&request.name, "TakenAway").await.is_empty());
    // when it is really taken away
    k.unmap(&alice.user, &debug).await;
    // then
    request.says(Phase::Active, "TakenAway").await;
    assert_eq!(ends(&alice, &request).await, [TargetState::Removed; 3]);
    w.clean_up().await;
}

#[tokio::test]
async fn where_admission_does_not_look_at_the_groups_of_a_token_the_operator_does() {
    // given: signed in before joining, and in another group
    let w = World::alone().await;
    let k = &w.keycloak;
    let (team, other) = (k.group(None, &unique("team")).await, k.group(None, &unique("other")).await);
    let (alice, mallory) = (w.person("alice").await.in_group(&other).await, w.person("mallory").await);
    let mallory = mallory.in_group(&other).await;
    let role = k.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester_group(&team).automatic().ready().await;
    alice.signs_in().await;
    k.join(&alice.user, &team).await;
    let refused = alice.asks(&policy).create().await.map(|request| request.name);
    assert!(refused.as_ref().is_err_and(|words| words.contains("you may not ask under policy")), "{refused:?}");
    // when
    let values = chart::example("helm-values.yaml");
    let (rendered, text) = chart::in_the_cluster("templates/admission.yaml", &values, "admission.membership=false");
    assert!(rendered, "{text}");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let wanted = objects.iter().find(|object| {
        object["kind"] == "ValidatingAdmissionPolicy" && object["metadata"]["name"] == "hallpass-policy"
    });
    let mut policies = w.installed("ValidatingAdmissionPolicy", "hallpass-policy");
    policies["spec"] = wanted.expect("hallpass-policy")["spec"].clone();
    let epoch = w.epoch().await;
    let changed = w.weaken_by(&["replace", "--filename=-"], &policies.to_string());
    w.another_epoch(epoch.as_ref()).await;
    // then
    let asked = alice.asks(&policy).create().await.unwrap();
    asked.reaches(Phase::Active).await;
    assert!(k.has(&alice.user, &role).await);
    let not_theirs = mallory.asks(&policy).create().await.unwrap().reaches(Phase::Rejected).await;
    let words = condition(&not_theirs, "Ready").message;
    assert!(words.contains("may not ask under policy"), "{words}");
    assert!(!k.has(&mallory.user, &role).await);
    changed.mended(&w).await;
    w.clean_up().await;
}
