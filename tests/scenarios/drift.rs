//! Somebody else changes what is lent: said, and neither repaired nor taken away. And who has what without a request.

use std::fs;

use hallpass::api::Phase;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{process::Command, sync::Mutex};

use crate::{
    keycloak_admin::{Admin, unique},
    people::Person,
    request::condition,
    world::{World, file},
};

/// What the operator may see of Keycloak's administrators is one scenario's at a time.
static EYES: Mutex<()> = Mutex::const_new(());

/// The operator may see who did it, or it may not any more.
async fn may_see(w: &World, may: bool) {
    let operator = w.keycloak.find_user("service-account-hallpass").await;
    let view_events = w.keycloak.find_client_role("realm-management", "view-events").await;
    if may {
        w.keycloak.map(&operator, &view_events).await;
    } else {
        w.keycloak.unmap(&operator, &view_events).await;
    }
}

/// What is said of the server's own administrator, who is of another realm.
async fn from_afar() -> String {
    let master = Admin::of_master();
    let admin = master.find_user(&master.stack.admin_user).await.id;
    format!("{admin} of the realm with the id {}", master.get("").await["id"].as_str().expect("an id"))
}

/// This second, as it is said.
fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).expect("a time")
}

/// The text begins with this, and then with a time between that and now; the rest of it.
fn at<'a>(text: &'a str, start: &str, since: Timestamp) -> &'a str {
    let rest = text.strip_prefix(&format!("{start} at ")).unwrap_or_else(|| panic!("{start:?} in {text:?}"));
    let (time, rest) = rest.split_at(rest.find([';', ',', ' ']).unwrap_or(rest.len()));
    let time: Timestamp = time.parse().unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert!(since <= time && time <= Timestamp::now(), "{since} {time} {text:?}");
    rest
}

#[tokio::test]
async fn what_somebody_takes_away_or_gives_again_is_said() {
    // given
    let w = World::new().await;
    let _turn = EYES.lock().await;
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
    may_see(&w, true).await;
    let (since, admin) = (now(), from_afar().await);
    w.keycloak.unmap(&alice.user, &role).await;
    let message = request.says(Phase::Active, "TakenAway").await;
    // then
    let rest = at(&message, &format!("taken away in Keycloak: admin ({:?}) by {admin}", role.name), since);
    assert!(rest.starts_with("; it is not put back; the request ends at "), "{message}");
    assert_eq!(w.events(&request.name, "TakenAway").await.last(), Some(&message));
    // when it is over, and given again
    alice.ends(&request).await.unwrap();
    let over = request.reaches(Phase::Revoked).await;
    let since = now();
    w.keycloak.map(&alice.user, &role).await;
    w.until("an Event", async || !w.events(&request.name, "GivenAgain").await.is_empty()).await;
    // then
    let said = w.events(&request.name, "GivenAgain").await;
    let name = &alice.user.username;
    let start = format!("{name} has admin ({:?}) again since this ended, given by {admin}", role.name);
    assert!(said.len() == 1 && at(&said[0], &start, since) == "; it is not taken away", "{said:?}");
    assert!(w.keycloak.has(&alice.user, &role).await, "not taken away");
    assert_eq!(request.status().await, over, "what is final stays");
    may_see(&w, false).await;
    w.clean_up().await;
}

