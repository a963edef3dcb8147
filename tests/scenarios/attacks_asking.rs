//! Attacks by asking. `stamp`: whether the API server fills in who the caller is.

use serde_json::{Value, json};

use crate::attacks::{Deed, Line, Who::*, allowed, ask, holds, pre_approved, refused};

fn ask_with(metadata: Value) -> Deed {
    Deed::Ask(json!({}), metadata)
}

fn in_nina_s(spec: Value) -> Deed {
    Deed::Ask(spec, json!({"namespace": "{nina-ns}"}))
}

/// Applied server-side by a manager of this name.
fn applied(manager: &'static str, requester: &str) -> Deed {
    let spec = json!({"policyName": "{policy}", "requester": requester, "grants": ["admin"], "reason": "INC-1"});
    Deed::Apply(manager, json!({"metadata": {"name": "applied"}, "spec": spec}))
}

/// So many entries of a map.
pub fn many(start: &str, count: usize) -> Value {
    (0..count).map(|i| (format!("{start}{i}"), json!(""))).collect::<serde_json::Map<_, _>>().into()
}

#[rustfmt::skip] // one attack a line
pub fn in_another_s_name() -> Vec<Line> {
    vec![
        refused("mallory asks in alice's name", Mallory, ask(json!({})), "spec.requester is {alice}, and you are {mallory}: you may not submit requests for others under policy {policy}; its submitters: ServiceAccount {flux-ns}/payments, User {dave}|must say who submits it"),
        refused("mallory asks in alice's name as submitter", Mallory, ask(json!({"submittedBy": "{mallory}"})), "you may not submit requests for others|must say who submits it"),
        refused("mallory says that alice submits it", Mallory, ask(json!({"submittedBy": "{alice}"})), "spec.submittedBy must be your own username: {mallory}|you may not submit requests for others|must say who submits it"),
        refused("mallory says that flux submits it", Mallory, ask(json!({"submittedBy": "{flux}"})), "spec.submittedBy must be your own username: {mallory}|you may not submit requests for others|must say who submits it"),
        refused("mallory asks for herself", Mallory, ask(json!({"requester": "{mallory}"})), "you may not ask under policy {policy}: it serves Group {payments}; you are {mallory} in "),
        refused("mallory asks for herself and is told her groups", Mallory, ask(json!({"requester": "{mallory}"})), "{marketing}"),
        refused("mallory asks in bob's name by impersonation", MalloryAsBob, ask(json!({"requester": "{bob}"})), "cannot impersonate"),
        refused("mallory applies alice's manifest as the manager kubectl", Mallory, applied("kubectl-client-side-apply", "{alice}"), "you may not submit requests for others|must say who submits it"),
        refused("mallory applies alice's manifest as the manager hallpass", Mallory, applied("hallpass", "{alice}"), "you may not submit requests for others|must say who submits it"),
        refused("mallory applies her own manifest as the manager oidc:alice", Mallory, applied("oidc:alice", "{mallory}"), "you may not ask under policy"),
        refused("mallory lets a name be generated", Mallory, ask_with(json!({"name": null, "generateName": "fix-"})), "you may not submit requests for others|must say who submits it"),
        refused("mallory writes alice's name in capitals", Mallory, ask(json!({"requester": "{ALICE}"})), "you may not submit requests for others|must say who submits it"),
        refused("mallory writes alice's name with a space", Mallory, ask(json!({"requester": "{alice} "})), "you may not submit requests for others|must say who submits it"),
        refused("mallory writes alice's name without its prefix", Mallory, ask(json!({"requester": "alice"})), "you may not submit requests for others|must say who submits it"),
        refused("mallory writes alice's name with a Cyrillic letter", Mallory, ask(json!({"requester": "oidc:\u{430}lice"})), "you may not submit requests for others|must say who submits it"),
        refused("mallory writes no name", Mallory, ask(json!({"requester": ""})), "spec.requester in body should be at least 1 chars long"),
        refused("mallory writes a name of 600 letters", Mallory, ask(json!({"requester": "a".repeat(600)})), "spec.requester: Too long"),
        refused("nina, who owns another namespace, asks there", Nina, in_nina_s(json!({"requester": "{nina}", "policyName": "{other}", "grants": ["x"], "duration": "1h"})), "you may not ask under policy {other}: it serves User {carol}; you are {nina} in "),
        refused("nina asks in mallory's namespace", Nina, ask(json!({"requester": "{nina}"})), "you may not ask under policy {policy}"),
        refused("paul, whose groups are nearly the right ones, asks", Paul, ask(json!({"requester": "{paul}"})), "you may not ask under policy {policy}: it serves Group {payments}; you are {paul} in "),
        refused("bob, who leads and does not ask, asks", Bob, ask(json!({"requester": "{bob}"})), "you may not ask under policy {policy}"),
        refused("the administrator asks for alice", Admin, ask(json!({})), "you may not submit requests for others|must say who submits it"),
        refused("the administrator asks for himself", Admin, ask(json!({"requester": "{admin}"})), "you may not ask under policy {policy}"),
        refused("argo, who may do everything, asks for alice", Argo, ask(json!({"submittedBy": "{argo}"})), "you may not submit requests for others|must say who submits it"),
        refused("argo approves beforehand for mallory", Argo, pre_approved(json!({"requester": "{mallory}", "submittedBy": "{argo}"})), "you may not submit requests for others|must say who submits it"),
        refused("a service account of flux's name in another namespace", Imitator, ask(json!({"submittedBy": "{imitator}"})), "you may not submit requests for others|must say who submits it"),
        refused("a service account of flux's name says to be flux", Imitator, ask(json!({"submittedBy": "{flux}"})), "spec.submittedBy must be your own username: {imitator}|you may not submit requests for others|must say who submits it"),
        refused("flux says to be another submitter", Flux, ask(json!({"submittedBy": "system:serviceaccount:other:x"})), "spec.submittedBy must be your own username: {flux}"),
        refused("dave, a submitter, says to be flux", Dave, ask(json!({"submittedBy": "{flux}"})), "spec.submittedBy must be your own username: {dave}"),
        refused("flux, a submitter here, asks for alice under another policy", Flux, ask(json!({"policyName": "{other}", "grants": ["x"], "duration": "1h", "submittedBy": "{flux}"})), "you may not submit requests for others under policy {other}; its submitters: nobody"),
        refused("flux asks for a user of Kubernetes itself", Flux, ask(json!({"requester": "system:kube-controller-manager", "submittedBy": "{flux}"})), "a system user cannot be a requester"),
        refused("flux asks for the administrators' group", Flux, ask(json!({"requester": "system:masters", "submittedBy": "{flux}"})), "a system user cannot be a requester"),
        refused("flux asks for another service account", Flux, ask(json!({"requester": "{argo}", "submittedBy": "{flux}"})), "a service account only for itself"),
        refused("flux asks for itself without being listed", Flux, ask(json!({"requester": "{flux}"})), "you may not ask under policy {policy}"),
        refused("the operator asks", Operator, ask(json!({"requester": "system:serviceaccount:hallpass-system:hallpass"})), "cannot create resource"),
        refused("the operator asks in its own namespace", Operator, Deed::Ask(json!({}), json!({"namespace": "hallpass-system"})), "the operator never creates an AccessRequest"),
        refused("flux approves beforehand without an end", Flux, Deed::Ask(json!({"submittedBy": "{flux}", "preApproved": true, "notBefore": "2030-01-01T00:00:00Z"}), json!({})), "preApproved needs submittedBy and an absolute window"),
        refused("flux approves beforehand and says nothing else", Flux, ask(json!({"submittedBy": "{flux}", "preApproved": true})), "preApproved needs submittedBy and an absolute window"),
        refused("flux's window ends before it begins", Flux, Deed::Ask(json!({"submittedBy": "{flux}", "preApproved": true, "notBefore": "2030-01-02T00:00:00Z", "notAfter": "2030-01-01T00:00:00Z"}), json!({})), "must be later than notBefore"),
        refused("alice approves beforehand for herself", Alice, pre_approved(json!({"submittedBy": "{alice}"})), "pre-approve"),
        refused("mallory approves beforehand for alice", Mallory, pre_approved(json!({"submittedBy": "{mallory}"})), "you may not submit requests for others|must say who submits it"),
        refused("dave, who may submit only, approves beforehand", Dave, pre_approved(json!({"submittedBy": "{dave}"})), "you may not pre-approve requests under policy {policy}"),
        refused("flux approves beforehand under another policy", Flux, pre_approved(json!({"policyName": "{other}", "grants": ["x"], "duration": "1h", "submittedBy": "{flux}"})), "under policy {other}"),
    ]
}

