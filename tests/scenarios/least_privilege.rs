//! A realm is prepared so that the operator can lend what policies name, and nothing else.

use std::{path::Path, process::Output, time::Duration};

use hallpass::api::Phase;
use reqwest::Method;
use serde_json::json;
use tokio::process::Command;

use crate::{
    keycloak_admin::{Admin, Person, Robot, unique},
    policy::Policy,
    realms::{self, NARROW},
    world::{World, file},
};

/// Runs `hallpass keycloak-setup` for the realm, with these arguments.
async fn setup(w: &World, arguments: &[&str]) -> Output {
    let mut hallpass = Command::new(&w.stack.operator.binary);
    hallpass.env("KUBECONFIG", &w.stack.kubeconfig).arg("keycloak-setup").arg("--config").arg(&w.stack.operator.config);
    hallpass.args(["--realm", NARROW]).args(arguments).output().await.expect("it runs")
}

/// All that it said.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The same as the server's administrator.
async fn set_up(w: &World, profile: &str, password: &Path) -> Output {
    let (administrator, password) = (&w.keycloak.stack.admin_user, password.display().to_string());
    setup(w, &["--profile", profile, "--administrator", administrator, "--password-file", &password]).await
}

/// The same, and it succeeds: what it says, a line for each step.
async fn prepare(w: &World, profile: &str, password: &Path) -> Vec<String> {
    let output = set_up(w, profile, password).await;
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains(&w.keycloak.stack.admin_password), "the password is nowhere");
    text.lines().skip(1).map(ToOwned::to_owned).collect()
}

/// In the name of the operator, for as long as one token lives.
async fn as_the_operator(k: &Admin) -> Admin {
    let (client_id, secret) = realms::ready().await.client.clone();
    let account = Person { id: String::new(), username: String::new(), password: String::new() };
    k.in_the_name_of(&Robot { id: String::new(), client_id, secret, account }).await
}

/// What the policy says of how far the operator's rights reach, once that is this.
async fn says_of_the_rights(w: &World, policy: &Policy, reason: &str) {
    w.until(&format!("the rights are {reason}"), async || {
        let status = policy.get().await.status.unwrap_or_default();
        status.conditions.iter().any(|said| said.type_ == "LeastPrivilege" && said.reason == reason)
    })
    .await;
}

