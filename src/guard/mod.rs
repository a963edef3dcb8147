//! Nothing is granted and no vote counted unless the admission policies, their bindings and the CRDs are installed and
//! equal to what is shipped: without them anybody could write anything into a request. They can be deleted and edited
//! at any time, so they are asked for whenever it matters, and never remembered.

mod difference;
mod shipped;

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, core::DynamicObject};
use serde_json::Value;
use thiserror::Error;
use tokio::time::timeout;

pub use difference::difference;
pub use shipped::Unusable;
use shipped::{Role, Shipped};

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

/// How long one question may take. kube repeats a question that was answered with 429, 503 or 504 up to 15 times.
const PATIENCE: Duration = Duration::from_secs(5);

/// Admission policies bite about a second after they were written (kube-apiserver 1.37.1).
const ENFORCEMENT_DELAY: Duration = Duration::from_secs(2);

/// Compares what is installed with what is shipped.
#[derive(Clone)]
pub struct Guard {
    client: Client,
    shipped: Vec<Shipped>,
}

/// The admission policies are installed, unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// When one of the policies and bindings was written last: what is older may be forged.
    pub since: Timestamp,
    /// Whether the API server fills in the caller (`hallpass-stamp`; Kubernetes 1.36 and newer).
    pub stamp: bool,
}

/// The admission policies cannot be relied on.
#[derive(Debug, Error)]
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
    /// It was written a moment ago, so that it may not bite yet.
    #[error("{object} was written at {written}; it may not bite yet")]
    Young {
        /// Kind and name.
        object: String,
        /// When.
        written: Timestamp,
    },
    /// The API server could not be asked, or would not say.
    #[error("cannot read {object}")]
    Read {
        /// Kind and name.
        object: String,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("the API server did not answer within {} s when asked for {object}", PATIENCE.as_secs())]
    NoAnswer {
        /// Kind and name.
        object: String,
    },
}

impl NotInForce {
    /// Whether the API server did not say, so that nothing is known. Else what it says is wrong.
    pub const fn is_unknown(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Differs { .. } | Self::Leaving { .. } | Self::Young { .. } => false,
            Self::Read { .. } | Self::NoAnswer { .. } => true,
        }
    }
}

impl Guard {
    /// For an operator with this username, `system:serviceaccount:NAMESPACE:NAME`, which the policies name.
    pub fn new(client: Client, service_account_username: &str) -> Result<Self, Unusable> {
        Ok(Self { client, shipped: shipped::objects(service_account_username)? })
    }

    /// Reads everything, from the API server and not from a cache. Of several faults the first in the order of
    /// [`OBJECTS`] is told.
    pub async fn check(&self) -> Result<InForce, NotInForce> {
        let found = join_all(self.shipped.iter().map(|object| self.find(object))).await;
        let mut in_force = InForce { since: Timestamp::MIN, stamp: true };
        for (object, found) in self.shipped.iter().zip(found) {
            let written = found?;
            match (object.role, written) {
                // Without a time nothing is known to be younger.
                (Role::Admission, written) => {
                    let written = written.unwrap_or(Timestamp::MAX);
                    if written.checked_add(ENFORCEMENT_DELAY).unwrap_or(Timestamp::MAX) > Timestamp::now() {
                        return Err(NotInForce::Young { object: object.to_string(), written });
                    }
                    in_force.since = in_force.since.max(written);
                }
                (Role::Stamp, None) => in_force.stamp = false,
                (Role::Stamp, Some(_)) | (Role::Crd, _) => {}
            }
        }
        Ok(in_force)
    }

    /// When it was written last; nothing if it may be missing and is. A kind that the API server does not know is missing.
    async fn find(&self, shipped: &Shipped) -> Result<Option<Timestamp>, NotInForce> {
        let object = || shipped.to_string();
        // A GET without a resourceVersion is a consistent read.
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &shipped.resource);
        let answer = timeout(PATIENCE, api.get_opt(&shipped.name)).await;
        let answer = answer.map_err(|_| NotInForce::NoAnswer { object: object() })?;
        let mut live = match answer.map_err(|source| NotInForce::Read { object: object(), source: Box::new(source) })? {
            Some(live) => live,
            None if shipped.role == Role::Stamp => return Ok(None),
            None => return Err(NotInForce::Missing { object: object() }),
        };
        if live.metadata.deletion_timestamp.is_some() {
            return Err(NotInForce::Leaving { object: object() });
        }
        let spec = live.data.get_mut("spec").map(Value::take);
        match difference(&shipped.content, &Value::from_iter([("spec", spec)])) {
            Some(path) => Err(NotInForce::Differs { object: object(), path }),
            None => Ok(written(&live.metadata)),
        }
    }
}

/// When an object was written last, its status apart. An edit that was undone leaves the time of the undoing.
fn written(metadata: &ObjectMeta) -> Option<Timestamp> {
    let created = metadata.creation_timestamp.as_ref()?.0;
    let writes = metadata.managed_fields.iter().flatten().filter(|write| write.subresource.is_none());
    writes.filter_map(|write| write.time.as_ref().map(|time| time.0)).chain([created]).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_counts_as_writing_and_a_status_does_not() {
        let metadata: ObjectMeta = serde_json::from_value(serde_json::json!({
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [
                {"manager": "helm", "time": "2026-01-01T00:00:00Z"},
                {"manager": "kubectl-edit", "time": "2026-01-02T00:00:00Z"},
                {"manager": "apiserver", "time": "2026-01-03T00:00:00Z", "subresource": "status"},
            ],
        }))
        .expect("metadata");
        assert_eq!(written(&metadata).map(|time| time.to_string()).as_deref(), Some("2026-01-02T00:00:00Z"));
        assert_eq!(written(&ObjectMeta::default()), None);
    }
}
