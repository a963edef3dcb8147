//! Where the keys of the seals are: a Secret in the operator's namespace. The operator makes it and never changes it; whoever
//! installs Hallpass changes keys by adding an entry whose name sorts after the others.

use std::{
    collections::BTreeMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::{
    PATIENCE,
    seal::{KEY_BYTES, Keys},
};
use crate::api::{AccessRequestStatus, FIELD_MANAGER};

/// The Secret that keeps the keys.
pub const SECRET: &str = "hallpass-seal";
/// The wait after a first failure at the start; it doubles with each in a row.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The keys, and the Secret that keeps them. It has no `Debug`: keys must not be printed.
pub struct Keyring {
    secrets: Api<Secret>,
    keys: RwLock<Keys>,
    made: AtomicBool,
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The Secret could not be read or made.
    #[error("cannot {verb} Secret hallpass-seal, which keeps the keys of the seals")]
    Access {
        /// What failed.
        verb: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("the API server did not answer within {} s when asked to {verb} Secret hallpass-seal", PATIENCE.as_secs())]
    NoAnswer {
        /// What was asked.
        verb: &'static str,
    },
    /// The Secret is there and has no key.
    #[error(
        "Secret hallpass-seal has no usable key{why}: restore it from a backup; if an operator still runs, delete it: that one makes it again with the keys that it knows; without its keys live access ends"
    )]
    Empty {
        /// What is wrong with its entries.
        why: String,
    },
    /// The operating system gave no random bytes.
    #[error("cannot draw a key")]
    Random(#[source] getrandom::Error),
}

impl KeyError {
    /// Whether it may pass by itself.
    fn is_transient(&self) -> bool {
        match self {
            Self::Access { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => matches!(status.code, 409 | 429 | 500..),
                _ => true,
            },
            Self::NoAnswer { .. } => true,
            Self::Empty { .. } | Self::Random(_) => false,
        }
    }
}

impl Keyring {
    /// With these keys, wherever they are from.
    #[cfg(test)]
    pub fn with(client: Client, keys: Keys) -> Self {
        Self {
            secrets: Api::namespaced(client, "hallpass-system"),
            keys: RwLock::new(keys),
            made: AtomicBool::new(false),
        }
    }

    /// Reads the keys, or makes the first one. Waits for an API server that is in trouble, and for nothing else.
    pub async fn open(client: Client, namespace: &str) -> Result<Self, KeyError> {
        let secrets = Api::namespaced(client, namespace);
        let ring = Self { secrets, keys: RwLock::default(), made: AtomicBool::new(false) };
        let mut wait = FIRST_WAIT;
        while let Err(error) = ring.keep().await {
            if !error.is_transient() {
                return Err(error);
            }
            tracing::warn!(error = crate::controller::chain(&error), ?wait, "trying again");
            sleep(wait).await;
            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
        }
        Ok(ring)
    }

    /// Whether there was no Secret, and this process has made its first key: nothing here is sealed with an older one.
    pub fn is_new(&self) -> bool {
        self.made.load(Ordering::Relaxed)
    }

    /// Reads the Secret again. If it is not there it is made, with the keys that are known: it may have been deleted. To be
    /// called over and over, by one task.
    pub async fn keep(&self) -> Result<(), KeyError> {
        let secret = match ask("read", self.secrets.get_opt(SECRET)).await? {
            Some(secret) => secret,
            None => self.make().await?,
        };
        self.take(&secret.data.unwrap_or_default())
    }

    /// Makes the Secret. If somebody else just did, that is found next time.
    async fn make(&self) -> Result<Secret, KeyError> {
        let mut keys = self.keys();
        let known = keys.newest().is_some();
        if !known {
            let mut bytes = [0; KEY_BYTES];
            getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
            let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
            // It cannot fail: a date is an id, and it is long enough.
            let _ = keys.add(&today, &bytes);
        }
        let data = keys.expose().map(|(id, key)| (id.to_owned(), ByteString(key.to_vec()))).collect();
        let metadata = ObjectMeta { name: Some(SECRET.into()), ..ObjectMeta::default() };
        let secret = Secret { metadata, type_: Some("Opaque".into()), data: Some(data), ..Secret::default() };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let made = ask("create", self.secrets.create(&params, &secret)).await?;
        if known {
            tracing::error!("Secret hallpass-seal was gone; made it again with the keys that are known");
        } else {
            self.made.store(true, Ordering::Relaxed);
            tracing::info!(
                key = keys.newest(),
                "made Secret hallpass-seal, which keeps the keys of the seals; back it up with etcd"
            );
        }
        Ok(made)
    }

    /// Takes on what the Secret says. Without a single key in it the known ones stay.
    fn take(&self, data: &BTreeMap<String, ByteString>) -> Result<(), KeyError> {
        let mut keys = self.keys();
        let before = keys.newest().map(ToOwned::to_owned);
        let mut problems = Vec::new();
        keys.retain(|id| data.contains_key(id));
        for (id, ByteString(bytes)) in data {
            match keys.add(id, bytes) {
                Ok(true) => {}
                Ok(false) => {
                    problems.push(format!("key {id:?} has changed, the known one stays: delete the Secret while this operator runs, which makes it again with the keys that it knows, and add a new one instead"));
                }
                Err(problem) => problems.push(problem.to_string()),
            }
        }
        let why = problems.join("; ");
        if keys.newest().is_none() {
            let why = if why.is_empty() { why } else { format!(" ({why})") };
            return Err(KeyError::Empty { why });
        }
        if !why.is_empty() {
            tracing::error!(why, "Secret hallpass-seal");
        }
        if before.as_deref() != keys.newest() {
            tracing::info!(key = keys.newest(), all = ?keys.ids(), "seals are made with this key from now on");
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// The keys as they are now.
    pub fn keys(&self) -> Keys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a status carries a seal of its own; see [`Keys::verify`].
    pub fn verify(&self, uid: &str, status: &AccessRequestStatus) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).verify(uid, status)
    }
}

async fn ask<T>(verb: &'static str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, KeyError> {
    let answer = timeout(PATIENCE, call).await.map_err(|_| KeyError::NoAnswer { verb })?;
    answer.map_err(|source| KeyError::Access { verb, source: Box::new(source) })
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
