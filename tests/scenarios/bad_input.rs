//! What is wrong outside of requests: Keycloak, its rights, its users, the operator's configuration. Each is told in
//! words that say what to mend, and stops nobody else.

use std::{path::PathBuf, process::Output, time::Duration};

use hallpass::api::Phase;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    keycloak_admin::unique,
    realms::{BLIND, BY_EMAIL, UNREACHABLE, WRONG_SECRET},
    request::{Request, condition},
    world::{Stack, World},
};

#[tokio::test]
async fn a_realm_in_which_the_operator_cannot_work_says_why() {
    // given
    let w = World::new().await;
    let role = w.keycloak.realm_role("admin").await;
    for (realm, words) in [
        (UNREACHABLE, "cannot sign in to https://127.0.0.1:1 realm acme as client hallpass: connection refused"),
        (
            WRONG_SECRET,
            "401 unauthorized_client: Invalid client or Invalid client credentials (is the client secret right?)",
        ),
        (BLIND, "lacks the right view-clients"),
    ] {
        // when
        let policy =
            w.policy("broken").realm(realm).realm_role("admin", &role.name).client_role("x", "checkout", "debug");
        let policy = policy.everybody().automatic().create().await.unwrap();
        // then
        let message = policy.is_not_ready("KeycloakUnavailable").await;
        assert!(message.contains(words), "{words:?} is missing in: {message}");
        let (status, ready) = w.stack.ask_operator("/readyz").await.unwrap();
        let line = ready.lines().find(|line| line.starts_with(&format!("[-] realm {realm}:")));
        assert!(line.is_some_and(|line| line.contains(words)), "{ready}");
        assert_eq!(status, 200, "other realms are fine");
    }
    w.clean_up().await;
}