#[rustfmt::skip] // one attack a line
pub fn for_more_than_there_is() -> Vec<Line> {
    let vote = json!({"annotations": {"approve.hallpass.dev/a1b2c3d4.lead.b": "{bob}"}});
    vec![
        refused("too long", Alice, ask(json!({"duration": "9h"})), "duration 9h is longer than the 8h that policy {policy} allows"),
        refused("too long, in seconds", Alice, ask(json!({"duration": "28801s"})), "duration 28801s is longer than the 8h"),
        refused("too long, in two parts", Alice, ask(json!({"duration": "7h61m"})), "duration 7h61m is longer than the 8h"),
        refused("longer than anything", Alice, ask(json!({"duration": "999999h"})), "must be a duration between 5s and 720h"),
        refused("a negative duration", Alice, ask(json!({"duration": "-1h"})), "must be a duration between 5s and 720h"),
        refused("a grant that the policy does not have", Alice, ask(json!({"grants": ["admin", "root"]})), "policy {policy} has no grant root; it has admin, debug"),
        refused("a grant of another policy", Alice, ask(json!({"grants": ["x"]})), "policy {policy} has no grant x"),
        refused("a grant in capitals", Alice, ask(json!({"grants": ["ADMIN"]})), "policy {policy} has no grant ADMIN"),
        refused("one grant twice", Alice, ask(json!({"grants": ["admin", "admin"]})), "Duplicate value"),
        refused("a reason without its number", Alice, ask(json!({"reason": "please"})), "spec.reason \"please\" must match ^INC-[0-9]+ (start with the incident number)"),
        refused("a number further on in the reason", Alice, ask(json!({"reason": "see INC-1"})), " must match ^INC"),
        refused("no reason", Alice, ask(json!({"reason": null})), "policy {policy} wants a reason in spec.reason: start with the incident number"),
        refused("an empty reason", Alice, ask(json!({"reason": ""})), "policy {policy} wants a reason"),
        refused("a second line that looks official", Alice, ask(json!({"reason": "INC-1\nApproved by security"})), "reason is one line of plain text"),
        refused("a reason that wipes a line of the terminal", Alice, ask(json!({"reason": "INC-1\u{1b}[2K"})), "reason is one line of plain text"),
        refused("a reason that runs backwards", Alice, ask(json!({"reason": "INC-1 \u{202e}on"})), "reason is one line of plain text"),
        refused("a reason with a line separator", Alice, ask(json!({"reason": "INC-1\u{2028}ok"})), "reason is one line of plain text"),
        refused("a namespace that the policy does not serve", Alice, ask_in("default"), "policy {policy} serves the namespaces {ns}, not default"),
        refused("no policy named", Alice, ask(json!({"policyName": ""})), "spec.policyName in body should be at least 1 chars long"),
        refused("a field that there is not", Alice, Deed::Apply("kubectl", json!({"metadata": {"name": "more"}, "spec": {"policyName": "{policy}", "approvedBy": "{bob}"}})), "field not declared in schema"),
        refused("no spec", Alice, Deed::Ask(Value::Null, json!({})), "spec: Required value"),
        refused("bob's approval in the manifest", Alice, ask_with(vote), "a new AccessRequest cannot carry votes or an end"),
        refused("her own approval in the manifest", Alice, ask_with(json!({"annotations": {"approve.hallpass.dev/x.lead.a": "{alice}"}})), "a new AccessRequest cannot carry votes or an end"),
        refused("a yes in the manifest", Alice, ask_with(json!({"annotations": {"approve.hallpass.dev/x.lead.b": "yes"}})), "a new AccessRequest cannot carry votes or an end"),
        refused("a no in the manifest", Alice, ask_with(json!({"annotations": {"deny.hallpass.dev/x.lead.b": "{bob}"}})), "a new AccessRequest cannot carry votes or an end"),
        refused("an end in the manifest", Alice, ask_with(json!({"annotations": {"end.hallpass.dev/x": "{alice}"}})), "a new AccessRequest cannot carry votes or an end"),
        refused("300 annotations", Alice, ask_with(json!({"annotations": many("k", 300)})), "at most 64 annotations"),
        refused("65 labels", Alice, ask_with(json!({"labels": many("k", 65)})), "64 labels"),
        refused("five finalizers", Alice, ask_with(json!({"finalizers": ["x/1", "x/2", "x/3", "x/4", "x/5"]})), "4 finalizers"),
    ]
}

