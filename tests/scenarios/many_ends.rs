//! Many grants end in the same second: how long until the last is gone from Keycloak?

use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{Duration, Instant},
};

use futures::StreamExt;
use hallpass::api::Phase;
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};

use crate::{
    crowd::{Crowd, are_in_phase, comes, from_now, holders, lags, percentile, requests, size_or},
    gate::{Gate, Mode},
    keycloak_admin::Admin,
    operators::Start,
    realms::{self, GATED},
    request::condition,
    world::World,
};

/// So many grants, unless `HALLPASS_GRANTS` says otherwise.
const GRANTS: usize = 100;
/// So many where Keycloak is slow.
const SLOW_GRANTS: usize = 120;
/// How slow.
const DELAY: Duration = Duration::from_millis(1500);
/// Who is removed later than this has said so before; and as much again as it takes to say so.
const SAID_AFTER: Duration = Duration::from_millis(10_000 + 500);
/// So many where the API server is slow, and how slow: their statuses take longer than a turn is waited for by a process that stops.
const TOLD_SLOWLY: usize = 160;
const TOLD_AFTER: Duration = Duration::from_millis(1200);
/// So many removals the operator has under way at once.
const AT_ONCE: u32 = 8;

fn tell(lags: &[Vec<Duration>; 2]) {
    for (time, lags) in ["first", "last"].into_iter().zip(lags) {
        let [p50, p99, all] = [50, 99, 100].map(|percent| percentile(lags, percent));
        println!("removed for the {time} time after the deadline: p50 {p50:?}, p99 {p99:?}, all {all:?}");
    }
}

#[tokio::test]
async fn many_that_end_in_the_same_second_are_gone_soon() {
    // given
    let grants = size_or(GRANTS);
    let w = World::new().await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).everybody().automatic().ready().await;
    let crowd = Crowd::of(&w.keycloak, grants).await;
    let (begin, end) = (Instant::now(), from_now(crowd.patience()));
    crowd.ask(&w, &policy, |_| end).await;
    crowd.have_it(&w, end).await;
    println!("{grants} are active after {:?}", begin.elapsed());
    // when
    comes(end).await;
    // then
    are_in_phase(&w, Phase::Expired, grants, crowd.patience()).await.unwrap();
    let lags = lags(&w.keycloak, &crowd, end).await;
    tell(&lags);
    let [late, repeated] = lags.map(|lags| percentile(&lags, 99));
    assert!(late < Duration::from_secs(10) + Duration::from_millis(20) * crowd.size(), "{late:?}");
    // A removal whose status was refused, or left without an answer, is repeated before that is written.
    assert!(repeated < Duration::from_secs(10) + Duration::from_millis(100) * crowd.size(), "{repeated:?}");
    assert!(holders(&w.keycloak, &role).await.is_empty(), "nobody has it");
    w.clean_up().await;
    crowd.leave(&w.keycloak).await;
}

/// What each of the world's requests says from now on until its end: phase and reason, without repetitions.
async fn told(w: &World) -> BTreeMap<String, Vec<(Phase, String)>> {
    let mut told: BTreeMap<String, Vec<(Phase, String)>> = BTreeMap::new();
    let mut open = requests(w).await.len();
    let mut watch = watcher(w.requests(), watcher::Config::default()).default_backoff().boxed();
    while open > 0 {
        let Ok(Event::Apply(request)) = watch.next().await.expect("the watch goes on") else { continue };
        let Some(phase) = request.phase() else { continue };
        let reason = condition(request.status.as_ref().expect("a status"), "Ready").reason;
        let words = told.entry(request.name_any()).or_default();
        if words.last() != Some(&(phase, reason.clone())) {
            open -= usize::from(phase.is_final());
            words.push((phase, reason));
        }
    }
    told
}

