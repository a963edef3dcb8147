//! Reads objects of which a part may make no sense to this version: written by another one, or damaged. A status that
//! cannot be read is none of ours, and must not hide the object: it is replaced by one that does not verify. A spec that cannot
//! be read gives nothing any more, and must not hide what was lent: whom and what is in the status.

use std::{borrow::Cow, sync::Arc};

use kube::{Resource, api::ObjectMeta};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value, json, value::RawValue};

use crate::api::AccessRequest;

/// The end of the seal of a status that could not be read. No key makes it. What was before it stays: whose key it was.
const MARK: &str = "unreadable";

/// An object as the API server has it, without its managed fields.
#[derive(Clone, Debug)]
pub enum Lenient<K> {
    /// As far as it can be read.
    Read(K),
    /// One that cannot be read.
    Unreadable {
        /// Who it is.
        metadata: Box<ObjectMeta>,
        /// That of its status.
        seal: Option<String>,
        /// What makes no sense.
        why: Arc<serde_json::Error>,
    },
}

impl<K> Lenient<K> {
    /// The object, or why it cannot be read.
    pub fn read(self) -> Result<K, Arc<serde_json::Error>> {
        match self {
            Self::Read(object) => Ok(object),
            Self::Unreadable { why, .. } => Err(why),
        }
    }
}

impl Lenient<AccessRequest> {
    /// The seal of its status, whether or not that can be read.
    pub fn seal(&self) -> Option<&str> {
        let seal = match self {
            Self::Read(request) => request.status.as_ref()?.seal.as_ref(),
            Self::Unreadable { seal, .. } => seal.as_ref(),
        };
        seal.map(String::as_str).filter(|seal| *seal != MARK)
    }
}

/// Its type, and where it is in the API.
impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Read(object) => object.meta(),
            Self::Unreadable { metadata, .. } => metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Read(object) => object.meta_mut(),
            Self::Unreadable { metadata, .. } => metadata,
        }
    }
}

/// Read as a tree of values, which takes several times its size, only where it cannot be read otherwise. Only from text in memory, as
/// kube has it: not from a `Value`, and not from an event of a watch that says what it is after the object, which none does.
impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let read = match serde_json::from_str(text) {
            Ok(object) => Ok(Self::Read(object)),
            Err(error) => serde_json::from_str(text).and_then(|value| read_in_part(value, error)),
        };
        let mut read = read.map_err(D::Error::custom)?;
        read.meta_mut().managed_fields = None;
        Ok(read)
    }
}

/// What can be read of an object; an error if it has no metadata.
fn read_in_part<K: DeserializeOwned>(value: Value, error: serde_json::Error) -> Result<Lenient<K>, serde_json::Error> {
    let metadata = Box::new(ObjectMeta::deserialize(&value["metadata"])?);
    let seal = value["status"]["seal"].as_str().map(str::to_owned);
    let lent = matches!(value["status"]["phase"].as_str(), Some("Activating" | "Active" | "Revoking"));
    let marked = json!({ "seal": format!("{}{MARK}", seal.as_deref().unwrap_or_default()) });
    let with = |part: &str, other: Value, mut value: Value| {
        value[part] = other;
        value
    };
    if value.get("status").is_some()
        && let Ok(read) = K::deserialize(with("status", marked.clone(), value.clone()))
    {
        return Ok(Lenient::Read(read));
    }
    if lent {
        let named = with("spec", names_of(&value["spec"]), value);
        let read = K::deserialize(&named).or_else(|_| K::deserialize(with("status", marked, named)));
        if let Ok(read) = read {
            let ObjectMeta { name, namespace, .. } = *metadata;
            tracing::error!(name, namespace, %error, "the spec cannot be read; what was lent ends as the status says");
            return Ok(Lenient::Read(read));
        }
    }
    Ok(Lenient::Unreadable { metadata, seal, why: Arc::new(error) })
}

/// Of a spec whose rest cannot be read: which policy it names, and who asked. Without a policy it ends at once.
fn names_of(spec: &Value) -> Value {
    let text = |key: &&str| spec[*key].as_str().map(|text| ((*key).to_owned(), json!(text)));
    let mut names: Map<String, Value> = ["policyName", "requester", "submittedBy"].iter().filter_map(text).collect();
    names.entry("policyName").or_insert_with(|| json!(""));
    Value::Object(names)
}

