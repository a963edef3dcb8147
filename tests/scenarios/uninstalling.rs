//! The chart is taken away and comes back, in the words of the documentation: nothing is left in Keycloak, and the record stays.

use std::{env, process::Stdio};

use hallpass::api::{AccessRequest, Phase};
use kube::{Api, api::ListParams};
use serde_json::json;
use tokio::process::Command;

use crate::{documentation, world::World};

/// The commands of `docs/configuration.md` for an operator that is not a Pod.
fn commands() -> Vec<String> {
    let text = documentation::read("docs/configuration.md");
    let (_, below) = text.split_once("```console\n$ hallpass drain").expect("the block is there");
    let block = format!("$ hallpass drain{}", below.split("```").next().expect("text"));
    block.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect()
}

/// Runs a command as the administrator would; what it said.
async fn typed(w: &World, command: &str) -> String {
    let (done, said) = tried(w, command).await;
    assert!(done, "{command}\n{said}");
    said
}

/// The same; whether it succeeded, too.
async fn tried(w: &World, command: &str) -> (bool, String) {
    let folder = w.stack.kubectl.parent().expect("a folder");
    let path = format!("{}:{}", folder.display(), env::var("PATH").expect("PATH"));
    let mut shell = Command::new("bash");
    shell.args(["-c", command]).env("PATH", path).env("KUBECONFIG", &w.stack.kubeconfig).stdin(Stdio::null());
    let output = shell.output().await.expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

/// How many admission policies, bindings and roles of Hallpass there are.
async fn installed(w: &World) -> usize {
    let kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings,mutatingadmissionpolicies,\
                 mutatingadmissionpolicybindings,clusterroles,clusterrolebindings";
    let found = typed(w, &format!("kubectl get {kinds} --output name")).await;
    found.lines().filter(|line| line.contains("/hallpass")).count()
}

async fn is_there(w: &World, what: &str) -> bool {
    !typed(w, &format!("kubectl get {what} --ignore-not-found --output name")).await.is_empty()
}

#[tokio::test]
async fn the_chart_is_uninstalled_as_documented_and_installed_again() {
    // given somebody who has access, and somebody who waits for it
    let w = World::alone().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).everybody();
    let lends = policy.automatic().ready().await;
    let asks = w.policy("asked").realm_role("admin", &role.name).everybody().stage("lead", 1, [&bob]).ready().await;
    let lent = alice.asks(&lends).create().await.unwrap();
    lent.reaches(Phase::Active).await;
    let waits = alice.asks(&asks).create().await.unwrap();
    waits.reaches(Phase::Pending).await;
    assert!(installed(&w).await > 0);
    // when
    let commands = commands();
    let [drain, uninstall] = &commands[..] else { panic!("two commands: {commands:?}") };
    let said = typed(&w, drain).await;
    // then
    for policy in [&lends, &asks] {
        assert!(said.contains(&format!("policy {} is suspended", policy.name)), "{said}");
    }
    assert!(said.contains("2 requests are still open"), "{said}");
    assert!(said.ends_with("no request is open\n"), "{said}");
    assert_eq!(typed(&w, drain).await, "no request is open\n", "it may be repeated");
    let ended = lent.says(Phase::Revoked, "PolicySuspended").await;
    waits.reaches(Phase::Rejected).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    // when
    typed(&w, uninstall).await;
    w.operator("stop").await;
    // then nothing of it is left but what was asked for, and the key to it
    assert_eq!(installed(&w).await, 0);
    assert!(!is_there(&w, "--namespace hallpass-system serviceaccount/hallpass").await);
    assert!(is_there(&w, "crd/accessrequests.hallpass.dev").await);
    assert!(is_there(&w, "--namespace hallpass-system secret/hallpass-seal").await);
    let all: Api<AccessRequest> = w.requests();
    assert_eq!(all.list(&ListParams::default()).await.unwrap().items.len(), 2);
    assert!(!w.keycloak.has(&alice.user, &role).await);
    // when it is installed again
    w.stack.dev(&["up"]).await;
    w.another_epoch(None).await;
    // then what was over is over, and who asks anew is served
    lends.change(json!({"suspended": false})).await;
    lends.is_ready().await;
    let again = alice.asks(&lends).create().await.unwrap();
    again.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    assert_eq!(lent.says(Phase::Revoked, "PolicySuspended").await, ended);
    waits.reaches(Phase::Rejected).await;
    alice.ends(&again).await.unwrap();
    again.reaches(Phase::Revoked).await;
    w.clean_up().await;
}

#[tokio::test]
async fn what_cannot_be_taken_away_in_time_is_named() {
    // given access that is lent, and nobody who takes it away
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).everybody().automatic().ready().await;
    let lent = alice.asks(&policy).create().await.unwrap();
    lent.reaches(Phase::Active).await;
    w.operator("stop").await;
    let fresh = alice.asks(&policy).create().await.unwrap();
    // when
    let (done, said) = tried(&w, "hallpass drain --timeout 2s").await;
    // then
    assert!(!done, "{said}");
    assert!(said.contains("after 2s, 2 requests are still open:\n"), "{said}");
    assert!(said.contains(&format!("{}/{}: Active: ", w.namespace, lent.name)), "{said}");
    let nobody = format!("{}/{}: the operator has not looked at it. Does it run?", w.namespace, fresh.name);
    assert!(said.contains(&nobody), "{said}");
    // when
    w.operator("start").await;
    // then
    lent.says(Phase::Revoked, "PolicySuspended").await;
    fresh.reaches(Phase::Rejected).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn whoever_deletes_the_crd_takes_away_what_was_lent() {
    // given
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    alice.asks(&policy).create().await.unwrap().reaches(Phase::Active).await;
    // when
    typed(&w, "kubectl delete crd accessrequests.hallpass.dev --timeout=40s").await;
    // then
    assert!(!w.keycloak.has(&alice.user, &role).await);
    let said = typed(&w, "hallpass drain").await;
    assert!(said.ends_with("nothing to drain: there are no AccessRequests in this cluster\n"), "{said}");
    // when it is there again
    let epoch = w.epoch().await;
    w.stack.dev(&["up"]).await;
    w.another_epoch(epoch.as_ref()).await;
    // then
    policy.change(json!({"suspended": false})).await;
    policy.is_ready().await;
    let again = alice.asks(&policy).lasting("5s").create().await.unwrap();
    again.reaches(Phase::Active).await;
    again.reaches(Phase::Expired).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}
