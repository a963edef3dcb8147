//! The stage: servers, proxies, the operator, and slots in which lives follow one another.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use hallpass::api::{APPROVE, AccessRequest};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    keycloak_admin::{App, Group, Person, Role, unique},
    ledger::Ledger,
    operator::Operator,
    people,
    policy::Policy,
    request::Request,
    script::Script,
    world::World,
};

/// The scope of a token that outlives its session.
const OFFLINE: &str = "openid offline_access";

/// What lives in one slot are about. Each life has a person of its own.
pub struct Slot {
    /// The client of the client role. People can sign in there.
    pub app: App,
    pub realm_role: Role,
    pub client_role: Role,
    pub group: Group,
    /// An administrator maps it by hand; no policy knows it.
    pub bystander: Role,
    pub policy: Policy,
    /// The same for the realm role alone, and somebody has to agree.
    pub voted: Policy,
    /// The same for the realm role alone, and sessions end with it.
    pub ending_sessions: Policy,
    /// The same for the client role alone, and the sessions of its client end with it.
    pub ending_client_sessions: Policy,
}

impl Slot {
    async fn prepare(w: &World, approver: &people::Person) -> Self {
        let app = w.keycloak.app().await;
        let realm_role = w.keycloak.realm_role("realm").await;
        let client_role = w.keycloak.client_role(&app.client_id, &unique("client")).await;
        let group = w.keycloak.group(None, &unique("group")).await;
        let bystander = w.keycloak.realm_role("bystander").await;
        let policy = w.policy("faults").everybody().automatic().realm_role("realm", &realm_role.name);
        let policy = policy.client_role("client", &app.client_id, &client_role.name).group("group", &group.path);
        let policy = policy.create().await.expect("a good policy");
        let voted = w.policy("voted").everybody().realm_role("realm", &realm_role.name).stage("lead", 1, [approver]);
        let voted = voted.create().await.expect("a good policy");
        let ending_sessions = w.policy("sessions").everybody().automatic().realm_role("realm", &realm_role.name);
        let ending_sessions = ending_sessions.with("sessions", json!({"atEnd": "EndAll"}));
        let ending_sessions = ending_sessions.create().await.expect("a good policy");
        let of_client = w.policy("sessions").everybody().automatic();
        let of_client = of_client.client_role("client", &app.client_id, &client_role.name);
        let of_client = of_client.with("sessions", json!({"atEnd": "EndClientSessions"}));
        let ending_client_sessions = of_client.create().await.expect("a good policy");
        Self { app, realm_role, client_role, group, bystander, policy, voted, ending_sessions, ending_client_sessions }
    }

    /// What is in the calls that are about this slot.
    pub fn keys(&self) -> Vec<String> {
        vec![
            self.realm_role.id.clone(),
            self.realm_role.name.clone(),
            self.client_role.id.clone(),
            self.client_role.name.clone(),
            self.group.id.clone(),
            self.group.path.trim_start_matches('/').to_owned(),
            self.app.id.clone(),
            self.app.client_id.clone(),
            self.policy.name.clone(),
            self.voted.name.clone(),
            self.ending_sessions.name.clone(),
            self.ending_client_sessions.name.clone(),
        ]
    }

    /// Somebody signs in at the client twice: one session is an offline one. Their ids.
    pub async fn signs_in(&self, stage: &Stage, user: &Person) -> Vec<String> {
        let mut ids = Vec::new();
        for (scope, which) in [("openid", "sessions".into()), (OFFLINE, format!("offline-sessions/{}", self.app.id))] {
            stage.w.keycloak.signs_in_at(user, &self.app, scope).await;
            let sessions = stage.sessions(user, &which).await;
            assert!(!sessions.is_empty(), "there is one of {which}");
            ids.extend(sessions.iter().map(|session| session["id"].as_str().expect("an id").to_owned()));
        }
        ids
    }
}

/// All that lives need.
pub struct Stage {
    pub w: World,
    pub script: Arc<Script>,
    pub operator: Arc<Operator>,
    pub ledger: Arc<Ledger>,
    pub slots: Vec<Slot>,
    /// Who agrees to everything, and speaks to the API server.
    approver: people::Person,
    voting: Client,
    tasks: Vec<JoinHandle<()>>,
}

