//! Access is given: to whom, what of it, and from when on.

use hallpass::api::{AccessRequest, AccessRequestStatus, FINALIZER, Phase, TargetState};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    keycloak_admin::unique,
    people::Person,
    request::{Request, condition},
    world::{World, file},
};

/// All that names can hold and URLs cannot.
const NAMES: [&str; 10] =
    ["a b", "a/b", "a;b=c", "100%25 _*", "a#b?c&d", "a+b", "it's \"q\"", "äöü-日本-🔑", "a\\b//c", "~.-_"];

/// RFC 3339, so many seconds from now.
fn in_seconds(seconds: i64) -> Timestamp {
    let time = Timestamp::now() + SignedDuration::from_secs(seconds);
    Timestamp::from_second(time.as_second()).unwrap()
}

/// Waits until so many votes are recorded, and sees that the request still waits.
async fn still_waits(request: &Request, votes: usize) -> AccessRequestStatus {
    let status = request.until(&format!("recorded {votes} votes"), |status| status.votes.len() == votes).await;
    assert_eq!(status.phase, Some(Phase::Pending), "{}", condition(&status, "Ready").message);
    status
}

#[tokio::test]
async fn what_bob_approves_alice_has_until_the_deadline() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy =
        w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]).ready().await;
    // when
    let request = alice.asks(&policy).lasting("12s").create().await.unwrap();
    request.says(Phase::Pending, "WaitingForVotes").await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    bob.approves(&request, "lead").await.unwrap();
    // then
    let status = request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    assert!(alice.has_role_in_token(&role.name).await);
    assert_eq!(status.approved_by.as_deref(), Some(bob.username.as_str()));
    let status = request.reaches(Phase::Expired).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    assert!(!alice.has_role_in_token(&role.name).await);
    let grant = status.grant.unwrap();
    assert!(grant.ended_at.unwrap().0 >= grant.deadline.0, "not before the deadline");
    assert!(Timestamp::now() >= grant.deadline.0);
    w.clean_up().await;
}