#[cfg(test)]
mod tests {
    use kube::{
        ResourceExt,
        core::{ObjectList, WatchEvent},
    };

    use super::*;
    use crate::api::Phase;

    fn lenient(spec: &Value, status: &Value) -> Lenient<AccessRequest> {
        let object = json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest", "spec": spec, "status": status,
            "metadata": {"name": "fix", "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]},
        });
        let lenient: Lenient<AccessRequest> = serde_json::from_str(&object.to_string()).expect("an object");
        assert_eq!((lenient.name_any().as_str(), lenient.managed_fields()), ("fix", [].as_slice()));
        lenient
    }

    fn read_of(spec: &Value, status: &Value) -> AccessRequest {
        lenient(spec, status).read().expect("readable")
    }

    #[test]
    fn a_status_that_cannot_be_read_is_none_of_ours_and_hides_nothing() {
        let spec = json!({"policyName": "oncall"});
        let status = |status: Value| read_of(&spec, &status).status.expect("a status");
        assert_eq!(status(json!({"ballot": "b", "new": 1})).ballot.as_deref(), Some("b"));
        for strange in [json!({"phase": "Bogus"}), json!({"votes": "all"}), json!(7)] {
            assert_eq!(lenient(&spec, &strange).seal(), None);
            assert_eq!(status(strange).seal.as_deref(), Some(MARK));
        }
        let sealed = status(json!({"phase": "Bogus", "seal": "v1.k1.ab"})).seal.expect("a seal");
        assert_ne!(sealed, "v1.k1.ab");
        assert_eq!(crate::guard::seal::key_id(&sealed), Some("k1"), "whose key it was");
    }

    #[test]
    fn a_spec_that_cannot_be_read_hides_nothing_that_was_lent_and_gives_nothing() {
        let damaged = json!({"policyName": "oncall", "requester": "oidc:alice", "grants": "all of them"});
        for phase in ["Activating", "Active", "Revoking"] {
            let read = read_of(&damaged, &json!({"phase": phase, "seal": "s"}));
            assert_eq!(
                (read.spec.policy_name.as_str(), read.spec.requester.as_deref()),
                ("oncall", Some("oidc:alice"))
            );
            let status = read.status.expect("a status");
            assert_eq!((status.phase.map(Phase::as_str), status.seal.as_deref()), (Some(phase), Some("s")));
        }
        let lent = read_of(&json!({"policyName": 7}), &json!({"phase": "Active"}));
        assert_eq!(lent.spec.policy_name, "");
        let both = read_of(&damaged, &json!({"phase": "Active", "votes": "all"}));
        assert_eq!((both.phase(), both.status.and_then(|status| status.seal)), (None, Some(MARK.to_owned())));
        for phase in ["Pending", "Approved", "Expired", "Bogus"] {
            let lenient = lenient(&damaged, &json!({ "phase": phase, "seal": "s" }));
            assert_eq!(lenient.seal(), Some("s"));
            assert!(lenient.read().is_err(), "{phase}");
        }
        assert!(lenient(&damaged, &Value::Null).read().is_err());
    }

    #[test]
    fn one_that_cannot_be_read_stops_no_list_and_no_watch() {
        let object = |grants: Value| {
            json!({
                "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest", "metadata": {"name": "fix"},
                "spec": {"policyName": "oncall", "grants": grants},
            })
        };
        let list = json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequestList", "metadata": {"resourceVersion": "7"},
            "items": [object(json!("all of them")), object(json!([]))],
        });
        let list: ObjectList<Lenient<AccessRequest>> = serde_json::from_str(&list.to_string()).expect("a list");
        let read: Vec<_> = list.items.into_iter().map(|item| item.read().is_ok()).collect();
        assert_eq!(read, [false, true]);
        // As the API server writes an event: the type first.
        let event = format!(r#"{{"type":"ADDED","object":{}}}"#, object(json!("all of them")));
        let event: WatchEvent<Lenient<AccessRequest>> = serde_json::from_str(&event).expect("an event");
        assert!(matches!(event, WatchEvent::Added(Lenient::Unreadable { .. })));
    }
}
