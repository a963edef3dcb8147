//! Requests: how a scenario makes them and what it expects of them.
#![allow(dead_code, reason = "each scenario needs another part")]

use std::time::{Duration, Instant};

use hallpass::api::{AccessRequest, AccessRequestStatus, Phase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

use crate::{
    keycloak_admin::unique,
    people::Person,
    world::{GLANCE, PATIENCE, World},
};

/// A request in the making.
#[derive(Clone)]
pub struct Ask {
    world: World,
    person: Option<Person>,
    namespace: String,
    name: String,
    annotations: Value,
    /// `spec`, as it is sent.
    pub spec: Value,
}

/// A request that the API server has taken.
#[derive(Clone)]
pub struct Request {
    world: World,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Ask {
    pub fn new(world: World, person: Person, name: String, policy: &str) -> Self {
        let spec = json!({"policyName": policy, "requester": person.username});
        Self { namespace: world.namespace.clone(), world, person: Some(person), name, annotations: json!({}), spec }
    }

    /// A request of somebody who has not signed in; see [`Ask::create_with`].
    pub fn of(world: &World, username: &str, policy: &str) -> Self {
        let spec = json!({"policyName": policy, "requester": username});
        let name = unique("fix");
        Self {
            namespace: world.namespace.clone(),
            world: world.clone(),
            person: None,
            name,
            annotations: json!({}),
            spec,
        }
    }

    async fn own_client(&self) -> Client {
        self.person.as_ref().expect("somebody who can sign in").client().await
    }

    /// Sets any field of the spec, as `("notBefore", json!("…"))`; `null` leaves it out.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        match self.spec.as_object_mut() {
            Some(spec) if value.is_null() => drop(spec.remove(key)),
            _ => self.spec[key] = value,
        }
        self
    }

    pub fn grants<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        self.with("grants", json!(names))
    }

    pub fn lasting(self, duration: &str) -> Self {
        self.with("duration", json!(duration))
    }

    pub fn because(self, reason: &str) -> Self {
        self.with("reason", json!(reason))
    }

    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub fn in_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations[key] = json!(value);
        self
    }

    /// The manifest, as a person would write it.
    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest",
            "metadata": {"name": self.name, "namespace": self.namespace, "annotations": self.annotations},
            "spec": self.spec,
        })
    }

    /// Sends it in the person's name; answers with what the API server says against it.
    pub async fn create(self) -> Result<Request, String> {
        let client = self.own_client().await;
        self.create_with(&client).await
    }

    /// Sends it in the name of somebody else, as `w.admin`.
    pub async fn create_with(self, client: &Client) -> Result<Request, String> {
        let created = self.send(client, false).await?;
        let uid = created["metadata"]["uid"].as_str().expect("a UID").to_owned();
        Ok(Request { world: self.world, namespace: self.namespace, name: self.name, uid })
    }

    /// Has the API server try it; answers with what it says against it.
    pub async fn try_out(self, client: &Client) -> Result<(), String> {
        self.send(client, true).await.map(drop)
    }

    /// Sends it with this client in whichever of these versions takes it first.
    pub async fn create_as(self, client: &Client, versions: &[&str]) -> Option<Request> {
        for version in versions {
            let mut manifest = self.manifest();
            manifest["apiVersion"] = json!(format!("hallpass.dev/{version}"));
            let path = format!("/apis/hallpass.dev/{version}/namespaces/{}/accessrequests", self.namespace);
            let body = serde_json::to_vec(&manifest).expect("JSON");
            let request = kube::api::Request::new(path).create(&PostParams::default(), body).expect("a request");
            if let Ok(made) = client.request::<Value>(request).await {
                return Some(Request::new(&self.world, &self.name, made["metadata"]["uid"].as_str().expect("a UID")));
            }
        }
        None
    }

    /// Must be refused; answers with the API server's words. A new policy reaches admission a moment after it was
    /// written, so this asks by dry runs until it bites, and then for good.
    pub async fn refused(self) -> String {
        let client = self.own_client().await;
        let begin = Instant::now();
        while self.send(&client, true).await.is_ok() {
            assert!(begin.elapsed() < PATIENCE, "not refused within {PATIENCE:?}: {}", self.manifest());
            tokio::time::sleep(GLANCE).await;
        }
        self.create_with(&client).await.err().expect("refused when it is meant, too")
    }

    /// The request that somebody has made of this manifest in another way.
    pub fn applied(self, object: &AccessRequest) -> Request {
        let uid = object.metadata.uid.clone().expect("a UID");
        Request { world: self.world, namespace: self.namespace, name: self.name, uid }
    }

    async fn send(&self, client: &Client, dry_run: bool) -> Result<Value, String> {
        // Not through the type: what it cannot say must reach the API server as well.
        let path = format!("/apis/hallpass.dev/v1alpha1/namespaces/{}/accessrequests", self.namespace);
        let body = serde_json::to_vec(&self.manifest()).expect("JSON");
        let params = PostParams { dry_run, field_manager: Some("scenarios".into()) };
        let request = kube::api::Request::new(path).create(&params, body).expect("a request");
        client.request::<Value>(request).await.map_err(|error| error.to_string())
    }
}

