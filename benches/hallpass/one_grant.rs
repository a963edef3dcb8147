//! One grant at a time, while nothing else happens.

use std::time::Duration;

use hallpass::api::Phase;
use jiff::Timestamp;

use crate::{
    crowd::Crowd,
    request::{Ask, Request},
    results::{Aim, Row, Unit, Values},
    scene::{Scene, after, when},
    stage::Stage,
};

const NAME: &str = "one grant";
/// The shortest that there is.
const LASTS: Duration = Duration::from_secs(5);

/// Waits until so many milliseconds of the next second are over: deadlines are whole seconds, and what happens then is not to meet
/// the next vote. The reference keeps the same time, because a server that had nothing to do for a while answers later.
async fn beat(milliseconds: u64) {
    let past = Duration::from_nanos(Timestamp::now().subsec_nanosecond().unsigned_abs().into());
    tokio::time::sleep(Duration::from_millis(1000 + milliseconds).saturating_sub(past)).await;
}

async fn ask(stage: &Stage, scene: &Scene, crowd: &Crowd, i: usize) -> Request {
    let username = crowd.username(i);
    let ask = Ask::of(&stage.w, &username, &scene.policy.name).lasting(&format!("{}s", LASTS.as_secs()));
    ask.create_with(&stage.w.somebody_called(&username).await).await.expect("asked")
}

pub async fn run(stage: &mut Stage) {
    let times = stage.size(100, 3);
    let scene = Scene::prepare(&stage.w, "one").await;
    let keycloak = &stage.w.keycloak;
    let crowd = Crowd::of(keycloak, times).await;
    let mut votes = Vec::new();
    for i in 0..times {
        beat(150).await;
        let request = ask(stage, &scene, &crowd, i).await;
        let ballot = request.ballot().await;
        votes.push((request.clone(), scene.vote(&request.namespace, &request.name, &ballot).await));
        request.reaches(Phase::Active).await;
    }
    let (mut mapped, mut unmapped, mut sample) = (Vec::new(), Vec::new(), None);
    for (i, (request, voted)) in votes.iter().enumerate() {
        let status = request.reaches(Phase::Expired).await;
        let deadline = status.grant.as_ref().expect("a grant").deadline.0;
        mapped.push(after(*voted, when(keycloak, &crowd.ids[i], "CREATE").await));
        unmapped.push(after(deadline, when(keycloak, &crowd.ids[i], "DELETE").await));
        sample = Some(request.get().await);
    }
    let sample = sample.and_then(|request| request.status).expect("a status");
    stage.clear().await;
    let waiting: Vec<Request> = futures::future::join_all((0..times).map(|i| ask(stage, &scene, &crowd, i))).await;
    let mut ballots = Vec::new();
    for request in &waiting {
        ballots.push(request.ballot().await);
    }
    stage.stops().await;
    let bare = stage.bare().await;
    let (mut bare_mapped, mut bare_unmapped) = (Vec::new(), Vec::new());
    for (i, request) in waiting.iter().enumerate() {
        let user = &crowd.ids[i];
        beat(150).await;
        let begin = scene.vote(&request.namespace, &request.name, &ballots[i]).await;
        let now = request.get().await;
        bare.write(&now, &sample).await;
        bare.map(user, &scene.role).await;
        bare_mapped.push(after(begin, when(keycloak, user, "CREATE").await));
        beat(0).await;
        let begin = Timestamp::now();
        bare.unmap(user, &scene.role).await;
        bare_unmapped.push(after(begin, when(keycloak, user, "DELETE").await));
    }
    stage.clear().await;
    stage.starts().await;
    crowd.leave(&stage.w.keycloak).await;
    let row = |words: &str, times: &[Duration]| Row::new(NAME, words, Unit::Milliseconds, Values::of_times(times));
    let mapping = row("deciding vote to mapped", &mapped);
    let mapping = mapping.beside("vote, one status, mapping", Values::of_times(&bare_mapped));
    stage.add(mapping.aims(Aim::RatioAtMost(2.0)));
    let lag = Values::of_times(&unmapped);
    let p99 = Values::from_iter([lag.percentile(99)]);
    let ending = row("deadline to unmapped, p50", &unmapped)
        .beside("one call at the same time of the second", Values::of_times(&bare_unmapped));
    stage.add(ending.aims(Aim::AtMost(20.0)));
    stage.add(Row::new(NAME, "deadline to unmapped, p99", Unit::Milliseconds, p99).aims(Aim::AtMost(250.0)));
}
