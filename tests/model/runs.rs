//! The runs.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::{
    protocol::{Config, Protocol},
    rules::Rules,
    state::Budget,
    telling,
};

/// Two requests for the same, an hour each.
const SAME: Config = Config {
    wants: [&[0], &[0]],
    lasting: [1, 1],
    ticks: 2,
    finalizer: true,
    budget: Budget { faults: 0, admin: 0, user: 0, role: 0, vanish: 0 },
};

fn run(name: &str, config: Config, rules: Rules) -> Result<String, String> {
    let began = Instant::now();
    let checker = Protocol::new(config, rules)
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let looked_at = telling::looked_at(checker.model(), &checker, began.elapsed());
    let line = format!("{name}: {looked_at}");
    match checker.discoveries().into_iter().next() {
        None => Ok(line),
        Some((property, path)) => {
            Err(format!("{line}\nviolated: {property}\n{}", telling::steps(checker.model(), path)))
        }
    }
}

#[test]
fn try_it() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let budget = Budget { faults: number("F"), admin: number("A"), user: number("U"), role: number("M"), vanish: number("V") };
    match run("try", Config { budget, ..SAME }, Rules::default()) {
        Ok(line) => println!("{line}"),
        Err(line) => panic!("{line}"),
    }
}
