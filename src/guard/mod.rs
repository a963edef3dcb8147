//! Nothing is granted and no vote counted unless the admission policies, their bindings and the CRDs are installed and
//! equal to what is shipped: without them anybody could write anything into a request. They can be deleted and edited
//! at any time, so they are asked for whenever it matters, and never remembered: but for what was compared with what is shipped, as long
//! as its resourceVersion is the same.

mod difference;
mod epoch;
pub mod keyring;
pub mod seal;
mod shipped;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use jiff::Timestamp;
use kube::{Api, Client, Config, api::ObjectMeta, core::DynamicObject};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

pub use difference::difference;
pub use epoch::STORED_IN;
use epoch::{Epoch, Epochs};
pub use keyring::Keyring;
pub use shipped::Unusable;
use shipped::{Role, Shipped};

use crate::shared::Shared;

/// What must be there, as kind and name.
pub const OBJECTS: [&str; 8] = [
    "ValidatingAdmissionPolicy hallpass-identity",
    "ValidatingAdmissionPolicyBinding hallpass-identity",
    "ValidatingAdmissionPolicy hallpass-policy",
    "ValidatingAdmissionPolicyBinding hallpass-policy",
    "MutatingAdmissionPolicy hallpass-stamp",
    "MutatingAdmissionPolicyBinding hallpass-stamp",
    "CustomResourceDefinition accesspolicies.hallpass.dev",
    "CustomResourceDefinition accessrequests.hallpass.dev",
];

/// While many ask all the time, the reads take a third of it at most: they are eight each, and keep the API server from the writes.
const RESTS: u32 = 2;
/// How long one question may take. kube repeats a question that was answered with 429, 503 or 504 up to 15 times.
const PATIENCE: Duration = Duration::from_secs(5);

/// Compares what is installed with what is shipped, and knows the present trust epoch.
pub struct Guard {
    client: Client,
    shipped: Vec<Shipped>,
    epochs: Epochs,
    present: Mutex<Option<Epoch>>,
    reads: Shared<Installed, NotInForce>,
    /// What was found equal to what is shipped.
    compared: SyncMutex<HashMap<String, Compared>>,
}

/// How much of what is installed is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Everything.
    Whole,
    /// Of what was read as a whole before, whether it is still the same.
    News,
}

/// An object that was read as a whole and is what is shipped. Each write gives it another resourceVersion, also one to etcd behind the
/// API server's back.
#[derive(PartialEq, Eq)]
struct Compared {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl From<&ObjectMeta> for Compared {
    fn from(metadata: &ObjectMeta) -> Self {
        Self { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() }
    }
}

/// The admission policies are installed and bite, unchanged since the present epoch began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The trust epoch.
    pub epoch: String,
    /// When it began: what is older may be forged.
    pub since: Timestamp,
    /// Whether the API server fills in the caller (`hallpass-stamp`; Kubernetes 1.36 and newer).
    pub stamp: bool,
}

/// What is installed equals what is shipped.
#[derive(Clone)]
struct Installed {
    /// Digest of UIDs, generations and specs.
    fingerprint: String,
    stamp: bool,
}

/// The admission policies cannot be relied on.
#[derive(Clone, Debug, Error)]
pub enum NotInForce {
    /// It is not installed.
    #[error("{object} is missing: install the chart's admission policies and CRDs (helm upgrade)")]
    Missing {
        /// Kind and name.
        object: String,
    },
    /// It is not what this version ships.
    #[error(
        "{object} differs at {path} from what this version ships: undo the change (kubectl edit), or install operator and chart of one version (helm upgrade)"
    )]
    Differs {
        /// Kind and name.
        object: String,
        /// Where the first difference is.
        path: String,
    },
    /// Somebody deleted it, and it is about to go.
    #[error("{object} is being deleted")]
    Leaving {
        /// Kind and name.
        object: String,
    },
    /// They are installed, but not as they were when the present epoch began; a new one has not begun yet.
    #[error("the admission policies or CRDs are new or were changed; making sure that they are enforced")]
    Changed,
    /// They are installed, and do not bite.
    #[error("the admission policies are installed but not enforced: {why}")]
    Unproved {
        /// What shows it.
        why: String,
    },
    /// The API server could not be asked, or would not say.
    #[error("cannot read {object}")]
    Read {
        /// Kind and name.
        object: String,
        /// What went wrong.
        source: Arc<kube::Error>,
    },
    /// The API server did not answer.
    #[error("the API server did not answer within {} s when asked for {object}", PATIENCE.as_secs())]
    NoAnswer {
        /// Kind and name.
        object: String,
    },
}

