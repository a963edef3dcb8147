//! Attacks as lines of a table: what, who, the deed, and the words in which the API server must refuse it:
//! one of these, apart by `|`, where two admission policies refuse. Which of them is the first to say so is not certain.
//!
//! Texts may hold `{bob}` (Bob's username), `{leads}` (a group), `{policy}`, `{ns}` and so on: see [`crate::attacks_cast`].

use serde_json::{Value, json};

/// Those who act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// In the group that may ask.
    Alice,
    /// In the group that leads.
    Bob,
    /// In the group that leads.
    Carol,
    /// In the group that is security.
    Dave,
    /// May ask, and leads.
    Erin,
    /// Owns the namespace, and has no say.
    Mallory,
    /// Owns another namespace.
    Nina,
    /// Has a sign-in that tells no groups.
    Oscar,
    /// In groups whose names are nearly those that count.
    Paul,
    /// Cluster administrator by certificate.
    Admin,
    /// A GitOps controller: the policy's submitter.
    Flux,
    /// A GitOps controller that is cluster-admin, and no submitter.
    Argo,
    /// A service account of Flux's name in Mallory's namespace.
    Imitator,
    /// The operator's own account.
    Operator,
    /// Kubernetes, about to empty a namespace.
    Namespaces,
    /// Mallory, who says to be Bob.
    MalloryAsBob,
}

/// What somebody does, to the request at hand if not to all.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Creates a request: what its spec and its metadata have besides the usual.
    Ask(Value, Value),
    /// A JSON merge patch.
    Merge(Value),
    /// A strategic merge patch.
    Strategic(Value),
    /// A JSON patch.
    Json(Value),
    /// A server-side apply by this manager, by force.
    Apply(&'static str, Value),
    /// Reads it, changes it by a merge patch, and puts it back.
    Replace(Value),
    /// A merge patch of a subresource.
    Sub(&'static str, Value),
    /// Deletes it.
    Delete,
    /// Deletes all requests of the namespace.
    DeleteAll,
}

/// One line.
#[derive(Clone, Debug)]
pub enum Line {
    /// Must be refused in these words.
    Refused(&'static str, Who, Deed, &'static str),
    /// Must be let through.
    Allowed(&'static str, Who, Deed),
    /// A new request of somebody, Pending on the ballot `a1b2c3d4`: the next lines are about it.
    Fresh(Who, Value),
    /// The operator writes this into its status.
    Status(Value),
    /// The request at hand has this at a JSON pointer.
    Holds(&'static str, String, Value),
}

pub fn refused(what: &'static str, who: Who, deed: Deed, words: &'static str) -> Line {
    Line::Refused(what, who, deed, words)
}

pub fn allowed(what: &'static str, who: Who, deed: Deed) -> Line {
    Line::Allowed(what, who, deed)
}

/// A new request of Alice.
pub fn fresh() -> Line {
    Line::Fresh(Who::Alice, json!({}))
}

pub fn status(status: Value) -> Line {
    Line::Status(status)
}

pub fn holds(what: &'static str, pointer: impl Into<String>, value: impl Into<Value>) -> Line {
    Line::Holds(what, pointer.into(), value.into())
}

// Deeds

/// Asks; the spec is Alice's good one but for this.
pub fn ask(spec: Value) -> Deed {
    Deed::Ask(spec, json!({}))
}

/// A submitter's window, approved already.
pub fn pre_approved(mut spec: Value) -> Deed {
    spec["preApproved"] = json!(true);
    spec["notBefore"] = json!("2030-01-01T00:00:00Z");
    spec["notAfter"] = json!("2030-01-02T00:00:00Z");
    ask(spec)
}

#[allow(clippy::needless_pass_by_value, reason = "reads well")]
pub fn metadata(key: &str, value: Value) -> Deed {
    Deed::Merge(json!({"metadata": { key: value }}))
}

pub fn notes(annotations: Value) -> Deed {
    metadata("annotations", annotations)
}

pub fn note(key: &str, value: impl Into<Value>) -> Deed {
    notes(json!({ key: value.into() }))
}

/// The annotation by which somebody votes; its last part is the voter's short name.
pub fn key(decision: &str, stage: &str, last: &str) -> String {
    format!("{decision}.hallpass.dev/a1b2c3d4.{stage}.{last}")
}

/// As a JSON pointer to the annotation.
pub fn pointer(key: &str) -> String {
    format!("/metadata/annotations/{}", key.replace('/', "~1"))
}

/// An approval in the name of `last`, as `bob`.
pub fn vote(stage: &str, last: &str) -> Deed {
    note(&key("approve", stage, last), format!("{{{last}}}"))
}

/// An annotation whose key ends in `last`, with this value.
pub fn vote_of(stage: &str, last: &str, value: impl Into<Value>) -> Deed {
    note(&key("approve", stage, last), value)
}

/// A no in the name of `last`.
pub fn deny(stage: &str, last: &str) -> Deed {
    note(&key("deny", stage, last), format!("{{{last}}}"))
}

/// Ends it in the name of somebody, as `bob`.
pub fn end(who: &str) -> Deed {
    note("end.hallpass.dev/x", format!("{{{who}}}"))
}

/// How the operator records a vote.
pub fn recorded(stage: &str, last: &str, by: &str) -> Value {
    json!({
        "stage": stage, "decision": "Approve", "by": format!("{{{by}}}"), "at": "2026-01-01T00:00:00Z",
        "key": key("approve", stage, last), "counted": true,
    })
}

/// What the operator writes when access is in place.
pub fn active() -> Value {
    json!({"phase": "Active", "grant": {
        "startsAt": "2030-01-01T00:00:00Z", "deadline": "2030-01-01T10:00:00Z",
        "targets": [{"name": "admin", "type": "RealmRole", "id": "r1", "display": "admin", "preExisting": false, "state": "Mapped"}],
    }})
}
