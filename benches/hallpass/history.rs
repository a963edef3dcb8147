//! What many requests cost that are over, or live: they are copies of one, put into etcd with seals of their own.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use hallpass::{
    api::{AccessRequestStatus, Phase},
    guard::{keyring, seal::Keys},
};
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::{
    crowd::Crowd,
    operator::Process,
    policy::Policy,
    request::Ask,
    results::{Aim, Row, Unit, Values},
    scene::create_to_mapped,
    stage::Stage,
    world::World,
};

const NAME: &str = "history";
/// Puts into etcd at once.
const AT_ONCE: usize = 16;

pub async fn run(stage: &mut Stage) {
    let w = stage.w.clone();
    let role = w.keycloak.realm_role("history").await;
    let policy = w.policy("history").realm_role("role", &role.name).everybody().automatic().ready().await;
    let crowd = Crowd::of(&w.keycloak, 2).await;
    let mut over = request(&w, &policy, &crowd, "5s", Phase::Expired).await;
    // Nothing is to be done about it any more.
    let long_ago = json!(Timestamp::now() - 1.hours());
    for time in ["deadline", "endedAt"] {
        over["status"]["grant"][time] = long_ago.clone();
    }
    let live = request(&w, &policy, &crowd, "1h", Phase::Active).await;
    stage.starts().await;
    let empty = Process::of(&w.stack).resident();
    let mut before: Option<Values> = None;
    let one = |value: f64| Values::from_iter([value]);
    for size in stage.sizes(&[0, 10_000, 100_000], &[0, 20]) {
        let Start { ready, answers, resident } = with(stage, &over, size, &policy, &crowd).await;
        let grants = cost(stage, &policy).await;
        let words = format!("{size} final requests");
        stage.add(Row::new(NAME, format!("{words}: start to ready"), Unit::Seconds, one(ready)));
        stage.add(Row::new(NAME, format!("{words}: start to the access of who waited"), Unit::Seconds, one(answers)));
        stage.add(
            Row::new(NAME, format!("{words}: resident memory"), Unit::MiB, one(resident)).beside("none", one(empty)),
        );
        let row = Row::new(NAME, format!("{words}: create to mapped"), Unit::Milliseconds, grants.clone());
        stage.add(match &before {
            Some(before) => row.beside("none", before.clone()),
            None => row,
        });
        before.get_or_insert(grants);
        forget(stage).await;
    }
    let mut sizes = Vec::new();
    for size in stage.sizes(&[1, 1000, 10_000], &[1, 20]) {
        let Start { ready, answers, resident } = with(stage, &live, size, &policy, &crowd).await;
        let words = format!("{size} live requests");
        stage.add(Row::new(NAME, format!("{words}: start to ready"), Unit::Seconds, one(ready)));
        let row = Row::new(NAME, format!("{words}: start to the access of who waited"), Unit::Seconds, one(answers));
        stage.add(if size == 10_000 { row.aims(Aim::AtMost(5.0)) } else { row });
        let row = Row::new(NAME, format!("{words}: resident memory"), Unit::MiB, one(resident));
        stage.add(if size == 1000 { row.aims(Aim::AtMost(25.0)) } else { row });
        sizes.push((size as f64, resident));
        forget(stage).await;
    }
    if let [.., (less, before), (more, then)] = sizes[..] {
        let each = (then - before) * 1024.0 / (more - less);
        stage.add(Row::new(NAME, "each further live request", Unit::KiB, one(each)).aims(Aim::AtMost(1.0)));
    }
    stage.clear().await;
    crowd.leave(&w.keycloak).await;
}

/// A request that somebody made and Hallpass answered, as etcd has it.
async fn request(w: &World, policy: &Policy, crowd: &Crowd, duration: &str, phase: Phase) -> Value {
    let username = crowd.username(0);
    let client = w.somebody_called(&username).await;
    let request = Ask::of(w, &username, &policy.name).lasting(duration).create_with(&client).await.expect("asked");
    request.reaches(phase).await;
    w.stack.read_in_etcd(&w.namespace, &request.name).await
}

/// A start: seconds until the operator is ready, and until somebody has access who asked while it was away, which is after all
/// requests were listed; and what is resident then.
struct Start {
    ready: f64,
    answers: f64,
    resident: f64,
}

/// Starts the operator with so many copies of a request.
async fn with(stage: &Stage, request: &Value, size: usize, policy: &Policy, crowd: &Crowd) -> Start {
    stage.stops().await;
    let (w, keys) = (&stage.w, keys(&stage.w).await);
    stream::iter(0..size)
        .for_each_concurrent(AT_ONCE, async |i| {
            let copy = copy(request, i, &keys);
            let name = copy["metadata"]["name"].as_str().expect("a name").to_owned();
            w.stack.put_in_etcd(&w.namespace, &name, &copy).await;
        })
        .await;
    let username = crowd.username(1);
    let ask = Ask::of(w, &username, &policy.name).lasting("10m");
    let waits = ask.create_with(&w.somebody_called(&username).await).await.expect("asked");
    let begin = Instant::now();
    let ready = stage.starts().await.as_secs_f64();
    waits.reaches_within(Phase::Active, Duration::from_mins(5)).await;
    let answers = begin.elapsed().as_secs_f64();
    let _ = w.requests().delete(&waits.name, &DeleteParams::default()).await;
    // What a start is followed by is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    Start { ready, answers, resident: Process::of(&w.stack).resident() }
}

fn copy(request: &Value, i: usize, keys: &Keys) -> Value {
    let mut copy = request.clone();
    let uid = format!("00000000-0000-4000-8000-{i:012}");
    copy["metadata"]["name"] = json!(format!("copy-{i}"));
    copy["metadata"]["uid"] = json!(uid);
    copy["status"]["subject"]["userId"] = json!(format!("00000000-0000-4000-9000-{i:012}"));
    let mut status: AccessRequestStatus = serde_json::from_value(copy["status"].clone()).expect("a status");
    status.seal = keys.seal(&uid, &status);
    copy["status"] = serde_json::to_value(status).expect("JSON");
    copy
}

async fn keys(w: &World) -> Keys {
    let secrets: Api<Secret> = Api::namespaced(w.admin.clone(), "hallpass-system");
    let mut keys = Keys::default();
    for (id, bytes) in secrets.get(keyring::SECRET).await.expect("the keys").data.unwrap_or_default() {
        keys.add(&id, &bytes.0).expect("a key");
    }
    keys
}

/// Takes the copies away again, while nobody looks.
async fn forget(stage: &Stage) {
    stage.stops().await;
    stage.w.stack.forget_in_etcd(&stage.w.namespace, "copy-").await;
    // The API server hears of it from etcd, one by one.
    let requests = stage.w.requests();
    let few = ListParams::default().limit(10);
    let gone = async || {
        let listed = requests.list_metadata(&few).await;
        listed.is_ok_and(|listed| listed.items.iter().all(|request| !request.name_any().starts_with("copy-")))
    };
    stage.w.until_within(Duration::from_mins(5), "the copies are gone", gone).await;
    stage.starts().await;
}

/// From the creation of a request to its mapping, several times.
async fn cost(stage: &Stage, policy: &Policy) -> Values {
    let (w, times) = (&stage.w, stage.size(20, 1));
    let crowd = Crowd::of(&w.keycloak, times).await;
    let mut took = Vec::new();
    for i in 0..times {
        took.push(create_to_mapped(stage, &w.keycloak, policy, &crowd, i).await);
    }
    crowd.leave(&w.keycloak).await;
    Values::of_times(&took)
}