impl Request {
    /// One that is there already, in the world's own namespace.
    pub fn new(world: &World, name: &str, uid: &str) -> Self {
        Self { world: world.clone(), namespace: world.namespace.clone(), name: name.into(), uid: uid.into() }
    }

    /// Its API with somebody's client.
    pub fn api(&self, client: Client) -> Api<AccessRequest> {
        Api::namespaced(client, &self.namespace)
    }

    /// As the API server has it.
    pub async fn get(&self) -> AccessRequest {
        let api = self.api(self.world.admin.clone());
        api.get(&self.name).await.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub async fn status(&self) -> AccessRequestStatus {
        self.get().await.status.unwrap_or_default()
    }

    pub async fn resource_version(&self) -> String {
        self.get().await.metadata.resource_version.expect("a resourceVersion")
    }

    /// The word that a vote must carry, once there is one.
    pub async fn ballot(&self) -> String {
        self.until("a ballot", |status| status.ballot.is_some()).await.ballot.expect("a ballot")
    }

    /// Waits until the request is in this phase.
    pub async fn reaches(&self, phase: Phase) -> AccessRequestStatus {
        self.reaches_within(phase, PATIENCE).await
    }

    /// Waits until the request is in this phase, but not longer than this.
    pub async fn reaches_within(&self, phase: Phase, patience: Duration) -> AccessRequestStatus {
        self.wait(&format!("{phase:?}"), patience, |status| status.phase == Some(phase)).await
    }

    /// Waits until what it gave has run out. Does not look for a short grant while it lives: on a busy machine it may be
    /// over before anybody looks.
    pub async fn runs_out(&self) -> AccessRequestStatus {
        let status = self.reaches(Phase::Expired).await;
        assert!(status.grant.is_some(), "{} has expired without a grant", self.name);
        status
    }

    /// Waits until the request is in this phase for this reason; answers with the message.
    pub async fn says(&self, phase: Phase, reason: &str) -> String {
        let status = self
            .until(&format!("{phase:?}: {reason}"), |status| {
                status.phase == Some(phase) && condition(status, "Ready").reason == reason
            })
            .await;
        condition(&status, "Ready").message
    }

    /// Waits until its status is as hoped.
    pub async fn until(&self, what: &str, hoped: impl Fn(&AccessRequestStatus) -> bool) -> AccessRequestStatus {
        self.wait(what, PATIENCE, hoped).await
    }

    async fn wait(
        &self,
        what: &str,
        patience: Duration,
        hoped: impl Fn(&AccessRequestStatus) -> bool,
    ) -> AccessRequestStatus {
        let begin = Instant::now();
        loop {
            let status = self.status().await;
            if hoped(&status) {
                return status;
            }
            let (phase, ready) = (status.phase, condition(&status, "Ready"));
            let late = begin.elapsed() >= patience;
            assert!(!late, "{} is not {what} within {patience:?}, but {phase:?}: {}", self.name, ready.message);
            let over = phase.is_some_and(Phase::is_final);
            assert!(!over, "{} will never be {what}: it is {phase:?}: {}", self.name, ready.message);
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits until the object is gone.
    pub async fn is_gone(&self) {
        let api = self.api(self.world.admin.clone());
        self.world
            .until(&format!("{} is gone", self.name), async || {
                let found = api.get_metadata_opt(&self.name).await.expect("an answer");
                found.is_none_or(|found| found.metadata.uid.as_ref() != Some(&self.uid))
            })
            .await;
    }

    /// The operator's log lines about it, oldest first.
    pub fn log(&self) -> Vec<Value> {
        self.world.stack.log(&format!("{}/{}", self.namespace, self.name))
    }
}

/// One condition of a status; an empty one if it is not there.
pub fn condition(status: &AccessRequestStatus, type_: &str) -> Condition {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_).cloned();
    found.unwrap_or_else(|| Condition {
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::MIN),
        message: String::new(),
        observed_generation: None,
        reason: String::new(),
        status: String::new(),
        type_: type_.into(),
    })
}