#[tokio::test]
async fn many_that_end_while_keycloak_is_slow_are_gone_as_soon_as_its_answers_allow() {
    // given
    let w = World::new().await;
    let _turn = realms::gated().await;
    let gate = &realms::ready().await.gate;
    let gated = Admin::of_realm(GATED);
    let grants = size_or(SLOW_GRANTS);
    let role = gated.realm_role("admin").await;
    let policy = w.policy("there").realm(GATED).realm_role("admin", &role.name).everybody().automatic().ready().await;
    let crowd = Crowd::of(&gated, grants).await;
    let end = from_now(crowd.patience());
    crowd.ask(&w, &policy, |_| end).await;
    crowd.have_it(&w, end).await;
    assert_eq!(holders(&gated, &role).await.len(), grants);
    let told = tokio::spawn({
        let w = w.clone();
        async move { told(&w).await }
    });
    // when
    gate.is(Mode::Slow(DELAY));
    comes(end).await;
    // then: one call each, and as much again for a busy machine
    let limit = DELAY * crowd.size() / AT_ONCE * 2 + Duration::from_secs(5);
    are_in_phase(&w, Phase::Expired, grants, limit + crowd.patience()).await.unwrap();
    gate.is(Mode::Open);
    let lags = lags(&gated, &crowd, end).await;
    tell(&lags);
    let late = lags[0].iter().filter(|lag| **lag > SAID_AFTER).count();
    let [first, last] = lags.map(|lags| percentile(&lags, 100));
    assert!(first > DELAY, "it was slow: {first:?}");
    assert!(last < limit, "{last:?}");
    assert!(holders(&gated, &role).await.is_empty(), "nobody has it");
    // and each said so in order
    let mut revoking = 0;
    for (name, told) in told.await.expect("told") {
        println!("{name} {told:?}");
        let phases: Vec<Phase> = told.iter().map(|(phase, _)| *phase).collect();
        // Those that are gone within ten seconds need not say so.
        let said = phases.split_last().expect("it ended");
        assert_eq!(*said.0, Phase::Expired, "{name}: {told:?}");
        assert!(said.1.iter().all(|phase| *phase == Phase::Revoking), "{name}: {told:?}");
        revoking += usize::from(!said.1.is_empty());
    }
    // Sixteen at a time, which is the most, would take eight times as long as one answer.
    assert!(late > 0 && revoking >= late, "{revoking} of the {late} that took long said that they were being revoked");
    w.clean_up().await;
    crowd.leave(&gated).await;
    gated.clean_up().await;
}

#[tokio::test]
async fn many_that_end_while_the_api_server_is_slow_are_removed_once() {
    // given
    let w = World::alone().await;
    w.runs_its_own_operators().await;
    let server = w.stack.api_server.trim_start_matches("https://").parse().expect("an address");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let gate = Gate::at(port, server).expect("a free port");
    let url = format!("https://127.0.0.1:{port}");
    let lease = Some(Duration::from_secs(30));
    let operator = w.start("slow", Start { api_server: Some(&url), lease, ..Start::default() }).await;
    w.leads(&operator).await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).everybody().automatic().ready().await;
    let crowd = Crowd::of(&w.keycloak, TOLD_SLOWLY).await;
    let end = from_now(Duration::from_mins(1));
    crowd.ask(&w, &policy, |_| end).await;
    crowd.have_it(&w, end).await;
    // when
    gate.is(Mode::Slow(TOLD_AFTER));
    comes(end).await;
    let begin = Instant::now();
    let metrics = async {
        tokio::time::sleep(Duration::from_secs(11)).await;
        operator.ask("/metrics").await.unwrap().1
    };
    let (all, metrics) = tokio::join!(are_in_phase(&w, Phase::Expired, TOLD_SLOWLY, crowd.patience()), metrics);
    all.unwrap();
    let told = begin.elapsed();
    gate.is(Mode::Open);
    // then
    let lags = lags(&w.keycloak, &crowd, end).await;
    tell(&lags);
    println!("told after {told:?}");
    assert!(told > Duration::from_secs(11), "longer than anything else waits for a turn: {told:?}");
    assert!(metrics.contains("\nhallpass_overdue_revocations 0\n"), "nobody has it any more: {metrics}");
    assert_eq!(lags[0], lags[1], "what is gone waits for its status, and is not removed once more: {}", operator.log());
    assert!(!operator.log().contains("other writes yet"), "and nobody has to read of it: {}", operator.log());
    w.own_operators_are_over(vec![operator]).await;
    w.clean_up().await;
    crowd.leave(&w.keycloak).await;
}
