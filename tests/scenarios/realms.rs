//! Realms of the operator's configuration in which something is wrong, so that scenarios see what it says about them:
//! they are added to the stack's configuration once, before the operator is started.
#![allow(dead_code, reason = "each scenario needs another part")]

use std::{
    fmt::Write,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::{
    gate::Gate,
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
/// Another realm of the server, behind a [`Gate`]: it is shut by one scenario at a time, see [`gated`].
pub const GATED: &str = "gated";
/// Another realm of the server, which scenarios make, rename and delete: one at a time, see [`wandering`].
pub const WANDERING: &str = "wandering";
/// The realm of everybody, with a service account whose rights one scenario at a time takes away and
/// gives back, see [`limited`].
pub const LIMITED: &str = "limited";

/// Another realm of the server, in which the operator's rights are prepared: by one scenario at a time, see [`narrow`].
pub const NARROW: &str = "narrow";

const ALL: [&str; 9] = [UNREACHABLE, WRONG_SECRET, BLIND, BY_EMAIL, TRUSTING, GATED, WANDERING, LIMITED, NARROW];

/// What the scenarios need to know of the realms.
pub struct Realms {
    /// The gate before the realm [`GATED`].
    pub gate: Gate,
    /// The `clientId` of the operator in the realm [`LIMITED`].
    pub limited: String,
    /// The operator's client and its secret in the realms [`GATED`], [`NARROW`] and [`WANDERING`].
    pub client: (String, String),
}

/// The operator runs with these realms; the first scenario sees to it.
pub async fn ready() -> &'static Realms {
    static READY: OnceCell<Realms> = OnceCell::const_new();
    READY.get_or_init(prepare).await
}

/// The realm [`WANDERING`] is this scenario's.
pub async fn wandering() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// The gate before the realm [`GATED`] is this scenario's.
pub async fn gated() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// The rights in the realm [`NARROW`] are this scenario's.
pub async fn narrow() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// The rights in the realm [`LIMITED`] are this scenario's.
pub async fn limited() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

async fn prepare() -> Realms {
    let stack = Stack::load();
    let config = fs::read_to_string(&stack.operator.config).expect("the operator's configuration");
    let there = ALL.iter().all(|name| config.contains(&format!("name: {name}\n")));
    if there
        && let Some(realms) = known(&config)
        && stack.ask_operator("/readyz").await.is_ok_and(|(status, _)| status == 200)
    {
        return realms;
    }
    // What an earlier run wrote goes with its gate.
    let first = config.find(&format!("- name: {}\n", ALL[0])).map_or(config.as_str(), |end| &config[..end]);
    let text = format!("{first}{}", realms(&stack.operator.config, first).await);
    fs::write(&stack.operator.config, &text).expect("the operator's configuration");
    let realms = known(&text).expect("a free port");
    stack.dev(&["operator", "restart"]).await;
    realms
}

/// What the configuration says of the realms; nothing if somebody else has the gate's port.
fn known(config: &str) -> Option<Realms> {
    let config: Value = serde_saphyr::from_str(config).expect("YAML");
    let realm = |name: &str| {
        let all = config["realms"].as_array().expect("realms");
        all.iter().find(|realm| realm["name"] == name).unwrap_or_else(|| panic!("no realm {name}")).clone()
    };
    let address = |realm: &Value| {
        let url = reqwest::Url::parse(realm["url"].as_str().expect("a URL")).expect("a URL");
        SocketAddr::from(([127, 0, 0, 1], url.port().expect("a port")))
    };
    let client = |realm: &Value| realm["auth"]["clientId"].as_str().expect("a clientId").to_owned();
    let (prod, gated) = (realm("prod"), realm(GATED));
    let secret = fs::read_to_string(gated["auth"]["clientSecretFile"].as_str().expect("a file")).expect("a secret");
    Some(Realms {
        gate: Gate::at(address(&gated).port(), address(&prod))?,
        limited: client(&realm(LIMITED)),
        client: (client(&gated), secret.trim().to_owned()),
    })
}

/// More entries for the list of realms.
async fn realms(config: &Path, present: &str) -> String {
    let keycloak = Admin::new();
    // Two users may have one address, as they may in the realms of many companies; and names change.
    let loose = json!({"duplicateEmailsAllowed": true, "loginWithEmailAllowed": false, "editUsernameAllowed": true});
    keycloak.call(Method::PUT, "", Some(&loose)).await;
    let lifespan = json!({"access.token.lifespan": PATIENT_LIFESPAN.to_string()});
    keycloak.app_named(PATIENT_CLIENT, &json!({ "attributes": lifespan })).await;
    let robot = keycloak.robot(&["manage-users", "view-realm"]).await;
    let limited = keycloak.robot(&["manage-users", "view-realm", "view-clients"]).await;
    let folder = config.parent().expect("a folder").join("secrets");
    let secret = |text: &str| {
        let file = folder.join(unique("scenario"));
        fs::write(&file, text).expect("a secret's file");
        file.display().to_string()
    };
    let good: Value = serde_saphyr::from_str(present).expect("YAML");
    let good = &good["realms"][0];
    let client = |client_id: &str, file: String| json!({"clientId": client_id, "clientSecretFile": file});
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let ours = client("hallpass", secret(&unique("secret")));
    let known = fs::read_to_string(ours["clientSecretFile"].as_str().expect("a file")).expect("a secret");
    for name in [GATED, NARROW] {
        Admin::of_realm(name).delete_realm().await;
        Admin::of_realm(name).make_realm("hallpass", &known).await;
    }
    let mut text = String::new();
    for (name, changes) in [
        (UNREACHABLE, json!({"url": "https://127.0.0.1:1"})),
        (WRONG_SECRET, json!({"auth": client("hallpass", secret("a-secret-that-is-wrong"))})),
        (BLIND, json!({"auth": client(&robot.client_id, secret(&robot.secret))})),
        (TRUSTING, json!({"allowAdminRoles": true})),
        (BY_EMAIL, json!({"identity": {"usernamePrefix": "oidc:", "match": "email", "groupPrefix": "oidc:"}})),
        (GATED, json!({"url": format!("https://127.0.0.1:{port}"), "realm": GATED, "auth": ours})),
        (WANDERING, json!({"realm": WANDERING, "auth": ours})),
        (NARROW, json!({"realm": NARROW, "auth": ours})),
        (LIMITED, json!({"auth": client(&limited.client_id, secret(&limited.secret))})),
    ] {
        let _ = writeln!(text, "- name: {name}");
        for key in ["url", "realm", "auth", "caFile", "identity", "settleTime", "checkInterval"] {
            let value = changes.get(key).unwrap_or(&good[key]);
            if !value.is_null() {
                let _ = writeln!(text, "  {key}: {value}");
            }
        }
        if let Some(allowed) = changes.get("allowAdminRoles") {
            let _ = writeln!(text, "  allowAdminRoles: {allowed}");
        }
    }
    text
}