impl NotInForce {
    /// Whether nothing is known yet. Else what is installed is wrong.
    pub const fn is_unknown(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Differs { .. } | Self::Leaving { .. } => false,
            Self::Changed | Self::Unproved { .. } | Self::Read { .. } | Self::NoAnswer { .. } => true,
        }
    }
}

/// UID and generation.
fn version(metadata: &ObjectMeta) -> (String, i64) {
    (metadata.uid.clone().unwrap_or_default(), metadata.generation.unwrap_or_default())
}

/// The namespace of a service account, by its username.
pub fn namespace_of(service_account_username: &str) -> &str {
    service_account_username.split(':').nth(2).unwrap_or_default()
}

impl Guard {
    /// For an operator with this username, `system:serviceaccount:NAMESPACE:NAME`, which the policies name.
    /// `config` is the way to the API server; it makes a connection of its own for each proof.
    pub fn new(client: Client, config: Config, service_account_username: &str) -> Result<Self, Unusable> {
        let shipped = shipped::objects(service_account_username)?;
        let namespace = namespace_of(service_account_username).to_owned();
        Ok(Self {
            client,
            shipped,
            epochs: Epochs::new(config, namespace),
            present: Mutex::default(),
            reads: Shared::resting(RESTS),
            compared: SyncMutex::default(),
        })
    }

    /// The operator's own namespace.
    pub fn namespace(&self) -> &str {
        self.epochs.namespace()
    }

    /// Whether the policies are in force now, in the present epoch. Everything is read, from the API server and not from a
    /// cache, after this was called: what was seen before was written under the policies that this call sees.
    pub async fn check(&self) -> Result<InForce, NotInForce> {
        let Installed { fingerprint, stamp } = self.installed().await?;
        match &*self.present.lock().await {
            Some(Epoch { id, since, fingerprint: present }) if *present == fingerprint => {
                Ok(InForce { epoch: id.clone(), since: *since, stamp })
            }
            Some(_) | None => Err(NotInForce::Changed),
        }
    }

    /// Whether what is installed is what this version ships. Nothing is proved by it: [`Guard::keep`] does that.
    pub async fn is_installed(&self) -> Result<(), NotInForce> {
        self.installed().await.map(drop)
    }

    /// Keeps the epoch: proves that the policies bite, and begins a new epoch when they have changed. To be called over
    /// and over, by one task. Each time everything is compared as a whole.
    pub async fn keep(&self) -> Result<InForce, NotInForce> {
        let Installed { fingerprint, stamp } = self.read(Depth::Whole).await?;
        let known = match self.present.lock().await.clone() {
            Some(present) => Some(present),
            None => self.epochs.stored(&self.client).await?,
        };
        let known = known.filter(|known| known.fingerprint == fingerprint);
        let is_new = known.is_none();
        let proved = match known {
            Some(known) => self.epochs.canary().await.map(|()| known),
            None => self.epochs.begin(&self.client, &fingerprint).await,
        };
        // What does not bite has no epoch: once it does again, that is another one.
        let lost = matches!(&proved, Err(NotInForce::Unproved { .. }));
        if let Ok(epoch) = &proved {
            *self.present.lock().await = Some(epoch.clone());
        } else if lost {
            // Not the stored one either, even if it cannot be ended there now.
            *self.present.lock().await = Some(Epoch::none());
            self.epochs.forget(&self.client).await?;
        }
        let Epoch { id, since, fingerprint: _ } = proved?;
        // To prove a new one took seconds.
        if is_new { self.check().await } else { Ok(InForce { epoch: id, since, stamp }) }
    }