impl Stage {
    /// A stage with so many slots, and the operator on it.
    pub async fn prepare(slots: usize) -> Self {
        let w = World::without_operator().await;
        let script = Arc::new(Script::default());
        let operator = Arc::new(Operator::prepare(&w.stack, &w.keycloak.stack.url, script.clone()).await);
        let ledger = Arc::new(Ledger::default());
        operator.start().await;
        let tasks = vec![operator.keep(), ledger.keep(w.requests())];
        operator.is_ready().await;
        let approver = w.person("approver").await;
        let voting = w.somebody_called(&approver.username).await;
        let mut ready = Vec::new();
        for _ in 0..slots {
            ready.push(Slot::prepare(&w, &approver).await);
        }
        for slot in &ready {
            slot.policy.is_ready().await;
            slot.voted.is_ready().await;
            slot.ending_sessions.is_ready().await;
            slot.ending_client_sessions.is_ready().await;
        }
        Self { w, script, operator, ledger, slots: ready, approver, voting, tasks }
    }

    /// The approver agrees to a request with this ballot.
    pub async fn approves(&self, request: &Request, ballot: &str) -> Result<(), String> {
        let key = format!("{APPROVE}{ballot}.lead.1");
        let vote = json!({"metadata": {"annotations": {key: self.approver.username}}});
        let api: Api<AccessRequest> = request.api(self.voting.clone());
        let voted = api.patch(&request.name, &PatchParams::default(), &Patch::Merge(&vote)).await;
        voted.map(drop).map_err(|error| format!("{} cannot be voted on: {error}", request.name))
    }

    /// A person who never signs in: without a password, which costs Keycloak much.
    pub async fn newcomer(&self) -> Person {
        let username = unique("life");
        let body = json!({"username": username, "enabled": true});
        let id = self.w.keycloak.call(Method::POST, "users", Some(&body)).await.0.expect("an id");
        Person { id, username, password: String::new() }
    }

    /// A session of somebody without a password: an administrator signs in as that person.
    pub async fn signs_in(&self, user: &Person) {
        self.w.keycloak.call(Method::POST, &format!("users/{}/impersonation", user.id), Some(&json!({}))).await;
        assert!(!self.sessions(user, "sessions").await.is_empty(), "there is a session");
    }

    /// The sessions of a person: `sessions`, or `offline-sessions/{id of a client}`.
    pub async fn sessions(&self, user: &Person, which: &str) -> Vec<Value> {
        let sessions = self.w.keycloak.call(Method::GET, &format!("users/{}/{which}", user.id), None).await.1;
        sessions.as_array().expect("a list").clone()
    }

    /// What a person has in Keycloak directly: all roles and groups, each as one word.
    pub async fn holdings(&self, user: &Person) -> BTreeSet<String> {
        let ask =
            async |what: &str| self.w.keycloak.call(Method::GET, &format!("users/{}/{what}", user.id), None).await.1;
        let (roles, groups) = (ask("role-mappings").await, ask("groups").await);
        let name = |role: &Value| format!("{} {}", role["name"].as_str().unwrap_or_default(), role["id"]);
        let list = |roles: &Value| roles.as_array().map(|roles| roles.iter().map(name).collect()).unwrap_or_default();
        let mut all: Vec<String> = list(&roles["realmMappings"]);
        for client in roles["clientMappings"].as_object().into_iter().flat_map(|clients| clients.values()) {
            all.extend(list(&client["mappings"]));
        }
        all.extend(list(&groups));
        all.into_iter().collect()
    }

    /// Waits until no call is on its way that the operator knows nothing of.
    pub async fn is_quiet(&self) {
        while !self.script.is_quiet() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// As the API server has it.
    pub async fn read(&self, request: &Request) -> Option<AccessRequest> {
        let api: Api<AccessRequest> = request.api(self.w.admin.clone());
        api.get_opt(&request.name).await.expect("the API server answers")
    }

    /// Waits until a request is as hoped; if it never is, says how it is.
    pub async fn until(
        &self,
        request: &Request,
        what: &str,
        patience: Duration,
        hoped: impl Fn(&AccessRequest) -> bool,
    ) -> Result<AccessRequest, String> {
        let begin = Instant::now();
        loop {
            match self.read(request).await {
                None => return Err(format!("{} is gone before it was {what}", request.name)),
                Some(now) if hoped(&now) => return Ok(now),
                Some(now) if begin.elapsed() > patience => {
                    let phase = now.status.as_ref().and_then(|status| status.phase);
                    return Err(format!("{} is not {what} within {patience:?}, but {phase:?}", request.name));
                }
                Some(_) => sleep(Duration::from_millis(150)).await,
            }
        }
    }

    /// Forgets all lives. Nobody may be under way.
    pub fn forget(&self) {
        self.script.forget();
        self.ledger.forget();
    }

    /// Takes everything away again, the operator last.
    pub async fn clear(self) {
        self.w.clean_up().await;
        self.tasks.iter().for_each(JoinHandle::abort);
        let operator = self.script.operator.lock().expect("lock").take();
        if let Some(mut operator) = operator {
            operator.kill().await.expect("it runs");
        }
    }
}
