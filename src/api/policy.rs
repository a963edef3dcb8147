//! `AccessPolicy`: who may ask for what, for how long, and who must agree.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An `AccessPolicy` says what may be lent in one Keycloak realm, to whom, for how long, and who must agree.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[kube(
    group = "hallpass.dev",
    version = "v1alpha1",
    kind = "AccessPolicy",
    plural = "accesspolicies",
    shortname = "apol",
    category = "hallpass",
    status = "AccessPolicyStatus",
    derive = "PartialEq",
    doc = "Says what may be lent in one Keycloak realm, to whom, for how long, and who must agree.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of an AccessPolicy has at most 63 characters"),
    printcolumn(name = "Realm", type_ = "string", json_path = ".spec.realm"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1)
)]
#[x_kube(validation = Rule::new("(self.?approval.?automatic.orValue(false)) != (self.?approval.?stages.orValue([]).size() > 0)")
    .message("name at least one stage, or say automatic: true, and not both").field_path(".approval"))]
#[x_kube(validation = Rule::new("!has(self.submitters) || self.submitters.all(s, !has(s.preApproves) || s.preApproves.all(p, has(self.approval) && has(self.approval.stages) && self.approval.stages.exists(t, t.name == p)))")
    .message("preApproves must name stages of approval.stages").field_path(".submitters"))]
#[x_kube(validation = Rule::new("self.?sessions.?atEnd.orValue('Keep') != 'EndClientSessions' || self.grants.all(g, has(g.clientRole))")
    .message("EndClientSessions needs grants that are all client roles; otherwise say EndAll or Keep").field_path(".sessions.atEnd"))]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicySpec {
    /// For people: what this policy is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Name of a realm in the operator's configuration.
    #[schemars(length(min = 1, max = 63))]
    pub realm: String,
    /// Kill switch: refuse new requests, end the live ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// What can be lent. A request names some of them, or gets all.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<Grant>,
    /// Who may ask, for themselves.
    #[schemars(length(min = 1, max = 64))]
    pub requesters: Vec<Subject>,
    /// Who may hand in requests for other people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub submitters: Vec<Submitter>,
    /// Namespaces in which requests may live; empty means anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
    /// How long access may last.
    pub duration: DurationRule,
    /// What a request must say about its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonRule>,
    /// Who must agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Keycloak required actions that the subject must have done before anything is mapped, as `CONFIGURE_TOTP`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub required_actions: Vec<String>,
    /// What happens to the subject's Keycloak sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// Whether grants may reach Keycloak's own administration roles. The realm's configuration must allow it, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_admin_roles: bool,
}

/// One thing that can be lent: a realm role, a client role or a group.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[x_kube(validation = Rule::new("[has(self.realmRole), has(self.clientRole), has(self.group)].filter(x, x).size() == 1")
    .message("a grant names exactly one of realmRole, clientRole and group"))]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// What requests call it.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("must be lower-case letters, digits and dashes, as on-call"))]
    pub name: String,
    /// Name of a realm role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub realm_role: Option<String>,
    /// A role of a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_role: Option<ClientRole>,
    /// Full path of a group, as `/oncall/payments`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^/.')").message("must be the full path of a group, as /oncall/payments"))]
    pub group: Option<String>,
}

/// A role of a Keycloak client.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct ClientRole {
    /// The client's `clientId`.
    #[schemars(length(min = 1, max = 255))]
    pub client: String,
    /// The role's name.
    #[schemars(length(min = 1, max = 255))]
    pub role: String,
}

/// Kinds of subjects, as in RBAC.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum SubjectKind {
    /// A Kubernetes username, exactly.
    #[default]
    User,
    /// A Keycloak group: the realm's `groupPrefix` and the group's full path.
    Group,
    /// A Kubernetes service account.
    ServiceAccount,
}

/// Who may ask. Shaped as a subject of RBAC.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.namespace) == (self.kind == 'ServiceAccount')")
    .message("a ServiceAccount needs a namespace; a User or Group has none"))]