#[tokio::test]
async fn a_realm_that_is_down_delays_no_other() {
    // given requests that wait for a realm that is down
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = |name| w.policy(name).realm_role("admin", &role.name).everybody().automatic();
    let down = policy("down").realm(UNREACHABLE).create().await.unwrap();
    down.is_not_ready("KeycloakUnavailable").await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(alice.asks(&down).create().await.unwrap());
    }
    // when
    let fine = policy("fine").ready().await;
    let request = bob.asks(&fine).create().await.unwrap();
    // then
    request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&bob.user, &role).await);
    for request in waiting {
        let message = request.says(Phase::Pending, "PolicyNotReady").await;
        assert!(message.contains("cannot sign in to https://127.0.0.1:1"), "{message}");
    }
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_role_that_is_not_there_is_told_before_anybody_asks_and_found_once_it_is() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let name = unique("to-come");
    let policy = w.policy("early").realm_role("admin", &name).requester(&alice).automatic().create().await.unwrap();
    // then
    let message = policy.is_not_ready("GrantNotFound").await;
    assert_eq!(message, format!("grant \"admin\": there is no realm role \"{name}\" in the Keycloak realm acme"));
    let request = alice.asks(&policy).create().await.unwrap();
    let message = request.says(Phase::Pending, "PolicyNotReady").await;
    assert!(message.contains(&name), "{message}");
    // when
    let role = w.keycloak.named_realm_role(&name).await;
    // then
    policy.is_ready().await;
    request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn who_leads_to_no_user_gets_nothing() {
    // given tokens of people whom Keycloak has lost or shut out since
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("all").realm_role("admin", &role.name).everybody().automatic().ready().await;
    alice.signs_in().await;
    bob.signs_in().await;
    w.keycloak.delete_user(&alice.user).await;
    w.keycloak.update_user(&bob.user, &json!({"enabled": false})).await;
    w.people.lock().unwrap().retain(|person| person.id != alice.user.id);
    for (person, words) in [(&alice, "leads to no user"), (&bob, "leads to a disabled user")] {
        // when
        let request = person.asks(&policy).create().await.unwrap();
        // then
        let message = request.says(Phase::Rejected, "Rejected").await;
        let name = &person.username;
        assert_eq!(message, format!("spec.requester \"{name}\": {name} {words} of the Keycloak realm acme"));
    }
    assert!(!w.keycloak.has(&bob.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn who_is_shut_out_before_the_start_gets_nothing() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let policy = policy.ready().await;
    let start = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(15);
    let request = alice.asks(&policy).with("notBefore", json!(start)).create().await.unwrap();
    bob.approves(&request, "lead").await.unwrap();
    request.says(Phase::Approved, "WaitingForStart").await;
    // when
    w.keycloak.update_user(&alice.user, &json!({"enabled": false})).await;
    // then
    let message = request.says(Phase::Rejected, "Rejected").await;
    assert!(message.contains("leads to a disabled user"), "{message}");
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn an_address_of_two_users_leads_to_neither() {
    // given a realm in which people are found by e-mail address, and Alice's username is the address of two users
    let w = World::new().await;
    let alice = w.person("alice@example.com").await;
    let (one, two) = (w.person("one").await, w.person("two").await);
    let address = json!({"email": alice.user.username, "emailVerified": true});
    w.keycloak.update_user(&one.user, &address).await;
    let role = w.keycloak.realm_role("admin").await;
    let policy =
        w.policy("email").realm(BY_EMAIL).realm_role("admin", &role.name).everybody().automatic().ready().await;
    // when there is one
    let request = alice.asks(&policy).create().await.unwrap();
    // then it is that one
    let status = request.reaches(Phase::Active).await;
    assert_eq!(status.subject.unwrap().user_id, one.user.id);
    assert!(w.keycloak.has(&one.user, &role).await);
    alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    assert!(!w.keycloak.has(&one.user, &role).await);
    // when there are two
    w.keycloak.update_user(&two.user, &address).await;
    let request = alice.asks(&policy).create().await.unwrap();
    // then
    let message = request.says(Phase::Rejected, "Rejected").await;
    assert!(message.contains(&format!("several users have the email \"{}\"", alice.user.username)), "{message}");
    for person in [&alice, &one, &two] {
        assert!(!w.keycloak.has(&person.user, &role).await, "{}", person.username);
    }
    w.clean_up().await;
}

/// Starts the operator's program as it is, and waits until it gives up.
async fn started(arguments: &[&str]) -> Output {
    let stack = Stack::load();
    let mut program = Command::new(&stack.operator.binary);
    program
        .args(arguments)
        .env("KUBECONFIG", &stack.operator.kubeconfig)
        .env_remove("HALLPASS_CONFIG")
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(20), program.output()).await;
    output.expect("it gives up at once").expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_configuration_that_cannot_stand_is_told_in_one_line() {
    // given
    let good = "realms:\n- name: prod\n  url: https://sso.example.com\n  realm: acme\n  \
                auth: {clientId: hallpass, clientSecretFile: /none}\n";
    let listen = ["--listen", "127.0.0.1:0"];
    for (broken, words) in [
        ("realms: [".to_owned(), vec!["cannot be parsed", "line"]),
        ("realms: []".to_owned(), vec!["realms", "at least one realm is needed"]),
        (good.replace("clientId", "clientID"), vec!["cannot be parsed", "clientID"]),
        (good.replace("https://sso.example.com", "sso.example.com"), vec!["realms[0].url", "sso.example.com"]),
        (good.replace("realm: acme", "realm: ''"), vec!["realms[0].realm", "must not be empty"]),
        (format!("{good}  caFile: /no/such/file\n"), vec!["/no/such/file"]),
    ] {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("broken.yaml"));
        std::fs::write(&file, &broken).unwrap();
        let file = file.display().to_string();
        // when
        let output = started(&["run", "--config", &file, listen[0], listen[1]]).await;
        // then
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{broken}: {out}{err}");
        assert!(err.is_empty(), "{err}");
        assert_eq!(out.lines().count(), 1, "{out}");
        let line: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        let error = line["error"].as_str().unwrap_or_default();
        assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("ERROR"), Some("cannot go on")), "{line}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(&file) || error.contains("/no/such/file"), "{error}");
        for word in words {
            assert!(error.contains(word), "{word:?} is missing in: {error}");
        }
    }
}

#[tokio::test]
async fn a_flag_that_is_missing_or_wrong_is_named() {
    for (arguments, words) in [
        (vec!["run"], "--config <FILE>"),
        (vec!["run", "--config", "x", "--listen", "everywhere"], "--listen <ADDRESS>"),
        (vec!["run", "--config", "x", "--verbose"], "--verbose"),
        (vec![], "Commands:"),
    ] {
        // when
        let output = started(&arguments).await;
        // then
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(words) && !err.contains("panicked"), "{err}");
    }
    let output = started(&["run", "--config", "/no/such/file"]).await;
    assert_eq!(output.status.code(), Some(1));
    let out = text(&output.stdout);
    assert!(out.contains("cannot read the configuration /no/such/file: No such file or directory"), "{out}");
}