#[tokio::test]
async fn a_realm_is_prepared_so_that_only_what_policies_name_can_be_lent() {
    // given a realm in which the operator has the right manage-users
    let w = World::new().await;
    let _turn = realms::narrow().await;
    let k = Admin::of_realm(NARROW);
    let password = file("password", &w.keycloak.stack.admin_password);
    prepare(&w, "manage-users", &password).await;
    // It looks once a minute.
    let minutes = Duration::from_mins(2);
    let health = async || w.stack.ask_operator("/readyz").await.unwrap().1;
    let plain = format!("[+] realm {NARROW}: ok; with manage-users");
    w.until_within(minutes, "the operator has manage-users", async || health().await.contains(&plain)).await;
    let owner = k.robot(&[]).await;
    let (role, other) = (k.realm_role("admin").await, k.realm_role("other").await);
    let (debug, group) = (k.client_role(&owner.client_id, "debug").await, k.group(None, &unique("oncall")).await);
    let hidden = k.client_role(&owner.client_id, "hidden").await;
    let alice = w.person("alice").await;
    let user = k.user_named(&alice.user.username).await;
    let policy = w.policy("narrow").realm(NARROW).requester(&alice).automatic().realm_role("admin", &role.name);
    let policy = policy.client_role("debug", &owner.client_id, "debug").group("oncall", &group.path).ready().await;
    says_of_the_rights(&w, &policy, "ManageUsers").await;
    // when it is only said what would be done
    let output = setup(&w, &["--profile", "limited"]).await;
    // then
    let text = said(&output);
    assert!(output.status.success() && text.contains("Nothing was changed"), "{text}");
    assert!(text.contains(&format!("may map-role realm role {:?}", role.name)), "{text}");
    assert!(text.contains("and not manage-users") && !text.contains(&other.name), "{text}");
    // when it is done, while something is lent
    let before = alice.asks(&policy).create().await.unwrap();
    before.reaches(Phase::Active).await;
    let lines = prepare(&w, "limited", &password).await;
    // then
    assert!(lines.iter().all(|line| line.starts_with("[+] ")), "{lines:#?}");
    assert!(lines.last().unwrap().ends_with("and not manage-users: made so"), "{lines:#?}");
    let again = prepare(&w, "limited", &password).await;
    assert!(again.iter().all(|line| line.ends_with(": was so")), "{again:#?}");
    // and when the policy does not name any more what is lent, the operator can still take it away
    let grants = json!(policy.get().await.spec.grants);
    policy.change(json!({"grants": [grants[0]]})).await;
    prepare(&w, "limited", &password).await;
    alice.ends(&before).await.unwrap();
    before.reaches(Phase::Revoked).await;
    assert_eq!((k.has(&user, &role).await, k.has(&user, &debug).await), (false, false));
    // and what the policy names can be lent, and nothing else
    let limited = format!("[+] realm {NARROW}: ok; the operator could lend no realm role that no policy names");
    w.until_within(minutes, "the realm is limited", async || health().await.contains(&limited)).await;
    // when the policy lends more
    prepare(&w, "limited", &password).await;
    policy.change(json!({ "grants": grants })).await;
    // then
    let words = policy.is_not_ready("NotPermitted").await;
    assert!(words.contains("needs the permission to lend role \"debug\" of client"), "{words}");
    prepare(&w, "limited", &password).await;
    policy.is_ready().await;
    says_of_the_rights(&w, &policy, "Limited").await;
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    for wanted in [&role, &debug] {
        assert!(k.has(&user, wanted).await, "{wanted:?}");
    }
    for refused in [&other, &hidden] {
        assert_eq!(as_the_operator(&k).await.try_map(&user, refused).await, 403, "{refused:?}");
    }
    alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    // when a policy wants more
    let more = w.policy("more").realm(NARROW).requester(&alice).automatic().realm_role("other", &other.name);
    let more = more.with("sessions", json!({"atEnd": "EndAll"})).create().await.unwrap();
    // then
    let words = more.is_not_ready("NotPermitted").await;
    for wanted in ["needs the permission to lend realm role", "needs the permission to manage users", "keycloak-setup"]
    {
        assert!(words.contains(wanted), "{wanted:?} in {words}");
    }
    // when that is prepared
    let lines = prepare(&w, "limited", &password).await;
    assert_eq!(lines.iter().filter(|line| line.ends_with(": made so")).count(), 2, "{lines:#?}");
    more.is_ready().await;
    says_of_the_rights(&w, &more, "ManagesUsers").await;
    let request = alice.asks(&more).create().await.unwrap();
    request.reaches(Phase::Active).await;
    alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    assert!(!k.has(&user, &other).await);
    // when it is not wanted any more
    more.delete().await;
    w.until("that is noticed", async || {
        health().await.contains(&format!("could also lend realm roles that no policy names: {:?}", other.name))
    })
    .await;
    prepare(&w, "limited", &password).await;
    // then
    assert_eq!(as_the_operator(&k).await.try_map(&user, &other).await, 403);
    // and back
    prepare(&w, "manage-users", &password).await;
    w.clean_up().await;
    // when there are no policies
    let output = setup(&w, &["--profile", "limited"]).await;
    // then
    let text = said(&output);
    assert!(!output.status.success() && text.contains("there is no policy for realm narrow"), "{text}");
    k.clean_up().await;
}

