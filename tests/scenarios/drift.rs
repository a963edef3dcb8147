//! Somebody else changes what is lent: said, and neither repaired nor taken away. And who has what without a request.

use std::{fs, path::PathBuf};

use hallpass::api::Phase;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{keycloak_admin::unique, people::Person, request::condition, world::World};

#[tokio::test]
async fn what_somebody_takes_away_or_gives_again_is_said() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    request.reaches(Phase::Active).await;
    // when an administrator takes it away, and the operator may not read admin events
    w.keycloak.unmap(&alice.user, &role).await;
    let message = request.says(Phase::Active, "TakenAway").await;
    // then
    assert!(message.starts_with(&format!("taken away in Keycloak: admin ({:?}) by somebody;", role.name)), "{message}");
    assert_eq!(condition(&request.status().await, "Granted").status, "False");
    assert!(!w.keycloak.has(&alice.user, &role).await, "not repaired");
    // when it is back
    w.keycloak.map(&alice.user, &role).await;
    request.says(Phase::Active, "Active").await;
    // when it goes once more, and the operator may see by whom
    let operator = w.keycloak.find_user("service-account-hallpass").await;
    let view_events = w.keycloak.find_client_role("realm-management", "view-events").await;
    w.keycloak.map(&operator, &view_events).await;
    w.keycloak.unmap(&alice.user, &role).await;
    let message = request.says(Phase::Active, "TakenAway").await;
    assert!(message.contains(" of the realm with the id ") && message.contains(" at 20"), "{message}");
    // when it is over, and given again
    alice.ends(&request).await.unwrap();
    let over = request.reaches(Phase::Revoked).await;
    w.keycloak.map(&alice.user, &role).await;
    w.until("an Event", async || !w.events(&request.name, "GivenAgain").await.is_empty()).await;
    // then
    let said = w.events(&request.name, "GivenAgain").await;
    assert!(said.len() == 1 && said[0].contains("again since this ended, given by"), "{said:?}");
    assert!(w.keycloak.has(&alice.user, &role).await, "not taken away");
    assert_eq!(request.status().await, over, "what is final stays");
    w.keycloak.unmap(&operator, &view_events).await;
    w.clean_up().await;
}

/// Who stands in the report with this role.
fn holders<'a>(report: &'a Value, role: &str) -> Vec<&'a str> {
    let standing = report["standing"].as_array().expect("a list").iter().filter(|standing| standing["name"] == role);
    standing.map(|standing| standing["username"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn the_report_of_standing_access_shows_what_no_live_request_lent() {
    // given somebody who is lent a role, one who had it before and is lent it too, and one who just has it
    let w = World::new().await;
    let (alice, bob, carol) = (w.person("alice").await, w.person("bob").await, w.person("carol").await);
    let role = w.keycloak.realm_role("admin").await;
    let group = w.keycloak.group(None, &unique("oncall")).await;
    let debug = w.keycloak.client_role("checkout", &unique("debug")).await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).group("oncall", &group.path);
    let policy = policy.client_role("debug", "checkout", &debug.name).everybody().automatic().ready().await;
    for leaked in [&bob, &carol] {
        w.keycloak.map(&leaked.user, &role).await;
    }
    w.keycloak.join(&carol.user, &group).await;
    w.keycloak.map(&carol.user, &debug).await;
    let lend = async |person: &Person| {
        person.asks(&policy).create().await.unwrap().reaches(Phase::Active).await;
    };
    lend(&alice).await;
    lend(&bob).await;
    // when
    let config = fs::read_to_string(&w.stack.operator.config).unwrap();
    let all: Value = serde_saphyr::from_str(&config).unwrap();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("standing"));
    fs::write(&file, json!({"realms": [all["realms"][0]]}).to_string()).unwrap();
    let run = async |more: &[&str]| {
        let mut hallpass = Command::new(&w.stack.operator.binary);
        hallpass.env("KUBECONFIG", &w.stack.kubeconfig).args(["report", "standing", "--config"]).arg(&file).args(more);
        let output = hallpass.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text, said) = run(&["--output", "json"]).await;
    // then
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {said}"));
    let mut found = holders(&report, &role.name);
    found.sort_unstable();
    let mut leaked = [bob.user.username.as_str(), carol.user.username.as_str()];
    leaked.sort_unstable();
    assert_eq!(found, leaked, "{report}");
    assert_eq!(holders(&report, &group.path), [carol.user.username.as_str()]);
    assert_eq!(holders(&report, &format!("checkout {}", debug.name)), [carol.user.username.as_str()]);
    // Other scenarios make policies that cannot be looked at.
    let complete = report["missing"].as_array().expect("a list").is_empty();
    assert_eq!(code, Some(if complete { 0 } else { 3 }), "{report}");
    let (_, table, _) = run(&[]).await;
    let line = table.lines().find(|line| line.contains(&role.name) && line.contains(&bob.user.username));
    assert!(table.starts_with("REALM") && line.is_some_and(|line| line.ends_with(&policy.name)), "{table}");
    w.clean_up().await;
}
