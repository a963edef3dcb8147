//! What goes wrong for long, and not once: it is asked for again without end, and never often.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hallpass::api::{AccessRequest, Phase};
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::{
    life::Life,
    script::{Call, Fault, Garbage, When},
    stage::{Slot, Stage},
};

/// For so long after the end.
const LASTS: SignedDuration = SignedDuration::from_secs(12);
/// How many calls it may cost. Tries are ever further apart: 0.5, 1, 2, 4, 8 s; each is some calls.
const MOST: usize = 50;
/// How long it may take afterwards: half a minute is the longest pause between two tries.
const PATIENCE: Duration = Duration::from_secs(75);

const MAPS: &str = "keycloak POST users/*/role-mappings/realm";
const UNMAPS: &str = "keycloak DELETE users/*/role-mappings/realm";
/// What proves that a membership is gone.
const LOOKS: &str = "keycloak GET users/*/groups";
const WRITES: &str = "api PUT accessrequests/*/status";

/// Answers that concern one call. All of them are tried at the same time.
pub const ANSWERS: [(&str, Fault); 12] = [
    (MAPS, Fault::Status(400, When::Before)),
    (MAPS, Fault::Status(403, When::Before)),
    (UNMAPS, Fault::Status(400, When::Before)),
    (UNMAPS, Fault::Status(403, When::Before)),
    (UNMAPS, Fault::Status(404, When::Before)),
    (UNMAPS, Fault::Status(409, When::Before)),
    (UNMAPS, Fault::Body(Garbage::Html)),
    (LOOKS, Fault::Status(403, When::Before)),
    (LOOKS, Fault::Body(Garbage::Html)),
    (LOOKS, Fault::Body(Garbage::Huge)),
    (WRITES, Fault::Status(403, When::Before)),
    (WRITES, Fault::Status(500, When::After)),
];

/// Answers after which the server counts as away, for everybody.
pub const AWAY: [(&str, Fault); 6] = [
    (UNMAPS, Fault::Status(500, When::Before)),
    (UNMAPS, Fault::Status(503, When::Before)),
    (UNMAPS, Fault::Busy(429, 5)),
    (UNMAPS, Fault::Busy(503, 5)),
    (UNMAPS, Fault::Hang(When::Before)),
    (UNMAPS, Fault::Cut(When::After)),
];

/// Lives with these, one in each slot, and what was wrong with them.
pub async fn lives(stage: &Stage, faults: &[(&'static str, Fault)]) -> Vec<String> {
    let lives = stage.slots.iter().zip(faults).map(|(slot, (kind, fault))| one(stage, slot, kind, *fault));
    join_all(lives).await.into_iter().filter_map(Result::err).collect()
}

async fn one(stage: &Stage, slot: &Slot, kind: &'static str, fault: Fault) -> Result<(), String> {
    let name = format!("{kind}/{fault}");
    let before = |error: String| format!("{name}: {error}");
    let mut life = Life::of_a_newcomer(stage, slot).await;
    let (user, number) = (life.person.user.clone(), life.number);
    let (grant, id) = if kind == LOOKS { ("group", &slot.group.id) } else { ("realm", &slot.realm_role.id) };
    // What is called when it begins, too, goes wrong only when all is given: then its requester ends it.
    let at_the_end_only = kind == LOOKS || kind == WRITES;
    let (request, end) = if at_the_end_only {
        let request = life.asks(&[grant], "10m", Phase::Revoked).await.map_err(before)?;
        life.has_it(&request).await.map_err(before)?;
        stage.script.lasts(number, kind, fault);
        life.is_ended(&request).await.map_err(before)?;
        (request, Timestamp::now())
    } else {
        stage.script.lasts(number, kind, fault);
        let request = life.asks(&[grant], "6s", Phase::Expired).await.map_err(before)?;
        let due = |now: &AccessRequest| now.grant().map(|grant| grant.deadline.0);
        let given = stage.until(&request, "begun", PATIENCE, |now| due(now).is_some()).await.map_err(before)?;
        (request, due(&given).ok_or("no deadline")?)
    };
    let (end, began) = (end + LASTS, Instant::now());
    while Timestamp::now() < end {
        sleep(Duration::from_millis(50)).await;
    }
    let calls = stage.script.calls_of(number);
    let struck = calls.iter().filter(|call| call.fault.is_some()).count();
    let calls: Vec<&Call> = calls.iter().filter(|call| call.at > began).collect();
    let said = stage.read(&request).await.and_then(|now| now.status).unwrap_or_default();
    let said: Vec<String> = said.conditions.into_iter().map(|one| format!("{} {}", one.reason, one.message)).collect();
    println!("{name}: {} calls in {:?}, {struck} of them struck; {said:?}", calls.len(), began.elapsed());
    let mut wrong = Vec::new();
    if calls.len() > MOST {
        let kinds: Vec<&str> = calls.iter().map(|call| call.line.as_str()).collect();
        wrong.push(format!("{} calls: {kinds:#?}", calls.len()));
    }
    if struck == 0 {
        wrong.push("nothing was asked for".into());
    }
    stage.script.dismiss(number);
    let over = |now: &AccessRequest| now.phase().is_some_and(Phase::is_final);
    if let Err(error) = stage.until(&request, "over", PATIENCE, over).await {
        wrong.push(error);
    }
    let left = stage.holdings(&user).await;
    if left.iter().any(|one| one.contains(id)) {
        wrong.push(format!("left in Keycloak: {left:?}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{name}: {}", wrong.join("\n"))) }
}