#[tokio::test]
async fn a_request_that_cannot_be_read_stops_no_other() {
    // given a request that was stored by another version, or damaged
    let w = World::new().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    let strange = alice.asks_under("not-there").create().await.unwrap();
    let damage = |object: &mut Value| object["spec"]["grants"] = json!("all of them");
    w.stack.edit_in_etcd(&w.namespace, &strange.name, damage).await;
    w.until("the operator says so", async || {
        w.stack.log(&strange.name).iter().any(|line| line["message"] == "this version cannot read an object")
    })
    .await;
    // when
    let request = alice.asks(&policy).create().await.unwrap();
    // then
    request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    let log = w.stack.log(&strange.name);
    let line = log.iter().find(|line| line["message"] == "this version cannot read an object").expect("it is told");
    assert_eq!((&line["namespace"], &line["name"]), (&json!(w.namespace), &json!(strange.name)));
    assert_eq!(condition(&request.status().await, "Granted").status, "True");
    w.clean_up().await;
}

#[tokio::test]
async fn live_requests_that_cannot_be_read_any_more_end_on_time() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).everybody().automatic().ready().await;
    let (of_alice, of_bob) = (alice.asks(&policy).lasting("20s"), bob.asks(&policy).lasting("20s"));
    let (of_alice, of_bob) = (of_alice.create().await.unwrap(), of_bob.create().await.unwrap());
    let deadline = async |request: &Request| request.reaches(Phase::Active).await.grant.expect("a grant").deadline.0;
    let (first, last) = (deadline(&of_alice).await, deadline(&of_bob).await);
    // when the spec of one and the status of the other make no sense
    let spec = |object: &mut Value| object["spec"]["grants"] = json!("all of them");
    let status = |object: &mut Value| object["status"]["grant"]["deadline"] = json!("tomorrow");
    w.stack.edit_in_etcd(&w.namespace, &of_alice.name, spec).await;
    w.stack.edit_in_etcd(&w.namespace, &of_bob.name, status).await;
    for (request, words) in [
        (&of_alice, "the spec cannot be read; what was lent ends as the status says"),
        (&of_bob, "somebody else has written the status of a request"),
    ] {
        let said = || w.stack.log(&request.name).iter().any(|line| line["message"] == words);
        w.until(words, async || said()).await;
    }
    // then whoever gave it knows until when
    for (person, due) in [(&alice, first), (&bob, last)] {
        w.until("the role is gone", async || {
            let now = Timestamp::now();
            let has = w.keycloak.has(&person.user, &role).await;
            assert!(has || now.duration_since(due) > -SignedDuration::from_secs(2), "too early: {now}, not {due}");
            assert!(!has || now.duration_since(due) < SignedDuration::from_secs(10), "too late: {now}, not {due}");
            !has
        })
        .await;
    }
    for request in [of_alice, of_bob] {
        w.stack.remove_in_etcd(&w.namespace, &request.name).await;
    }
    w.clean_up().await;
}

#[tokio::test]
async fn a_live_request_whose_spec_cannot_be_read_ends_on_time_also_after_a_restart() {
    // given
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).everybody().automatic().ready().await;
    let request = alice.asks(&policy).lasting("20s").create().await.unwrap();
    let due = request.reaches(Phase::Active).await.grant.expect("a grant").deadline.0;
    // when
    let damage = |object: &mut Value| object["spec"]["grants"] = json!("all of them");
    w.stack.edit_in_etcd(&w.namespace, &request.name, damage).await;
    w.operator("restart").await;
    // then
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &role).await).await;
    let late = Timestamp::now().duration_since(due);
    assert!(late > -SignedDuration::from_secs(2) && late < SignedDuration::from_secs(10), "{late:#}");
    w.stack.remove_in_etcd(&w.namespace, &request.name).await;
    w.clean_up().await;
}
