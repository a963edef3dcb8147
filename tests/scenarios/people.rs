//! People act in their own name: with the token that Keycloak gave them.
#![allow(dead_code, reason = "each scenario needs another part")]

use std::process::Output;

use hallpass::api::{APPROVE, AccessRequest, DENY, END};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{process::Command, sync::Mutex};

use crate::{
    keycloak_admin::{self, Group, unique},
    policy::Policy,
    request::{Ask, Request},
    world::World,
};

/// What the API server answered: nothing, or why not.
pub type Answer = Result<(), String>;

/// A person with a Keycloak user.
#[derive(Clone)]
pub struct Person {
    world: World,
    /// In Keycloak.
    pub user: keycloak_admin::Person,
    /// In Kubernetes: `oidc:` and the Keycloak username.
    pub username: String,
    token: std::sync::Arc<Mutex<Option<String>>>,
}

impl Person {
    pub fn new(world: World, user: keycloak_admin::Person) -> Self {
        let username = format!("oidc:{}", user.username);
        Self { world, user, username, token: std::sync::Arc::default() }
    }

    /// Puts the person into a group. Do it before the first action: a token says the groups that there were at sign-in.
    pub async fn in_group(self, group: &Group) -> Self {
        self.world.keycloak.join(&self.user, group).await;
        self
    }

    /// Signs in anew, so that the API server sees what Keycloak says now.
    pub async fn signs_in(&self) {
        let tokens = self.world.keycloak.tokens(&self.user).await;
        *self.token.lock().await = tokens["access_token"].as_str().map(str::to_owned);
    }

    /// The token that the person has; signs in the first time.
    pub async fn token(&self) -> String {
        if self.token.lock().await.is_none() {
            self.signs_in().await;
        }
        self.token.lock().await.clone().expect("signed in")
    }

    /// A client of the API server in the person's name.
    pub async fn client(&self) -> Client {
        self.world.stack.bearer(&self.token().await).await
    }

    /// The requests of the world's namespace, in the person's name.
    pub async fn requests(&self) -> Api<AccessRequest> {
        Api::namespaced(self.client().await, &self.world.namespace)
    }

    /// kubectl in the person's name, in the world's namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Output {
        let stack = &self.world.stack;
        let mut kubectl = Command::new(&stack.kubectl);
        kubectl.env("KUBECONFIG", "/dev/null").arg("--server").arg(&stack.api_server);
        kubectl.arg("--certificate-authority").arg(&stack.ca_file).arg("--token").arg(self.token().await);
        kubectl.args(["--namespace", &self.world.namespace]).args(arguments).output().await.expect("kubectl runs")
    }

    /// A request in the person's own name under a policy; all of its grants until it says otherwise.
    pub fn asks(&self, policy: &Policy) -> Ask {
        self.asks_under(&policy.name)
    }

    /// The same under a policy that may not be there.
    pub fn asks_under(&self, policy: &str) -> Ask {
        Ask::new(self.world.clone(), self.clone(), unique("fix"), policy)
    }

    /// Approves in this stage, once the request shows a ballot.
    pub async fn approves(&self, request: &Request, stage: &str) -> Answer {
        self.votes(APPROVE, request, stage).await
    }

    /// Says no in this stage, once the request shows a ballot.
    pub async fn denies(&self, request: &Request, stage: &str) -> Answer {
        self.votes(DENY, request, stage).await
    }

    async fn votes(&self, prefix: &str, request: &Request, stage: &str) -> Answer {
        let ballot = request.ballot().await;
        self.annotates(request, &format!("{prefix}{ballot}.{stage}.{}", unique("v")), &self.username).await
    }

    /// Ends the access early.
    pub async fn ends(&self, request: &Request) -> Answer {
        self.annotates(request, &format!("{END}{}", unique("e")), &self.username).await
    }

    /// Writes an annotation; `Value::Null` takes it away.
    pub async fn annotates(&self, request: &Request, key: &str, value: impl Serialize) -> Answer {
        self.patches(request, &json!({"metadata": {"annotations": { key: json!(value) }}})).await
    }

    /// Sends a merge patch.
    pub async fn patches(&self, request: &Request, patch: &Value) -> Answer {
        let api = request.api(self.client().await);
        let done = api.patch(&request.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    /// Deletes the request; the operator takes the access away first.
    pub async fn deletes(&self, request: &Request) -> Answer {
        let api = request.api(self.client().await);
        api.delete(&request.name, &DeleteParams::default()).await.map(drop).map_err(|error| error.to_string())
    }

    /// Whether a fresh access token carries this realm role.
    pub async fn has_role_in_token(&self, role: &str) -> bool {
        self.claims().await["realm_access"]["roles"]
            .as_array()
            .is_some_and(|roles| roles.iter().any(|name| name == role))
    }

    /// The claims of a fresh access token.
    pub async fn claims(&self) -> Value {
        self.world.keycloak.claims(&self.user).await
    }
}
