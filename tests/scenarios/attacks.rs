//! Attacks on a request as a table: who tries what, and the words in which the API server must refuse it.

use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{accounts::Robot, keycloak_admin::Role, people::Person, policy::Policy, request::Request, world::World};

/// What somebody tries to do to a request.
pub enum Deed {
    Patch(Value),
    Status(Value),
    Delete,
}

/// Who tries what, and what the API server must answer: one of these, apart by `|`.
pub type Attack<'a> = (&'a str, &'a Client, Deed, &'a str);

pub fn note(key: &str, value: impl Serialize) -> Deed {
    Deed::Patch(json!({"metadata": {"annotations": { key: json!(value) }}}))
}

pub fn metadata(key: &str, value: impl Serialize) -> Deed {
    Deed::Patch(json!({"metadata": { key: json!(value) }}))
}

pub fn says_one_of(answer: &str, words: &str) -> bool {
    words.split('|').any(|words| answer.contains(words))
}

pub async fn all_are_refused(request: &Request, attacks: Vec<Attack<'_>>) {
    let mut succeeded = Vec::new();
    for (what, who, deed, words) in attacks {
        let api = request.api(who.clone());
        let params = PatchParams::default();
        let answer = match &deed {
            Deed::Patch(patch) => api.patch(&request.name, &params, &Patch::Merge(patch)).await.map(drop),
            Deed::Status(status) => {
                let patch = json!({ "status": status });
                api.patch_status(&request.name, &params, &Patch::Merge(patch)).await.map(drop)
            }
            Deed::Delete => api.delete(&request.name, &DeleteParams::default()).await.map(drop),
        };
        match answer {
            Ok(()) => succeeded.push(format!("{what}: done")),
            Err(error) if says_one_of(&error.to_string(), words) => {}
            Err(error) => succeeded.push(format!("{what}: not refused for {words:?}, but: {error}")),
        }
    }
    assert!(succeeded.is_empty(), "{}", succeeded.join("\n"));
}

/// Alice asks, Bob leads, Carol is security, and Mallory has every right in the namespace, but no say.
pub struct Scene {
    pub w: World,
    pub alice: Person,
    pub bob: Person,
    pub carol: Person,
    pub mallory: Person,
    pub robot: Robot,
    pub operator: Client,
    pub role: Role,
    pub policy: Policy,
}

impl Scene {
    pub async fn new() -> Self {
        let w = World::new().await;
        let (alice, bob) = (w.person("alice").await, w.person("bob").await);
        let (carol, mallory) = (w.person("carol").await, w.person("mallory").await);
        w.makes_administrator(&mallory.username).await;
        let role = w.keycloak.realm_role("admin").await;
        let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
        let policy = policy.stage("lead", 1, [&bob]).stage("security", 1, [&carol]).ready().await;
        // From here on the API server knows the policy.
        assert!(mallory.asks(&policy).refused().await.contains("you may not ask under policy"));
        let (robot, operator) = (w.robot("robot").await, w.operator_account().await);
        Self { w, alice, bob, carol, mallory, robot, operator, role, policy }
    }

    pub async fn nothing_was_given(&self) {
        assert!(!self.w.keycloak.has(&self.alice.user, &self.role).await);
        assert!(!self.w.keycloak.has(&self.mallory.user, &self.role).await);
    }
}
