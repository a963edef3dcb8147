//! Every version of every request that the API server showed, and what must hold of each sequence of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use hallpass::api::{AccessRequest, AccessRequestStatus, Phase, TargetState};
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::task::JoinHandle;

/// The statuses that each request has had, by its name.
#[derive(Default)]
pub struct Ledger(Mutex<HashMap<String, Vec<AccessRequestStatus>>>);

impl Ledger {
    /// Writes down what the API server shows from now on.
    pub fn keep(self: &Arc<Self>, requests: Api<AccessRequest>) -> JoinHandle<()> {
        let ledger = self.clone();
        tokio::spawn(async move {
            let mut shown = Box::pin(watcher(requests, watcher::Config::default()).default_backoff().applied_objects());
            while let Some(request) = shown.next().await {
                let Ok(request) = request else { continue };
                let (name, status) = (request.name_any(), request.status.unwrap_or_default());
                ledger.0.lock().expect("lock").entry(name).or_default().push(status);
            }
        })
    }

    /// What is wrong with the life of this request so far.
    pub fn complaints(&self, name: &str) -> Vec<String> {
        let all = self.0.lock().expect("lock");
        let Some(statuses) = all.get(name) else { return Vec::new() };
        statuses.windows(2).flat_map(|pair| wrong(name, &pair[0], &pair[1])).collect()
    }

    /// Forgets what was written down.
    pub fn forget(&self) {
        self.0.lock().expect("lock").clear();
    }
}

/// How far a life has come. It only goes on.
fn stage(phase: Option<Phase>) -> u8 {
    match phase {
        None => 0,
        Some(Phase::Pending) => 1,
        Some(Phase::Approved) => 2,
        Some(Phase::Activating) => 3,
        Some(Phase::Active) => 4,
        Some(Phase::Revoking) => 5,
        Some(Phase::Expired | Phase::Revoked | Phase::Denied | Phase::TimedOut | Phase::Rejected) => 6,
    }
}

/// What must not follow on a status.
fn wrong(name: &str, before: &AccessRequestStatus, after: &AccessRequestStatus) -> Vec<String> {
    let mut wrong = Vec::new();
    let (old, new) = (before.phase, after.phase);
    // What waits can be put back; what was given cannot.
    if stage(new) < stage(old) && stage(old) >= 3 || stage(old) == 6 && old != new {
        wrong.push(format!("{name} went from {old:?} to {new:?}"));
    }
    let (Some(old), Some(new)) = (&before.grant, &after.grant) else {
        if before.grant.is_some() {
            wrong.push(format!("{name} lost its grant"));
        }
        return wrong;
    };
    if new.deadline.0 > old.deadline.0 || new.starts_at != old.starts_at {
        wrong.push(format!("{name} was activated again: {old:?}, then {new:?}"));
    }
    for target in &old.targets {
        let Some(now) = new.targets.iter().find(|now| now.name == target.name) else {
            wrong.push(format!("{name} lost its target {}", target.name));
            continue;
        };
        if !target.pre_existing && now.pre_existing {
            wrong.push(format!("{name}: {} was there before all of a sudden", target.name));
        }
        let gone = matches!(target.state, TargetState::Removed | TargetState::Kept);
        if gone && matches!(now.state, TargetState::Mapped) {
            wrong.push(format!("{name}: {} is mapped after it was {:?}", target.name, target.state));
        }
    }
    wrong
}
