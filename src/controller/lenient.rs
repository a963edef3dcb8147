//! Reads objects of which a part may make no sense to this version: written by another one, or damaged. A status that
//! cannot be read is none of ours, and must not hide the object: it is replaced by one that does not verify. A spec that cannot
//! be read gives nothing any more, and must not hide what was lent: whom and what is in the status.

use kube::{ResourceExt, core::DynamicObject};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// The seal of a status that could not be read. No key makes it.
const UNREADABLE: &str = "unreadable";

/// The object, with its status if that can be read; an error if the rest cannot, and nothing is lent.
pub fn read<K: DeserializeOwned>(object: &DynamicObject) -> Result<K, serde_json::Error> {
    let mut value = serde_json::to_value(object)?;
    let error = match K::deserialize(&value) {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    if value.get("status").is_some() {
        let mut without = value.clone();
        without["status"] = json!({ "seal": UNREADABLE });
        if let Ok(read) = K::deserialize(&without) {
            return Ok(read);
        }
    }
    if matches!(value["status"]["phase"].as_str(), Some("Activating" | "Active" | "Revoking")) {
        value["spec"] = names_of(&value["spec"]);
        if let Ok(read) = K::deserialize(&value) {
            let (name, namespace) = (object.name_any(), object.namespace());
            tracing::error!(name, namespace, %error, "the spec cannot be read; what was lent ends as the status says");
            return Ok(read);
        }
    }
    Err(error)
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
    use super::*;
    use crate::api::{AccessRequest, Phase};

    fn read_of(spec: &Value, status: &Value) -> Result<AccessRequest, serde_json::Error> {
        let object = json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest", "metadata": {"name": "fix"},
            "spec": spec, "status": status,
        });
        read(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn a_status_that_cannot_be_read_is_none_of_ours_and_hides_nothing() {
        let spec = json!({"policyName": "oncall"});
        let status = |status: Value| read_of(&spec, &status).expect("readable").status.expect("a status");
        assert_eq!(status(json!({"ballot": "b", "new": 1})).ballot.as_deref(), Some("b"));
        for strange in [json!({"phase": "Bogus"}), json!({"votes": "all"}), json!(7)] {
            assert_eq!(status(strange).seal.as_deref(), Some(UNREADABLE));
        }
    }

    #[test]
    fn a_spec_that_cannot_be_read_hides_nothing_that_was_lent_and_gives_nothing() {
        let damaged = json!({"policyName": "oncall", "requester": "oidc:alice", "grants": "all of them"});
        for phase in ["Activating", "Active", "Revoking"] {
            let read = read_of(&damaged, &json!({"phase": phase, "seal": "s"})).expect("readable");
            assert_eq!(
                (read.spec.policy_name.as_str(), read.spec.requester.as_deref()),
                ("oncall", Some("oidc:alice"))
            );
            let status = read.status.expect("a status");
            assert_eq!((status.phase.map(Phase::as_str), status.seal.as_deref()), (Some(phase), Some("s")));
        }
        let lent = read_of(&json!({"policyName": 7}), &json!({"phase": "Active"})).expect("readable");
        assert_eq!(lent.spec.policy_name, "");
        for phase in ["Pending", "Approved", "Expired", "Bogus"] {
            assert!(read_of(&damaged, &json!({ "phase": phase })).is_err(), "{phase}");
        }
        assert!(read_of(&damaged, &Value::Null).is_err());
    }
}