pub struct Subject {
    /// User, Group or `ServiceAccount`.
    pub kind: SubjectKind,
    /// The name; of a Group its full path behind the realm's `groupPrefix`, as `oidc:/payments`.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    /// Namespace of a `ServiceAccount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Kinds of submitters.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum SubmitterKind {
    /// A Kubernetes username, exactly.
    #[default]
    User,
    /// A Kubernetes service account.
    ServiceAccount,
}

/// Who may hand in requests for other people.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.namespace) == (self.kind == 'ServiceAccount')")
    .message("a ServiceAccount needs a namespace; a User has none"))]
#[serde(rename_all = "camelCase")]
pub struct Submitter {
    /// User or `ServiceAccount`.
    pub kind: SubmitterKind,
    /// The name.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    /// Namespace of a `ServiceAccount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Stages for which the review in Git counts, if the request says `preApproved`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(min = 1, max = 40)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub pre_approves: Vec<String>,
}

/// How long access may last: `30s`, `1h30m`; between 5 seconds and 30 days (720h).
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.default) || ![self.default, self.max].all(d, d.matches('^([0-9]{1,6}(h|m|s))+$')) || duration(self.default) <= duration(self.max)")
    .message("must not be longer than duration.max").field_path(".default"))]
pub struct DurationRule {
    /// For a request that names none; the smaller of 1h and `max` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}(h|m|s))+$') && duration(self) >= duration('5s') && duration(self) <= duration('720h')")
        .message("must be a duration between 5s and 720h, as 30s or 1h30m"))]
    pub default: Option<String>,
    /// The longest that a request may ask for.
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}(h|m|s))+$') && duration(self) >= duration('5s') && duration(self) <= duration('720h')")
        .message("must be a duration between 5s and 720h, as 30s or 1h30m"))]
    pub max: String,
}

/// What a request must say about its reason.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct ReasonRule {
    /// Whether a reason is needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Regular expression (RE2 syntax) that a reason must match somewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("''.matches(self) ? true : true").message("must be a regular expression in RE2 syntax"))]
    pub pattern: Option<String>,
    /// Shown to people whose reason does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub hint: Option<String>,
}

/// Who must agree.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Approval {
    /// No votes are needed. Must be said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
    /// A request that nobody decided for this long is `TimedOut`; between 5s and 720h, 24h if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}(h|m|s))+$') && duration(self) >= duration('5s') && duration(self) <= duration('720h')")
        .message("must be a duration between 5s and 720h, as 30s or 1h30m"))]
    pub timeout: Option<String>,
    /// Every one must be satisfied, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub stages: Vec<Stage>,
}

/// One approval that a policy wants.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Stage {
    /// A DNS label of at most 40 characters; it is part of the vote's annotation.
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("must be lower-case letters, digits and dashes, as team-lead"))]
    pub name: String,
    /// How many distinct people; one person counts in one stage only. 1 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub required: Option<u8>,
    /// Who may vote in this stage.
    #[schemars(length(min = 1, max = 64))]
    pub approvers: Vec<Approver>,
}

/// Kinds of approvers. Service accounts cannot vote.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum ApproverKind {
    /// A Kubernetes username, exactly.
    #[default]
    User,
    /// A Keycloak group: the realm's `groupPrefix` and the group's full path.
    Group,
}

/// Who may vote.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Approver {
    /// User or Group.
    pub kind: ApproverKind,
    /// The name; of a Group its full path behind the realm's `groupPrefix`, as `oidc:/payments/leads`.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
}

/// What happens to the subject's Keycloak sessions.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// At the end of the access.
    #[serde(default)]
    pub at_end: AtEnd,
}

/// What happens to sessions at the end of the access.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum AtEnd {
    /// They are left alone: a refreshed token no longer has the role.
    #[default]
    Keep,
    /// Sessions in which a client takes part whose role was lent are ended. Only where all grants are client roles.
    EndClientSessions,
    /// All sessions are ended, offline ones too.
    EndAll,
}

/// What the operator says about a policy.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicyStatus {
    /// The generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether requests can be granted under this policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
