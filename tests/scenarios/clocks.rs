//! The clock of the operator's machine jumps: access ends early or on time, never late, and while clocks differ nothing is given.

use hallpass::api::{AccessRequestStatus, Phase};
use jiff::{SignedDuration, Timestamp};

use crate::{
    operators::{Shift, Start},
    world::World,
};

/// How much later than a deadline the test may see that a role is gone: a tick, the removal, and a busy machine.
const LATE: SignedDuration = SignedDuration::from_secs(4);

fn deadline(status: &AccessRequestStatus) -> Timestamp {
    status.grant.as_ref().expect("a grant").deadline.0
}

/// Whether a text says after these words that a clock is 600 s ahead, less what a slow answer leaves open.
fn by_600(words: &str, text: &str) -> bool {
    let seconds = text.split(words).nth(1).and_then(|rest| rest.split(" s ahead of the operator's").next());
    seconds.and_then(|seconds| seconds.parse::<u32>().ok()).is_some_and(|seconds| (590..=600).contains(&seconds))
}

#[tokio::test]
async fn a_clock_that_jumps_ends_nothing_late_and_gives_nothing() {
    // given an operator whose clock can be set
    let w = World::alone().await;
    let (shift, alice) = (Shift::compiled(), w.person("alice").await);
    w.runs_its_own_operators().await;
    let operator = w.start("clock", Start { env: shift.env(), ..Start::default() }).await;
    w.leads(&operator).await;
    let [back, forward, none] = ["back", "forward", "none"].map(|name| w.keycloak.realm_role(name));
    let (back, forward, none) = (back.await, forward.await, none.await);
    let policy = w.policy("oncall").realm_role("back", &back.name).realm_role("forward", &forward.name);
    let policy = policy.realm_role("none", &none.name).requester(&alice).automatic().ready().await;
    let short = alice.asks(&policy).grants(["back"]).lasting("8s").create().await.unwrap();
    let due = deadline(&short.reaches(Phase::Active).await);
    // when it is set back
    shift.by(-600);
    let waiting = alice.asks(&policy).grants(["none"]).lasting("10m").create().await.unwrap();
    // then it is said, and nothing is given
    let words = waiting.says(Phase::Approved, "ClocksDiffer").await;
    assert!(by_600("the clock of the API server is ", &words), "{words}");
    let (ready, text) = operator.ask("/readyz").await.unwrap();
    assert!(ready == 503 && by_600("[-] clocks: the clock of the API server is ", &text), "{text}");
    assert!(by_600("[-] realm prod: the clock of Keycloak for realm prod is ", &text), "{text}");
    // and what is due goes in time
    w.until("the role is gone", async || !w.keycloak.has(&alice.user, &back).await).await;
    let late = Timestamp::now().duration_since(due);
    println!("set back by 600 s: gone {late:#} after the deadline");
    assert!(late < LATE, "{late:#}");
    short.reaches(Phase::Expired).await;
    assert!(!w.keycloak.has(&alice.user, &none).await);
    // when it is right again
    shift.by(0);
    waiting.reaches(Phase::Active).await;
    let long = alice.asks(&policy).grants(["forward"]).lasting("10m").create().await.unwrap();
    let due = deadline(&long.reaches(Phase::Active).await);
    // when it is set forward past the deadlines
    shift.by(3600);
    let jumped = Timestamp::now();
    // then what seems due goes early, not at the deadline only
    w.until("the roles are gone", async || {
        !w.keycloak.has(&alice.user, &forward).await && !w.keycloak.has(&alice.user, &none).await
    })
    .await;
    println!("set forward by 3600 s: gone {:#} after that", Timestamp::now().duration_since(jumped));
    assert!(Timestamp::now() < due);
    long.reaches(Phase::Expired).await;
    let waiting = alice.asks(&policy).grants(["none"]).lasting("10m").create().await.unwrap();
    let words = waiting.says(Phase::Approved, "ClocksDiffer").await;
    assert!(words.contains(" s behind the operator's (30 s are tolerated): set the clocks right"), "{words}");
    assert!(!w.keycloak.has(&alice.user, &none).await);
    w.own_operators_are_over(vec![operator]).await;
    w.clean_up().await;
}
