//! Many grants end in the same second.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use hallpass::api::{AccessRequest, Phase};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    bare::{Bare, TO_KEYCLOAK},
    crowd::{Crowd, are_in_phase, comes, from_now, percentile, removals, requests},
    keycloak_admin::Role,
    request::Ask,
    results::{Aim, Row, Unit, Values},
    stage::Stage,
};

const NAME: &str = "mass end";

/// What is lent: so many roles to each of so many people.
#[derive(Clone, Copy)]
struct Shape {
    people: usize,
    roles: usize,
}

/// What one round has shown.
struct Round {
    /// From the deadline to each removal in Keycloak, the first one first.
    lags: Vec<Duration>,
    /// From the deadline until all statuses are final.
    all_told: Duration,
    /// The same mappings taken away by the bare client, and with one status each.
    bare: Duration,
    bare_with_status: Duration,
}

pub async fn run(stage: &mut Stage) {
    let mut shapes: Vec<Shape> =
        stage.sizes(&[100, 1000, 5000], &[6]).into_iter().map(|people| Shape { people, roles: 1 }).collect();
    shapes.push(stage.size(Shape { people: 50, roles: 20 }, Shape { people: 2, roles: 3 }));
    for shape in shapes {
        let mut rounds = Vec::new();
        for _ in 0..stage.rounds(if shape.people > 1000 { 1 } else { 3 }) {
            rounds.push(round(stage, shape).await);
        }
        tell(stage, shape, &rounds);
    }
}

fn tell(stage: &mut Stage, shape: Shape, rounds: &[Round]) {
    let Shape { people, roles } = shape;
    let grants = people * roles;
    let what = if roles == 1 { format!("{grants} grants") } else { format!("{grants} grants of {people} people") };
    let rate = |time: &dyn Fn(&Round) -> Duration| -> Values {
        rounds.iter().map(|round| grants as f64 / time(round).as_secs_f64()).collect()
    };
    let last = |round: &Round| *round.lags.last().expect("one");
    let removed = |what: String| Row::new(NAME, what, Unit::PerSecond, rate(&last));
    stage.add(removed(format!("{what}: removed")).beside("bare client", rate(&|round| round.bare)));
    let with_status = removed(format!("{what}: removed, beside a status each"));
    let with_status = with_status.beside("bare client with one status each", rate(&|round| round.bare_with_status));
    stage.add(if people == 1000 { with_status.aims(Aim::RatioAtLeast(0.9)) } else { with_status });
    let mut seconds = |words: &str, time: &dyn Fn(&Round) -> Duration| {
        let values = rounds.iter().map(|round| time(round).as_secs_f64()).collect();
        stage.add(Row::new(NAME, format!("{what}: {words}"), Unit::Seconds, values));
    };
    seconds("overdue, p50", &|round| percentile(&round.lags, 50));
    seconds("overdue, p99", &|round| percentile(&round.lags, 99));
    seconds("last one gone", &last);
    seconds("last one final", &|round| round.all_told);
}

async fn round(stage: &Stage, shape: Shape) -> Round {
    let Shape { people, roles } = shape;
    let w = &stage.w;
    let mut policy = w.policy("mass").everybody().automatic();
    let mut lent = Vec::new();
    for i in 0..roles {
        let role = w.keycloak.realm_role("mass").await;
        policy = policy.realm_role(&format!("role-{i}"), &role.name);
        lent.push(role);
    }
    let policy = policy.ready().await;
    let crowd = Crowd::of(&w.keycloak, people).await;
    let grants = people * roles;
    let end = from_now(Duration::from_secs(20) + Duration::from_millis(100) * u32::try_from(grants).expect("few"));
    let wanted: Vec<(usize, usize)> = (0..people).flat_map(|i| (0..roles).map(move |j| (i, j))).collect();
    stream::iter(&wanted)
        .for_each_concurrent(8, async |(i, j)| {
            let username = crowd.username(*i);
            let client = w.somebody_called(&username).await;
            let ask = Ask::of(w, &username, &policy.name).grants([format!("role-{j}").as_str()]);
            ask.with("notAfter", json!(end.to_string())).create_with(&client).await.expect("asked");
        })
        .await;
    let patience = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
    are_in_phase(w, Phase::Active, grants, patience).await.expect("all are active before the end");
    comes(end).await;
    let begin = Instant::now();
    are_in_phase(w, Phase::Expired, grants, crowd.patience() * 2).await.expect("all end");
    let all_told = begin.elapsed();
    let mut lags: Vec<Duration> = removals(&w.keycloak, &crowd, end).await.values().map(|[first, _]| *first).collect();
    lags.sort();
    assert_eq!(lags.len(), grants, "each was removed");
    let holdings: Vec<(String, Role)> = wanted.iter().map(|(i, j)| (crowd.ids[*i].clone(), lent[*j].clone())).collect();
    let (bare, bare_with_status) = without_hallpass(stage, &holdings).await;
    crowd.leave(&w.keycloak).await;
    policy.delete().await;
    Round { lags, all_told, bare, bare_with_status }
}

/// The same mappings without Hallpass: alone, and with a status each.
async fn without_hallpass(stage: &Stage, holdings: &[(String, Role)]) -> (Duration, Duration) {
    stage.stops().await;
    let bare = stage.bare().await;
    let map = async || Bare::each(TO_KEYCLOAK, holdings, async |(user, role)| bare.map(user, role).await).await;
    map().await;
    let alone = Bare::each(TO_KEYCLOAK, holdings, async |(user, role)| bare.unmap(user, role).await).await;
    map().await;
    let requests: Vec<AccessRequest> = requests(&stage.w).await;
    let with_status = bare.unmap_and_write(holdings, &requests).await;
    // Their statuses are not the operator's any more: it is not to see them.
    stage.clear().await;
    stage.starts().await;
    (alone, with_status)
}
