//! Attacks on votes. `stamp`: whether the API server fills in who the caller is.

use serde_json::{Value, json};

use crate::attacks::{
    Deed, Line,
    Who::{self, *},
    allowed, ask, deny, fresh, holds, key, note, notes, pointer, recorded, refused, status, vote, vote_of,
};

/// The reason of the refusal if a vote of somebody else is not recorded yet.
const KEPT: &str = "has not yet recorded approve.hallpass.dev/a1b2c3d4.lead.bob of {bob}";

fn on_ballot(ballot: &str) -> Deed {
    note(&format!("approve.hallpass.dev/{ballot}.lead.bob"), "{bob}")
}

fn applied(manager: &'static str, last: &str) -> Deed {
    Deed::Apply(manager, json!({"metadata": {"annotations": { key("approve", "lead", last): format!("{{{last}}}") }}}))
}

fn moved_to(last: &str) -> Deed {
    let (old, new) = (pointer(&key("approve", "lead", "bob")), pointer(&key("approve", "lead", last)));
    Deed::Json(json!([{"op": "remove", "path": old}, {"op": "add", "path": new, "value": format!("{{{last}}}")}]))
}

fn tested_and_replaced(value: &str) -> Deed {
    let path = pointer(&key("approve", "lead", "bob"));
    Deed::Json(json!([{"op": "test", "path": path, "value": "{bob}"}, {"op": "replace", "path": path, "value": value}]))
}

