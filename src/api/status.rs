//! What the operator says about a request: who gets what, who agreed, until when, and how far it is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AtEnd, Phase};

/// What the operator says about a request. Only the operator can write it.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccessRequestStatus {
    /// The generation that was looked at; -1 while nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the request is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The policy, pinned when first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyPin>,
    /// Random word that a vote must carry; a new one whenever votes cast so far no longer count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ballot: Option<String>,
    /// Digest of what is voted on: the policy's realm, grants, requesters, submitters, approval and required actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub rules: Option<String>,
    /// The trust epoch in which the ballot was drawn: a time during which the admission policies were in force, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub trust_epoch: Option<String>,
    /// The Keycloak user that gets the access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<PinnedSubject>,
    /// Votes, as they were seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into()]))]
    pub votes: Vec<Vote>,
    /// Wishes to end the access early, as they were seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into()]))]
    pub ends: Vec<End>,
    /// What the policy wants the subject to do in Keycloak, once the request was approved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub required_actions: Vec<ActionStatus>,
    /// Who approved, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub approved_by: Option<String>,
    /// The grants asked for, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub grants: Option<String>,
    /// The deadline, as text (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub ends_at: Option<String>,
    /// What is lent, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantStatus>,
    /// A fresh random word: it makes a write of an unchanged status a new version, after which nothing that was sent before can
    /// arrive any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub fence: Option<String>,
    /// Proof that the operator wrote this status: `v1`, the id of a key, and an HMAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub seal: Option<String>,
    /// `Approved`, `Granted`, `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A policy as it was when a request was first seen. A re-created policy is another policy.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct PolicyPin {
    /// The policy's UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The policy's generation.
    pub generation: i64,
}

/// The Keycloak user that gets the access. The ids are the identity, the names are for display.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PinnedSubject {
    /// The realm's name in the operator's configuration.
    #[schemars(length(max = 63))]
    pub realm: String,
    /// Base URL of the server where access was given, as the operator's configuration had it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// The realm's id in Keycloak.
    #[schemars(length(max = 64))]
    pub realm_id: String,
    /// The user's id in Keycloak.
    #[schemars(length(max = 255))]
    pub user_id: String,
    /// The user's name in Keycloak.
    #[schemars(length(max = 255))]
    pub username: String,
}

/// Yes or no.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum VoteDecision {
    /// Yes.
    Approve,
    /// No, which is final.
    Deny,
}

/// A vote, as it was seen.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Vote {
    /// The stage it was cast in.
    #[schemars(length(max = 40))]
    pub stage: String,
    /// Yes or no.
    pub decision: VoteDecision,
    /// Kubernetes username of the voter.
    #[schemars(length(max = 512))]
    pub by: String,
    /// Id of the voter's Keycloak user, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub user_id: Option<String>,
    /// When the operator recorded it.
    pub at: Time,
    /// The annotation it came from.
    #[schemars(length(max = 320))]
    pub key: String,
    /// Whether it counts.
    pub counted: bool,
    /// Why it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub why: Option<String>,
}

/// A required action of Keycloak for which a request waits, or waited.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ActionStatus {
    /// The action, as Keycloak calls it.
    #[schemars(length(max = 64))]
    pub name: String,
    /// Since when the request waits for it. Keycloak is not told to ask for it before that is written.
    pub since: Time,
    /// What proves that it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub done: Option<String>,
}

/// A wish to end the access early, as it was seen.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Kubernetes username of who wants it.
    #[schemars(length(max = 512))]
    pub by: String,
    /// Id of that one's Keycloak user, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub user_id: Option<String>,
    /// When the operator recorded it.
    pub at: Time,
    /// The annotation it came from.
    #[schemars(length(max = 320))]
    pub key: String,
    /// Whether it counts.
    pub counted: bool,
    /// Why it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub why: Option<String>,
}

/// What is lent, and until when.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GrantStatus {
    /// When the activation was decided.
    pub starts_at: Time,
    /// When the access ends; fixed before Keycloak is touched, never later afterwards.
    pub deadline: Time,
    /// Why it ends, from the moment it is being taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// When the last mapping was proved gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// When the last access token that may carry it has expired. Left out if nothing was taken away, or if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub powerless_at: Option<Time>,
    /// Which sessions of the subject end with the access, as the policy said when it began; left out for `Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<AtEnd>,
    /// How many seconds an access token of the realm lived at most when the access began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub token_lifespan: Option<i64>,
    /// What is mapped in Keycloak.
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub targets: Vec<TargetStatus>,
}

/// Why access ends.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum EndReason {
    /// Its time is up.
    Expired,
    /// The requester or an approver ended it.
    Ended,
    /// The request was deleted.
    Deleted,
    /// The policy was deleted, or deleted and made anew.
    PolicyDeleted,
    /// The policy was suspended.
    PolicySuspended,
    /// The status was written by somebody else.
    StatusForged,
}

impl EndReason {
    /// As it is written in status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "Expired",
            Self::Ended => "Ended",
            Self::Deleted => "Deleted",
            Self::PolicyDeleted => "PolicyDeleted",
            Self::PolicySuspended => "PolicySuspended",
            Self::StatusForged => "StatusForged",
        }
    }
}

/// What a target is in Keycloak.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetType {
    /// A realm role.
    RealmRole,
    /// A role of a client.
    ClientRole,
    /// A group.
    Group,
}

/// How far a target is.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum TargetState {
    /// Recorded; it may or may not be in Keycloak yet.
    Intended,
    /// It is in Keycloak.
    Mapped,
    /// Proved gone.
    Removed,
    /// Left in Keycloak: the subject had it before, another live request holds it, or it was never ours.
    Kept,
    /// Given up without proof, because the operator's configuration says so: it may still be in Keycloak.
    Released,
}

impl TargetState {
    /// Whether nothing more is done about the target.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Intended | Self::Mapped => false,
            Self::Removed | Self::Kept | Self::Released => true,
        }
    }
}

/// A grant resolved in Keycloak.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// The grant's name in the policy.
    #[schemars(length(max = 63))]
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub type_: TargetType,
    /// Id of the role or group.
    #[schemars(length(max = 64))]
    pub id: String,
    /// Id (not `clientId`) of the client that a client role belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub client: Option<String>,
    /// Name or path, for display.
    #[schemars(length(max = 1024))]
    pub display: String,
    /// Whether the subject had it before. Only ever goes from true to false.
    pub pre_existing: bool,
    /// How far it is.
    pub state: TargetState,
}
