//! How fast Hallpass is beside bare Keycloak: each benchmark does the same with Hallpass and with a client that only makes
//! the calls that are needed, in one run, on the servers of a stack. `make bench` runs them and writes a report; arguments are
//! words in the names of those that are to run. `--most=1000` leaves out larger numbers, `--rounds=1` repeats nothing, and `--smoke`
//! has them try the smallest, to see that they work.
#![allow(missing_docs, unreachable_pub, reason = "a binary of benchmarks")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "whatever goes wrong fails the run")]
#![allow(clippy::cast_precision_loss, reason = "times and counts are far from where it matters")]
#![allow(clippy::large_futures, reason = "there is one of each")]

use std::env;

#[path = "../tests/scenarios/accounts.rs"]
mod accounts;
#[path = "hallpass/admission.rs"]
mod admission;
#[path = "hallpass/bare.rs"]
mod bare;
#[path = "hallpass/charts.rs"]
mod charts;
#[path = "../tests/scenarios/crowd.rs"]
mod crowd;
#[path = "../tests/scenarios/gate.rs"]
mod gate;
#[path = "hallpass/history.rs"]
mod history;
#[path = "hallpass/idle.rs"]
mod idle;
#[path = "../tests/scenarios/keycloak_admin.rs"]
mod keycloak_admin;
#[path = "hallpass/mass_end.rs"]
mod mass_end;
#[path = "hallpass/mass_start.rs"]
mod mass_start;
#[path = "hallpass/one_grant.rs"]
mod one_grant;
#[path = "hallpass/operator.rs"]
mod operator;
#[path = "../tests/scenarios/people.rs"]
mod people;
#[path = "../tests/scenarios/policy.rs"]
mod policy;
#[path = "hallpass/realm_size.rs"]
mod realm_size;
#[path = "../tests/scenarios/realms.rs"]
mod realms;
#[path = "hallpass/refusing.rs"]
mod refusing;
#[path = "../tests/scenarios/report.rs"]
mod report;
#[path = "../tests/scenarios/request.rs"]
mod request;
#[path = "hallpass/results.rs"]
mod results;
#[path = "hallpass/scene.rs"]
mod scene;
#[path = "hallpass/sick.rs"]
mod sick;
#[path = "hallpass/sign_in.rs"]
mod sign_in;
#[path = "hallpass/stage.rs"]
mod stage;
#[path = "../tests/scenarios/world.rs"]
mod world;

use stage::{Limits, Stage};

const ALL: [&str; 9] =
    ["one-grant", "mass-end", "sign-in", "mass-start", "idle", "realm-size", "admission", "sick-keycloak", "history"];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // cargo adds one of its own.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let option = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name)?.parse::<usize>().ok());
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    let limits = Limits { smoke, most: option("--most="), rounds: option("--rounds=") };
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = words.iter().find(|word| !ALL.iter().any(|name| name.contains(word.as_str()))) {
        panic!("no benchmark has {unknown:?} in its name; there are: {}", ALL.join(", "));
    }
    let chosen = ALL.iter().filter(|name| words.is_empty() || words.iter().any(|word| name.contains(word.as_str())));
    let mut stage = Stage::prepare(limits).await;
    for name in chosen {
        println!("# {name}");
        match *name {
            "one-grant" => one_grant::run(&mut stage).await,
            "mass-end" => mass_end::run(&mut stage).await,
            "sign-in" => sign_in::run(&mut stage).await,
            "mass-start" => mass_start::run(&mut stage).await,
            "idle" => idle::run(&mut stage).await,
            "realm-size" => realm_size::run(&mut stage).await,
            "admission" => admission::run(&mut stage).await,
            "sick-keycloak" => sick::run(&mut stage).await,
            "history" => history::run(&mut stage).await,
            other => unreachable!("{other}"),
        }
        stage.results.save();
    }
    stage.leave().await;
}
