//! The CRDs as they are installed: what the types say, and the few things that
//! Rust types cannot say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use super::{AccessPolicy, AccessRequest};

/// Both CRDs. The chart's files are printed from these, and the guard compares them with what is installed.
pub fn crds() -> [CustomResourceDefinition; 2] {
    let (mut policy, mut request) = (AccessPolicy::crd(), AccessRequest::crd());
    policy.spec.names.list_kind = Some("AccessPolicyList".into());
    request.spec.names.list_kind = Some("AccessRequestList".into());
    for crd in [&mut policy, &mut request] {
        for version in &mut crd.spec.versions {
            if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                simplify(schema);
            }
        }
    }
    // A request without status counts as done for kstatus: `kubectl wait` and GitOps controllers would not wait for it.
    // The default says that nobody has looked yet (seen with kustomize-controller 1.9.5).
    for version in &mut request.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let status = schema.and_then(|schema| schema.properties.as_mut()).and_then(|fields| fields.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(serde_json::json!({ "observedGeneration": -1 })));
        }
    }
    [policy, request]
}

/// An explicit `null` is the same as leaving the field out: without `nullable` the API server drops it, so that no rule
/// has to think of it. And it knows no unsigned numbers: it warns at each installation of a format `uint8`.
fn simplify(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.format.take_if(|format| format.starts_with("uint"));
    if let Some(fields) = schema.properties.as_mut() {
        fields.values_mut().for_each(simplify);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = schema.items.as_mut() {
        simplify(item);
    }
}
