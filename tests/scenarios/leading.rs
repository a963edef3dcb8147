//! Two operators: one leads. It is killed, paused, cut off or stopped: never do two write, and what is due goes.

use std::time::{Duration, Instant};

use hallpass::api::{AccessRequestStatus, Phase, TargetState};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    gate::Mode,
    keycloak_admin::{Admin, Role},
    operators::{LEASE, Operator, Start, Way, by_signal},
    people::Person,
    policy::Policy,
    realms::{self, GATED},
    request::Request,
    world::World,
};

/// What a busy machine may add.
const BUSY: Duration = Duration::from_secs(6);

fn deadline(status: &AccessRequestStatus) -> Timestamp {
    status.grant.as_ref().expect("a grant").deadline.0
}

fn since(time: Timestamp) -> SignedDuration {
    Timestamp::now().duration_since(time)
}

async fn metric(operator: &Operator) -> String {
    let metrics = operator.ask("/metrics").await.unwrap().1;
    metrics.lines().find(|line| line.starts_with("hallpass_leader ")).expect("a metric").to_owned()
}

/// How often the operators' account has written to Keycloak about this person.
async fn written(w: &World, person: &Person) -> usize {
    let account = w.keycloak.find_user("service-account-hallpass").await.id;
    let events = w.keycloak.get(&format!("admin-events?authUser={account}&max=5000")).await;
    let about = format!("users/{}/", person.user.id);
    let path = |event: &Value| event["resourcePath"].as_str().unwrap_or_default().to_owned();
    events.as_array().expect("events").iter().filter(|event| path(event).starts_with(&about)).count()
}

