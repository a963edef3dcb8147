//! What must be installed: the chart's admission policies, which are embedded here, and the CRDs.

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta};
use serde_json::{Value, json};
use thiserror::Error;

use crate::api;

/// The operator's service account, as the files name it; the chart and [`objects`] replace it.
const PLACEHOLDER: &str = "system:serviceaccount:hallpass-system:hallpass";

/// When the groups of the caller's token say nothing, as `policy.yaml` has it. The chart writes [`NEVER`] there where
/// `admission.membership` is false: the operator decides all the same, by Keycloak's groups, so it takes either.
const MEMBERSHIP: &str = "expression: variables.groups.all(g, g in ['', 'system:authenticated'])";
const NEVER: &str = "expression: \"true\"";

const FILES: [(&str, &str, Role); 3] = [
    ("identity.yaml", include_str!("../../charts/hallpass/files/admission/identity.yaml"), Role::Admission),
    ("policy.yaml", include_str!("../../charts/hallpass/files/admission/policy.yaml"), Role::Admission),
    ("stamp.yaml", include_str!("../../charts/hallpass/files/admission/stamp.yaml"), Role::Stamp),
];

/// What an object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Refuses what is forged.
    Admission,
    /// Fills in who the caller is: comfort, which may be missing but not altered.
    Stamp,
    /// Says what a request can be at all.
    Crd,
}

/// One object as it is shipped.
#[derive(Clone, Debug)]
pub struct Shipped {
    /// What it is for.
    pub role: Role,
    /// How the API server calls its kind.
    pub resource: ApiResource,
    /// Its name.
    pub name: String,
    /// `{"spec": …}`, as the API server returns it.
    pub content: Value,
    /// The same where nobody is refused at once for the groups in their token, if that makes a difference.
    pub without_membership: Option<Value>,
}

impl fmt::Display for Shipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource.kind, self.name)
    }
}

impl Shipped {
    fn new(role: Role, types: &TypeMeta, name: String, spec: Value) -> Option<Self> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types).ok()?);
        Some(Self { role, resource, name, content: Value::from_iter([("spec", spec)]), without_membership: None })
    }
}

/// Why the guard cannot be set up.
#[derive(Debug, Error)]
pub enum Unusable {
    /// The operator does not run as a service account, which the admission policies could name.
    #[error("the operator must run as a service account, but it is {username:?}")]
    NoServiceAccount {
        /// Who the operator is.
        username: String,
    },
    /// An embedded file is no YAML.
    #[error("the embedded {file} cannot be parsed")]
    Parse {
        /// The file.
        file: &'static str,
        /// What the parser said.
        source: Box<serde_saphyr::Error>,
    },
    /// An embedded object is not one.
    #[error("{file} holds something that is no Kubernetes object with a name and a spec")]
    Shape {
        /// The file.
        file: &'static str,
    },
    /// A CRD cannot be written as JSON.
    #[error("a CRD cannot be written as JSON")]
    Crd(#[from] serde_json::Error),
}

/// Everything that must be installed, for an operator with this username (`system:serviceaccount:NAMESPACE:NAME`).
pub fn objects(username: &str) -> Result<Vec<Shipped>, Unusable> {
    let names = username.strip_prefix("system:serviceaccount:").map(|rest| rest.split(':').collect::<Vec<_>>());
    if !names.is_some_and(|names| names.len() == 2 && names.iter().all(|name| is_dns_name(name))) {
        return Err(Unusable::NoServiceAccount { username: username.into() });
    }
    let mut objects = vec![];
    for (file, text, role) in FILES {
        let text = text.replace(PLACEHOLDER, username);
        let without_membership = parse(file, &text.replace(MEMBERSHIP, NEVER), role)?;
        for (mut shipped, other) in parse(file, &text, role)?.into_iter().zip(without_membership) {
            shipped.without_membership = (other.content != shipped.content).then_some(other.content);
            objects.push(shipped);
        }
    }
    for crd in api::crds() {
        let types = TypeMeta::resource::<CustomResourceDefinition>();
        let mut spec = serde_json::to_value(&crd.spec)?;
        if let Some(spec) = spec.as_object_mut() {
            // The one default of the API server that crds() does not write out.
            spec.entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
        }
        let shipped = crd.metadata.name.and_then(|name| Shipped::new(Role::Crd, &types, name, spec));
        objects.push(shipped.ok_or(Unusable::Shape { file: "api::crds()" })?);
    }
    Ok(objects)
}

/// The objects of a file.
fn parse(file: &'static str, text: &str, role: Role) -> Result<Vec<Shipped>, Unusable> {
    let documents: Vec<DynamicObject> =
        serde_saphyr::from_multiple(text).map_err(|source| Unusable::Parse { file, source: Box::new(source) })?;
    let shipped = documents.into_iter().map(|mut document| {
        let spec = document.data.get_mut("spec").map(Value::take);
        let object = document.types.as_ref().zip(document.metadata.name).zip(spec);
        object.and_then(|((types, name), spec)| Shipped::new(role, types, name, spec)).ok_or(Unusable::Shape { file })
    });
    shipped.collect()
}

/// Namespaces and service accounts are named so. Nothing else gets into an expression of the policies.
fn is_dns_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{OBJECTS, difference};

