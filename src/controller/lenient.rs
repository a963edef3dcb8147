//! Reads objects of which a part may make no sense to this version: written by another one, or damaged. A status that
//! cannot be read is none of ours, and must not hide the object: it is replaced by one that does not verify.

use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::json;

/// The seal of a status that could not be read. No key makes it.
const UNREADABLE: &str = "unreadable";

/// The object, with its status if that can be read; an error if the rest cannot.
pub fn read<K: DeserializeOwned>(object: &DynamicObject) -> Result<K, serde_json::Error> {
    let mut value = serde_json::to_value(object)?;
    match K::deserialize(&value) {
        Err(error) if value.get("status").is_some() => {
            value["status"] = json!({ "seal": UNREADABLE });
            K::deserialize(&value).map_err(|_| error)
        }
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::api::AccessRequest;

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
        assert!(read_of(&json!({"policyName": 7}), &json!({"phase": "Active"})).is_err());
    }
}
