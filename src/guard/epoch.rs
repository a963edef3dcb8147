//! Trust epochs: a time during which the admission policies were in force, unchanged.
//!
//! That the objects are there does not prove that they bite: enforcement starts about a second after the write, at each
//! API server by itself (kube-apiserver 1.37.1). So a new epoch begins only once a forged request was refused several
//! times over some seconds, each time on a new connection. It is stored, so that it outlives the operator: whoever changes
//! the policies while the operator is away, and puts them back, leaves other UIDs and generations behind.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{NotInForce, PATIENCE};
use crate::api::{AccessRequest, AccessRequestSpec, FIELD_MANAGER};

/// The `ConfigMap` in the operator's namespace that keeps the present epoch.
pub const STORED_IN: &str = "hallpass-trust";
/// How often a forged request must be refused in a row before an epoch begins.
const ROUNDS: u32 = 3;
/// The time between two of them.
const PAUSE: Duration = Duration::from_secs(1);
/// Name of the forged request. It is never stored: the write is a dry run.
const CANARY: &str = "hallpass-canary";

/// A time during which the admission policies were in force, unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Random; a ballot is drawn in one epoch and void in the next.
    pub id: String,
    /// When it began, by the API server's clock. What is older may be forged.
    pub since: Timestamp,
    /// Digest of the UIDs, generations and specs that it is about.
    pub fingerprint: String,
}

impl Epoch {
    /// No epoch: nothing that is installed has this fingerprint.
    pub const fn none() -> Self {
        Self { id: String::new(), since: Timestamp::MAX, fingerprint: String::new() }
    }

    /// As it was stored. One that was stored once only, because the operator died or the API server went away before
    /// it was known when it began, has not begun.
    fn read(data: &BTreeMap<String, String>) -> Option<Self> {
        let since = data.get("since")?.parse().ok().filter(|since| *since != Timestamp::MAX)?;
        Some(Self { id: data.get("epoch")?.clone(), since, fingerprint: data.get("fingerprint")?.clone() })
    }
}

/// Where epochs are kept and proved.
#[derive(Clone)]
pub struct Epochs {
    config: Config,
    namespace: String,
}

impl Epochs {
    /// In this namespace, the operator's own; `config` makes new connections.
    pub fn new(config: Config, namespace: String) -> Self {
        Self { config, namespace }
    }

    /// The operator's own namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The epoch that was stored last, by this operator or the one before.
    pub async fn stored(&self, client: &Client) -> Result<Option<Epoch>, NotInForce> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), &self.namespace);
        let stored = ask("ConfigMap", STORED_IN, api.get_opt(STORED_IN)).await?;
        Ok(stored.and_then(|stored| Epoch::read(&stored.data?)))
    }

    /// Begins an epoch: proves that the policies bite, and stores it.
    pub async fn begin(&self, client: &Client, fingerprint: &str) -> Result<Epoch, NotInForce> {
        for round in 0..ROUNDS {
            if round > 0 {
                sleep(PAUSE).await;
            }
            self.canary().await?;
        }
        let id = getrandom::u64().map(|random| format!("{random:016x}"));
        let id = id.map_err(|error| NotInForce::Unproved { why: format!("no random bytes: {error}") })?;
        // Stored twice: what the API server's clock says is known only once it has answered.
        let began =
            self.store(client, &Epoch { id, since: Timestamp::MAX, fingerprint: fingerprint.to_owned() }).await?;
        self.store(client, &began).await
    }

    /// Ends the stored epoch: what is installed does not bite, and nobody knows since when.
    pub async fn forget(&self, client: &Client) -> Result<(), NotInForce> {
        self.store(client, &Epoch::none()).await.map(drop)
    }

    async fn store(&self, client: &Client, epoch: &Epoch) -> Result<Epoch, NotInForce> {
        let Epoch { id, since, fingerprint } = epoch;
        let data =
            BTreeMap::from([("epoch", id.clone()), ("since", since.to_string()), ("fingerprint", fingerprint.clone())]);
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": STORED_IN },
            "data": data,
        });
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), &self.namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let stored = ask("ConfigMap", STORED_IN, api.patch(STORED_IN, &params, &Patch::Apply(object))).await?;
        let ours = stored.managed_fields().iter().filter(|fields| fields.manager.as_deref() == Some(FIELD_MANAGER));
        let written = ours.filter_map(|fields| fields.time.as_ref()).map(|time| time.0).max();
        let since = if *since == Timestamp::MAX { written.unwrap_or(Timestamp::MAX) } else { *since };
        Ok(Epoch { since, ..epoch.clone() })
    }

    /// A forged request, as a dry run on a new connection, must be refused by `hallpass-identity`.
    pub async fn canary(&self) -> Result<(), NotInForce> {
        let unproved = |why: String| NotInForce::Unproved { why };
        let client = Client::try_from(self.config.clone()).map_err(|error| unproved(error.to_string()))?;
        let api: Api<AccessRequest> = Api::namespaced(client, &self.namespace);
        let spec = AccessRequestSpec {
            policy_name: CANARY.into(),
            requester: Some(CANARY.into()),
            ..AccessRequestSpec::default()
        };
        let params = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.into()) };
        let answer = timeout(PATIENCE, api.create(&params, &AccessRequest::new(CANARY, spec))).await;
        match answer.map_err(|_| NotInForce::NoAnswer { object: format!("AccessRequest {CANARY}") })? {
            Ok(_) => Err(unproved("the API server lets a forged request through".into())),
            Err(kube::Error::Api(status))
                if status.message.contains("ValidatingAdmissionPolicy 'hallpass-identity'") =>
            {
                Ok(())
            }
            // An API server in trouble, or one that does not know us, says nothing about the policies.
            Err(kube::Error::Api(status)) if !matches!(status.code, 401 | 429 | 500..) => Err(unproved(format!(
                "the API server refuses a forged request, but not because of hallpass-identity: {}",
                status.message
            ))),
            Err(source) => {
                Err(NotInForce::Read { object: format!("AccessRequest {CANARY}"), source: Arc::new(source) })
            }
        }
    }
}

async fn ask<T>(kind: &str, name: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, NotInForce> {
    let object = || format!("{kind} {name}");
    let answer = timeout(PATIENCE, call).await.map_err(|_| NotInForce::NoAnswer { object: object() })?;
    answer.map_err(|source| NotInForce::Read { object: object(), source: Arc::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(since: &str) -> BTreeMap<String, String> {
        [("epoch", "7f"), ("since", since), ("fingerprint", "d1")].map(|(key, value)| (key.into(), value.into())).into()
    }

    #[test]
    fn an_epoch_that_was_stored_is_read() {
        let epoch = Epoch::read(&stored("2026-11-23T12:00:00Z")).expect("an epoch");
        assert_eq!((epoch.id.as_str(), epoch.fingerprint.as_str()), ("7f", "d1"));
    }

    #[test]
    fn an_epoch_of_which_nobody_knows_when_it_began_has_not_begun() {
        assert_eq!(Epoch::read(&stored(&Timestamp::MAX.to_string())), None);
        assert_eq!(Epoch::read(&stored("yesterday")), None);
        assert_eq!(Epoch::read(&BTreeMap::new()), None);
    }
}