fn ask_in(namespace: &str) -> Deed {
    Deed::Ask(json!({}), json!({"namespace": namespace}))
}

#[rustfmt::skip]
pub fn what_is_asked_rightly(stamp: bool) -> Vec<Line> {
    let mut lines = vec![
        allowed("alice asks for herself", Alice, ask(json!({}))),
        holds("nobody has looked yet", "/status", json!({"observedGeneration": -1})),
        allowed("a status in the manifest is dropped", Alice, Deed::Ask(json!({}), json!({"annotations": {"a": "b"}}))),
        allowed("flux, a submitter, asks for alice", Flux, ask(json!({"submittedBy": "{flux}"}))),
        allowed("flux approves beforehand with a window", Flux, pre_approved(json!({"submittedBy": "{flux}"}))),
        allowed("carol asks under a policy that is not there: the operator says so", Carol, ask(json!({"policyName": "nope", "requester": "{carol}", "grants": ["x"]}))),
    ];
    if stamp {
        lines.extend([
            allowed("flux leaves itself out", Flux, ask(json!({}))),
            holds("it is filled in", "/spec/submittedBy", "{flux}"),
            allowed("alice leaves herself out", Alice, ask(json!({"requester": null}))),
            holds("she is filled in", "/spec/requester", "{alice}"),
            allowed("alice replaces it by her bare manifest", Alice, Deed::Replace(json!({"spec": {"requester": null}}))),
            holds("she is still filled in", "/spec/requester", "{alice}"),
            refused("mallory leaves herself out", Mallory, ask(json!({"requester": null})), "you may not ask under policy"),
        ]);
    } else {
        lines.extend([
            refused("alice leaves herself out", Alice, ask(json!({"requester": null})), "set spec.requester to your own username: {alice}"),
            refused("mallory leaves herself out", Mallory, ask(json!({"requester": null})), "set spec.requester to your own username: {mallory}"),
            refused("flux leaves itself out", Flux, ask(json!({})), "a request for somebody else must say who submits it: set spec.submittedBy to {flux}"),
        ]);
    }
    lines
}