#[rustfmt::skip] // one attack a line
pub fn who_has_no_say() -> Vec<Line> {
    let no_say = "you may not vote in stage lead of policy {policy}: its approvers are Group {leads}; you are ";
    let two = json!({ key("approve", "lead", "b1"): "{bob}", key("approve", "lead", "b2"): "{bob}" });
    let yes_and_no = json!({ key("approve", "lead", "b1"): "{bob}", key("deny", "lead", "b2"): "{bob}" });
    let long = "x".repeat(63 - "a1b2c3d4.lead.".len() + 1);
    vec![
        allowed("alice asks", Alice, ask(json!({}))),
        refused("bob votes before the operator has seen it", Bob, vote("lead", "bob"), "only a Pending request can be voted on; this one is not yet seen by the controller"),
        fresh(),
        refused("mallory votes in bob's name", Mallory, vote("lead", "bob"), "must be your own username: {mallory}|you may not vote in stage lead"),
        refused("carol, who leads too, votes in bob's name", Carol, vote("lead", "bob"), "the value of approve.hallpass.dev/a1b2c3d4.lead.bob must be your own username: {carol}"),
        refused("carol denies in bob's name", Carol, deny("lead", "bob"), "must be your own username: {carol}"),
        refused("mallory votes as herself", Mallory, vote("lead", "mallory"), "you may not vote in stage lead of policy {policy}: its approvers are Group {leads}; you are {mallory} in "),
        refused("mallory denies", Mallory, deny("lead", "mallory"), no_say),
        refused("mallory votes in bob's name by impersonation", MalloryAsBob, vote("lead", "bob"), "cannot impersonate"),
        refused("mallory applies bob's vote as the manager hallpass", Mallory, applied("hallpass", "bob"), "must be your own username: {mallory}|you may not vote in stage lead"),
        refused("carol applies bob's vote as the manager hallpass", Carol, applied("hallpass", "bob"), "must be your own username: {carol}"),
        refused("carol applies bob's vote as the manager kubectl-annotate", Carol, applied("kubectl-annotate", "bob"), "must be your own username: {carol}"),
        refused("carol puts bob's vote with the whole object", Carol, Deed::Replace(json!({"metadata": {"annotations": { key("approve", "lead", "bob"): "{bob}" }}})), "must be your own username: {carol}"),
        refused("carol adds bob's vote by a JSON patch", Carol, Deed::Json(json!([{"op": "add", "path": "/metadata/annotations", "value": { key("approve", "lead", "bob"): "{bob}" }}])), "must be your own username: {carol}"),
        refused("carol hides bob's vote behind a label", Carol, Deed::Merge(json!({"metadata": {"labels": {"a": "b"}, "annotations": { key("approve", "lead", "bob"): "{bob}" }}})), "must be your own username: {carol}"),
        refused("bob votes with a strategic merge patch", Bob, Deed::Strategic(json!({"metadata": {"annotations": { key("approve", "lead", "bob"): "{bob}" }}})), "the body of the request was in an unknown format"),
        refused("alice votes on her own", Alice, vote("lead", "alice"), "you cannot vote on a request that you made|you may not vote in stage lead"),
        refused("alice votes on her own in capitals", Alice, vote_of("lead", "a", "{ALICE}"), "you cannot vote on a request that you made|you may not vote in stage lead"),
        refused("alice votes in bob's name", Alice, vote("lead", "bob"), "you cannot vote on a request that you made|you may not vote in stage lead"),
        refused("alice denies her own", Alice, deny("lead", "alice"), "you cannot vote on a request that you made|you may not vote in stage lead"),
        refused("bob votes in another stage", Bob, vote("security", "bob"), "you may not vote in stage security of policy {policy}: its approvers are Group {security}; you are {bob} in "),
        refused("dave votes in another stage", Dave, vote("lead", "dave"), "you may not vote in stage lead"),
        refused("nina, who owns another namespace, votes", Nina, vote("lead", "nina"), "you may not vote in stage lead"),
        refused("paul, whose groups are nearly the right ones, votes", Paul, vote("lead", "paul"), "you may not vote in stage lead"),
        refused("bob votes in a stage that there is not", Bob, vote("leed", "bob"), "policy {policy} has no stage leed; it has lead, security"),
        refused("bob votes in the beginning of a stage", Bob, vote("lea", "bob"), "policy {policy} has no stage lea;"),
        refused("bob votes in no stage", Bob, vote("", "bob"), "a vote on this request is an annotation named|has no stage ;"),
        refused("bob votes in capitals", Bob, vote("LEAD", "bob"), "a vote on this request is an annotation named|has no stage LEAD; it has lead, security"),
        refused("bob votes on a ballot of his own", Bob, on_ballot("deadbeef"), "a vote on this request is an annotation named approve.hallpass.dev/a1b2c3d4.STAGE.ANYTHING={bob}"),
        refused("bob votes on half a ballot", Bob, on_ballot("a1b2"), "a vote on this request is an annotation named"),
        refused("bob votes on a longer ballot", Bob, on_ballot("a1b2c3d4x"), "a vote on this request is an annotation named"),
        refused("bob votes on the ballot in capitals", Bob, on_ballot("A1B2C3D4"), "a vote on this request is an annotation named"),
        refused("bob votes without a stage", Bob, note("approve.hallpass.dev/a1b2c3d4.bob", "{bob}"), "a vote on this request is an annotation named approve.hallpass.dev/a1b2c3d4.STAGE.ANYTHING={bob} (or deny.hallpass.dev/…), not approve.hallpass.dev/a1b2c3d4.bob|has no stage bob;"),
        refused("bob votes without a last part", Bob, note("approve.hallpass.dev/a1b2c3d4.lead", "{bob}"), "a vote on this request is an annotation named"),
        refused("bob votes with an empty last part", Bob, vote("lead", ""), "metadata.annotations: Invalid value"),
        refused("bob votes with dots at the end", Bob, vote_of("lead", "bob..", "{bob}"), "metadata.annotations: Invalid value"),
        refused("bob votes with a slash more", Bob, vote_of("lead", "b/b", "{bob}"), "metadata.annotations: Invalid value"),
        refused("bob votes with a letter that is not ASCII", Bob, vote_of("lead", "b\u{f6}b", "{bob}"), "metadata.annotations: Invalid value"),
        refused("bob votes with a name of 64 characters", Bob, vote_of("lead", &long, "{bob}"), "metadata.annotations: Invalid value"),
        refused("bob votes twice at once", Bob, notes(two), "one vote at a time"),
        refused("bob approves and denies at once", Bob, notes(yes_and_no), "one vote at a time"),
        refused("bob votes with 100 kB", Bob, vote_of("lead", "bob", "x".repeat(100_000)), "must be your own username: {bob}"),
        refused("bob votes with nothing", Bob, vote_of("lead", "bob", ""), "must be your own username: {bob}"),
        refused("bob votes with a no that says yes", Bob, vote_of("lead", "bob", "YES"), "must be your own username: {bob}"),
        refused("bob votes with a name that is longer than his", Bob, vote_of("lead", "bob", "{bob} "), "must be your own username: {bob}"),
        refused("bob votes in carol's name", Bob, vote("lead", "carol"), "must be your own username: {bob}"),
        refused("the administrator votes", Admin, vote("lead", "admin"), "you may not vote in stage lead"),
        refused("the administrator votes in bob's name", Admin, vote("lead", "bob"), "must be your own username: {admin}|you may not vote in stage lead"),
        refused("argo, who may do everything, votes", Argo, vote("lead", "argo"), "service accounts and system users cannot vote; you are |you may not vote in stage lead"),
        refused("argo votes in bob's name", Argo, vote("lead", "bob"), "service accounts and system users cannot vote; you are |you may not vote in stage lead"),
        refused("the operator votes", Operator, vote_of("lead", "x", "system:serviceaccount:hallpass-system:hallpass"), "service accounts and system users cannot vote; you are "),
        refused("the operator votes in bob's name", Operator, vote("lead", "bob"), "service accounts and system users cannot vote; you are "),
        Line::Fresh(Erin, json!({"requester": "{erin}"})),
        refused("erin, who leads, approves her own", Erin, vote("lead", "erin"), "you cannot vote on a request that you made"),
        Line::Fresh(Flux, json!({"submittedBy": "{flux}"})),
        refused("flux votes on what it submitted", Flux, vote("lead", "flux"), "service accounts and system users cannot vote; you are |you may not vote in stage lead"),
        Line::Fresh(Dave, json!({"submittedBy": "{dave}"})),
        refused("dave, who is security, approves what he submitted", Dave, vote("security", "dave"), "you cannot vote on a request that you made"),
        Line::Fresh(Carol, json!({"policyName": "{other}", "requester": "{carol}", "grants": ["x"], "duration": "1h"})),
        refused("bob, an approver of another policy, votes", Bob, vote("lead", "bob"), "policy {other} is automatic: there is nothing to vote on"),
    ]
}