    const OTHER: &str = "system:serviceaccount:access:op-1";

    fn shipped() -> Vec<Shipped> {
        objects(OTHER).expect("the embedded files are right")
    }

    #[test]
    fn the_objects_are_these() {
        let found: Vec<_> =
            shipped().iter().map(|object| format!("{} {}", object.resource.kind, object.name)).collect();
        assert_eq!(found, OBJECTS);
        for object in shipped() {
            assert!(object.content["spec"].is_object(), "{} has no spec", object.name);
        }
    }

    #[test]
    fn each_policy_names_the_service_account_once() {
        for (file, text, _) in FILES {
            assert_eq!(text.matches(PLACEHOLDER).count(), 1, "{file}");
        }
        let named: Vec<_> = shipped()
            .iter()
            .filter(|object| object.content.to_string().contains(&format!("'{OTHER}'")))
            .map(|object| object.name.clone())
            .collect();
        assert_eq!(named, ["hallpass-identity", "hallpass-policy", "hallpass-stamp"]);
        assert!(shipped().iter().all(|object| !object.content.to_string().contains("hallpass-system")));
    }

    #[test]
    fn only_the_policies_look_at_the_groups_of_a_token_and_need_not() {
        let both: Vec<_> = shipped()
            .into_iter()
            .filter_map(|object| Some((object.name.clone(), difference(&object.without_membership?, &object.content)?)))
            .collect();
        let [(name, path)] = &both[..] else { panic!("{both:?}") };
        assert_eq!(name, "hallpass-policy");
        assert!(path.starts_with("spec.variables[") && path.ends_with("].expression"), "{path}");
    }

    #[test]
    fn only_a_service_account_can_be_named() {
        for username in [
            "admin",
            "system:serviceaccount:a",
            "system:serviceaccount:a:b:c",
            "system:serviceaccount:a:",
            "system:serviceaccount:a:' || true || '",
        ] {
            let refused = objects(username).map(|objects| objects.len());
            assert!(matches!(refused, Err(Unusable::NoServiceAccount { .. })), "{username}: {refused:?}");
        }
    }

    /// What somebody would change who wants to get past the policies.
    #[test]
    fn a_weakened_policy_differs() {
        for (name, kind, pointer, value, path) in [
            (
                "hallpass-identity",
                "ValidatingAdmissionPolicy",
                "/spec/failurePolicy",
                json!("Ignore"),
                "spec.failurePolicy",
            ),
            (
                "hallpass-identity",
                "ValidatingAdmissionPolicy",
                "/spec/matchConditions",
                json!([{"name": "x", "expression": "false"}]),
                "spec.matchConditions",
            ),
            (
                "hallpass-identity",
                "ValidatingAdmissionPolicy",
                "/spec/validations/3/expression",
                json!("true"),
                "spec.validations[3].expression",
            ),
            (
                "hallpass-identity",
                "ValidatingAdmissionPolicy",
                "/spec/matchConstraints/namespaceSelector/matchLabels",
                json!({"a": "b"}),
                "spec.matchConstraints.namespaceSelector.matchLabels",
            ),
            (
                "hallpass-identity",
                "ValidatingAdmissionPolicy",
                "/spec/matchConstraints/excludeResourceRules",
                json!([{}]),
                "spec.matchConstraints.excludeResourceRules",
            ),
            (
                "hallpass-identity",
                "ValidatingAdmissionPolicyBinding",
                "/spec/validationActions",
                json!(["Audit"]),
                "spec.validationActions[0]",
            ),
            (
                "hallpass-identity",
                "ValidatingAdmissionPolicyBinding",
                "/spec/matchResources",
                json!({}),
                "spec.matchResources",
            ),
            (
                "hallpass-policy",
                "ValidatingAdmissionPolicyBinding",
                "/spec/paramRef/selector/matchLabels",
                json!({"a": "b"}),
                "spec.paramRef.selector.matchLabels",
            ),
            (
                "hallpass-stamp",
                "MutatingAdmissionPolicy",
                "/spec/mutations/0/jsonPatch/expression",
                json!("[]"),
                "spec.mutations[0].jsonPatch.expression",
            ),
            (
                "accessrequests.hallpass.dev",
                "CustomResourceDefinition",
                "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations",
                json!([]),
                "spec.versions[0].schema.openAPIV3Schema.x-kubernetes-validations[0]",
            ),
            (
                "accessrequests.hallpass.dev",
                "CustomResourceDefinition",
                "/spec/conversion/strategy",
                json!("Webhook"),
                "spec.conversion.strategy",
            ),
            (
                "accesspolicies.hallpass.dev",
                "CustomResourceDefinition",
                "/spec/scope",
                json!("Namespaced"),
                "spec.scope",
            ),
        ] {
            let object = shipped()
                .into_iter()
                .find(|object| object.name == name && object.resource.kind == kind)
                .expect("shipped");
            let mut live = object.content.clone();
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            let parent = live.pointer_mut(parent).expect("there");
            parent[key] = value;
            assert_eq!(difference(&object.content, &live).as_deref(), Some(path), "{kind} {name}");
        }
    }
}
