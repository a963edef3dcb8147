//! Access is refused: by the API server at once where it can tell, by the operator where only Keycloak can, and in words
//! that say what to change.

use hallpass::api::Phase;
use serde_json::json;

use crate::{
    keycloak_admin::{Role, unique},
    people::Person,
    policy::PolicyBuilder,
    realms::BY_EMAIL,
    request::{Ask, condition},
    world::World,
};

/// A policy with every limit there is, for requests of these people.
fn strict(w: &World, role: &Role, people: &[&Person]) -> PolicyBuilder {
    let reason = json!({"required": true, "pattern": "^INC-[0-9]+", "hint": "start with the incident number"});
    let policy =
        w.policy("strict").realm_role("admin", &role.name).lasting_at_most("1h").in_own_namespace().automatic();
    people.iter().fold(policy.with("reason", reason), |policy, person| policy.requester(person))
}

#[tokio::test]
async fn every_limit_of_a_policy_is_told_at_once_by_the_api_server() {
    // given
    let w = World::new().await;
    let (alice, mallory) = (w.person("alice").await, w.person("mallory").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = strict(&w, &role, &[&alice]).ready().await;
    let elsewhere = unique("elsewhere");
    w.make_namespace(&elsewhere).await;
    let good = || alice.asks(&policy).because("INC-1: down").lasting("5m");
    let cases: [(Ask, String); 6] = [
        (good().lasting("61m"), format!("spec.duration 61m is longer than the 1h that policy {} allows", policy.name)),
        (good().grants(["admin", "root"]), format!("policy {} has no grant root; it has admin", policy.name)),
        (
            good().with("reason", json!(null)),
            format!("policy {} wants a reason in spec.reason: start with the incident number", policy.name),
        ),
        (
            good().because("please"),
            "spec.reason \"please\" must match ^INC-[0-9]+ (start with the incident number)".into(),
        ),
        (
            good().in_namespace(&elsewhere),
            format!("policy {} serves the namespaces {}, not {elsewhere}", policy.name, w.namespace),
        ),
        (
            mallory.asks(&policy).because("INC-1: down"),
            format!("you may not ask under policy {}: it serves User {}", policy.name, alice.username),
        ),
    ];
    for (ask, words) in cases {
        // when
        let refusal = ask.refused().await;
        // then
        assert!(refusal.contains(&words), "{words:?} is missing in: {refusal}");
    }
    let request = good().create().await.unwrap();
    request.reaches(Phase::Active).await;
    w.clean_up().await;
}

#[tokio::test]
async fn all_broken_limits_are_named_not_the_first_one() {
    // given a request that is there before its policy, so that the API server cannot tell
    let w = World::new().await;
    let (alice, mallory) = (w.person("alice").await, w.person("mallory").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = strict(&w, &role, &[&alice]).with("namespaces", json!(["elsewhere"]));
    let name = policy.name().to_owned();
    let ask = mallory.asks_under(&name).because("please").lasting("61m").grants(["root", "admin"]);
    let request = ask.create().await.unwrap();
    let message = request.says(Phase::Pending, "PolicyNotFound").await;
    assert!(message.contains(&format!("there is no policy \"{name}\"; waiting for it until")), "{message}");
    // when
    policy.ready().await;
    // then
    let message = request.says(Phase::Rejected, "Rejected").await;
    for words in [
        format!("policy {name} serves the namespaces elsewhere, not {}", w.namespace),
        format!("policy {name} has no grant root; it has admin"),
        format!("spec.duration 1h1m is longer than the 1h that policy {name} allows"),
        "spec.reason \"please\" must match ^INC-[0-9]+ (start with the incident number)".into(),
        format!("{} may not ask under policy {name}: it serves User {}", mallory.username, alice.username),
    ] {
        assert!(message.contains(&words), "{words:?} is missing in: {message}");
    }
    let status = request.status().await;
    assert_eq!(condition(&status, "Stalled").status, "True");
    assert_eq!(condition(&status, "Granted").status, "False");
    assert!(status.grant.is_none());
    assert!(!w.keycloak.has(&mallory.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_policy_that_comes_within_the_minute_is_waited_for() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("late").realm_role("admin", &role.name).requester(&alice).automatic();
    let request = alice.asks_under(policy.name()).create().await.unwrap();
    request.says(Phase::Pending, "PolicyNotFound").await;
    // when
    policy.ready().await;
    // then
    request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_policy_that_does_not_come_is_not_waited_for_longer() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    // when
    let request = alice.asks_under("nobody-wrote-it").create().await.unwrap();
    request.says(Phase::Pending, "PolicyNotFound").await;
    // then
    let status = request.reaches_within(Phase::Rejected, std::time::Duration::from_secs(90)).await;
    let ready = condition(&status, "Ready");
    assert_eq!(ready.message, "spec.policyName: there is no policy \"nobody-wrote-it\"");
    let created = request.get().await.metadata.creation_timestamp.unwrap().0;
    let waited = condition(&status, "Stalled").last_transition_time.0.duration_since(created);
    assert!((59..70).contains(&waited.as_secs()), "a minute, not {waited:#}");
    w.clean_up().await;
}

#[tokio::test]
async fn a_suspended_policy_gives_nothing() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy =
        w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]).ready().await;
    let waiting = alice.asks(&policy).create().await.unwrap();
    waiting.says(Phase::Pending, "WaitingForVotes").await;
    // when
    policy.change(json!({"suspended": true})).await;
    // then
    let message = policy.is_not_ready("Suspended").await;
    assert_eq!(message, "spec.suspended is true: nothing is granted");
    let message = waiting.says(Phase::Rejected, "Rejected").await;
    assert_eq!(message, format!("policy {} is suspended", policy.name));
    let refusal = alice.asks(&policy).refused().await;
    assert!(refusal.contains(&format!("policy {} is suspended", policy.name)), "{refusal}");
    let refusal = bob.approves(&waiting, "lead").await.unwrap_err();
    assert!(refusal.contains("only a Pending request can be voted on; this one is Rejected"), "{refusal}");
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn who_is_not_in_the_group_any_more_may_not_ask() {
    // given a token that still names the group
    let w = World::new().await;
    let team = w.keycloak.group(None, &unique("team")).await;
    let alice = w.person("alice").await.in_group(&team).await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester_group(&team).automatic().ready().await;
    alice.signs_in().await;
    w.keycloak.leave(&alice.user, &team).await;
    // when
    let request = alice.asks(&policy).create().await.unwrap();
    // then
    let message = request.says(Phase::Rejected, "Rejected").await;
    let words =
        format!("{} may not ask under policy {}: it serves Group oidc:{}", alice.username, policy.name, team.path);
    assert_eq!(message, words);
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_no_is_final() {
    // given
    let w = World::new().await;
    let (alice, bob, carol) = (w.person("alice").await, w.person("bob").await, w.person("carol").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
    let policy = policy.stage("lead", 1, [&bob]).stage("security", 1, [&carol]).ready().await;
    let request = alice.asks(&policy).create().await.unwrap();
    bob.approves(&request, "lead").await.unwrap();
    request.until("one vote", |status| status.votes.len() == 1).await;
    // when
    carol.denies(&request, "security").await.unwrap();
    // then
    let message = request.says(Phase::Denied, "Denied").await;
    assert_eq!(message, format!("denied by {} in stage security", carol.username));
    for voter in [&bob, &carol] {
        let refusal = voter.approves(&request, "security").await.unwrap_err();
        assert!(refusal.contains("only a Pending request can be voted on; this one is Denied"), "{refusal}");
    }
    let status = request.status().await;
    assert_eq!((status.phase, status.votes.len()), (Some(Phase::Denied), 2));
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn what_nobody_answers_times_out() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
    let policy = policy.stage("lead", 1, [&bob]).timeout("12s").ready().await;
    // when
    let request = alice.asks(&policy).create().await.unwrap();
    let ballot = request.ballot().await;
    // then
    let message = request.says(Phase::TimedOut, "TimedOut").await;
    let words = format!("nobody decided within 12s: waiting for 1 approval in stage lead by User {}", bob.username);
    assert_eq!(message, words);
    let late = format!("approve.hallpass.dev/{ballot}.lead.late");
    let refusal = bob.annotates(&request, &late, &bob.username).await.unwrap_err();
    assert!(refusal.contains("only a Pending request can be voted on; this one is TimedOut"), "{refusal}");
    assert!(!w.keycloak.has(&alice.user, &role).await);
    w.clean_up().await;
}

#[tokio::test]
async fn a_broken_policy_is_refused_with_the_field_named() {
    // given
    let w = World::new().await;
    let bob = w.person("bob").await;
    let good = || w.policy("broken").realm_role("admin", "any").everybody().stage("lead", 1, [&bob]);
    let duration = "must be a duration between 5s and 720h, as 30s or 1h30m";
    for (broken, words) in [
        (good().realm_role("admin", "other"), vec!["spec.grants[1]", "Duplicate value", "admin"]),
        (good().with("grants", json!([])), vec!["spec.grants", "at least 1 items"]),
        (
            good().with("grants", json!([{"name": "a", "realmRole": "r", "group": "/g"}])),
            vec!["spec.grants[0]", "exactly one of realmRole, clientRole and group"],
        ),
        (good().with("grants", json!([{"name": "On Call", "realmRole": "r"}])), vec!["spec.grants[0].name", "dashes"]),
        (good().with("grants", json!([{"name": "a", "group": "g"}])), vec!["spec.grants[0].group", "full path"]),
        (
            good().with("duration", json!({"default": "2h", "max": "1h"})),
            vec!["spec.duration.default", "must not be longer than duration.max"],
        ),
        (
            good().with("sessions", json!({"atEnd": "EndClientSessions"})),
            vec!["spec.sessions.atEnd", "all client roles", "EndAll or Keep"],
        ),
        (good().lasting_at_most("1d"), vec!["spec.duration.max", duration]),
        (good().lasting_at_most("721h"), vec!["spec.duration.max", duration]),
        (good().timeout("1s"), vec!["spec.approval.timeout", duration]),
        (
            good().with("reason", json!({"pattern": "INC-("})),
            vec!["spec.reason.pattern", "regular expression in RE2 syntax"],
        ),
        (good().stage("lead", 1, [&bob]), vec!["spec.approval.stages[1]", "Duplicate value"]),
        (good().stage("Team Lead", 1, [&bob]), vec!["spec.approval.stages[1].name", "dashes"]),
        (good().stage("none", 1, []), vec!["spec.approval.stages[1].approvers", "at least 1 items"]),
        (
            good().with("requesters", json!([{"kind": "User", "name": "x", "namespace": "n"}])),
            vec!["spec.requesters[0]", "a User or Group has none"],
        ),
        (
            good().with("requesters", json!([{"kind": "Robot", "name": "x"}])),
            vec!["spec.requesters[0].kind", "Unsupported value", "ServiceAccount"],
        ),
        (good().with("realm", json!(null)), vec!["spec.realm"]),
        (good().named(&"p".repeat(64)), vec!["at most 63 characters"]),
    ] {
        let spec = broken.spec.clone();
        // when
        let refusal = broken.create().await.err().unwrap_or_else(|| panic!("must be refused: {spec}"));
        // then
        for word in words {
            assert!(refusal.contains(word), "{word:?} is missing in: {refusal}");
        }
    }
    w.clean_up().await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_acted_on_is_not_ready_with_the_reason() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let power = w.keycloak.realm_role("power").await;
    let administration = w.keycloak.find_client_role("realm-management", "manage-users").await;
    w.keycloak.compose(&power, &[&administration]).await;
    let leads = w.keycloak.group(None, &unique("leads")).await;
    let good = |name| w.policy(name).realm_role("admin", &role.name).everybody().stage("lead", 1, [&bob]);
    let gone = format!("oidc:{}-gone", leads.path);
    let leads_elsewhere = w.keycloak.group(None, &unique("leads-elsewhere")).await;
    let elsewhere = w.policy("elsewhere").realm(BY_EMAIL).realm_role("admin", &role.name).everybody();
    let _ = elsewhere.stage_group("lead", 1, &leads_elsewhere).create().await.unwrap();
    for (policy, reason, words) in [
        (
            good("realm").realm("nowhere"),
            "RealmNotFound",
            "spec.realm \"nowhere\" is not in the operator's configuration",
        ),
        (
            good("role").realm_role("x", "no-such-role"),
            "GrantNotFound",
            "grant \"x\": there is no realm role \"no-such-role\"",
        ),
        (
            good("client").client_role("x", "no-such-client", "r"),
            "GrantNotFound",
            "grant \"x\": there is no role \"r\" of client \"no-such-client\"",
        ),
        (good("group").group("x", "/no/such"), "GrantNotFound", "grant \"x\": there is no group \"/no/such\""),
        (good("people").with("requesters", json!([{"kind": "Group", "name": gone}])), "GroupNotFound", gone.as_str()),
        (good("twice").realm_role("again", &role.name), "DuplicateTarget", "\"again\" and \"admin\" are the same"),
        (good("few").stage("security", 2, [&bob, &alice]), "StageUnsatisfiable", "can never be satisfied"),
        (
            good("lift").group("lift", &leads.path).stage_group("more", 1, &leads),
            "GrantMakesApprover",
            "grant \"lift\": who is in",
        ),
        (
            // Another name of the same realm.
            good("lift-elsewhere").group("lift", &leads_elsewhere.path),
            "GrantMakesApprover",
            "grant \"lift\": who is in",
        ),
        (good("power").realm_role("power", &power.name), "ReachesAdministration", "grant \"power\":"),
        (
            good("totp").with("requiredActions", json!(["X"])),
            "Invalid",
            "spec.requiredActions[0]: \"X\" leaves no evidence",
        ),
    ] {
        // when
        let policy = policy.create().await.unwrap();
        // then
        let message = policy.is_not_ready(reason).await;
        assert!(message.contains(words), "{words:?} is missing in: {message}");
    }
    w.clean_up().await;
}
