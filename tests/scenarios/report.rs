//! What a scenario that failed prints: its objects, their Events, what the operator said and what Keycloak says.

use std::fmt::Write;

use hallpass::api::{AccessPolicy, AccessRequest};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::Serialize;

use crate::{
    keycloak_admin::{Admin, Person},
    world::Stack,
};

/// At most so many lines of the operator's log.
const LINES: usize = 60;

/// What is to be told about.
pub struct Report {
    pub stack: Stack,
    pub namespace: String,
    pub people: Vec<Person>,
    pub policies: Vec<String>,
}

impl Report {
    pub async fn tell(self) -> String {
        let mut text = String::from("\n===== the world of the scenario that failed =====\n");
        let admin = self.stack.admin().await;
        self.objects(&admin, &mut text).await;
        self.events(&admin, &mut text).await;
        self.log(&mut text);
        self.keycloak(&mut text).await;
        text
    }

    async fn objects(&self, admin: &Client, text: &mut String) {
        let requests: Api<AccessRequest> = Api::namespaced(admin.clone(), &self.namespace);
        match requests.list(&ListParams::default()).await {
            Ok(requests) => requests.into_iter().for_each(|request| yaml(text, request)),
            Err(error) => drop(writeln!(text, "no requests: {error}")),
        }
        for name in &self.policies {
            match Api::<AccessPolicy>::all(admin.clone()).get(name).await {
                Ok(policy) => yaml(text, policy),
                Err(error) => drop(writeln!(text, "no policy: {error}")),
            }
        }
    }

    async fn events(&self, admin: &Client, text: &mut String) {
        let Ok(events) = Api::<Event>::all(admin.clone()).list(&ListParams::default()).await else { return };
        let _ = writeln!(text, "--- Events");
        for event in events {
            let Some(about) = &event.regarding else { continue };
            let name = about.name.clone().unwrap_or_default();
            if about.namespace.as_ref() == Some(&self.namespace) || self.policies.contains(&name) {
                let (type_, reason) = (event.type_.unwrap_or_default(), event.reason.unwrap_or_default());
                let _ = writeln!(text, "{type_} {reason} {name}: {}", event.note.unwrap_or_default());
            }
        }
    }

    fn log(&self, text: &mut String) {
        let log = std::fs::read(&self.stack.operator.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let names: Vec<&String> = self.policies.iter().chain([&self.namespace]).collect();
        let lines: Vec<&str> = log.lines().filter(|line| names.iter().any(|name| line.contains(*name))).collect();
        let _ = writeln!(text, "--- the operator's log ({})", self.stack.operator.log.display());
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            let _ = writeln!(text, "{line}");
        }
    }

    async fn keycloak(&self, text: &mut String) {
        let keycloak = Admin::new();
        for person in &self.people {
            let user = keycloak.get(&format!("users/{}", person.id)).await;
            let roles = keycloak.get(&format!("users/{}/role-mappings", person.id)).await;
            let groups = keycloak.groups(person).await;
            let enabled = &user["enabled"];
            let _ =
                writeln!(text, "--- Keycloak: {} enabled {enabled}, groups {groups:?}, roles {roles}", person.username);
        }
    }
}

fn yaml<K: ResourceExt + Serialize>(text: &mut String, mut object: K) {
    object.meta_mut().managed_fields = None;
    let _ = writeln!(text, "---\n{}", serde_saphyr::to_string(&object).unwrap_or_else(|error| error.to_string()));
}
