//! What several benchmarks begin with: a policy with one approver, who votes; and one grant, from its creation to the mapping.

use std::time::Duration;

use hallpass::api::{APPROVE, AccessRequest, Phase};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    crowd::Crowd,
    keycloak_admin::{Admin, Role, unique},
    people::Person,
    policy::Policy,
    request::Ask,
    stage::Stage,
    world::World,
};

/// A policy under which everybody may ask for a role, and one person has to agree.
pub struct Scene {
    approver: Person,
    voting: Client,
    pub policy: Policy,
    pub role: Role,
}

impl Scene {
    pub async fn prepare(w: &World, name: &str) -> Self {
        let role = w.keycloak.realm_role(name).await;
        let approver = w.person("approver").await;
        let policy = w.policy(name).realm_role("role", &role.name).everybody().stage("lead", 1, [&approver]);
        // Longer than the approver's token lives.
        let voting = w.somebody_called(&approver.username).await;
        Self { voting, policy: policy.ready().await, approver, role }
    }

    /// A merge patch with a vote of its own.
    pub fn vote_on(&self, ballot: &str) -> Patch<serde_json::Value> {
        let key = format!("{APPROVE}{ballot}.lead.{}", unique("v"));
        Patch::Merge(json!({"metadata": {"annotations": {key: self.approver.username}}}))
    }

    /// The requests of a namespace, as the approver sees them.
    pub fn requests(&self, namespace: &str) -> Api<AccessRequest> {
        Api::namespaced(self.voting.clone(), namespace)
    }

    /// The deciding vote; when it was sent.
    pub async fn vote(&self, namespace: &str, name: &str, ballot: &str) -> Timestamp {
        let (vote, begin) = (self.vote_on(ballot), Timestamp::now());
        self.requests(namespace).patch(name, &PatchParams::default(), &vote).await.expect("a vote");
        begin
    }
}

/// When Keycloak did something to the one realm role of somebody.
pub async fn when(keycloak: &Admin, user: &str, deed: &str) -> Timestamp {
    let path = format!("users/{user}/role-mappings/realm");
    let events = keycloak.get(&format!("admin-events?operationTypes={deed}&resourcePath={path}&max=1")).await;
    Timestamp::from_millisecond(events[0]["time"].as_i64().expect("an event")).expect("a time")
}

/// How long after a time something was; at once, if the clocks' milliseconds say that it was before.
pub fn after(begin: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(begin)).unwrap_or_default()
}

/// One of a crowd asks under an automatic policy: how long until the role is mapped.
pub async fn create_to_mapped(stage: &Stage, keycloak: &Admin, policy: &Policy, crowd: &Crowd, i: usize) -> Duration {
    let username = crowd.username(i);
    let client = stage.w.somebody_called(&username).await;
    let ask = Ask::of(&stage.w, &username, &policy.name).lasting("10m");
    let begin = Timestamp::now();
    let request = ask.create_with(&client).await.expect("asked");
    request.reaches(Phase::Active).await;
    after(begin, when(keycloak, &crowd.ids[i], "CREATE").await)
}