#[tokio::test]
async fn the_next_one_leads_at_once_after_a_stop_and_after_the_lease_when_the_leader_is_killed() {
    // given
    let w = World::alone().await;
    w.runs_its_own_operators().await;
    let mut first = w.start("first", Start::default()).await;
    w.leads(&first).await;
    let second = w.start("second", Start::default()).await;
    w.waits_for(&second, &first).await;
    // One that could not take over is not ready, and says why: a rollout does not go on.
    let useless = w.start("useless", Start { realms: Some("nowhere"), ..Start::default() }).await;
    w.until("it says why it could not take over", async || {
        let answer = useless.ask("/readyz").await;
        answer.is_ok_and(|(status, text)| status == 503 && text.contains(" leads") && text.contains("[-] realm prod: "))
    })
    .await;
    drop(useless);
    assert_eq!(metric(&first).await, "hallpass_leader 1");
    assert_eq!(metric(&second).await, "hallpass_leader 0");
    assert!(!w.sent_by(&second).iter().any(|(verb, resource)| verb == "list" && resource == "accessrequests"));
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    let request = alice.asks(&policy).lasting("10s").create().await.unwrap();
    let due = deadline(&request.reaches(Phase::Active).await);
    // when it is told to stop
    first.signal("-TERM");
    let stopped = Instant::now();
    w.leads(&second).await;
    // then
    println!("stopped -> the next one leads and is ready: {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(2) + BUSY, "{:?}", stopped.elapsed());
    assert!(w.ended(&mut first).await.success());
    assert!(first.log().contains("handed the lease back"), "{}", first.log());
    assert!(second.log().contains("Clean"), "{}", second.log());
    assert_eq!(deadline(&request.reaches(Phase::Active).await), due);
    // when it is killed shortly before the deadline
    let mut third = w.start("third", Start::default()).await;
    w.waits_for(&third, &second).await;
    let mut second = second;
    w.until("the deadline is near", async || since(due) > -SignedDuration::from_secs(1)).await;
    second.signal("-KILL");
    let killed = Instant::now();
    assert!(by_signal(w.ended(&mut second).await, 9));
    // then
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &role).await).await;
    println!("killed -> revoked by the next one: {:?}, the lease is {LEASE:?}", killed.elapsed());
    assert!(killed.elapsed() > LEASE / 2, "before the lease was over: {:?}", killed.elapsed());
    assert!(killed.elapsed() < LEASE + Duration::from_secs(1) + BUSY, "{:?}", killed.elapsed());
    assert!(third.log().contains("Unclean"), "{}", third.log());
    third.signal("-TERM");
    assert!(w.ended(&mut third).await.success());
    w.own_operators_are_over(vec![first, second, third]).await;
    request.reaches(Phase::Expired).await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_leader_that_was_paused_for_longer_than_the_lease_writes_nothing_and_ends() {
    // given
    let w = World::alone().await;
    w.runs_its_own_operators().await;
    let mut paused = w.start("paused", Start::default()).await;
    w.leads(&paused).await;
    let next = w.start("next", Start::default()).await;
    w.waits_for(&next, &paused).await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    let request = alice.asks(&policy).lasting("5s").create().await.unwrap();
    let due = deadline(&request.reaches(Phase::Active).await);
    w.until("its Event is there", async || !w.events(&request.name, "Active").await.is_empty()).await;
    // when
    paused.signal("-STOP");
    let (before, began) = (w.sent_by(&paused).len(), Instant::now());
    // then
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &role).await).await;
    println!("paused -> revoked by the next one: {:?}, {:#} after the deadline", began.elapsed(), since(due));
    assert!(began.elapsed() < LEASE + Duration::from_secs(1) + BUSY, "{:?}", began.elapsed());
    request.reaches(Phase::Expired).await;
    // when it goes on, and everything that it remembers says that this role is to go
    w.keycloak.map(&alice.user, &role).await;
    let done = written(&w, &alice).await;
    assert!(done >= 2, "it was given and taken away, by one or both: {done}");
    paused.signal("-CONT");
    let status = w.ended(&mut paused).await;
    // then
    assert_eq!(written(&w, &alice).await, done, "nothing was even tried");
    assert_eq!(status.code(), Some(1), "{}", paused.log());
    assert!(paused.log().contains("does not lead any more"), "{}", paused.log());
    assert!(w.keycloak.has(&alice.user, &role).await, "somebody gave it by hand, and nobody may take it");
    let sent = w.sent_by(&paused).split_off(before);
    let writes: Vec<_> = sent.iter().filter(|(verb, _)| !matches!(verb.as_str(), "get" | "list" | "watch")).collect();
    assert!(
        writes.iter().all(|(verb, resource)| verb == "update" && resource == "leases") && !writes.is_empty(),
        "only the question whether it still leads: {sent:?}"
    );
    w.own_operators_are_over(vec![paused, next]).await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_takes_away_what_is_due_and_gives_nothing() {
    // given
    let w = World::alone().await;
    w.runs_its_own_operators().await;
    let mut way = Way::to(&w.stack.api_server).await;
    let how = Start { api_server: Some(&way.url), ..Start::default() };
    let mut alone = w.start("alone", how).await;
    w.leads(&alone).await;
    let alice = w.person("alice").await;
    let (due, new) = (w.keycloak.realm_role("due").await, w.keycloak.realm_role("new").await);
    let policy = w.policy("oncall").realm_role("due", &due.name).realm_role("new", &new.name).requester(&alice);
    let policy = policy.automatic().ready().await;
    let request = alice.asks(&policy).grants(["due"]).lasting("10s").create().await.unwrap();
    let deadline = deadline(&request.reaches(Phase::Active).await);
    let start = Timestamp::from_second(deadline.as_second() - 1).unwrap();
    let later = alice.asks(&policy).grants(["new"]).with("notBefore", json!(start.to_string()));
    let later = later.create().await.unwrap();
    later.says(Phase::Approved, "WaitingForStart").await;
    // when
    way.cut().await;
    // then
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &due).await).await;
    let late = since(deadline);
    println!("cut off, gone {late:#} after the deadline");
    assert!(late.is_positive() && late < SignedDuration::from_secs(2 + 4), "{late:#}");
    assert!(!w.keycloak.has(&alice.user, &new).await, "nothing is given");
    let (ready, text) = alone.ask("/readyz").await.unwrap();
    assert!(ready == 503 && text.contains("[-] lease: the lease could not be renewed in time"), "{text}");
    assert_eq!(metric(&alone).await, "hallpass_leader 0");
    assert_eq!(request.status().await.phase, Some(Phase::Active), "the status could not follow yet");
    // when somebody gives it by hand, and nobody can say who leads
    w.keycloak.map(&alice.user, &due).await;
    let tried = |line: &&str| line.contains(&request.name) && line.contains("cannot write the status");
    let attempts = || alone.log().lines().filter(tried).count();
    let before = attempts();
    w.until("it came to this request some more times", async || attempts() >= before + 3).await;
    // then
    assert!(w.keycloak.has(&alice.user, &due).await, "what was proved gone is not taken twice: {}", alone.log());
    w.keycloak.unmap(&alice.user, &due).await;
    // when somebody else leads, who can write it down
    let next = w.start("next", Start::default()).await;
    w.nobody_leads().await;
    w.leads(&next).await;
    request.reaches(Phase::Expired).await;
    later.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &new).await);
    // and the way is there again
    way.mend().await;
    assert_eq!(w.ended(&mut alone).await.code(), Some(1), "{}", alone.log());
    assert!(w.keycloak.has(&alice.user, &new).await);
    w.own_operators_are_over(vec![alone, next]).await;
    w.clean_up().await;
}

