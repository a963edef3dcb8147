//! Policies: how a scenario makes them and what it expects of them.
#![allow(dead_code, reason = "each scenario needs another part")]

use std::time::Instant;

use hallpass::api::AccessPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{
    accounts::Robot,
    keycloak_admin::Group,
    people::Person,
    world::{GLANCE, PATIENCE, World},
};

/// A policy in the making.
#[derive(Clone)]
pub struct PolicyBuilder {
    world: World,
    name: String,
    /// `spec`, as it is sent.
    pub spec: Value,
}

/// A policy that the API server has taken.
#[derive(Clone)]
pub struct Policy {
    world: World,
    pub name: String,
}

impl PolicyBuilder {
    pub fn new(world: World, name: String) -> Self {
        Self { world, name, spec: json!({"realm": "prod", "grants": [], "duration": {"max": "1h"}}) }
    }

    fn push(mut self, key: &str, item: Value) -> Self {
        match self.spec.get_mut(key).and_then(Value::as_array_mut) {
            Some(list) => list.push(item),
            None => self.spec[key] = json!([item]),
        }
        self
    }

    /// Sets any field of the spec, as `("namespaces", json!(["a"]))`.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.spec[key] = value;
        self
    }

    pub fn realm(self, name: &str) -> Self {
        self.with("realm", json!(name))
    }

    pub fn realm_role(self, grant: &str, role: &str) -> Self {
        self.push("grants", json!({"name": grant, "realmRole": role}))
    }

    pub fn client_role(self, grant: &str, client: &str, role: &str) -> Self {
        self.push("grants", json!({"name": grant, "clientRole": {"client": client, "role": role}}))
    }

    pub fn group(self, grant: &str, path: &str) -> Self {
        self.push("grants", json!({"name": grant, "group": path}))
    }

    /// This person may ask.
    pub fn requester(self, person: &Person) -> Self {
        self.push("requesters", json!({"kind": "User", "name": person.username}))
    }

    /// Whoever is directly in this group may ask.
    pub fn requester_group(self, group: &Group) -> Self {
        self.push("requesters", json!({"kind": "Group", "name": format!("oidc:{}", group.path)}))
    }

    /// Everybody with a Keycloak user may ask.
    pub fn everybody(self) -> Self {
        self.push("requesters", json!({"kind": "Group", "name": "system:authenticated"}))
    }

    /// So many of these people must agree.
    pub fn stage<'a>(self, name: &str, required: u8, approvers: impl IntoIterator<Item = &'a Person>) -> Self {
        let approvers: Vec<Value> =
            approvers.into_iter().map(|person| json!({"kind": "User", "name": person.username})).collect();
        self.any_stage(json!({"name": name, "required": required, "approvers": approvers}))
    }

    /// So many of those who are directly in this group must agree.
    pub fn stage_group(self, name: &str, required: u8, group: &Group) -> Self {
        let approvers = json!([{"kind": "Group", "name": format!("oidc:{}", group.path)}]);
        self.any_stage(json!({"name": name, "required": required, "approvers": approvers}))
    }

    /// This service account may submit for others, and pre-approve these stages.
    pub fn submitter(self, robot: &Robot, pre_approves: &[&str]) -> Self {
        let (namespace, name) = robot.names();
        let kind = "ServiceAccount";
        self.push(
            "submitters",
            json!({"kind": kind, "namespace": namespace, "name": name, "preApproves": pre_approves}),
        )
    }

    fn any_stage(mut self, stage: Value) -> Self {
        match self.spec["approval"]["stages"].as_array_mut() {
            Some(stages) => stages.push(stage),
            None => self.spec["approval"]["stages"] = json!([stage]),
        }
        self
    }

    /// Nobody has to agree.
    pub fn automatic(mut self) -> Self {
        self.spec["approval"]["automatic"] = json!(true);
        self
    }

    /// Undecided for this long: `TimedOut`.
    pub fn timeout(mut self, timeout: &str) -> Self {
        self.spec["approval"]["timeout"] = json!(timeout);
        self
    }

    pub fn lasting_at_most(mut self, max: &str) -> Self {
        self.spec["duration"]["max"] = json!(max);
        self
    }

    /// Only requests in the world's own namespace.
    pub fn in_own_namespace(self) -> Self {
        let namespaces = json!([self.world.namespace]);
        self.with("namespaces", namespaces)
    }

    /// Where it will be, or is.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends it as the administrator; answers with what the API server says against it.
    pub async fn create(self) -> Result<Policy, String> {
        let Self { world, name, spec } = self;
        let object = json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessPolicy", "metadata": {"name": name}, "spec": spec,
        });
        let body = serde_json::to_vec(&object).expect("JSON");
        // Not through the type: what it cannot say must reach the API server as well.
        let request = kube::api::Request::new("/apis/hallpass.dev/v1alpha1/accesspolicies");
        let strict = PostParams { field_manager: Some("scenarios".into()), ..PostParams::default() };
        let request = request.create(&strict, body).expect("a request");
        world.admin.request::<Value>(request).await.map_err(|error| error.to_string())?;
        world.policies.lock().expect("lock").push(name.clone());
        Ok(Policy { world, name })
    }

    /// Sends it and waits until the operator says that requests can be granted.
    pub async fn ready(self) -> Policy {
        let policy = self.create().await.unwrap_or_else(|error| panic!("a good policy: {error}"));
        policy.is_ready().await;
        policy
    }
}

impl Policy {
    pub async fn get(&self) -> AccessPolicy {
        self.world.all_policies().get(&self.name).await.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Changes it as the administrator, by a merge patch of its spec.
    pub async fn change(&self, spec: Value) {
        self.patch(&json!({ "spec": spec })).await;
    }

    /// Sends any merge patch as the administrator.
    pub async fn patch(&self, patch: &Value) {
        let done = self.world.all_policies().patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    pub async fn delete(&self) {
        let done = self.world.all_policies().delete(&self.name, &kube::api::DeleteParams::default()).await;
        drop(done.unwrap_or_else(|error| panic!("{}: {error}", self.name)));
    }

    /// Waits until the operator has said something about the present generation.
    pub async fn condition(&self) -> Condition {
        self.until("examined", |_| true).await
    }

    pub async fn is_ready(&self) {
        self.until("Ready", |ready| ready.status == "True").await;
    }

    /// Waits until it is not Ready for this reason; answers with the message.
    pub async fn is_not_ready(&self, reason: &str) -> String {
        self.until(&format!("not Ready: {reason}"), |ready| ready.status == "False" && ready.reason == reason)
            .await
            .message
    }

    /// Waits until Ready, of the present generation, is as hoped.
    pub async fn until(&self, what: &str, hoped: impl Fn(&Condition) -> bool) -> Condition {
        let begin = Instant::now();
        loop {
            let policy = self.get().await;
            let status = policy.status.unwrap_or_default();
            let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready");
            let present = status.observed_generation == policy.metadata.generation;
            if let Some(ready) = ready.clone().filter(|ready| present && hoped(ready)) {
                return ready;
            }
            assert!(begin.elapsed() < PATIENCE, "{} is not {what} within {PATIENCE:?}: {ready:?}", self.name);
            tokio::time::sleep(GLANCE).await;
        }
    }
}
