//! What a thousand live requests cost while nothing is due.

use std::time::Duration;

use hallpass::api::Phase;

use crate::{
    crowd::{Crowd, from_now},
    operator::{Process, calls_to_api_server, calls_to_keycloak},
    results::{Aim, Row, Unit, Values},
    stage::Stage,
};

const NAME: &str = "idle";

pub async fn run(stage: &mut Stage) {
    let (size, lasts) = stage.size((1000, Duration::from_mins(10)), (3, Duration::from_secs(5)));
    let w = stage.w.clone();
    stage.starts().await;
    let fresh = Process::of(&w.stack).resident();
    let role = w.keycloak.realm_role("idle").await;
    let policy = w.policy("idle").realm_role("role", &role.name).everybody().automatic().ready().await;
    // What the realm and the policies cost in any case.
    let before = calls_to_keycloak(&w.stack).await;
    tokio::time::sleep(lasts).await;
    let own = calls_to_keycloak(&w.stack).await - before;
    let crowd = Crowd::of(&w.keycloak, size).await;
    let end = from_now(Duration::from_mins(55));
    crowd.ask(&w, &policy, |_| end).await;
    crowd.have_it(&w, end).await;
    // What an activation is followed by is over.
    tokio::time::sleep(stage.size(Duration::from_mins(1), Duration::from_secs(3))).await;
    let process = Process::of(&w.stack);
    let (used, asked, keycloak) = (process.used(), calls_to_api_server(&w.stack), calls_to_keycloak(&w.stack).await);
    tokio::time::sleep(lasts).await;
    let used = process.used().checked_sub(used).unwrap_or_default();
    let asked = (calls_to_api_server(&w.stack) - asked) as f64;
    let keycloak = calls_to_keycloak(&w.stack).await - keycloak;
    let after_a_start = {
        let resident = process.resident();
        stage.starts().await;
        [resident, Process::of(&w.stack).resident()]
    };
    let minutes = lasts.as_secs_f64() / 60.0;
    let one = |value: f64| Values::from_iter([value]);
    let grants = format!("{size} live grants");
    let mut add = |row: Row| stage.add(row);
    add(Row::new(
        NAME,
        format!("{grants}: requests to the API server in a minute"),
        Unit::Number,
        one(asked / minutes),
    ));
    add(Row::new(NAME, format!("{grants}: requests to Keycloak in a minute"), Unit::Number, one(keycloak / minutes)));
    add(Row::new(NAME, "no live grant: requests to Keycloak in a minute", Unit::Number, one(own / minutes)));
    let each = (keycloak - own) / minutes * 10.0 / size as f64;
    let row = Row::new(NAME, "requests to Keycloak in ten minutes that each live grant adds", Unit::Number, one(each));
    add(row.aims(Aim::AtMost(1.0)));
    let milliseconds = used.as_secs_f64() * 1000.0 / minutes;
    add(Row::new(NAME, format!("{grants}: processor's time in a minute"), Unit::Milliseconds, one(milliseconds)));
    let [resident, started] = after_a_start;
    add(Row::new(NAME, "resident memory without any request", Unit::MiB, one(fresh)));
    let row = Row::new(NAME, format!("{grants}: resident memory"), Unit::MiB, one(resident));
    add(if size == 1000 { row.aims(Aim::AtMost(25.0)) } else { row });
    add(Row::new(NAME, format!("{grants}: resident memory after a start"), Unit::MiB, one(started)));
    stage.clear().await;
    assert!(crate::crowd::are_in_phase(&w, Phase::Active, 0, Duration::from_secs(1)).await.is_ok());
    crowd.leave(&w.keycloak).await;
}
