//! One realm is away: the others go on, and it is found again as soon as it is back.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hallpass::api::Phase;

use crate::{
    gate::Mode,
    keycloak_admin::Admin,
    realms::{self, GATED},
    world::World,
};

/// The value of a metric.
async fn metric(w: &World, line: &str) -> Option<String> {
    let metrics = w.stack.ask_operator("/metrics").await.expect("metrics").1;
    metrics.lines().find_map(|text| text.strip_prefix(line)).map(|value| value.trim().to_owned())
}

#[tokio::test]
async fn a_realm_that_is_away_holds_up_no_other_and_what_waited_goes_as_soon_as_it_is_back() {
    // given
    let w = World::new().await;
    let gate = &realms::ready().await.gate;
    let gated = Admin::of_realm(GATED);
    let (role, other) = (gated.realm_role("admin").await, w.keycloak.realm_role("admin").await);
    let there = w.policy("there").realm(GATED).realm_role("admin", &role.name).everybody().automatic().ready().await;
    let here = w.policy("here").realm_role("admin", &other.name).everybody().automatic().ready().await;
    let holder = async |name: &str| {
        let person = w.person(name).await;
        let user = gated.user_named(&person.user.username).await;
        let request = person.asks(&there).create().await.unwrap();
        request.reaches(Phase::Active).await;
        assert!(gated.has(&user, &role).await);
        (person, user, request)
    };
    let lent = join_all([holder("alice"), holder("bob"), holder("carol"), holder("dave")]).await;
    let erin = w.person("erin").await;
    let in_there = gated.user_named(&erin.user.username).await;
    // when
    gate.is(Mode::Hanging);
    let late = erin.asks(&there).create().await.unwrap();
    for (person, _, request) in &lent {
        person.ends(request).await.unwrap();
    }
    // then: here nobody notices
    let begin = Instant::now();
    join_all(lent.iter().map(async |(person, _, _)| {
        let request = person.asks(&here).lasting("5s").create().await.unwrap();
        request.reaches(Phase::Expired).await;
    }))
    .await;
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    // there it is said, and nobody hangs on his own
    for (_, _, request) in &lent {
        let words = "not asked again until it answers";
        request.until(words, |status| status.conditions.iter().any(|said| said.message.contains(words))).await;
    }
    let (_, health) = w.stack.ask_operator("/readyz").await.unwrap();
    assert!(
        health.contains(&format!("[-] realm {GATED}: cannot")) && health.contains("[+] realm prod: ok"),
        "{health}"
    );
    assert_eq!(metric(&w, &format!("hallpass_realm_ready{{realm=\"{GATED}\"}}")).await.as_deref(), Some("0"));
    assert_eq!(metric(&w, "hallpass_realm_ready{realm=\"prod\"}").await.as_deref(), Some("1"));
    for (_, user, _) in &lent {
        assert!(gated.has(user, &role).await, "the operator cannot have taken it");
    }
    // when it is back
    gate.is(Mode::Open);
    let back = Instant::now();
    for (_, user, _) in &lent {
        w.until("the role is gone", async || !gated.has(user, &role).await).await;
    }
    println!("{} were gone {:?} after the server was back", lent.len(), back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(8), "{:?} after it was back", back.elapsed());
    for (_, user, request) in &lent {
        request.reaches(Phase::Revoked).await;
        assert!(!gated.has(user, &role).await);
    }
    late.reaches(Phase::Active).await;
    assert!(gated.has(&in_there, &role).await);
    assert_eq!(metric(&w, &format!("hallpass_realm_ready{{realm=\"{GATED}\"}}")).await.as_deref(), Some("1"));
    // when every connection is cut
    gate.is(Mode::Cutting);
    erin.ends(&late).await.unwrap();
    late.says(Phase::Revoking, "RevocationFailed").await;
    assert!(gated.has(&in_there, &role).await);
    gate.is(Mode::Open);
    late.reaches(Phase::Revoked).await;
    assert!(!gated.has(&in_there, &role).await);
    w.clean_up().await;
    gated.clean_up().await;
}