    /// What a read found that began after this was called: those who ask at the same time share it.
    async fn installed(&self) -> Result<Installed, NotInForce> {
        self.reads.get(Instant::now(), || self.read(Depth::News)).await
    }

    /// Compares everything. Of several faults the first in the order of [`OBJECTS`] is told.
    async fn read(&self, depth: Depth) -> Result<Installed, NotInForce> {
        let found = join_all(self.shipped.iter().map(|object| self.find(object, depth))).await;
        let mut installed = Installed { fingerprint: String::new(), stamp: true };
        let mut hash = Sha256::new();
        for (object, found) in self.shipped.iter().zip(found) {
            let found = found?;
            if object.role == Role::Stamp && found.is_none() {
                installed.stamp = false;
            }
            let (uid, generation) = found.unwrap_or_default();
            // The specs need no digest of the live ones: they were just found equal to these.
            hash.update(format!("{object} {uid} {generation} {}\n", object.content));
        }
        installed.fingerprint = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(installed)
    }

    fn compared(&self) -> MutexGuard<'_, HashMap<String, Compared>> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its UID and generation; nothing if it may be missing and is. A kind that the API server does not know is missing.
    async fn find(&self, shipped: &Shipped, depth: Depth) -> Result<Option<(String, i64)>, NotInForce> {
        let object = shipped.to_string();
        // A GET without a resourceVersion is a consistent read. Where the content is known, the metadata are enough.
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &shipped.resource);
        let known = self.compared().remove(&object).filter(|known| known.resource_version.is_some());
        if let Some(known) = known.filter(|_| depth == Depth::News)
            && let Some(now) = answered(api.get_metadata_opt(&shipped.name), &object).await?
            && now.metadata.deletion_timestamp.is_none()
            && known == Compared::from(&now.metadata)
        {
            let found = version(&now.metadata);
            self.compared().insert(object, known);
            return Ok(Some(found));
        }
        let Some(live) = answered(api.get_opt(&shipped.name), &object).await? else {
            return if shipped.role == Role::Stamp { Ok(None) } else { Err(NotInForce::Missing { object }) };
        };
        let found = is_as_shipped(shipped, live).inspect_err(|_| drop(self.compared().remove(&object)))?;
        self.compared().insert(object, Compared::from(&found));
        Ok(Some(version(&found)))
    }
}

/// Its metadata, if its content is what is shipped.
fn is_as_shipped(shipped: &Shipped, mut live: DynamicObject) -> Result<ObjectMeta, NotInForce> {
    let object = || shipped.to_string();
    if live.metadata.deletion_timestamp.is_some() {
        return Err(NotInForce::Leaving { object: object() });
    }
    let spec = live.data.get_mut("spec").map(Value::take);
    let live_content = Value::from_iter([("spec", spec)]);
    let is_other = |other: &Value| difference(other, &live_content).is_none();
    match difference(&shipped.content, &live_content) {
        Some(path) if !shipped.without_membership.as_ref().is_some_and(is_other) => {
            Err(NotInForce::Differs { object: object(), path })
        }
        Some(_) | None => Ok(live.metadata),
    }
}

/// What the API server says about an object, in time.
async fn answered<T>(question: impl Future<Output = Result<T, kube::Error>>, object: &str) -> Result<T, NotInForce> {
    let answer = timeout(PATIENCE, question).await;
    let answer = answer.map_err(|_| NotInForce::NoAnswer { object: object.to_owned() })?;
    answer.map_err(|source| NotInForce::Read { object: object.to_owned(), source: Arc::new(source) })
}
