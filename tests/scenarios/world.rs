//! The world of one scenario: a namespace, people, roles and policies of its own on the shared servers.
//!
//! ```ignore
//! let w = World::new().await;                         // World::alone() when the operator is stopped or broken
//! let alice = w.person("alice").await;                // a Keycloak user; signs in when she first does something
//! let bob = w.person("bob").await;
//! let role = w.keycloak.realm_role("admin").await;
//! let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]).ready().await;
//! let request = alice.asks(&policy).lasting("8s").create().await.unwrap();
//! request.reaches(Phase::Pending).await;
//! bob.approves(&request, "lead").await.unwrap();
//! request.reaches(Phase::Active).await;
//! assert!(w.keycloak.has(&alice.user, &role).await);
//! w.clean_up().await;
//! ```
//! A scenario that panics prints its requests, policies, Events, what the operator said about them, and what Keycloak
//! says about its people.
#![allow(dead_code, reason = "each scenario needs another part")]

use std::{
    collections::BTreeMap,
    env, fs,
    ops::Deref,
    path::PathBuf,
    process::Output,
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hallpass::api::{AccessPolicy, AccessRequest};
use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace},
    events::v1::Event,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
    config::{Config, KubeConfigOptions, Kubeconfig},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    process::Command,
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
};

use crate::{
    keycloak_admin::{self, Admin, unique},
    people::Person,
    policy::PolicyBuilder,
    realms,
    report::Report,
};

/// How long a scenario waits for what must happen. Far more than it takes: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// How often a scenario looks whether it has happened.
pub const GLANCE: Duration = Duration::from_millis(100);

/// The running stack, as `stack.json` describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stack {
    pub api_server: String,
    pub kubeconfig: PathBuf,
    pub ca_file: PathBuf,
    pub kubectl: PathBuf,
    pub dev: PathBuf,
    pub helm: PathBuf,
    pub audit_log: PathBuf,
    pub operator: Operator,
    pub etcd: String,
}

/// The operator of the stack.
#[derive(Clone, Debug, Deserialize)]
pub struct Operator {
    pub binary: PathBuf,
    pub kubeconfig: PathBuf,
    pub config: PathBuf,
    pub url: String,
    pub log: PathBuf,
}

impl Stack {
    /// Changes what etcd keeps of a request, behind the API server's back.
    pub async fn edit_in_etcd(&self, namespace: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.read_in_etcd(namespace, name).await;
        edit(&mut object);
        self.put_in_etcd(namespace, name, &object).await;
    }

    /// What etcd keeps of a request.
    pub async fn read_in_etcd(&self, namespace: &str, name: &str) -> Value {
        let found = self.ask_etcd("range", json!({ "key": in_etcd(namespace, name) })).await;
        let stored = found["kvs"][0]["value"].as_str().expect("the request is in etcd");
        let stored = BASE64_STANDARD.decode(stored).expect("base64");
        serde_json::from_slice(&stored).expect("JSON: custom resources are stored so")
    }

    /// Puts a request into etcd, behind the API server's back.
    pub async fn put_in_etcd(&self, namespace: &str, name: &str, object: &Value) {
        let value = BASE64_STANDARD.encode(object.to_string());
        self.ask_etcd("put", json!({ "key": in_etcd(namespace, name), "value": value })).await;
    }

    /// Removes all requests of a namespace from etcd whose names begin with this and a digit.
    pub async fn forget_in_etcd(&self, namespace: &str, start: &str) {
        let (from, to) = (in_etcd(namespace, start), in_etcd(namespace, &format!("{start}:")));
        self.ask_etcd("deleterange", json!({ "key": from, "range_end": to })).await;
    }

    /// Removes a request from etcd, behind the API server's back: no finalizer is asked.
    pub async fn remove_in_etcd(&self, namespace: &str, name: &str) {
        let answer = self.ask_etcd("deleterange", json!({ "key": in_etcd(namespace, name) })).await;
        assert_eq!(answer["deleted"], "1", "the request is in etcd");
    }

    async fn ask_etcd(&self, what: &str, body: Value) -> Value {
        let answer = reqwest::Client::new().post(format!("{}/v3/kv/{what}", self.etcd)).json(&body).send().await;
        answer.expect("etcd answers").error_for_status().expect("etcd does it").json().await.expect("JSON")
    }

