//! Many grants end while Keycloak is not well.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use hallpass::api::Phase;
use serde_json::Value;

use crate::{
    bare::TO_KEYCLOAK,
    crowd::{Crowd, are_in_phase, comes, from_now, lags},
    gate::{Gate, Mode},
    results::{Row, Unit, Values},
    stage::Stage,
};

const NAME: &str = "sick Keycloak";
const DELAY: Duration = Duration::from_secs(1);

pub async fn run(stage: &mut Stage) {
    let size = stage.size(200, 8);
    let w = stage.w.clone();
    let config = &w.stack.operator.config;
    let before = fs::read_to_string(config).expect("the operator's configuration");
    let parsed: Value = serde_saphyr::from_str(&before).expect("YAML");
    let url = parsed["realms"][0]["url"].as_str().expect("a URL").to_owned();
    let port = reqwest::Url::parse(&url).expect("a URL").port().expect("a port");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let gate = Gate::at(free, SocketAddr::from(([127, 0, 0, 1], port))).expect("a free port");
    fs::write(config, before.replace(&url, &format!("https://127.0.0.1:{free}")))
        .expect("the operator's configuration");
    stage.starts().await;
    let role = w.keycloak.realm_role("sick").await;
    let policy = w.policy("sick").realm_role("role", &role.name).everybody().automatic().ready().await;
    let crowd = Crowd::of(&w.keycloak, size).await;
    let end = from_now(Duration::from_secs(20) + Duration::from_millis(150) * crowd.size());
    crowd.ask(&w, &policy, |_| end).await;
    crowd.have_it(&w, end).await;
    gate.is(Mode::Slow(DELAY));
    comes(end).await;
    are_in_phase(&w, Phase::Expired, size, DELAY * crowd.size() + crowd.patience()).await.expect("all end");
    gate.is(Mode::Open);
    let [_, last] = lags(&w.keycloak, &crowd, end).await;
    let last = last.last().expect("one").as_secs_f64();
    let best = size.div_ceil(TO_KEYCLOAK) as f64 * DELAY.as_secs_f64();
    let row = Row::new(
        NAME,
        format!("{size} grants, each answer takes {DELAY:?}: last one gone"),
        Unit::Seconds,
        Values::from_iter([last]),
    );
    stage.add(row.beside("best schedule", Values::from_iter([best])));
    stage.clear().await;
    fs::write(config, before).expect("the operator's configuration");
    stage.starts().await;
    crowd.leave(&w.keycloak).await;
}