/// How often it has asked Keycloak to change a mapping, as it says itself when it says everything.
fn tried(operator: &Operator) -> usize {
    let log = operator.log();
    ["map", "unmap"].iter().map(|kind| log.matches(&format!("\"endpoint\":\"{kind}\"")).count()).sum()
}

/// A leader that can be cut off, one that waits, and somebody who has a role for a while.
struct Two {
    cut_off: Operator,
    next: Operator,
    alice: Person,
    role: Role,
    policy: Policy,
    first: Request,
    due: Timestamp,
}

async fn two(w: &World, way: &Way) -> Two {
    let env = vec![("RUST_LOG", "info,hallpass=debug".to_owned())];
    let cut_off = w.start("cut-off", Start { api_server: Some(&way.url), env, ..Start::default() }).await;
    w.leads(&cut_off).await;
    let next = w.start("next", Start::default()).await;
    w.waits_for(&next, &cut_off).await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).automatic().ready().await;
    let first = alice.asks(&policy).lasting("25s").create().await.unwrap();
    let due = deadline(&first.reaches(Phase::Active).await);
    Two { cut_off, next, alice, role, policy, first, due }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_leaves_alone_what_the_next_one_gives_meanwhile() {
    // given one that waits
    let w = World::alone().await;
    w.runs_its_own_operators().await;
    let mut way = Way::to(&w.stack.api_server).await;
    let Two { mut cut_off, next, alice, role, policy, first, due } = two(&w, &way).await;
    // when
    way.cut().await;
    w.leads(&next).await;
    assert!(since(due).is_negative(), "the machine is too slow: the next one leads only now");
    // then each takes away what is due, by what it knows
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &role).await).await;
    first.reaches(Phase::Expired).await;
    w.until("the one that is cut off has proved it", async || {
        let log = cut_off.log();
        log.lines().any(|line| line.contains("\"message\":\"removed\"") && line.contains(&alice.user.id))
    })
    .await;
    // when the next one gives her the same again
    let again = alice.asks(&policy).lasting("30s").create().await.unwrap();
    let due = deadline(&again.reaches(Phase::Active).await);
    let (attempts, before) = (|| cut_off.log().matches("trying again").count(), tried(&cut_off));
    let attempted = attempts();
    w.until("the one that is cut off came to the first request some more times", async || attempts() >= attempted + 3)
        .await;
    // then
    assert!(since(due).is_negative(), "the machine is too slow: its time is up");
    assert!(w.keycloak.has(&alice.user, &role).await, "it knows nothing of this: {}", cut_off.log());
    assert_eq!(tried(&cut_off), before, "it leaves alone what it has proved gone: {}", cut_off.log());
    // and it stays until its own time is up
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &role).await).await;
    let late = since(due);
    assert!(late.is_positive() && late < SignedDuration::from_secs(2 + 4), "{late:#}");
    again.reaches(Phase::Expired).await;
    assert!(w.all_events("TakenAway").await.is_empty());
    assert_eq!(tried(&cut_off), before, "{}", cut_off.log());
    way.mend().await;
    assert_eq!(w.ended(&mut cut_off).await.code(), Some(1), "{}", cut_off.log());
    assert_eq!(tried(&cut_off), before, "{}", cut_off.log());
    w.own_operators_are_over(vec![cut_off, next]).await;
    w.clean_up().await;
}

