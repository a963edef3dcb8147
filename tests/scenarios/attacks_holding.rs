//! Attacks on what never changes: spec, status, finalizer, owners, and what is lent.

use serde_json::{Value, json};

use crate::{
    attacks::{
        Deed, Line, Who::*, active, allowed, fresh, holds, metadata, note, notes, recorded, refused, status, vote,
    },
    attacks_asking::many,
};

const OURS: &str = "hallpass.dev/revoke";

#[allow(clippy::needless_pass_by_value, reason = "reads well")]
fn sub_status(status: Value) -> Deed {
    Deed::Sub("status", json!({ "status": status }))
}

#[allow(clippy::needless_pass_by_value, reason = "reads well")]
fn spec(spec: Value) -> Deed {
    Deed::Merge(json!({ "spec": spec }))
}

fn owner() -> Value {
    json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "11111111-1111-1111-1111-111111111111"}])
}

/// The grant of an Active request, but for this.
fn grant_with(key: &str, value: Value) -> Deed {
    let mut grant = active()["grant"].clone();
    grant[key] = value;
    sub_status(json!({ "grant": grant }))
}

#[rustfmt::skip] // one attack a line
pub fn what_only_the_operator_writes() -> Vec<Line> {
    let owned = json!({"metadata": {"ownerReferences": owner()}});
    vec![
        fresh(),
        refused("alice writes a phase", Alice, sub_status(json!({"phase": "Active"})), "cannot patch resource \"accessrequests/status\""),
        refused("nina, who owns another namespace, writes a phase", Nina, sub_status(json!({"phase": "Active"})), "cannot patch resource \"accessrequests/status\""),
        refused("mallory, who owns the namespace, writes a phase", Mallory, sub_status(json!({"phase": "Active"})), "only the operator writes status"),
        refused("argo, who may do everything, writes a phase", Argo, sub_status(json!({"phase": "Approved", "approvedBy": "{bob}"})), "only the operator writes status"),
        refused("the administrator writes a vote", Admin, sub_status(json!({"votes": [recorded("lead", "bob", "bob")]})), "only the operator writes status"),
        refused("the administrator writes the policy that is pinned", Admin, sub_status(json!({"policy": {"uid": "x", "generation": 1}})), "only the operator writes status"),
        refused("the administrator writes the ballot", Admin, sub_status(json!({"ballot": "deadbeef"})), "only the operator writes status"),
        refused("the administrator writes the subject", Admin, sub_status(json!({"subject": {"realm": "prod", "realmId": "r", "userId": "u", "username": "mallory"}})), "only the operator writes status"),
        refused("the administrator writes a condition", Admin, sub_status(json!({"conditions": [{"type": "Approved", "status": "True", "reason": "Approved", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})), "only the operator writes status"),
        refused("the administrator writes a grant", Admin, sub_status(active()), "only the operator writes status"),
        refused("mallory writes a scale", Mallory, Deed::Sub("scale", json!({"spec": {"replicas": 1}})), "not found"),
        refused("mallory writes a subresource that there is not", Mallory, Deed::Sub("approval", json!({"status": {"phase": "Active"}})), "not found"),
        allowed("a status sent to the object itself goes nowhere", Mallory, Deed::Merge(json!({"status": {"phase": "Active"}}))),
        holds("it is still Pending", "/status/phase", "Pending"),
        refused("alice asks for longer", Alice, spec(json!({"duration": "8h"})), "spec is immutable; create a new AccessRequest"),
        refused("alice asks for more", Alice, spec(json!({"grants": ["admin", "debug"]})), "spec is immutable"),
        refused("the administrator changes the requester", Admin, spec(json!({"requester": "{mallory}"})), "spec is immutable"),
        refused("the administrator changes the policy", Admin, spec(json!({"policyName": "{other}"})), "spec is immutable"),
        refused("the operator changes the spec", Operator, spec(json!({"duration": "8h"})), "spec is immutable"),
        refused("alice says who submits it", Alice, spec(json!({"submittedBy": "{alice}"})), "spec is immutable"),
        refused("alice replaces the spec", Alice, Deed::Replace(json!({"spec": {"duration": "8h"}})), "spec is immutable"),
        refused("alice applies another spec as the manager hallpass", Alice, Deed::Apply("hallpass", json!({"spec": {"policyName": "{policy}", "duration": "8h"}})), "spec is immutable"),
        refused("mallory adds an owner", Mallory, metadata("ownerReferences", owner()), "owner references of an AccessRequest cannot be changed"),
        refused("flux adds an owner", Flux, metadata("ownerReferences", owner()), "owner references of an AccessRequest cannot be changed"),
        refused("mallory applies an owner", Mallory, Deed::Apply("hallpass", owned), "owner references of an AccessRequest cannot be changed"),
        refused("the administrator adds an owner", Admin, metadata("ownerReferences", owner()), "owner references of an AccessRequest cannot be changed"),
        refused("mallory adds a finalizer", Mallory, metadata("finalizers", json!(["evil.example/x"])), "finalizers cannot be added"),
        refused("mallory adds the operator's finalizer", Mallory, metadata("finalizers", json!([OURS])), "finalizers cannot be added"),
        refused("mallory changes its UID", Mallory, metadata("uid", json!("11111111-1111-1111-1111-111111111111")), "metadata.uid: Invalid value"),
        refused("mallory changes its name", Mallory, metadata("name", json!("another")), "does not match the name on the URL"),
        allowed("the operator sets its finalizer", Operator, metadata("finalizers", json!([OURS]))),
        refused("alice drops the finalizer", Alice, metadata("finalizers", Value::Null), "only the operator removes its finalizer, once the access is gone"),
        refused("mallory drops the finalizer", Mallory, metadata("finalizers", json!([])), "only the operator removes its finalizer"),
        refused("mallory puts it back without the finalizer", Mallory, Deed::Replace(json!({"metadata": {"finalizers": null}})), "only the operator removes its finalizer"),
        refused("mallory takes the finalizer out by a JSON patch", Mallory, Deed::Json(json!([{"op": "remove", "path": "/metadata/finalizers/0"}])), "only the operator removes its finalizer"),
        refused("the administrator drops the finalizer", Admin, metadata("finalizers", Value::Null), "only the operator removes its finalizer"),
        refused("mallory replaces the finalizer by another", Mallory, metadata("finalizers", json!(["evil.example/x"])), "finalizers cannot be added"),
        refused("mallory writes the finalizer in capitals", Mallory, metadata("finalizers", json!(["hallpass.dev/REVOKE"])), "finalizers cannot be added"),
        refused("mallory puts another finalizer before it", Mallory, metadata("finalizers", json!(["evil.example/x", OURS])), "finalizers cannot be added"),
        refused("mallory puts another finalizer behind it", Mallory, metadata("finalizers", json!([OURS, "evil.example/x"])), "finalizers cannot be added"),
        refused("mallory writes 65 annotations", Mallory, notes(many("k", 65)), "at most 64 annotations"),
        refused("mallory writes 300 annotations", Mallory, notes(many("k", 300)), "at most 64 annotations"),
        refused("mallory writes 65 labels", Mallory, metadata("labels", many("k", 65)), "64 labels"),
        allowed("64 annotations", Mallory, notes(many("k", 64))),
        refused("mallory writes the 65th annotation", Mallory, note("one-more", ""), "at most 64 annotations"),
        allowed("they do not keep carol from voting", Carol, vote("lead", "carol")),
        allowed("an unrelated label", Mallory, metadata("labels", json!({"a": "b"}))),
    ]
}

#[rustfmt::skip] // one attack a line
pub fn what_is_lent(stamp: bool) -> Vec<Line> {
    let mut had_it = active()["grant"]["targets"].clone();
    had_it[0]["preExisting"] = json!(true);
    let mut another = active()["grant"]["targets"].clone();
    another[0]["id"] = json!("r2");
    let mut lines = vec![
        fresh(),
        allowed("the operator sets its finalizer first", Operator, metadata("finalizers", json!([OURS]))),
        status(active()),
        refused("bob votes when it is Active", Bob, vote("lead", "bob"), "only a Pending request can be voted on; this one is Active"),
        refused("the operator prolongs it", Operator, grant_with("deadline", json!("2030-01-01T10:00:01Z")), "a deadline never moves later"),
        refused("the operator drops the deadline", Operator, sub_status(json!({"grant": null})), "a deadline never moves later"),
        refused("the operator drops the status", Operator, Deed::Sub("status", json!({"status": null})), "a deadline never moves later"),
        refused("the operator drops what is lent", Operator, grant_with("targets", json!([])), "targets are never taken out"),
        refused("the operator says that it was there before", Operator, grant_with("targets", had_it), "preExisting never becomes true"),
        refused("the operator says that another role is lent", Operator, grant_with("targets", another), "never lead elsewhere"),
        refused("the administrator prolongs it", Admin, grant_with("deadline", json!("2031-01-01T00:00:00Z")), "a deadline never moves later"),
        refused("the administrator shortens it", Admin, grant_with("deadline", json!("2030-01-01T05:00:00Z")), "only the operator writes status"),
        refused("the administrator says that it is over", Admin, sub_status(json!({"phase": "Expired"})), "only the operator writes status"),
        refused("alice drops the finalizer of what is lent", Alice, metadata("finalizers", Value::Null), "only the operator removes its finalizer"),
        allowed("the operator shortens it", Operator, grant_with("deadline", json!("2030-01-01T09:00:00Z"))),
    ];
    let without = || metadata("finalizers", Value::Null);
    let replaced = || Deed::Replace(json!({"metadata": {"finalizers": null}}));
    let kept = || holds("the finalizer is kept", "/metadata/finalizers", json!([OURS]));
    lines.extend(if stamp {
        vec![
            allowed("flux drops the finalizer", Flux, without()), kept(),
            allowed("argo replaces it without the finalizer", Argo, replaced()), kept(),
        ]
    } else {
        vec![
            refused("flux drops the finalizer", Flux, without(), "only the operator removes its finalizer"),
            refused("argo replaces it without the finalizer", Argo, replaced(), "only the operator removes its finalizer"),
        ]
    });
    lines.extend([
        status(json!({"phase": "Revoking"})),
        status(json!({"phase": "Revoked"})),
        refused("the operator revives it", Operator, sub_status(json!({"phase": "Active"})), "a final phase never changes"),
        refused("the operator takes the phase away", Operator, sub_status(json!({"phase": null})), "a final phase never changes"),
        refused("the operator makes it Expired", Operator, sub_status(json!({"phase": "Expired"})), "a final phase never changes"),
        refused("the operator prolongs what is over", Operator, grant_with("deadline", json!("2031-01-01T00:00:00Z")), "a deadline never moves later"),
        refused("the administrator revives it", Admin, sub_status(json!({"phase": "Pending"})), "a final phase never changes"),
        refused("bob votes when it is over", Bob, vote("lead", "bob"), "only a Pending request can be voted on; this one is Revoked"),
        refused("alice drops the finalizer when it is over", Alice, without(), "only the operator removes its finalizer"),
    ]);
    lines
}
