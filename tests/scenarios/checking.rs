//! `hallpass check`: what works with a configuration, and what is missing.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{World, file};

/// Runs it with these realms and this kubeconfig: whether it is content, and what it says.
async fn check(w: &World, realms: &[&Value], kubeconfig: &PathBuf, more: &[&str]) -> (bool, String) {
    let file = file("check", &json!({ "realms": realms }).to_string());
    let mut hallpass = Command::new(&w.stack.operator.binary);
    hallpass.env("KUBECONFIG", kubeconfig).args(["check", "--config"]).arg(&file).args(more);
    let output = hallpass.output().await.unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn check_says_what_works_and_what_is_missing_and_how_to_give_it() {
    // given
    let w = World::new().await;
    let config = fs::read_to_string(&w.stack.operator.config).unwrap();
    let config: Value = serde_saphyr::from_str(&config).unwrap();
    let good = &config["realms"][0];
    let weak = w.keycloak.robot(&["manage-users", "view-realm"]).await;
    let secret = file("secret", &weak.secret);
    let realm = |name: &str, change: &[(&str, Value)]| {
        let mut realm = good.clone();
        realm["name"] = json!(name);
        for (key, value) in change {
            realm[*key] = value.clone();
        }
        realm
    };
    let as_weak = json!({"clientId": weak.client_id, "clientSecretFile": secret});
    let bad = [
        realm("weak", &[("auth", as_weak)]),
        realm("away", &[("url", json!("https://127.0.0.1:1"))]),
        realm("nowhere", &[("realm", json!("nowhere"))]),
    ];
    // when, then
    let (content, text) = check(&w, &[good], &w.stack.operator.kubeconfig, &[]).await;
    assert!(content, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let [server, installed, realm] = lines[..] else { panic!("{text}") };
    assert!(
        server.starts_with("[+] API server: https://") && server.contains("this is system:serviceaccount:"),
        "{text}"
    );
    assert!(installed.starts_with("[+] admission policies and CRDs, with system:serviceaccount:"), "{installed}");
    assert!(installed.ends_with(" as the operator: what this version ships"), "{installed}");
    assert!(realm.starts_with("[+] realm prod: signed in to ") && realm.contains("with its secret"), "{text}");
    // when something is wrong
    let (content, text) = check(&w, &[good, &bad[0], &bad[1], &bad[2]], &w.stack.kubeconfig, &[]).await;
    // then
    assert!(!content, "{text}");
    for words in [
        "looked at only as the operator's service account",
        "[+] realm prod: ",
        &format!(
            "[-] realm weak: the service account of client \"{}\" lacks the right view-clients: in Keycloak's console",
            weak.client_id
        ),
        "[-] realm away: cannot sign in to https://127.0.0.1:1",
        "(is the realm's name right?)",
    ] {
        assert!(text.contains(words), "{words:?} is missing in: {text}");
    }
    assert!(!text.contains(&weak.secret));
    // when there is no cluster
    let (content, text) = check(&w, &[good], &"/nowhere".into(), &[]).await;
    assert!(!content && text.contains("[-] API server: cannot find") && text.contains("[+] realm prod"), "{text}");
    let (content, text) = check(&w, &[good], &"/nowhere".into(), &["--realms-only"]).await;
    assert!(content && text.lines().count() == 1 && text.starts_with("[+] realm prod"), "{text}");
    w.clean_up().await;
}