#[rustfmt::skip] // one attack a line
pub fn votes_that_are_there(stamp: bool) -> Vec<Line> {
    let bob = key("approve", "lead", "bob");
    let mut lines = vec![
        fresh(),
        allowed("bob approves", Bob, vote("lead", "bob")),
        refused("carol writes over bob's vote", Carol, vote_of("lead", "bob", "{carol}"), KEPT),
        refused("mallory removes bob's vote before it is recorded", Mallory, note(&bob, Value::Null), KEPT),
        refused("alice removes bob's vote before it is recorded", Alice, note(&bob, Value::Null), KEPT),
        refused("the administrator removes bob's vote before it is recorded", Admin, note(&bob, Value::Null), KEPT),
        refused("mallory removes all annotations", Mallory, Deed::Merge(json!({"metadata": {"annotations": null}})), KEPT),
        refused("mallory removes the vote and sets a label", Mallory, Deed::Merge(json!({"metadata": {"labels": {"a": "b"}, "annotations": { bob.as_str(): null }}})), KEPT),
        refused("mallory puts an old copy without the vote", Mallory, Deed::Replace(json!({"metadata": {"annotations": null}})), KEPT),
        refused("mallory puts a copy of an older version", Mallory, Deed::Replace(json!({"metadata": {"resourceVersion": "1", "annotations": null}})), "the object has been modified"),
        refused("mallory applies it without the vote as its manager", Mallory, Deed::Apply("hallpass", json!({"metadata": {"annotations": { bob.as_str(): "" }}})), "a1b2c3d4.lead.bob|you may not vote in stage lead"),
        refused("carol makes bob's vote hers", Carol, moved_to("carol"), KEPT),
        refused("mallory tests and replaces bob's vote", Mallory, tested_and_replaced("{mallory}"), "has not yet recorded approve.hallpass.dev/a1b2c3d4.lead.bob of {bob}|you may not vote in stage lead"),
        refused("carol tests and replaces bob's vote", Carol, tested_and_replaced("{carol}"), KEPT),
        refused("mallory plants a last-applied annotation and removes it", Mallory, notes(json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", bob.as_str(): null})), KEPT),
        refused("mallory changes the case of the vote's key", Mallory, notes(json!({ bob.as_str(): null, "Approve.hallpass.dev/a1b2c3d4.lead.bob": "{bob}" })), KEPT),
        refused("dave, who is security, removes bob's vote", Dave, note(&bob, Value::Null), KEPT),
    ];
    let clears = Deed::Merge(json!({"metadata": {"annotations": null}}));
    lines.extend(if stamp {
        vec![
            allowed("flux takes all annotations away", Flux, clears),
            holds("the vote is kept", pointer(&bob), "{bob}"),
        ]
    } else {
        vec![refused("flux takes all annotations away", Flux, clears, KEPT)]
    });
    lines.extend([
        status(json!({"votes": [recorded("lead", "bob", "bob")]})),
        allowed("mallory tidies away what is recorded", Mallory, note(&bob, Value::Null)),
        refused("bob uses a recorded key again", Bob, vote("lead", "bob"), "was used before on this request; choose another last part"),
        refused("mallory replays bob's recorded vote", Mallory, vote("lead", "bob"), "was used before on this request|you may not vote in stage lead"),
        refused("carol replays bob's recorded vote", Carol, vote("lead", "bob"), "was used before on this request"),
        allowed("carol denies", Carol, deny("lead", "carol")),
        refused("alice removes carol's no", Alice, note(&key("deny", "lead", "carol"), Value::Null), "has not yet recorded deny.hallpass.dev/a1b2c3d4.lead.carol of {carol}"),
        refused("alice puts nothing in place of carol's no", Alice, note(&key("deny", "lead", "carol"), ""), "a1b2c3d4.lead.carol|you may not vote in stage lead"),
        refused("bob turns carol's no into a yes", Bob, notes(json!({ key("deny", "lead", "carol"): null, key("approve", "lead", "carol"): "{carol}" })), "has not yet recorded deny.hallpass.dev/a1b2c3d4.lead.carol"),
    ]);
    lines
}

#[rustfmt::skip] // one attack a line
pub fn ballots(stamp: bool) -> Vec<Line> {
    let eight: Vec<Value> = (0..8).map(|i| recorded("lead", &format!("c{i}"), "carol")).collect();
    let mut lines = vec![
        fresh(),
        status(json!({"ballot": "ffff0000"})),
        refused("bob votes on the ballot from before a change of the policy", Bob, vote("lead", "bob"), "a vote on this request is an annotation named approve.hallpass.dev/ffff0000.STAGE"),
        allowed("bob votes on the new ballot", Bob, on_ballot("ffff0000")),
        fresh(),
        allowed("bob votes", Bob, vote("lead", "bob")),
        status(json!({"ballot": "00002222"})),
        allowed("anybody tidies away a vote on an old ballot", Mallory, note(&key("approve", "lead", "bob"), Value::Null)),
        Line::Fresh(Alice, json!({})),
        status(json!({ "votes": eight })),
        refused("carol votes for the ninth time", Carol, vote("lead", "carol"), "you have voted on this request or ended it 8 times"),
        fresh(),
        allowed("oscar, whose token tells no groups, votes: the operator decides", Oscar, vote("lead", "oscar")),
        Line::Fresh(Alice, json!({"policyName": "{policy}"})),
        allowed("alice deletes it", Alice, Deed::Delete),
        Line::Fresh(Alice, json!({})),
        status(json!({"ballot": "0000bbbb"})),
        refused("bob's vote was meant for the request before", Bob, vote("lead", "bob"), "named approve.hallpass.dev/0000bbbb.STAGE"),
    ];
    let yes = |who: Who, what, last| refused(what, who, vote_of("lead", last, "yes"), "must be your own username: ");
    lines.push(fresh());
    lines.extend(if stamp {
        vec![
            allowed("bob votes with yes", Bob, vote_of("lead", "bob", "yes")),
            holds("it is his name", pointer(&key("approve", "lead", "bob")), "{bob}"),
            refused("mallory votes with yes", Mallory, vote_of("lead", "m", "yes"), "you may not vote in stage lead|must be your own username: {mallory}"),
            refused("argo votes with yes", Argo, vote_of("lead", "x", "yes"), "service accounts and system users cannot vote; you are |you may not vote in stage lead"),
            refused("carol says yes in bob's place", Carol, vote_of("lead", "bob", "yes"), KEPT),
        ]
    } else {
        vec![
            yes(Bob, "bob votes with yes", "bob"),
            yes(Carol, "carol says yes in bob's place", "bob"),
            refused("mallory votes with yes", Mallory, vote_of("lead", "m", "yes"), "you may not vote in stage lead|must be your own username: {mallory}"),
        ]
    });
    lines
}