#[tokio::test]
async fn who_takes_away_or_gives_again_a_clients_role_or_a_group_is_named_too() {
    // given an administrator of the realm itself
    let w = World::new().await;
    let _turn = EYES.lock().await;
    may_see(&w, true).await;
    let k = &w.keycloak;
    let robot = k.robot(&["manage-users", "view-clients", "view-realm"]).await;
    let admin = k.in_the_name_of(&robot).await;
    let by = &robot.account.username;
    let alice = w.person("alice").await;
    let (debug, group) = (k.client_role("checkout", &unique("debug")).await, k.group(None, &unique("oncall")).await);
    let policy = w.policy("oncall").client_role("debug", "checkout", &debug.name).group("oncall", &group.path);
    let policy = policy.requester(&alice).automatic().ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    let granted = request.reaches(Phase::Active).await.grant.expect("a grant");
    let display = |name: &str| {
        let target = granted.targets.iter().find(|target| target.name == name).expect("a target");
        format!("{name} ({:?})", target.display)
    };
    // when
    let since = now();
    admin.unmap(&alice.user, &debug).await;
    admin.leave(&alice.user, &group).await;
    // then
    let both = |message: &str| message.contains(&display("debug")) && message.contains(&display("oncall"));
    let status = request.until("both are missed", |status| both(&condition(status, "Ready").message)).await;
    let said = condition(&status, "Ready");
    assert_eq!(said.reason, "TakenAway");
    let rest = at(&said.message, &format!("taken away in Keycloak: {} by {by}", display("debug")), since);
    let rest = at(rest, &format!(", {} by {by}", display("oncall")), since);
    assert!(rest.starts_with("; it is not put back; the request ends at "), "{}", said.message);
    assert!(!k.has(&alice.user, &debug).await && k.groups(&alice.user).await.is_empty(), "not repaired");
    // when it is over, and given again
    alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    let since = now();
    admin.map(&alice.user, &debug).await;
    admin.join(&alice.user, &group).await;
    w.until("two Events", async || w.events(&request.name, "GivenAgain").await.len() == 2).await;
    // then
    let said = w.events(&request.name, "GivenAgain").await;
    for name in ["debug", "oncall"] {
        let start = format!("{} has {} again since this ended, given by {by}", alice.user.username, display(name));
        let said = said.iter().find(|said| said.starts_with(&start)).unwrap_or_else(|| panic!("{start:?} in {said:?}"));
        assert_eq!(at(said, &start, since), "; it is not taken away");
    }
    assert!(k.has(&alice.user, &debug).await);
    assert_eq!(k.groups(&alice.user).await, [group.path]);
    may_see(&w, false).await;
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
    let _turn = EYES.lock().await;
    let (alice, bob, carol) = (w.person("alice").await, w.person("bob").await, w.person("carol").await);
    let role = w.keycloak.realm_role("admin").await;
    let group = w.keycloak.group(None, &unique("oncall")).await;
    let debug = w.keycloak.client_role("checkout", &unique("debug")).await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).group("oncall", &group.path);
    let policy = policy.client_role("debug", "checkout", &debug.name).everybody().automatic().ready().await;
    let (since, afar) = (now(), from_afar().await);
    let robot = w.keycloak.robot(&["manage-users", "view-clients", "view-realm"]).await;
    let (admin, near) = (w.keycloak.in_the_name_of(&robot).await, &robot.account.username);
    w.keycloak.map(&bob.user, &role).await;
    admin.map(&carol.user, &role).await;
    admin.join(&carol.user, &group).await;
    w.keycloak.map(&carol.user, &debug).await;
    let lend = async |person: &Person| {
        person.asks(&policy).create().await.unwrap().reaches(Phase::Active).await;
    };
    lend(&alice).await;
    lend(&bob).await;
    // when
    let config = fs::read_to_string(&w.stack.operator.config).unwrap();
    let all: Value = serde_saphyr::from_str(&config).unwrap();
    let file = file("standing", &json!({"realms": [all["realms"][0]]}).to_string());
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
    assert!(report["notes"].to_string().contains("lacks the right view-events"), "{report}");
    let (_, table, _) = run(&[]).await;
    let line = |table: &str, name: &str, person: &Person| {
        let line = table.lines().find(|line| line.contains(name) && line.contains(&person.user.username));
        let line = line.unwrap_or_else(|| panic!("{name} of {}: {table}", person.user.username));
        line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(table.starts_with("REALM"), "{table}");
    let name = |person: &Person| person.user.username.clone();
    assert_eq!(line(&table, &role.name, &bob), ["prod", "realm role", &role.name, &name(&bob), &policy.name]);
    // when it may be seen who did it
    may_see(&w, true).await;
    let (_, text, _) = run(&["--output", "json"]).await;
    let (_, table, _) = run(&[]).await;
    // then
    let report: Value = serde_json::from_str(&text).unwrap();
    let of_client = format!("checkout {}", debug.name);
    for (what, kind, person, by) in [
        (&role.name, "realm role", &bob, &afar),
        (&role.name, "realm role", &carol, near),
        (&group.path, "group", &carol, near),
        (&of_client, "client role", &carol, &afar),
    ] {
        let all = report["standing"].as_array().expect("a list");
        let found = all.iter().find(|found| found["name"] == **what && found["username"] == *name(person));
        let found = found.unwrap_or_else(|| panic!("{what} of {}: {report}", name(person)));
        assert_eq!(found["by"], **by, "{found}");
        let at: Timestamp = found["since"].as_str().expect("a time").parse().unwrap();
        assert!(since <= at && at <= Timestamp::now(), "{since} {found}");
        let cells = ["prod", kind, what, &name(person), &at.to_string(), by, &policy.name].map(str::to_owned);
        assert_eq!(line(&table, what, person), cells);
    }
    may_see(&w, false).await;
    w.clean_up().await;
}