#[tokio::test]
async fn the_groups_of_a_policy_are_those_of_keycloak() {
    // given
    let w = World::new().await;
    let (team, leads) = (w.keycloak.group(None, &unique("team")).await, w.keycloak.group(None, &unique("leads")).await);
    let alice = w.person("alice").await.in_group(&team).await;
    let bob = w.person("bob").await.in_group(&leads).await;
    let role = w.keycloak.realm_role("admin").await;
    let policy =
        w.policy("oncall").realm_role("admin", &role.name).requester_group(&team).stage_group("lead", 1, &leads);
    let policy = policy.ready().await;
    // when
    let request = alice.asks(&policy).create().await.unwrap();
    bob.approves(&request, "lead").await.unwrap();
    // then
    request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_realm_role_a_client_role_and_a_group_alone_and_together() {
    // given
    let w = World::new().await;
    let role = w.keycloak.realm_role("admin").await;
    let client = w.keycloak.robot(&[]).await.client_id;
    w.keycloak.client_role(&client, "debug").await;
    let group = w.keycloak.group(None, &unique("oncall")).await;
    let policy = w.policy("all").realm_role("admin", &role.name).client_role("debug", &client, "debug");
    let policy = policy.group("oncall", &group.path).everybody().automatic().ready().await;
    let wishes = [vec!["admin"], vec!["debug"], vec!["oncall"], vec!["oncall", "admin"], vec![]];
    // when
    let mut asked = Vec::new();
    for wish in wishes {
        let alice = w.person("alice").await;
        let ask = alice.asks(&policy);
        let ask = if wish.is_empty() { ask } else { ask.grants(wish.iter().copied()) };
        asked.push((alice, ask.create().await.unwrap(), wish));
    }
    // then
    let has = async |alice: &Person| {
        let roles = w.keycloak.realm_roles(&alice.user).await;
        let mut has = Vec::new();
        has.extend(w.keycloak.groups(&alice.user).await.contains(&group.path).then_some("oncall"));
        has.extend(roles.contains(&role.name).then_some("admin"));
        has.extend((w.keycloak.client_roles(&alice.user, &client).await == ["debug"]).then_some("debug"));
        has
    };
    for (alice, request, wish) in &asked {
        let status = request.reaches(Phase::Active).await;
        let all = vec!["oncall", "admin", "debug"];
        let wish = if wish.is_empty() { &all } else { wish };
        assert_eq!(&has(alice).await, wish);
        assert_eq!(status.grant.unwrap().targets.len(), wish.len());
        let claims = alice.claims().await;
        assert_eq!(claims["groups"] == json!([group.path]), wish.contains(&"oncall"), "{claims}");
        assert_eq!(
            claims["resource_access"][&client]["roles"] == json!(["debug"]),
            wish.contains(&"debug"),
            "{claims}"
        );
        assert_eq!(claims["roles"].to_string().contains(&role.name), wish.contains(&"admin"), "{claims}");
    }
    for (alice, request, _) in &asked {
        alice.ends(request).await.unwrap();
        let status = request.reaches(Phase::Revoked).await;
        assert!(has(alice).await.is_empty());
        assert!(status.grant.unwrap().targets.iter().all(|target| target.state == TargetState::Removed));
    }
    w.clean_up().await;
}

#[tokio::test]
async fn names_may_hold_anything() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let client = w.keycloak.robot(&[]).await.client_id;
    let top = w.keycloak.group(None, &unique("top")).await;
    let mut policy = w.policy("names").requester(&alice).automatic();
    let (mut roles, mut groups) = (Vec::new(), Vec::new());
    for (i, name) in NAMES.iter().enumerate() {
        let role = w.keycloak.realm_role(name).await;
        let group = w.keycloak.group(Some(&top), name).await;
        policy = policy.realm_role(&format!("realm-{i}"), &role.name).group(&format!("group-{i}"), &group.path);
        policy = policy.client_role(&format!("client-{i}"), &client, name);
        roles.push(role);
        roles.push(w.keycloak.client_role(&client, name).await);
        groups.push(group.path);
    }
    let policy = policy.ready().await;
    // when
    let request = alice.asks(&policy).create().await.unwrap();
    // then
    let status = request.reaches(Phase::Active).await;
    for role in &roles {
        assert!(w.keycloak.has(&alice.user, role).await, "{role:?}");
    }
    let joined = w.keycloak.groups(&alice.user).await;
    assert!(groups.iter().all(|path| joined.contains(path)), "{groups:?} {joined:?}");
    assert_eq!(status.grant.unwrap().targets.len(), 3 * NAMES.len());
    alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    for role in &roles {
        assert!(!w.keycloak.has(&alice.user, role).await, "{role:?}");
    }
    assert_eq!(w.keycloak.groups(&alice.user).await, Vec::<String>::new());
    w.clean_up().await;
}

#[tokio::test]
async fn an_automatic_policy_needs_nobody_and_must_say_so() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("read").await;
    let policy = |name| w.policy(name).realm_role("read", &role.name).everybody();
    // when it does not say so, or says both
    for wrong in [
        policy("silent"),
        policy("empty").with("approval", json!({"stages": []})),
        policy("both").automatic().stage("lead", 1, [&bob]),
    ] {
        let refusal = wrong.create().await.err().expect("refused");
        // then
        assert!(refusal.contains("spec.approval"), "{refusal}");
        assert!(refusal.contains("name at least one stage, or say automatic: true, and not both"), "{refusal}");
    }
    // when it says so
    let automatic = policy("read").automatic().ready().await;
    let request = alice.asks(&automatic).create().await.unwrap();
    // then
    let status = request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    assert_eq!(status.approved_by, Some(format!("policy {} (automatic)", automatic.name)));
    assert_eq!((status.ballot, status.votes.len()), (None, 0), "there is nothing to vote on");
    w.clean_up().await;
}

