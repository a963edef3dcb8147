//! Realms of the operator's configuration in which something is wrong, so that scenarios see what it says about them:
//! they are added to the stack's configuration once, before the operator is started.
#![allow(dead_code, reason = "each scenario needs another part")]

use std::{fmt::Write, fs, path::Path};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    keycloak_admin::{Admin, unique},
    world::Stack,
};

/// No server listens there.
pub const UNREACHABLE: &str = "unreachable";
/// The client's secret is not what the file holds.
pub const WRONG_SECRET: &str = "wrong-secret";
/// The service account has everything but view-clients.
pub const BLIND: &str = "blind";
/// The realm of everybody, with people found by e-mail address.
pub const BY_EMAIL: &str = "by-email";

/// The realm of everybody, where policies may lend Keycloak's own administration.
pub const TRUSTING: &str = "trusting";
/// A client of the realm of everybody whose tokens live for longer than others.
pub const PATIENT_CLIENT: &str = "patient";
/// How many seconds those live; the realm's live for 300.
pub const PATIENT_LIFESPAN: i64 = 330;

/// The operator runs with these realms; the first scenario sees to it.
pub async fn ready() {
    static READY: OnceCell<()> = OnceCell::const_new();
    READY.get_or_init(prepare).await;
}

async fn prepare() {
    let stack = Stack::load();
    let config = fs::read_to_string(&stack.operator.config).expect("the operator's configuration");
    let there = [UNREACHABLE, WRONG_SECRET, BLIND, BY_EMAIL, TRUSTING]
        .iter()
        .all(|name| config.contains(&format!("name: {name}\n")));
    if there && stack.ask_operator("/readyz").await.is_ok_and(|(status, _)| status == 200) {
        return;
    }
    if !there {
        let more = realms(&stack.operator.config, &config).await;
        fs::write(&stack.operator.config, format!("{config}{more}")).expect("the operator's configuration");
    }
    stack.dev(&["operator", "restart"]).await;
}

/// More entries for the list of realms.
async fn realms(config: &Path, present: &str) -> String {
    let keycloak = Admin::new();
    // Two users may have one address, as they may in the realms of many companies.
    let twins = json!({"duplicateEmailsAllowed": true, "loginWithEmailAllowed": false});
    keycloak.call(Method::PUT, "", Some(&twins)).await;
    let lifespan = json!({"access.token.lifespan": PATIENT_LIFESPAN.to_string()});
    keycloak.app_named(PATIENT_CLIENT, &json!({ "attributes": lifespan })).await;
    let robot = keycloak.robot(&["manage-users", "view-realm"]).await;
    let folder = config.parent().expect("a folder").join("secrets");
    let secret = |text: &str| {
        let file = folder.join(unique("scenario"));
        fs::write(&file, text).expect("a secret's file");
        file.display().to_string()
    };
    let good: Value = serde_saphyr::from_str(present).expect("YAML");
    let good = &good["realms"][0];
    let client = |client_id: &str, file: String| json!({"clientId": client_id, "clientSecretFile": file});
    let mut text = String::new();
    for (name, changes) in [
        (UNREACHABLE, json!({"url": "https://127.0.0.1:1"})),
        (WRONG_SECRET, json!({"auth": client("hallpass", secret("a-secret-that-is-wrong"))})),
        (BLIND, json!({"auth": client(&robot.client_id, secret(&robot.secret))})),
        (TRUSTING, json!({"allowAdminRoles": true})),
        (BY_EMAIL, json!({"identity": {"usernamePrefix": "oidc:", "match": "email", "groupPrefix": "oidc:"}})),
    ] {
        let _ = writeln!(text, "- name: {name}");
        for key in ["url", "realm", "auth", "caFile", "identity"] {
            let value = changes.get(key).unwrap_or(&good[key]);
            let _ = writeln!(text, "  {key}: {value}");
        }
        if let Some(allowed) = changes.get("allowAdminRoles") {
            let _ = writeln!(text, "  allowAdminRoles: {allowed}");
        }
    }
    text
}
