//! Many grants end while Keycloak is not well.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use hallpass::api::Phase;
use serde_json::Value;

use crate::{
    bare::{Bare, TO_KEYCLOAK},
    crowd::{Crowd, are_in_phase, comes, from_now, lags},
    gate::{Gate, Mode},
    keycloak_admin::Role,
    refusing::Refusing,
    results::{Row, Unit, Values},
    stage::Stage,
};

const NAME: &str = "sick Keycloak";
const DELAY: Duration = Duration::from_secs(1);
/// So many of a hundred calls are refused.
const REFUSED: u32 = 10;

pub async fn run(stage: &mut Stage) {
    let size = stage.size(200, 8);
    let config = stage.w.stack.operator.config.clone();
    let before = fs::read_to_string(&config).expect("the operator's configuration");
    let parsed: Value = serde_saphyr::from_str(&before).expect("YAML");
    let url = parsed["realms"][0]["url"].as_str().expect("a URL").to_owned();
    let reached_by = |other: &str| {
        fs::write(&config, before.replace(&url, other)).expect("the operator's configuration");
    };
    let one = |seconds: f64| Values::from_iter([seconds]);

    let port = reqwest::Url::parse(&url).expect("a URL").port().expect("a port");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let gate = Gate::at(free, SocketAddr::from(([127, 0, 0, 1], port))).expect("a free port");
    reached_by(&format!("https://127.0.0.1:{free}"));
    let slows = |ends| gate.is(if ends { Mode::Slow(DELAY) } else { Mode::Open });
    let (slow, ()) = mass_end(stage, size, DELAY, slows, async |_, _| ()).await;
    let best = size.div_ceil(TO_KEYCLOAK) as f64 * DELAY.as_secs_f64();
    let what = format!("{size} grants, each answer takes {DELAY:?}: last one gone");
    stage.add(Row::new(NAME, what, Unit::Seconds, one(slow)).beside("eight at a time", one(best)));

    let refusing = Refusing::before(&url, stage.bare().await.http()).await;
    reached_by(&refusing.url);
    let some_refused = |ends| refusing.refuses(if ends { REFUSED } else { 0 });
    let reference = async |crowd: &Crowd, role: &Role| without_hallpass(stage, crowd, role).await;
    let (refused, bare) = mass_end(stage, size, Duration::ZERO, some_refused, reference).await;
    let what = format!("{size} grants, {REFUSED} % of all calls are refused with 503: last one gone");
    stage.add(
        Row::new(NAME, what, Unit::Seconds, one(refused))
            .beside("bare client, nothing refused", one(bare.as_secs_f64())),
    );

    reached_by(&url);
    stage.starts().await;
}

/// Many end at once in a sick Keycloak: how long until the last one was gone, and what a reference says of the same people and role when
/// it is well.
async fn mass_end<R>(
    stage: &Stage,
    size: usize,
    delay: Duration,
    sick: impl Fn(bool),
    reference: impl AsyncFnOnce(&Crowd, &Role) -> R,
) -> (f64, R) {
    let w = &stage.w;
    stage.starts().await;
    let role = w.keycloak.realm_role("sick").await;
    let policy = w.policy("sick").realm_role("role", &role.name).everybody().automatic().ready().await;
    let crowd = Crowd::of(&w.keycloak, size).await;
    let end = from_now(Duration::from_secs(20) + Duration::from_millis(150) * crowd.size());
    crowd.ask(w, &policy, |_| end).await;
    crowd.have_it(w, end).await;
    sick(true);
    comes(end).await;
    are_in_phase(w, Phase::Expired, size, delay * crowd.size() + crowd.patience()).await.expect("all end");
    sick(false);
    // What was left without an answer is removed once more later, and was gone before that.
    let [gone, _] = lags(&w.keycloak, &crowd, end).await;
    let last = gone.last().expect("one").as_secs_f64();
    stage.stops().await;
    let beside = reference(&crowd, &role).await;
    stage.clear().await;
    policy.delete().await;
    crowd.leave(&w.keycloak).await;
    (last, beside)
}

async fn without_hallpass(stage: &Stage, crowd: &Crowd, role: &Role) -> Duration {
    let bare = stage.bare().await;
    Bare::each(TO_KEYCLOAK, &crowd.ids, async |user| bare.map(user, role).await).await;
    Bare::each(TO_KEYCLOAK, &crowd.ids, async |user| bare.unmap(user, role).await).await
}
