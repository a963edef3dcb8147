//! What somebody who signs in notices of many grants that end in the same second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hallpass::api::Phase;

use crate::{
    bare::{Bare, TO_KEYCLOAK},
    crowd::{Crowd, are_in_phase, comes, from_now, requests},
    keycloak_admin::{Person, Role},
    results::{Row, Unit, Values},
    stage::Stage,
};

const NAME: &str = "sign in";

pub async fn run(stage: &mut Stage) {
    let (size, quiet) = stage.size((1000, Duration::from_secs(20)), (6, Duration::from_secs(1)));
    let w = stage.w.clone();
    let person = w.person("signs-in").await.user;
    let alone = sign_ins(stage, &person, tokio::time::sleep(quiet)).await;
    let role = w.keycloak.realm_role("many").await;
    let policy = w.policy("many").realm_role("role", &role.name).everybody().automatic().ready().await;
    let crowd = Crowd::of(&w.keycloak, size).await;
    let end = from_now(Duration::from_secs(20) + Duration::from_millis(150) * crowd.size());
    crowd.ask(&w, &policy, |_| end).await;
    crowd.have_it(&w, end).await;
    comes(end).await;
    let all_end = async { are_in_phase(&w, Phase::Expired, size, crowd.patience() * 2).await.expect("all end") };
    let meanwhile = sign_ins(stage, &person, all_end).await;

    stage.stops().await;
    let bare = stage.bare().await;
    Bare::each(TO_KEYCLOAK, &crowd.ids, async |user| bare.map(user, &role).await).await;
    let holdings: Vec<(String, Role)> = crowd.ids.iter().map(|user| (user.clone(), role.clone())).collect();
    let requests = requests(&w).await;
    let beside = sign_ins(stage, &person, bare.unmap_and_write(&holdings, &requests)).await;

    let milliseconds = |words: &str, values: Values| Row::new(NAME, words, Unit::Milliseconds, values);
    stage.add(milliseconds("nothing else happens", alone));
    let words = format!("{size} grants end");
    stage.add(milliseconds(&words, meanwhile).beside("bare client with one status each", beside));
    stage.clear().await;
    policy.delete().await;
    crowd.leave(&w.keycloak).await;
    stage.starts().await;
}

/// How long it takes to sign in while something is done: again and again by one person, at least once, and the last one to its end.
async fn sign_ins<T>(stage: &Stage, person: &Person, something: impl Future<Output = T>) -> Values {
    let is_done = Arc::new(AtomicBool::new(false));
    let (w, person, done) = (stage.w.clone(), person.clone(), is_done.clone());
    // It does not wait for what is done here.
    let sign_ins = tokio::spawn(async move {
        let mut times = Vec::new();
        while times.is_empty() || !done.load(Ordering::Relaxed) {
            let begin = Instant::now();
            w.keycloak.tokens(&person).await;
            times.push(begin.elapsed());
        }
        times
    });
    something.await;
    is_done.store(true, Ordering::Relaxed);
    Values::of_times(&sign_ins.await.expect("signed in"))
}
