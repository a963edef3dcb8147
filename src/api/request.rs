//! `AccessRequest`: somebody asks for access under a policy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AccessRequestStatus, GrantStatus, PinnedSubject};

/// An `AccessRequest` asks for what an `AccessPolicy` lends.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[kube(
    group = "hallpass.dev",
    version = "v1alpha1",
    kind = "AccessRequest",
    plural = "accessrequests",
    shortname = "areq",
    category = "hallpass",
    namespaced,
    status = "AccessRequestStatus",
    derive = "PartialEq",
    doc = "Asks for access in Keycloak under an AccessPolicy, for a while.",
    selectable = ".spec.requester",
    selectable = ".spec.policyName",
    selectable = ".status.phase",
    printcolumn(name = "Requester", type_ = "string", json_path = ".spec.requester"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.policyName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ends", type_ = "string", json_path = ".status.endsAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Grants", type_ = "string", json_path = ".status.grants", priority = 1),
    printcolumn(name = "Approved by", type_ = "string", json_path = ".status.approvedBy", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = 1),
    validation = Rule::new("!(oldSelf.?status.?phase.orValue('') in ['Expired', 'Revoked', 'Denied', 'TimedOut', 'Rejected']) || self.?status.?phase.orValue('') == oldSelf.status.phase")
        .message("a final phase never changes"),
    validation = Rule::new("!oldSelf.?status.?grant.?deadline.hasValue() || (self.?status.?grant.?deadline.hasValue() && self.status.grant.deadline <= oldSelf.status.grant.deadline)")
        .message("a deadline never moves later"),
    validation = Rule::new("!oldSelf.?status.?grant.?targets.hasValue() || (self.?status.?grant.?targets.hasValue() && oldSelf.status.grant.targets.all(o, self.status.grant.targets.exists(n, n.name == o.name && n.id == o.id && n.type == o.type && (o.preExisting || !n.preExisting))))")
        .message("targets are never taken out, never lead elsewhere, and preExisting never becomes true")
)]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("spec is immutable; create a new AccessRequest").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!has(self.notBefore) || !has(self.notAfter) || self.notBefore < self.notAfter").message("must be later than notBefore").field_path(".notAfter"),
    validation = Rule::new("!self.?preApproved.orValue(false) || (has(self.notBefore) && has(self.notAfter) && has(self.submittedBy))")
        .message("preApproved needs submittedBy and an absolute window (notBefore and notAfter)").field_path(".preApproved"),
)]
#[serde(rename_all = "camelCase")]
pub struct AccessRequestSpec {
    /// Name of the `AccessPolicy`.
    #[schemars(length(min = 1, max = 63))]
    pub policy_name: String,
    /// Kubernetes username of the person who gets the access: yours, unless you submit for others. Filled in by the API server on 1.36 and newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub requester: Option<String>,
    /// Which of the policy's grants; all if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub grants: Vec<String>,
    /// How long, from activation; between 5s and 720h. The policy's default if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}(h|m|s))+$') && duration(self) >= duration('5s') && duration(self) <= duration('720h')")
        .message("must be a duration between 5s and 720h, as 30s or 1h30m"))]
    pub duration: Option<String>,
    /// Why: one line of plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^\\x00-\\x1f\\x7f\\x{0085}\\x{202a}-\\x{202e}\\x{2028}\\x{2029}\\x{2066}-\\x{2069}]*\\n?$')")
        .message("reason is one line of plain text"))]
    pub reason: Option<String>,
    /// Start then, not at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self < timestamp('9999-01-01T00:00:00Z')").message("spec.notBefore must be before the year 9999"))]
    pub not_before: Option<Time>,
    /// Never past this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self < timestamp('9999-01-01T00:00:00Z')").message("spec.notAfter must be before the year 9999"))]
    pub not_after: Option<Time>,
    /// Who hands it in for the requester: the caller. Filled in by the API server on 1.36 and newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub submitted_by: Option<String>,
    /// Whether the review in Git counts for the stages that the policy lets the submitter pre-approve. Needs `notBefore`
    /// and `notAfter`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pre_approved: bool,
    /// Where the submission came from; shown, not trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// Where a submission came from.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Source {
    /// A revision, as a commit's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub revision: Option<String>,
    /// Where it can be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
}

/// Where a request is in its life.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Waiting for votes, or for a policy that is not there yet.
    Pending,
    /// Agreed; waiting for its start.
    Approved,
    /// Deadline and targets are recorded; Keycloak is being written.
    Activating,
    /// The access is in place.
    Active,
    /// Being taken away.
    Revoking,
    /// Gone: time ran out.
    Expired,
    /// Gone: ended or withdrawn early.
    Revoked,
    /// Never given: a voter said no.
    Denied,
    /// Never given: nobody answered in time.
    TimedOut,
    /// Never given: the policy does not allow it.
    Rejected,
}

impl AccessRequest {
    /// Where it is in its life; `None` while nobody has looked.
    pub fn phase(&self) -> Option<Phase> {
        self.status.as_ref()?.phase
    }

    /// Who gets the access, once that is known.
    pub fn subject(&self) -> Option<&PinnedSubject> {
        self.status.as_ref()?.subject.as_ref()
    }

    /// What is lent, once that is recorded.
    pub fn grant(&self) -> Option<&GrantStatus> {
        self.status.as_ref()?.grant.as_ref()
    }

    /// Whether it may have given something that nobody has taken away yet.
    pub fn is_live(&self) -> bool {
        matches!(self.phase(), Some(Phase::Activating | Phase::Active | Phase::Revoking))
    }
}

impl Phase {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Approved,
        Self::Activating,
        Self::Active,
        Self::Revoking,
        Self::Expired,
        Self::Revoked,
        Self::Denied,
        Self::TimedOut,
        Self::Rejected,
    ];

    /// Whether a request in this phase never changes again.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Expired | Self::Revoked | Self::Denied | Self::TimedOut | Self::Rejected => true,
            Self::Pending | Self::Approved | Self::Activating | Self::Active | Self::Revoking => false,
        }
    }

    /// As it is written in status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Approved => "Approved",
            Self::Activating => "Activating",
            Self::Active => "Active",
            Self::Revoking => "Revoking",
            Self::Expired => "Expired",
            Self::Revoked => "Revoked",
            Self::Denied => "Denied",
            Self::TimedOut => "TimedOut",
            Self::Rejected => "Rejected",
        }
    }
}
