//! Attacks by ending and deleting.

use serde_json::{Value, json};

use crate::attacks::{Deed, Line, Who::*, active, allowed, end, fresh, metadata, note, notes, refused, status, vote};

const NO_SAY: &str = "end this request";

#[rustfmt::skip] // one attack a line
pub fn ends() -> Vec<Line> {
    let gone = || note("end.hallpass.dev/x", Value::Null);
    vec![
        fresh(),
        status(active()),
        refused("mallory ends it", Mallory, end("mallory"), NO_SAY),
        refused("mallory ends it in alice's name", Mallory, end("alice"), "must be your own username: {mallory}|end this request"),
        refused("mallory ends it with yes", Mallory, note("end.hallpass.dev/x", "yes"), "end this request|must be your own username: {mallory}"),
        refused("carol, an approver, ends it in bob's name", Carol, end("bob"), "the value of end.hallpass.dev/x must be your own username: {carol}"),
        refused("alice ends it in bob's name", Alice, end("bob"), "must be your own username: {alice}"),
        refused("the administrator ends it", Admin, end("admin"), NO_SAY),
        refused("argo, who may do everything, ends it", Argo, end("argo"), NO_SAY),
        refused("flux, who did not submit it, ends it", Flux, end("flux"), NO_SAY),
        refused("nina, who owns another namespace, ends it", Nina, end("nina"), NO_SAY),
        refused("paul, whose groups are nearly the right ones, ends it", Paul, end("paul"), NO_SAY),
        refused("mallory applies an end of bob's as the manager hallpass", Mallory, Deed::Apply("hallpass", json!({"metadata": {"annotations": {"end.hallpass.dev/x": "{bob}"}}})), "must be your own username: {mallory}|end this request"),
        refused("mallory is told who may end it", Mallory, end("mallory"), "only {alice} and the approvers of policy {policy}"),
        refused("alice ends it without a name", Alice, note("end.hallpass.dev/", "{alice}"), "metadata.annotations: Invalid value"),
        allowed("bob, an approver, ends it", Bob, end("bob")),
        refused("mallory takes the end away", Mallory, gone(), "has not yet recorded end.hallpass.dev/x of {bob}"),
        refused("alice takes bob's end away", Alice, gone(), "has not yet recorded end.hallpass.dev/x of {bob}"),
        refused("alice writes over bob's end", Alice, end("alice"), "has not yet recorded end.hallpass.dev/x of {bob}"),
        refused("mallory takes the end away with everything", Mallory, Deed::Merge(json!({"metadata": {"annotations": null}})), "has not yet recorded end.hallpass.dev/x"),
        refused("mallory writes the end in capitals", Mallory, notes(json!({"end.hallpass.dev/x": null, "End.hallpass.dev/x": "{bob}"})), "has not yet recorded end.hallpass.dev/x"),
        status(json!({"ends": [{"by": "{bob}", "at": "2030-01-01T00:00:00Z", "key": "end.hallpass.dev/x", "counted": true}]})),
        refused("bob uses the key of an end again", Bob, notes(json!({"end.hallpass.dev/x": "{bob}", "end.hallpass.dev/y": "{alice}"})), "must be your own username: {bob}"),
        status(json!({"phase": "Revoking"})),
        allowed("once it is Revoking anybody may take the end away", Mallory, gone()),
        refused("alice ends it again", Alice, end("alice"), "there is nothing to end: this request is Revoking"),
        status(json!({"phase": "Revoked"})),
        refused("alice ends what is over", Alice, end("alice"), "there is nothing to end: this request is Revoked"),
        fresh(),
        status(active()),
        allowed("alice ends her own", Alice, end("alice")),
        fresh(),
        status(active()),
        allowed("dave, an approver of the other stage, ends it", Dave, end("dave")),
        Line::Fresh(Flux, json!({"submittedBy": "{flux}"})),
        allowed("flux ends what it submitted", Flux, end("flux")),
        Line::Fresh(Carol, json!({"policyName": "{other}", "requester": "{carol}", "grants": ["x"], "duration": "1h"})),
        refused("bob, an approver of another policy, ends it", Bob, end("bob"), "only {carol} can end this request; you are {bob} in "),
    ]
}

#[rustfmt::skip] // one attack a line
pub fn deletions() -> Vec<Line> {
    vec![
        fresh(),
        status(active()),
        refused("mallory deletes it", Mallory, Deed::Delete, NO_SAY),
        refused("mallory deletes all of them", Mallory, Deed::DeleteAll, NO_SAY),
        refused("alice deletes all of them", Alice, Deed::DeleteAll, "cannot deletecollection resource"),
        refused("nina, who owns another namespace, deletes it", Nina, Deed::Delete, NO_SAY),
        refused("paul, whose groups are nearly the right ones, deletes it", Paul, Deed::Delete, NO_SAY),
        refused("flux, who did not submit it, deletes it", Flux, Deed::Delete, NO_SAY),
        refused("the imitator, who owns the namespace, deletes it", Imitator, Deed::Delete, NO_SAY),
        refused("the operator deletes it", Operator, Deed::Delete, "cannot delete resource"),
        refused("mallory is told that the policy's owner may delete it", Mallory, Deed::Delete, "only {alice} and the approvers of policy {policy} can end this request, or who may delete policy {policy}; its approvers are Group {leads}, Group {security}; you are {mallory} in {marketing}"),
        allowed("who may delete the policy deletes it", Admin, Deed::Delete),
        fresh(),
        status(active()),
        allowed("alice deletes her own", Alice, Deed::Delete),
        fresh(),
        status(active()),
        allowed("bob, an approver, deletes it", Bob, Deed::Delete),
        fresh(),
        status(json!({"phase": "Expired"})),
        allowed("anybody with the right to delete clears away what is over", Mallory, Deed::Delete),
        Line::Fresh(Flux, json!({"submittedBy": "{flux}"})),
        status(active()),
        refused("paul deletes what flux submitted", Paul, Deed::Delete, NO_SAY),
        allowed("flux, its submitter, prunes it", Flux, Deed::Delete),
        fresh(),
        allowed("the namespace controller deletes it", Namespaces, Deed::Delete),
        Line::Fresh(Carol, json!({"policyName": "{other}", "requester": "{carol}", "grants": ["x"], "duration": "1h"})),
        refused("alice, the requester of another request, deletes it", Alice, Deed::Delete, NO_SAY),
        fresh(),
        allowed("the operator sets its finalizer before", Operator, metadata("finalizers", json!(["hallpass.dev/revoke"]))),
        allowed("alice deletes it, and it waits", Alice, Deed::Delete),
        refused("bob votes while it is being deleted", Bob, vote("lead", "bob"), "this request is being deleted"),
        refused("alice ends it while it is being deleted", Alice, end("alice"), "this request is being deleted"),
        refused("alice drops the finalizer while it is being deleted", Alice, metadata("finalizers", Value::Null), "only the operator removes its finalizer"),
    ]
}
