//! Many requests that are made and approved as fast as clients can.

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use hallpass::api::{AccessRequestStatus, Phase};
use kube::{
    Client, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde_json::Value;

use crate::{
    bare::{Bare, TO_KEYCLOAK},
    crowd::Crowd,
    operator::Process,
    request::{Ask, Request},
    results::{Aim, Row, Unit, Values},
    scene::Scene,
    stage::Stage,
};

const NAME: &str = "mass start";
/// So many people ask at once, and so many vote.
const CLIENTS: usize = 8;

/// Those who ask.
struct Askers {
    crowd: Crowd,
    clients: Vec<Client>,
}

impl Askers {
    async fn of(stage: &Stage, size: usize) -> Self {
        let crowd = Crowd::of(&stage.w.keycloak, size).await;
        let mut clients = Vec::new();
        for i in 0..size {
            clients.push(stage.w.somebody_called(&crowd.username(i)).await);
        }
        Self { crowd, clients }
    }

    async fn ask(&self, stage: &Stage, scene: &Scene, i: usize) -> Request {
        let ask = Ask::of(&stage.w, &self.crowd.username(i), &scene.policy.name).lasting("30m");
        ask.create_with(&self.clients[i]).await.expect("asked")
    }
}

/// What the first request has shown: its status while it waits and when it is active, and how many statuses were written.
struct Sample {
    waiting: AccessRequestStatus,
    active: AccessRequestStatus,
    writes: usize,
}

pub async fn run(stage: &mut Stage) {
    let (size, rounds) = (stage.size(250, 4), stage.rounds(3));
    let (scene, askers) = (Scene::prepare(&stage.w, "many").await, Askers::of(stage, size).await);
    let sample = sample(stage, &scene, &askers).await;
    let (mut times, mut peaks, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        stage.starts().await;
        times.push(with_hallpass(stage, &scene, &askers, size).await);
        peaks.push(Process::of(&stage.w.stack).peak());
        stage.clear().await;
        stage.stops().await;
        bare.push(without_hallpass(stage, &scene, &askers, &sample).await);
        stage.clear().await;
    }
    stage.starts().await;
    askers.crowd.leave(&stage.w.keycloak).await;
    let rate = |times: &[Duration]| times.iter().map(|time| size as f64 / time.as_secs_f64()).collect::<Values>();
    let row = Row::new(NAME, format!("{size} requests from create to active"), Unit::PerSecond, rate(&times));
    let what = format!("the same calls and {} statuses each", sample.writes);
    stage.add(row.beside(&what, rate(&bare)).aims(Aim::RatioAtLeast(0.7)));
    let peaks = peaks.into_iter().collect();
    stage.add(Row::new(NAME, "peak of resident memory", Unit::MiB, peaks).aims(Aim::AtMost(30.0)));
}

async fn sample(stage: &Stage, scene: &Scene, askers: &Askers) -> Sample {
    let request = askers.ask(stage, scene, 0).await;
    let waiting = request.until("a ballot", |status| status.ballot.is_some()).await;
    scene.vote(&request.namespace, &request.name, waiting.ballot.as_deref().expect("a ballot")).await;
    let active = request.reaches(Phase::Active).await;
    let writes = fs::read_to_string(&stage.w.stack.audit_log).expect("an audit log");
    let of_status = |line: &&str| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let object = &line["objectRef"];
        line["stage"] == "ResponseComplete"
            && line["verb"] == "update"
            && object["name"] == request.name.as_str()
            && object["subresource"] == "status"
    };
    let writes = writes.lines().filter(|line| line.contains(&request.name)).filter(of_status).count();
    stage.clear().await;
    Sample { waiting, active, writes }
}

async fn with_hallpass(stage: &Stage, scene: &Scene, askers: &Askers, size: usize) -> Duration {
    let requests = stage.w.requests();
    let begin = Instant::now();
    let asking = stream::iter(0..size).for_each_concurrent(CLIENTS, async |i| drop(askers.ask(stage, scene, i).await));
    let voting = async {
        let (mut voted, mut active) = (HashSet::new(), HashSet::new());
        let (ballots, to_vote) = futures::channel::mpsc::unbounded::<(String, String, String)>();
        let watching = async {
            let mut events = watcher(requests, watcher::Config::default()).default_backoff().boxed();
            while active.len() < size {
                let Some(Ok(Event::InitApply(request) | Event::Apply(request))) = events.next().await else { continue };
                let (name, status) = (request.name_any(), request.status.clone().unwrap_or_default());
                if status.phase == Some(Phase::Active) {
                    active.insert(name);
                } else if let Some(ballot) = status.ballot.filter(|_| status.phase == Some(Phase::Pending))
                    && voted.insert(name.clone())
                {
                    let _ = ballots.unbounded_send((request.namespace().unwrap_or_default(), name, ballot));
                }
            }
            ballots.close_channel();
        };
        let voting = to_vote.for_each_concurrent(CLIENTS, async |(namespace, name, ballot)| {
            scene.vote(&namespace, &name, &ballot).await;
        });
        futures::future::join(watching, voting).await;
    };
    let both = futures::future::join(asking, voting);
    tokio::time::timeout(Duration::from_mins(5), both).await.expect("all are active");
    begin.elapsed()
}

/// What has to be done for each in any case: nothing waits for another request.
async fn without_hallpass(stage: &Stage, scene: &Scene, askers: &Askers, sample: &Sample) -> Duration {
    let bare = stage.bare().await;
    let all: Vec<usize> = (0..askers.clients.len()).collect();
    let took = Bare::each(TO_KEYCLOAK, &all, async |i| {
        let (user, username) = (&askers.crowd.ids[*i], askers.crowd.username(*i));
        let request = askers.ask(stage, scene, *i).await;
        let object = bare.finalizer(&request.get().await, true).await;
        bare.get(&format!("users?exact=true&username={}", username.trim_start_matches("oidc:"))).await;
        bare.write(&object, &sample.waiting).await;
        scene.vote(&request.namespace, &request.name, sample.waiting.ballot.as_deref().expect("a ballot")).await;
        bare.get(&format!("users/{user}/role-mappings/realm")).await;
        let mut object = request.get().await;
        for _ in 2..sample.writes {
            object = bare.write(&object, &sample.active).await;
        }
        bare.map(user, &scene.role).await;
        bare.write(&object, &sample.active).await;
    })
    .await;
    // Its finalizers are nobody's.
    for i in crate::crowd::requests(&stage.w).await {
        bare.finalizer(&i, false).await;
    }
    for user in &askers.crowd.ids {
        bare.unmap(user, &scene.role).await;
    }
    took
}
