//! Who did not ask, was not asked, or is not the operator: refused by the API server at once, in words that say why.

use hallpass::api::{FINALIZER, Phase};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    attacks::{Attack, Deed, Scene, all_are_refused, metadata, note, says_one_of},
    request::Ask,
};

#[tokio::test]
async fn nobody_asks_in_the_name_of_another() {
    let scene = Scene::new().await;
    let Scene { w, alice, bob, mallory, policy, .. } = &scene;
    let window = |ask: Ask| {
        ask.with("preApproved", json!(true))
            .with("notBefore", json!("2030-01-01T00:00:00Z"))
            .with("notAfter", json!("2030-01-02T00:00:00Z"))
    };
    let for_alice = || mallory.asks(policy).with("requester", json!(alice.username));
    let loud = alice.username.to_uppercase().replacen("OIDC", "oidc", 1);
    let many = (0..300).fold(alice.asks(policy), |ask, i| ask.annotated(&format!("note-{i}"), ""));
    let attacks: Vec<(&str, Ask, &str)> = vec![
        ("for Alice", for_alice(), "you may not submit requests for others under policy"),
        (
            "for Alice, handed in by Alice",
            for_alice().with("submittedBy", json!(alice.username)),
            "spec.submittedBy must be your own username|you may not submit requests for others",
        ),
        ("for Alice, approved already", window(for_alice()), "you may not submit requests for others"),
        (
            "approved already by oneself",
            window(alice.asks(policy)).with("submittedBy", json!(alice.username)),
            "you cannot pre-approve a request for yourself|you may not pre-approve requests under policy",
        ),
        (
            "for a user of Kubernetes itself",
            mallory.asks(policy).with("requester", json!("system:kube-controller-manager")),
            "a system user cannot be a requester|you may not submit requests for others",
        ),
        (
            "for oneself, in capitals",
            alice.asks(policy).with("requester", json!(loud)),
            "may not submit requests for others",
        ),
        ("for oneself, without being listed", mallory.asks(policy), "you may not ask under policy"),
        (
            "with Bob's approval",
            alice.asks(policy).annotated("approve.hallpass.dev/x.lead.b", &bob.username),
            "a new AccessRequest cannot carry votes or an end",
        ),
        ("with a yes", alice.asks(policy).annotated("approve.hallpass.dev/x.lead.b", "yes"), "cannot carry votes"),
        (
            "with a deny",
            alice.asks(policy).annotated("deny.hallpass.dev/x.lead.b", &bob.username),
            "cannot carry votes",
        ),
        (
            "with an end",
            alice.asks(policy).annotated("end.hallpass.dev/x", &alice.username),
            "cannot carry votes or an end",
        ),
        (
            "with a second line that looks official",
            alice.asks(policy).because("INC-1\nApproved by security"),
            "reason is one line of plain text",
        ),
        (
            "with a line that wipes another",
            alice.asks(policy).because("INC-1\u{1b}[2K"),
            "reason is one line of plain text",
        ),
        (
            "with a line that runs backwards",
            alice.asks(policy).because("\u{202e}1-CNI"),
            "reason is one line of plain text",
        ),
        ("with 300 annotations", many, "at most 64 annotations"),
    ];
    for (what, ask, words) in attacks {
        let answer = ask.create().await.err().unwrap_or_else(|| panic!("{what}: done"));
        assert!(says_one_of(&answer, words), "{what}: not refused for {words:?}, but: {answer}");
    }
    for (what, who, words) in [
        ("the administrator", &w.admin, "you may not submit requests for others"),
        ("a service account", &scene.robot.client, "you may not submit requests for others"),
        ("the operator", &scene.operator, "cannot create resource"),
    ] {
        let answer = alice.asks(policy).create_with(who).await.err().unwrap_or_else(|| panic!("{what}: done"));
        assert!(says_one_of(&answer, words), "{what}: not refused for {words:?}, but: {answer}");
    }
    let written = w.requests().list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(written.items.len(), 0, "{written:?}");
    scene.nothing_was_given().await;
    w.clean_up().await;
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn nobody_votes_or_writes_for_another_while_a_request_waits() {
    // given
    let scene = Scene::new().await;
    let Scene { w, alice, bob, carol, robot, operator, .. } = &scene;
    let request = alice.asks(&scene.policy).because("INC-1").create().await.unwrap();
    let ballot = request.ballot().await;
    let before = request.get().await;
    let key = |stage: &str| format!("approve.hallpass.dev/{ballot}.{stage}.x");
    let lead = &key("lead");
    let (a, b, c) = (&alice.client().await, &bob.client().await, &carol.client().await);
    let (m, admin) = (&scene.mallory.client().await, &w.admin);
    let vote = json!({
        "stage": "lead", "decision": "Approve", "by": bob.username, "at": "2026-01-01T00:00:00Z", "key": lead, "counted": true,
    });
    let approved = json!({"phase": "Approved", "approvedBy": bob.username, "observedGeneration": 1});
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "11111111-1111-1111-1111-111111111111"}]);
    let two = json!({"metadata": {"annotations": { lead: bob.username, key("security"): bob.username }}});
    let many: serde_json::Map<String, Value> = (0..300).map(|i| (format!("note-{i}"), json!(""))).collect();
    // when
    let attacks: Vec<Attack<'_>> = vec![
        ("Mallory, for Bob", m, note(lead, &bob.username), "must be your own username|you may not vote"),
        ("Mallory, for herself", m, note(lead, "yes"), "you may not vote in stage lead of policy"),
        ("Alice, on her own", a, note(lead, "yes"), "you cannot vote on a request that you made|you may not vote"),
        (
            "Alice, for Bob",
            a,
            note(lead, &bob.username),
            "you cannot vote on a request that you made|must be your own|you may not",
        ),
        ("Carol, for Bob", c, note(lead, &bob.username), "must be your own username|you may not vote in stage lead"),
        (
            "Bob, with a manifest of Carol's",
            b,
            note(&key("security"), &carol.username),
            "must be your own|you may not vote",
        ),
        ("Bob, in another stage", b, note(&key("security"), "yes"), "you may not vote in stage security"),
        ("Bob, in no stage of the policy", b, note(&key("leed"), "yes"), "has no stage leed; it has lead, security"),
        ("Bob, in capitals", b, note(&key("LEAD"), "yes"), "has no stage LEAD|is an annotation named"),
        ("Bob, without a stage", b, note(&key(""), "yes"), "has no stage|is an annotation named"),
        (
            "Bob, on another ballot",
            b,
            note("approve.hallpass.dev/deadbeef.lead.x", "yes"),
            "is an annotation named approve.hallpass.dev/",
        ),
        ("Bob, twice at once", b, Deed::Patch(two), "one vote at a time"),
        ("Bob, with 100 kB", b, note(lead, "x".repeat(100_000)), "must be your own username"),
        ("the administrator", admin, note(lead, "yes"), "you may not vote in stage lead"),
        ("the administrator, for Bob", admin, note(lead, &bob.username), "must be your own username|you may not vote"),
        (
            "a service account",
            &robot.client,
            note(lead, &robot.username),
            "service accounts and system users cannot vote|you may not vote",
        ),
        (
            "the operator",
            operator,
            note(lead, "system:serviceaccount:hallpass-system:hallpass"),
            "service accounts and system users cannot vote",
        ),
        (
            "Alice, a vote in status",
            a,
            Deed::Status(json!({"votes": [vote]})),
            "cannot patch resource \"accessrequests/status\"",
        ),
        (
            "the namespace's owner, a vote in status",
            m,
            Deed::Status(json!({"votes": [vote]})),
            "only the operator writes status",
        ),
        (
            "the administrator, a vote in status",
            admin,
            Deed::Status(json!({"votes": [vote]})),
            "only the operator writes status",
        ),
        ("a service account, a phase", &robot.client, Deed::Status(approved), "only the operator writes status"),
        (
            "the administrator, the policy pin",
            admin,
            Deed::Status(json!({"policy": {"uid": "x", "generation": 1}})),
            "only the operator writes status",
        ),
        (
            "the administrator, the ballot",
            admin,
            Deed::Status(json!({"ballot": "deadbeef"})),
            "only the operator writes status",
        ),
        ("Alice, the spec", a, Deed::Patch(json!({"spec": {"duration": "1h"}})), "spec is immutable"),
        (
            "the administrator, the spec",
            admin,
            Deed::Patch(json!({"spec": {"requester": "oidc:x"}})),
            "spec is immutable",
        ),
        (
            "the operator, the spec",
            operator,
            Deed::Patch(json!({"spec": {"grants": []}, "metadata": {}})),
            "spec is immutable",
        ),
        (
            "Mallory, an owner",
            m,
            metadata("ownerReferences", owner),
            "owner references of an AccessRequest cannot be changed",
        ),
        ("Mallory, a finalizer", m, metadata("finalizers", ["evil.example/x"]), "finalizers cannot be added"),
        ("Mallory, our finalizer", m, metadata("finalizers", [FINALIZER]), "finalizers cannot be added"),
        ("Mallory, 300 annotations", m, metadata("annotations", many), "at most 64 annotations"),
        ("Mallory, an end", m, note("end.hallpass.dev/x", "yes"), "can end this request"),
        (
            "Mallory, an end of Alice's",
            m,
            note("end.hallpass.dev/x", &alice.username),
            "must be your own|can end this request",
        ),
        ("the administrator, an end", admin, note("end.hallpass.dev/x", "yes"), "can end this request"),
        ("Mallory deletes it", m, Deed::Delete, "can end this request"),
        ("a service account deletes it", &robot.client, Deed::Delete, "can end this request"),
    ];
    all_are_refused(&request, attacks).await;
    // then
    let after = request.get().await;
    assert_eq!((&after.spec, &after.status), (&before.spec, &before.status));
    assert_eq!(after.metadata.annotations, before.metadata.annotations);
    scene.nothing_was_given().await;
    w.clean_up().await;
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn nobody_prolongs_or_revives_an_access_not_even_the_operator_s_account() {
    // given
    let scene = Scene::new().await;
    let Scene { w, alice, bob, carol, robot, operator, role, .. } = &scene;
    let request = alice.asks(&scene.policy).lasting("10m").create().await.unwrap();
    bob.approves(&request, "lead").await.unwrap();
    carol.approves(&request, "security").await.unwrap();
    let active = request.reaches(Phase::Active).await;
    let ballot = active.ballot.clone().unwrap();
    let later = note(&format!("approve.hallpass.dev/{ballot}.lead.late"), "yes");
    let grant = serde_json::to_value(active.grant.clone().unwrap()).unwrap();
    let but = |key: &str, value: Value| {
        let mut grant = grant.clone();
        grant[key] = value;
        Deed::Status(json!({ "grant": grant }))
    };
    let mut had_it = grant["targets"].clone();
    had_it[0]["preExisting"] = json!(true);
    let (a, b, m, admin) = (&alice.client().await, &bob.client().await, &scene.mallory.client().await, &w.admin);
    // when it is Active
    let attacks: Vec<Attack<'_>> = vec![
        (
            "the operator, an hour more",
            operator,
            but("deadline", json!("2031-01-01T00:00:00Z")),
            "a deadline never moves later",
        ),
        (
            "the operator, no grant",
            operator,
            Deed::Status(json!({"grant": null})),
            "a deadline never moves later|targets are never taken out",
        ),
        ("the operator, no target", operator, but("targets", json!([])), "targets are never taken out"),
        (
            "the operator, a role that was there before",
            operator,
            but("targets", had_it),
            "preExisting never becomes true",
        ),
        (
            "the operator, a longer duration",
            operator,
            Deed::Patch(json!({"spec": {"duration": "1h"}})),
            "spec is immutable",
        ),
        (
            "the administrator, an hour more",
            admin,
            but("deadline", json!("2031-01-01T00:00:00Z")),
            "only the operator writes status|never moves later",
        ),
        ("Bob, a late vote", b, later, "only a Pending request can be voted on; this one is Active"),
        ("Alice, no finalizer", a, metadata("finalizers", Value::Null), "only the operator removes its finalizer"),
        ("Mallory, no finalizer", m, metadata("finalizers", Value::Null), "only the operator removes its finalizer"),
        (
            "the administrator, no finalizer",
            admin,
            metadata("finalizers", Value::Null),
            "only the operator removes its finalizer",
        ),
        (
            "Mallory, another finalizer",
            m,
            metadata("finalizers", [FINALIZER, "evil.example/x"]),
            "finalizers cannot be added",
        ),
        ("Mallory deletes it", m, Deed::Delete, "can end this request"),
        ("a service account deletes it", &robot.client, Deed::Delete, "can end this request"),
    ];
    all_are_refused(&request, attacks).await;
    let robots = request.api(robot.client.clone());
    let without = json!({"metadata": {"finalizers": null}});
    robots.patch(&request.name, &PatchParams::default(), &Patch::Merge(without)).await.unwrap();
    // then
    let now = request.get().await;
    assert_eq!(now.metadata.finalizers, Some(vec![FINALIZER.to_owned()]), "what Git does not say is kept");
    assert_eq!(now.status.unwrap().grant, active.grant);
    // when it is over
    alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    let late = note(&format!("approve.hallpass.dev/{ballot}.lead.late"), "yes");
    let attacks: Vec<Attack<'_>> = vec![
        (
            "the operator, Active again",
            operator,
            Deed::Status(json!({"phase": "Active"})),
            "stays so|a final phase never changes",
        ),
        (
            "the operator, no phase",
            operator,
            Deed::Status(json!({"phase": null})),
            "stays so|a final phase never changes",
        ),
        (
            "the operator, Expired",
            operator,
            Deed::Status(json!({"phase": "Expired"})),
            "stays so|a final phase never changes",
        ),
        (
            "the operator, an hour more",
            operator,
            but("deadline", json!("2031-01-01T00:00:00Z")),
            "a deadline never moves later",
        ),
        (
            "the administrator, Pending",
            admin,
            Deed::Status(json!({"phase": "Pending"})),
            "only the operator writes status|stays so|a final phase never changes",
        ),
        ("Bob, a late vote", b, late, "only a Pending request can be voted on; this one is Revoked|nothing to end"),
        (
            "Alice ends it again",
            a,
            note("end.hallpass.dev/again", "yes"),
            "there is nothing to end: this request is Revoked",
        ),
    ];
    all_are_refused(&request, attacks).await;
    assert_eq!(request.status().await.phase, Some(Phase::Revoked));
    assert!(!w.keycloak.has(&alice.user, role).await);
    w.clean_up().await;
}
