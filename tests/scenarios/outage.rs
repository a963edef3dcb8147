//! A realm is away, or all of Keycloak: others go on, it is found again as soon as it is back, and what was away is not taken
//! for what is gone.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::future::join_all;
use hallpass::api::Phase;
use jiff::{SignedDuration, Timestamp};

use crate::{
    crowd::{Crowd, comes, from_now, holders, size_or},
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
    let _turn = realms::gated().await;
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

/// So many have access while Keycloak is restarted, unless `HALLPASS_GRANTS` says otherwise.
const GRANTS: usize = 40;
/// How long those have it who have it for longer: Keycloak is back by then, and has been looked at.
const LONGER: Duration = Duration::from_secs(150);

#[tokio::test]
async fn what_falls_due_while_keycloak_is_restarted_goes_soon_and_the_rest_on_time() {
    // given many who have access, every other for longer
    let w = World::alone().await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).everybody().automatic().ready().await;
    let grants = size_or(GRANTS);
    let crowd = Crowd::of(&w.keycloak, grants).await;
    let due = from_now(crowd.patience());
    let later = due + SignedDuration::try_from(LONGER).unwrap();
    let requests = crowd.ask(&w, &policy, |i| if i % 2 == 0 { due } else { later }).await;
    crowd.have_it(&w, due).await;
    // when half of them end while it is down
    w.keycloak_server("stop").await;
    assert!(Timestamp::now() < due, "the machine is too slow: it stopped too late");
    comes(due).await;
    w.keycloak_server("start").await;
    let back = Instant::now();
    // then those are gone soon; its first answers take it seconds
    let stay: BTreeSet<String> = crowd.ids.iter().skip(1).step_by(2).cloned().collect();
    w.until("what was due is gone", async || holders(&w.keycloak, &role).await == stay).await;
    println!("{} were gone {:?} after Keycloak was back", grants - stay.len(), back.elapsed());
    for request in requests.iter().step_by(2) {
        request.reaches(Phase::Expired).await;
    }
    // and the others have it until their own time is up, whoever looks meanwhile
    let left = later.duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_secs(10), "the machine is too slow: {left:#} are left to look");
    w.until_within(LONGER, "it is nearly time", async || {
        assert_eq!(holders(&w.keycloak, &role).await, stay);
        later.duration_since(Timestamp::now()) < SignedDuration::from_secs(2)
    })
    .await;
    w.until("the rest is gone", async || holders(&w.keycloak, &role).await.is_empty()).await;
    let late = Timestamp::now().duration_since(later);
    assert!(late.is_positive() && late < SignedDuration::from_secs(10), "{late:#} after the deadline");
    for request in requests.iter().skip(1).step_by(2) {
        request.reaches(Phase::Expired).await;
    }
    assert!(w.all_events("TakenAway").await.is_empty(), "nobody has taken anything away");
    w.clean_up().await;
    crowd.leave(&w.keycloak).await;
}
