//! What is written while nobody looks: while the operator is stopped, or while the admission policies are not in force.

use hallpass::api::{APPROVE, DENY, Phase};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{people::Person, policy::Policy, request::Request, world::World};

/// Whether `/readyz` and the metric say that the admission policies are in force.
async fn says_in_force(w: &World) -> (u16, bool, String) {
    let (status, words) = w.stack.ask_operator("/readyz").await.unwrap();
    let metrics = w.stack.ask_operator("/metrics").await.unwrap().1;
    (status, metrics.contains("hallpass_admission_policies_in_force 1\n"), words)
}

/// A policy that lends a role, and who may approve it.
async fn oncall(w: &World, alice: &Person, bob: &Person) -> (crate::keycloak_admin::Role, Policy) {
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(alice).stage("lead", 1, [bob]);
    (role, policy.ready().await)
}

#[tokio::test]
async fn what_the_controller_has_not_seen_yet_cannot_be_taken_away() {
    // given
    let w = World::alone().await;
    let (alice, bob, mallory) = (w.person("alice").await, w.person("bob").await, w.person("mallory").await);
    let (role, policy) = oncall(&w, &alice, &bob).await;
    let ask = async || alice.asks(&policy).create().await.unwrap();
    let (approved, denied, active) = (ask().await, ask().await, ask().await);
    let ballots = [approved.ballot().await, denied.ballot().await];
    bob.approves(&active, "lead").await.unwrap();
    active.reaches(Phase::Active).await;
    // when
    w.operator("stop").await;
    let votes = [
        (&approved, format!("{APPROVE}{}.lead.bob", ballots[0])),
        (&denied, format!("{DENY}{}.lead.bob", ballots[1])),
        (&active, "end.hallpass.dev/bob".to_owned()),
    ];
    for (request, key) in &votes {
        bob.annotates(request, key, &bob.username).await.unwrap();
        for (what, who, patch) in [
            ("Alice takes it away", &alice, json!({ key.as_str(): null })),
            ("Mallory takes it away", &mallory, json!({ key.as_str(): null })),
            ("Mallory takes everything away", &mallory, Value::Null),
            ("Alice writes over it", &alice, json!({ key.as_str(): alice.username })),
            ("Mallory writes over it", &mallory, json!({ key.as_str(): mallory.username })),
            ("Alice puts nothing in its place", &alice, json!({ key.as_str(): "" })),
        ] {
            let answer = who.patches(request, &json!({"metadata": {"annotations": patch}})).await;
            let words = answer.err().unwrap_or_else(|| panic!("{what}: done ({key})"));
            let said = ["has not yet recorded", "you made", "may not vote", "must be your own", "can end this request"];
            assert!(said.iter().any(|said| words.contains(said)), "{what} ({key}): {words}");
        }
    }
    w.operator("start").await;
    // then
    approved.reaches(Phase::Active).await;
    denied.reaches(Phase::Denied).await;
    active.reaches(Phase::Revoked).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

/// Mallory votes in Bob's name, once nobody keeps her from it.
async fn forges(w: &World, mallory: &Person, request: &Request, key: &str, bob: &Person) {
    w.until("the admission policies let it through", async || {
        mallory.annotates(request, key, &bob.username).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn while_the_admission_policies_are_away_nothing_is_believed_and_everything_due_is_taken() {
    // given
    let w = World::alone().await;
    let (alice, bob, mallory) = (w.person("alice").await, w.person("bob").await, w.person("mallory").await);
    let (role, policy) = oncall(&w, &alice, &bob).await;
    let other = w.keycloak.realm_role("other").await;
    let automatic = w.policy("free").realm_role("other", &other.name).requester(&alice).automatic().ready().await;
    let waiting = alice.asks(&policy).create().await.unwrap();
    let ballot = waiting.ballot().await;
    let live = alice.asks(&automatic).lasting("10m").create().await.unwrap();
    live.reaches(Phase::Active).await;
    let due = alice.asks(&automatic).lasting("5s").create().await.unwrap();
    due.reaches(Phase::Active).await;
    // when
    let away = w.weaken(&["delete", "validatingadmissionpolicybindings", "hallpass-identity", "hallpass-policy"]);
    forges(&w, &mallory, &waiting, &format!("{APPROVE}{ballot}.lead.forged"), &bob).await;
    // then: it is said, and nothing is given
    let message = waiting.says(Phase::Pending, "AdmissionPoliciesNotInForce").await;
    assert!(message.contains("ValidatingAdmissionPolicyBinding hallpass-identity is missing"), "{message}");
    w.until("an Event beside the operator says so", async || {
        let reason = "--field-selector=reason=AdmissionPoliciesNotInForce";
        w.does(&["get", "events", "--namespace=hallpass-system", reason]).await.contains("hallpass-identity is missing")
    })
    .await;
    let (status, in_force, words) = says_in_force(&w).await;
    assert_eq!((status, in_force), (503, false), "{words}");
    assert!(
        words.contains("[-] admission policies: ValidatingAdmissionPolicyBinding hallpass-identity is missing"),
        "{words}"
    );
    let forged = mallory.asks(&policy).with("requester", json!(alice.username)).with("submittedBy", Value::Null);
    let forged = forged.create_with(&w.admin).await.unwrap();
    let innocent = alice.asks(&automatic).create().await.unwrap();
    for request in [&forged, &innocent] {
        let message = request.says(Phase::Rejected, "NotAuthenticated").await;
        assert!(message.contains("create it again"), "{message}");
    }
    due.reaches(Phase::Expired).await;
    live.api(w.admin.clone()).delete(&live.name, &kube::api::DeleteParams::default()).await.unwrap();
    live.is_gone().await;
    assert!(!w.keycloak.has(&alice.user, &other).await);
    assert!(waiting.status().await.votes.is_empty());
    // when they are back
    away.mended(&w).await;
    assert!(says_in_force(&w).await.1);
    // then: what was forged meanwhile does not count, on this ballot or the next
    let status = waiting.until("another ballot", |status| status.ballot.as_ref() != Some(&ballot)).await;
    assert_eq!(status.phase, Some(Phase::Pending));
    assert!(status.votes.iter().all(|vote| !vote.counted));
    assert!(!w.keycloak.has(&alice.user, &role).await);
    bob.approves(&waiting, "lead").await.unwrap();
    waiting.reaches(Phase::Active).await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_weakened_admission_policy_is_named_and_nothing_is_granted() {
    // given
    let w = World::alone().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let (role, policy) = oncall(&w, &alice, &bob).await;
    let waiting = alice.asks(&policy).create().await.unwrap();
    let ballot = waiting.ballot().await;
    for (kind, name, patch, words) in [
        (
            "validatingadmissionpolicybinding",
            "hallpass-identity",
            json!({"spec": {"validationActions": ["Audit"]}}),
            "ValidatingAdmissionPolicyBinding hallpass-identity differs at spec.validationActions[0]",
        ),
        (
            "validatingadmissionpolicy",
            "hallpass-identity",
            json!({"spec": {"failurePolicy": "Ignore"}}),
            "ValidatingAdmissionPolicy hallpass-identity differs at spec.failurePolicy",
        ),
        (
            "validatingadmissionpolicybinding",
            "hallpass-policy",
            json!({"spec": {"paramRef": {"selector": {"matchLabels": {"a": "b"}}}}}),
            "ValidatingAdmissionPolicyBinding hallpass-policy differs at spec.paramRef.selector.matchLabels",
        ),
    ] {
        // when
        let weak = w.weaken(&["patch", kind, name, "--type=merge", "--patch", &patch.to_string()]);
        let request = alice.asks(&policy).create().await.unwrap();
        // then
        let message = request.says(Phase::Rejected, "NotAuthenticated").await;
        assert!(message.contains(words), "{message}");
        let (status, in_force, said) = says_in_force(&w).await;
        assert!(status == 503 && !in_force && said.contains(words), "{said}");
        weak.mended(&w).await;
    }
    // then: what waited is voted on anew, whatever it is that makes the controller look
    alice.annotates(&waiting, "example.com/note", "still needed").await.unwrap();
    let epoch =
        w.does(&["get", "configmap", "hallpass-trust", "-n=hallpass-system", "-o=jsonpath={.data.epoch}"]).await;
    let status = waiting.until("a ballot of this epoch", |status| status.trust_epoch.as_ref() == Some(&epoch)).await;
    assert_ne!(status.ballot.as_ref(), Some(&ballot));
    bob.approves(&waiting, "lead").await.unwrap();
    waiting.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    let status = json!({"status": {"phase": "Active"}});
    let api = waiting.api(w.admin.clone());
    let answer = api.patch_status(&waiting.name, &PatchParams::default(), &Patch::Merge(status)).await;
    assert!(answer.unwrap_err().to_string().contains("only the operator writes status"), "they bite again");
    w.clean_up().await;
}