#[tokio::test]
async fn what_a_leader_that_is_cut_off_takes_from_a_request_that_it_cannot_know_is_said() {
    // given
    let w = World::alone().await;
    w.runs_its_own_operators().await;
    let mut way = Way::to(&w.stack.api_server).await;
    let Two { mut cut_off, next, alice, role, policy, first, due } = two(&w, &way).await;
    // when the next leader grants her the same for longer
    way.cut().await;
    w.leads(&next).await;
    let second = alice.asks(&policy).lasting("60s").create().await.unwrap();
    let later = deadline(&second.reaches(Phase::Active).await);
    assert!(since(due).is_negative(), "the machine is too slow: the next one leads only now");
    // then one hands it over, and the other takes it away
    w.until("it is said", async || !w.events(&second.name, "TakenAway").await.is_empty()).await;
    assert!(!since(due).is_negative());
    assert!(!w.keycloak.has(&alice.user, &role).await);
    let handed_over = first.reaches(Phase::Expired).await.grant.unwrap();
    assert_eq!(handed_over.targets[0].state, TargetState::Kept);
    // when she ends it, and asks again
    assert!(since(later).is_negative(), "the machine is too slow: its time is up");
    alice.ends(&second).await.unwrap();
    second.reaches(Phase::Revoked).await;
    let third = alice.asks(&policy).lasting("15s").create().await.unwrap();
    let due = deadline(&third.reaches(Phase::Active).await);
    // then she has it, until its time is up
    w.until("the time is up", async || {
        let had = w.keycloak.has(&alice.user, &role).await;
        assert!(had || !since(due).is_negative(), "it is hers: {}", cut_off.log());
        !had
    })
    .await;
    third.reaches(Phase::Expired).await;
    way.mend().await;
    assert_eq!(w.ended(&mut cut_off).await.code(), Some(1), "{}", cut_off.log());
    w.own_operators_are_over(vec![cut_off, next]).await;
    w.clean_up().await;
}

#[tokio::test]
async fn what_was_being_taken_away_when_the_leader_was_cut_off_is_taken_once() {
    // given something that is due and on record as that, while Keycloak does not answer
    let w = World::alone().await;
    w.runs_its_own_operators().await;
    let gate = &realms::ready().await.gate;
    let gated = Admin::of_realm(GATED);
    let mut way = Way::to(&w.stack.api_server).await;
    let mut alone = w.start("alone", Start { api_server: Some(&way.url), ..Start::default() }).await;
    w.leads(&alone).await;
    let alice = w.person("alice").await;
    let (user, role) = (gated.user_named(&alice.user.username).await, gated.realm_role("admin").await);
    let policy = w.policy("there").realm(GATED).realm_role("admin", &role.name).requester(&alice);
    let policy = policy.automatic().ready().await;
    let request = alice.asks(&policy).lasting("5s").create().await.unwrap();
    request.reaches(Phase::Active).await;
    gate.is(Mode::Cutting);
    request.says(Phase::Revoking, "Overdue").await;
    // when the operator is cut off, and Keycloak is back
    way.cut().await;
    w.until("it does not lead for sure any more", async || metric(&alone).await == "hallpass_leader 0").await;
    gate.is(Mode::Open);
    w.until("the role is gone", async || !gated.has(&user, &role).await).await;
    // and somebody gives it by hand, or the next leader does
    let attempts = || alone.log().lines().filter(|line| line.contains("cannot write the status")).count();
    let before = attempts();
    w.until("it tried to write that", async || attempts() > before).await;
    gated.map(&user, &role).await;
    let before = attempts();
    w.until("it came to this request some more times", async || attempts() >= before + 2).await;
    // then
    assert!(gated.has(&user, &role).await, "what was proved gone is not taken twice: {}", alone.log());
    gated.unmap(&user, &role).await;
    let next = w.start("next", Start::default()).await;
    w.nobody_leads().await;
    w.leads(&next).await;
    request.reaches(Phase::Expired).await;
    way.mend().await;
    assert_eq!(w.ended(&mut alone).await.code(), Some(1), "{}", alone.log());
    w.own_operators_are_over(vec![alone, next]).await;
    w.clean_up().await;
    gated.clean_up().await;
}