#[tokio::test]
async fn two_stages_want_three_people_in_any_order() {
    // given
    let w = World::new().await;
    let (bob, carol, dave) = (w.person("bob").await, w.person("carol").await, w.person("dave").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("breakglass").realm_role("admin", &role.name).everybody();
    let policy = policy.stage("lead", 1, [&bob, &carol]).stage("security", 2, [&carol, &dave, &bob]).ready().await;
    let (lead, security) = ("lead", "security");
    // Carol votes in both stages in the last one: she is placed where she is needed.
    let orders = [
        vec![(&bob, lead), (&carol, security), (&dave, security)],
        vec![(&dave, security), (&carol, security), (&bob, lead)],
        vec![(&carol, lead), (&carol, security), (&dave, security), (&bob, lead)],
    ];
    for order in orders {
        // when
        let alice = w.person("alice").await;
        let request = alice.asks(&policy).lasting("1h").create().await.unwrap();
        let (last, before) = order.split_last().unwrap();
        for (i, (voter, stage)) in before.iter().enumerate() {
            voter.approves(&request, stage).await.unwrap();
            still_waits(&request, i + 1).await;
            assert!(!w.keycloak.has(&alice.user, &role).await);
        }
        last.0.approves(&request, last.1).await.unwrap();
        // then
        let status = request.reaches(Phase::Active).await;
        assert!(w.keycloak.has(&alice.user, &role).await);
        assert_eq!(status.votes.iter().filter(|vote| vote.counted).count(), 3, "{:?}", status.votes);
    }
    w.clean_up().await;
}

#[tokio::test]
async fn approved_now_and_active_at_not_before() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy =
        w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]).ready().await;
    let start = in_seconds(20);
    // when
    let ask = alice.asks(&policy).lasting("12s").with("notBefore", json!(start.to_string()));
    let request = ask.create().await.unwrap();
    bob.approves(&request, "lead").await.unwrap();
    // then
    let message = request.says(Phase::Approved, "WaitingForStart").await;
    assert!(message.contains(&start.to_string()), "{message}");
    assert!(Timestamp::now() < start, "approved long before it starts");
    assert!(request.get().await.finalizers().is_empty(), "what has given nothing can be deleted, whoever is there");
    assert!(!w.keycloak.has(&alice.user, &role).await);
    let grant = request.reaches(Phase::Active).await.grant.unwrap();
    assert!(grant.starts_at.0 >= start, "{grant:?}");
    assert_eq!(request.get().await.finalizers(), [FINALIZER]);
    assert_eq!(grant.deadline.0, grant.starts_at.0 + SignedDuration::from_secs(12), "the clock starts with the access");
    assert!(w.keycloak.has(&alice.user, &role).await);
    request.reaches(Phase::Expired).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

/// Keeps the operator's finalizer off all requests of a namespace: somebody else's rules.
fn without_finalizers(name: &str, namespace: &str) -> String {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["hallpass.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["accessrequests"],
            }]},
            "validations": [{"expression": format!("!('{FINALIZER}' in object.metadata.?finalizers.orValue([]))")}],
        },
    });
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector}},
    });
    format!("{policy}\n---\n{binding}\n")
}

#[tokio::test]
async fn what_is_agreed_stays_so_while_somebody_keeps_the_finalizer_off_and_nothing_is_given() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy =
        w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]).ready().await;
    let request = alice.asks(&policy).lasting("10m").create().await.unwrap();
    request.reaches(Phase::Pending).await;
    let rules = file("rules", &without_finalizers(&unique("foreign"), &w.namespace));
    let rules = rules.to_str().unwrap();
    assert!(w.kubectl(&["apply", "--filename", rules]).await.status.success());
    let requests: Api<AccessRequest> = request.api(w.operator_account().await);
    let on = Patch::Merge(json!({"metadata": {"finalizers": [FINALIZER]}}));
    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    w.until("it is kept off", async || requests.patch(&request.name, &dry_run, &on).await.is_err()).await;
    // when
    bob.approves(&request, "lead").await.unwrap();
    // then
    let status = request.reaches(Phase::Approved).await;
    assert_eq!(status.approved_by.as_deref(), Some(&*bob.username));
    assert!(status.votes.iter().all(|vote| vote.counted) && status.grant.is_none(), "{status:?}");
    assert!(!w.keycloak.has(&alice.user, &role).await);
    // when
    assert!(w.kubectl(&["delete", "--filename", rules]).await.status.success());
    // then
    request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn not_after_ends_what_would_last_longer() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    let end = in_seconds(20);
    // when
    let ask = alice.asks(&policy).lasting("1h").with("notAfter", json!(end.to_string()));
    let request = ask.create().await.unwrap();
    // then
    assert_eq!(request.reaches(Phase::Active).await.grant.unwrap().deadline.0, end);
    assert!(w.keycloak.has(&alice.user, &role).await);
    request.reaches(Phase::Expired).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}