#[tokio::test]
async fn permissions_of_others_are_left_alone_and_named() {
    // given a permission of a help desk
    let w = World::new().await;
    let _turn = realms::narrow().await;
    let (k, alice) = (Admin::of_realm(NARROW), w.person("alice").await);
    let (user, role) = (k.user_named(&alice.user.username).await, k.realm_role("admin").await);
    let policy = w.policy("narrow").realm(NARROW).requester(&alice).automatic().realm_role("admin", &role.name);
    policy.create().await.unwrap();
    k.call(Method::PUT, "", Some(&json!({"adminPermissionsEnabled": true}))).await;
    let server = format!("clients/{}/authz/resource-server", k.find_client("admin-permissions").await);
    let helpdesk = unique("helpdesk");
    let of_alice = json!({"name": format!("{helpdesk}-people"), "users": [user.id], "logic": "POSITIVE"});
    k.call(Method::POST, &format!("{server}/policy/user"), Some(&of_alice)).await;
    let found = k.get(&format!("{server}/policy/user?name={helpdesk}-people")).await;
    let id = found[0]["id"].as_str().unwrap();
    let permission = json!({"name": helpdesk, "resourceType": "Users", "scopes": ["view"], "policies": [id]});
    k.call(Method::POST, &format!("{server}/permission/scope"), Some(&permission)).await;
    // when
    let output = set_up(&w, "limited", &file("password", &w.keycloak.stack.admin_password)).await;
    // then
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains(&format!(
            "there is the permission {helpdesk:?} about Users: permissions of Keycloak do not add up"
        )),
        "{text}"
    );
    assert_eq!(text.lines().filter(|line| line.starts_with("[-] ")).count(), 1, "it ends with that: {text}");
    k.delete(&format!("{server}/policy/{id}")).await;
    w.clean_up().await;
    k.clean_up().await;
}

#[tokio::test]
async fn a_status_that_somebody_else_wrote_gets_no_permission_for_administration() {
    // given
    let w = World::alone().await;
    let _turn = realms::narrow().await;
    let (k, alice) = (Admin::of_realm(NARROW), w.person("alice").await);
    let (user, role) = (k.user_named(&alice.user.username).await, k.realm_role("admin").await);
    let policy = w.policy("narrow").realm(NARROW).requester(&alice).automatic().realm_role("admin", &role.name);
    let policy = policy.ready().await;
    let password = file("password", &w.keycloak.stack.admin_password);
    prepare(&w, "manage-users", &password).await;
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    // when
    w.operator("stop").await;
    let realm_admin = k.find_client_role("realm-management", "realm-admin").await;
    w.stack
        .edit_in_etcd(&request.namespace, &request.name, |object| {
            let target = &mut object["status"]["grant"]["targets"][0];
            target["type"] = json!("ClientRole");
            target["client"] = json!(realm_admin.client);
            target["id"] = json!(realm_admin.id);
            target["display"] = json!(realm_admin.name);
        })
        .await;
    let output = set_up(&w, "limited", &password).await;
    // then
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    let last = text.lines().rfind(|line| line.starts_with("[-] ")).expect("a step that failed");
    assert!(last.contains("(lent now) leads to Keycloak's administration"), "{text}");
    assert!(!text.contains("and not manage-users: "), "the operator can still take it away: {text}");
    w.operator("start").await;
    w.until("it is over", async || !k.has(&user, &role).await).await;
    prepare(&w, "manage-users", &password).await;
    w.clean_up().await;
    k.clean_up().await;
}

#[tokio::test]
async fn a_realm_that_cannot_be_prepared_says_why() {
    let w = World::new().await;
    realms::ready().await;
    let output = set_up(&w, "manage-users", &file("password", "a-password-that-is-wrong")).await;
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("is the password of") && !text.contains("a-password-that-is-wrong"), "{text}");
    // when there is no such realm in the file
    let mut hallpass = Command::new(&w.stack.operator.binary);
    hallpass.args(["keycloak-setup", "--realm", "nowhere", "--config"]).arg(&w.stack.operator.config);
    let output = hallpass.output().await.unwrap();
    let text = said(&output);
    assert!(
        !output.status.success() && text.contains("\"nowhere\" is not in the configuration; it has prod"),
        "{text}"
    );
    w.clean_up().await;
}
