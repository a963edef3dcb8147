//! The record of requests that have started without a fresh vote: a `ConfigMap` in the operator's namespace, because the
//! manifest of such a request may lie in Git for ever, and its object can be pruned and made again.
//!
//! An entry is written before the request is approved, and stays until its window has closed. When the record is lost,
//! what it said is not known: nothing starts whose window began before the new one did (the API server's clock says when).

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::error::{ApiError, limited};
use crate::{
    api::FIELD_MANAGER,
    domain::{Request, delegation, duration::later},
};

/// The `ConfigMap` that keeps it.
pub const STORED_IN: &str = "hallpass-started";
/// Most entries: 200 bytes each at the most, below the 1 MiB that a `ConfigMap` holds.
const MAX_ENTRIES: usize = 4096;
/// Most entries of one policy: whoever submits under it takes no room from others.
const MAX_OF_ONE_POLICY: usize = 512;
/// An entry outlives its window by as much as clocks may differ.
const SLACK: Duration = Duration::from_mins(1);

/// The record.
pub struct Record {
    api: Api<ConfigMap>,
    /// One writer in the process; another process is noticed by the resourceVersion.
    writing: Mutex<()>,
}

impl Record {
    /// In this namespace, the operator's own.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), writing: Mutex::default() }
    }

    /// Makes sure that there is one, so that it begins as early as it can.
    pub async fn begin(&self) -> Result<(), ApiError> {
        self.read().await.map(drop)
    }

    /// What is on record about this digest, and whether there is room for one more of this policy.
    pub async fn look(&self, digest: &str, policy: &str) -> Result<delegation::Record, ApiError> {
        let stored = self.read().await?;
        let since = stored.metadata.creation_timestamp.map_or(Timestamp::MAX, |time| time.0);
        let entries = stored.data.unwrap_or_default();
        let now = Timestamp::now();
        let open: Vec<&String> = entries.values().filter(|entry| !has_closed(entry, now)).collect();
        let of_policy = open.iter().filter(|entry| entry.split(' ').nth(2) == Some(policy)).count();
        let full = open.len() >= MAX_ENTRIES || of_policy >= MAX_OF_ONE_POLICY;
        let by = entries.get(digest).map(|entry| entry.split(' ').next().unwrap_or_default().to_owned());
        Ok(delegation::Record { since, by, full })
    }

    /// Puts on record that this request starts, unless another one has; looking again tells. Takes out what has closed.
    pub async fn put(&self, digest: &str, request: &Request, until: Timestamp) -> Result<(), ApiError> {
        let _alone = self.writing.lock().await;
        let stored = self.read().await?;
        let entries = stored.data.unwrap_or_default();
        if entries.contains_key(digest) {
            return Ok(());
        }
        let now = Timestamp::now();
        let closed = entries.iter().filter(|(_, entry)| has_closed(entry, now));
        let mut data: BTreeMap<&str, Value> = closed.map(|(digest, _)| (digest.as_str(), Value::Null)).collect();
        data.insert(digest, json!(format!("{} {until} {}", request.uid, request.policy)));
        let patch = json!({
            "metadata": { "uid": stored.metadata.uid, "resourceVersion": stored.metadata.resource_version },
            "data": data,
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match limited(self.api.patch(STORED_IN, &params, &Patch::Merge(patch))).await {
            // Somebody else wrote meanwhile, or it was made anew: whoever wants to start looks again.
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn read(&self) -> Result<ConfigMap, ApiError> {
        if let Some(stored) = limited(self.api.get_opt(STORED_IN)).await? {
            return Ok(stored);
        }
        let new: ConfigMap = ConfigMap {
            metadata: kube::core::ObjectMeta { name: Some(STORED_IN.into()), ..kube::core::ObjectMeta::default() },
            ..ConfigMap::default()
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        match limited(self.api.create(&params, &new)).await {
            Err(error) if error.is_conflict() => limited(self.api.get(STORED_IN)).await,
            made => {
                tracing::warn!(
                    record = STORED_IN,
                    "there was no record of what has started without a vote; a new one begins"
                );
                made
            }
        }
    }
}

/// Whether the window of an entry has closed; one that cannot be read never does.
fn has_closed(entry: &str, now: Timestamp) -> bool {
    let until = entry.split(' ').nth(1).and_then(|until| until.parse::<Timestamp>().ok());
    until.is_some_and(|until| later(until, SLACK) <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_until_its_window_has_surely_closed() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().expect("a time");
        for (entry, closed) in [
            ("u1 2026-11-23T11:58:59Z", true),
            ("u1 2026-11-23T11:59:01Z", false),
            ("u1 2026-11-23T13:00:00Z", false),
            ("u1", false),
            ("u1 yesterday", false),
        ] {
            assert_eq!(has_closed(entry, now), closed, "{entry}");
        }
    }
}