    pub fn load() -> Self {
        let file = env::var("HALLPASS_STACK").expect("HALLPASS_STACK names the stack.json of `dev/dev up`");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// A client of the administrator. Made anew for each test: connections belong to the test's runtime.
    pub async fn admin(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("the stack's kubeconfig");
        let options = KubeConfigOptions { context: Some("admin".into()), ..KubeConfigOptions::default() };
        client(kubeconfig, &options).await
    }

    /// A client of whom this token speaks for.
    pub async fn bearer(&self, token: &str) -> Client {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "person",
            "clusters": [{"name": "dev", "cluster": {"server": self.api_server, "certificate-authority": self.ca_file}}],
            "users": [{"name": "person", "user": {"token": token}}],
            "contexts": [{"name": "person", "context": {"cluster": "dev", "user": "person"}}],
        });
        client(serde_json::from_value(kubeconfig).expect("a kubeconfig"), &KubeConfigOptions::default()).await
    }

    /// Calls the development tool, as `operator stop`.
    pub async fn dev(&self, arguments: &[&str]) {
        let output = Command::new(&self.dev).args(arguments).output().await.expect("the development tool runs");
        assert!(output.status.success(), "dev {arguments:?}: {output:?}");
    }

    /// What the operator's HTTP server answers: status and text.
    pub async fn ask_operator(&self, path: &str) -> Result<(u16, String), reqwest::Error> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let answer = reqwest::get(format!("{}{path}", self.operator.url)).await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Lines of the operator's log that contain this.
    pub fn log(&self, words: &str) -> Vec<Value> {
        let log = fs::read(&self.operator.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        text.lines().filter(|line| line.contains(words)).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The key of a request in etcd.
fn in_etcd(namespace: &str, name: &str) -> String {
    BASE64_STANDARD.encode(format!("/registry/hallpass.dev/accessrequests/{namespace}/{name}"))
}

/// A client of whom this kubeconfig speaks for.
pub async fn client(kubeconfig: Kubeconfig, options: &KubeConfigOptions) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::from_custom_kubeconfig(kubeconfig, options).await.expect("a usable kubeconfig");
    Client::try_from(config).expect("a client")
}

/// Scenarios run side by side, but for those that stop the operator or break what all share.
static TURNS: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

enum Turn {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

/// The world of one scenario.
#[derive(Clone)]
pub struct World(Arc<Inner>);

/// What a world consists of.
pub struct Inner {
    pub stack: Stack,
    /// Where the scenario's requests live.
    pub namespace: String,
    /// Keycloak's administrator.
    pub keycloak: Admin,
    /// The cluster's administrator.
    pub admin: Client,
    pub(crate) people: Mutex<Vec<keycloak_admin::Person>>,
    pub(crate) policies: Mutex<Vec<String>>,
    turn: Turn,
}

/// A file of the tests with this in it.
#[allow(dead_code, reason = "the fault tests need none")]
pub fn file(start: &str, text: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique(start));
    fs::write(&file, text).expect("a file");
    file
}

impl Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl World {
    /// A world beside others.
    pub async fn new() -> Self {
        realms::ready().await;
        Self::with(Turn::Shared(TURNS.clone().read_owned().await)).await.in_force().await
    }

    /// A world while no other is there: for scenarios that stop the operator or break what all share.
    pub async fn alone() -> Self {
        realms::ready().await;
        Self::with(Turn::Alone(TURNS.clone().write_owned().await)).await.in_force().await
    }

    /// A world of tests that run an operator of their own.
    pub async fn without_operator() -> Self {
        Self::with(Turn::Alone(TURNS.clone().write_owned().await)).await
    }

    /// The operator runs, and an epoch has begun: what is created before may be older than it, and is refused. A scenario that
    /// failed may have left no operator, and is not to fail all that follow.
    async fn in_force(self) -> Self {
        if self.stack.ask_operator("/readyz").await.is_err() {
            self.stack.dev(&["operator", "start"]).await;
        }
        self.another_epoch(None).await;
        self
    }

    async fn with(turn: Turn) -> Self {
        let stack = Stack::load();
        let admin = stack.admin().await;
        let inner = Inner {
            namespace: unique("team"),
            keycloak: Admin::new(),
            admin,
            people: Mutex::default(),
            policies: Mutex::default(),
            stack,
            turn,
        };
        let world = Self(Arc::new(inner));
        world.make_namespace(&world.namespace).await;
        world
    }

    /// One more namespace, or the world's own.
    pub async fn make_namespace(&self, name: &str) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let namespace: Namespace = serde_json::from_value(namespace).expect("a namespace");
        Api::all(self.admin.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
    }

    /// A person: a Keycloak user with a name that begins with this.
    pub async fn person(&self, start: &str) -> Person {
        let user = self.keycloak.user(start).await;
        self.people.lock().expect("lock").push(user.clone());
        Person::new(self.clone(), user)
    }

    /// A policy of the realm `prod` for at most an hour, until it says otherwise. The name is made unique.
    pub fn policy(&self, start: &str) -> PolicyBuilder {
        PolicyBuilder::new(self.clone(), unique(start))
    }

    /// All requests of the world's namespace, as the administrator.
    pub fn requests(&self) -> Api<AccessRequest> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// All policies, as the administrator.
    pub fn all_policies(&self) -> Api<AccessPolicy> {
        Api::all(self.admin.clone())
    }

    /// The present trust epoch; nothing while there is none.
    pub async fn epoch(&self) -> Option<String> {
        let stored = self.stored_epoch().await;
        stored.get("epoch").filter(|epoch| !epoch.is_empty()).cloned()
    }

    async fn stored_epoch(&self) -> BTreeMap<String, String> {
        let api: Api<ConfigMap> = Api::namespaced(self.admin.clone(), "hallpass-system");
        api.get_opt("hallpass-trust").await.expect("an answer").and_then(|stored| stored.data).unwrap_or_default()
    }

    /// Waits until another epoch has begun and the operator is ready. What is created in the second in which an epoch
    /// begins may be older than it, and is refused: waits for the next second, too.
    pub async fn another_epoch(&self, than: Option<&String>) {
        self.until("another trust epoch", async || {
            let epoch = self.epoch().await;
            epoch.is_some()
                && epoch.as_ref() != than
                && self.epoch_has_begun().await
                && self.stack.ask_operator("/readyz").await.unwrap().0 == 200
        })
        .await;
    }

    /// Whether there is a trust epoch that began before this second.
    pub async fn epoch_has_begun(&self) -> bool {
        let stored = self.stored_epoch().await;
        let since = stored.get("since").and_then(|since| since.parse::<Timestamp>().ok());
        let begun = since.is_some_and(|since| Timestamp::now().as_second() > since.as_second() + 1);
        begun && stored.get("epoch").is_some_and(|epoch| !epoch.is_empty())
    }

    /// The words of the Events about this request, for this reason.
    pub async fn events(&self, request: &str, reason: &str) -> Vec<String> {
        let about =
            |event: &Event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(request));
        let all = self.all_events(reason).await;
        all.into_iter().filter(about).filter_map(|event| event.note).collect()
    }

    /// The Events about any request of the world, for this reason.
    pub async fn all_events(&self, reason: &str) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.admin.clone(), &self.namespace);
        let all = api.list(&ListParams::default()).await.expect("the API server answers");
        all.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).collect()
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, hoped: impl AsyncFnMut() -> bool) {
        self.until_within(PATIENCE, what, hoped).await;
    }

    /// Waits until something is so that may take longer.
    pub async fn until_within(&self, patience: Duration, what: &str, mut hoped: impl AsyncFnMut() -> bool) {
        let begin = Instant::now();
        while !hoped().await {
            assert!(begin.elapsed() < patience, "not within {patience:?}: {what}");
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Must be so before something is broken that all share.
    pub fn is_alone(&self) {
        assert!(matches!(self.turn, Turn::Alone(_)), "others need it: World::alone()");
    }

    /// Stops, starts, kills or restarts the operator. Only in a world that is alone.
    pub async fn operator(&self, what: &str) {
        self.is_alone();
        self.stack.dev(&["operator", what]).await;
        if what == "kill" {
            self.nobody_leads().await;
        }
    }

    /// Stops or starts Keycloak. Only in a world that is alone.
    pub async fn keycloak_server(&self, what: &str) {
        self.is_alone();
        self.stack.dev(&["keycloak", what]).await;
    }

    /// Deletes the Lease, as an administrator may who knows that its holder is dead: nobody waits for it to expire.
    pub async fn nobody_leads(&self) {
        let leases: Api<Lease> = Api::namespaced(self.admin.clone(), "hallpass-system");
        let deleted = leases.delete("hallpass", &DeleteParams::default()).await;
        assert!(deleted.is_ok(), "{deleted:?}");
    }

    /// kubectl as the administrator, in the world's namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut kubectl = Command::new(&self.stack.kubectl);
        kubectl.env("KUBECONFIG", &self.stack.kubeconfig).args(["--context", "admin", "--namespace", &self.namespace]);
        kubectl.args(arguments).output().await.expect("kubectl runs")
    }

    /// Takes away what the scenario made: first the requests, which gives back what is still lent.
    pub async fn clean_up(&self) {
        let requests = self.requests();
        let _ = requests.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        self.until("the requests are gone", async || {
            requests.list_metadata(&ListParams::default()).await.is_ok_and(|list| list.items.is_empty())
        })
        .await;
        let policies = self.policies.lock().expect("lock").clone();
        for name in policies {
            let _ = self.all_policies().delete(&name, &DeleteParams::default()).await;
        }
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        let _ = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        self.keycloak.clean_up().await;
    }
}

impl Drop for Inner {
    /// A scenario that failed tells how the world was.
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let report = Report {
            stack: self.stack.clone(),
            namespace: self.namespace.clone(),
            people: self.people.get_mut().map(std::mem::take).unwrap_or_default(),
            policies: self.policies.get_mut().map(std::mem::take).unwrap_or_default(),
        };
        // The runtime of the test is going down with it.
        let told = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(report.tell())
        });
        eprintln!("{}", told.join().unwrap_or_else(|_| "no report: it panicked as well".into()));
    }
}
