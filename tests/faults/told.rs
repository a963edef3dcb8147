//! How the world was when a life failed: its requests, their Events, what the operator called and said, and what Keycloak
//! has.

use std::fs;

use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};

use crate::{
    life::{Point, Told},
    operator::folder,
    request::Request,
    stage::Stage,
};

/// So many lines of the operator's log, and so many calls, are in a report.
const LINES: usize = 150;

impl Told {
    /// Prints a report, and keeps it beside the logs of the stack.
    pub async fn report(&self, stage: &Stage, point: &Point) {
        let mut lines = vec![point.to_string()];
        lines.extend(self.problems.iter().map(|problem| format!("PROBLEM {problem}")));
        for request in &self.requests {
            lines.extend(objects(stage, request).await);
        }
        lines.push(format!("--- Keycloak: {} has {:?}", self.user.username, stage.holdings(&self.user).await));
        lines.push("--- what the operator called, and the answers".into());
        let calls = stage.script.calls_of(self.life);
        for call in calls.iter().take(LINES) {
            let at = call.at.duration_since(calls[0].at).as_secs_f64();
            let fault = call.fault.map(|fault| format!("  <== {fault}")).unwrap_or_default();
            lines.push(format!("{at:8.3} {} {:?}{fault}", call.line, call.answer));
        }
        lines.push(format!("--- the operator's log ({})", stage.operator.log.display()));
        for request in &self.requests {
            let log = stage.operator.log_about(&request.name);
            lines.extend_from_slice(&log[log.len().saturating_sub(LINES)..]);
        }
        let text = lines.join("\n");
        let name: String = point.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = folder(&stage.w.stack).join(format!("{name}.txt"));
        let kept = fs::write(&file, &text).map(|()| file.display().to_string());
        println!("FAILED {text}\nalso in {kept:?}");
    }
}

/// A request and its Events.
async fn objects(stage: &Stage, request: &Request) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(mut now) = stage.read(request).await {
        now.metadata.managed_fields = None;
        lines.push(format!("---\n{}", serde_saphyr::to_string(&now).unwrap_or_else(|error| error.to_string())));
    }
    let events = Api::<Event>::namespaced(stage.w.admin.clone(), &stage.w.namespace);
    let events = events.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    for event in events {
        if event.regarding.is_some_and(|about| about.name.as_ref() == Some(&request.name)) {
            let reason = event.reason.unwrap_or_default();
            lines.push(format!("Event {reason}: {}", event.note.unwrap_or_default()));
        }
    }
    lines
}
