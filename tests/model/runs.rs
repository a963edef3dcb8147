//! The worlds that are explored. Those of `make test` take seconds; `make model` explores the others, and prints how much
//! each has of states.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::{
    protocol::{Config, Protocol},
    rules::ALL,
    state::Budget,
    telling,
};

/// Nothing goes wrong.
pub const NOTHING: Budget = Budget { faults: 0, admin: 0, user: 0, role: 0, vanish: 0 };

/// Two requests for the same, an hour each.
pub const SAME: Config = Config { wants: [&[0], &[0]], lasting: [1, 1], ticks: 2, finalizer: true, budget: NOTHING };

/// Explores a world. What is found is told as a list of steps.
pub fn explore(name: &str, model: Protocol, threads: usize) -> Result<String, String> {
    let began = Instant::now();
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let line = format!("{name}: {}", telling::looked_at(checker.model(), &checker, began.elapsed()));
    match checker.discoveries().into_iter().next() {
        None => Ok(line),
        Some((property, path)) => {
            Err(format!("{line}\nviolated: {property}\n{}", telling::steps(checker.model(), path)))
        }
    }
}

#[track_caller]
fn holds(name: &str, config: Config) {
    match explore(name, Protocol::new(config, ALL, None), 1) {
        Ok(line) => println!("{line}"),
        Err(told) => panic!("{told}"),
    }
}

/// One name for each test: the budget, and what else differs.
macro_rules! worlds {
    ($($(#[$attribute:meta])* $name:ident: $budget:expr, $($field:ident: $value:expr),*;)*) => { $(
        #[test]
        $(#[$attribute])*
        fn $name() {
            holds(stringify!($name), Config { budget: $budget, $($field: $value,)* ..SAME });
        }
    )* };
}

worlds! {
    an_administrator_meddles: Budget { admin: 2, ..NOTHING },;
    users_end_and_delete: Budget { user: 1, ..NOTHING },;
    a_role_is_renamed_or_deleted: Budget { role: 1, ..NOTHING },;
    a_request_is_destroyed: Budget { vanish: 1, ..NOTHING },;
    a_write_or_its_answer_is_lost: Budget { faults: 1, ..NOTHING },;
    two_targets: Budget { admin: 1, ..NOTHING }, wants: [&[0], &[1]];
    two_targets_of_one: Budget { faults: 1, ..NOTHING }, wants: [&[0, 1], &[]];
}

/// The worlds of `make model`, one after another: each has as many states as the machine has time for.
#[test]
#[ignore = "minutes: make model"]
fn deep() {
    let only = std::env::var("HALLPASS_MODEL").unwrap_or_default();
    let failed: Vec<String> = DEEP
        .iter()
        .filter(|(name, _)| name.contains(&only))
        .filter_map(|(name, config)| {
            let explored = explore(name, Protocol::new(*config, ALL, None), 2);
            explored.map(|line| println!("{line}")).inspect_err(|told| println!("{told}")).err()
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

const DEEP: &[(&str, Config)] = &[
    ("an administrator twice, a user once", Config { budget: Budget { admin: 2, user: 1, ..NOTHING }, ..SAME }),
    ("one fault, an administrator once", Config { budget: Budget { faults: 1, admin: 1, ..NOTHING }, ..SAME }),
    ("one fault, a user once", Config { budget: Budget { faults: 1, user: 1, ..NOTHING }, ..SAME }),
    ("one fault, a role renamed or deleted", Config { budget: Budget { faults: 1, role: 1, ..NOTHING }, ..SAME }),
    ("one fault, a request destroyed", Config { budget: Budget { faults: 1, vanish: 1, ..NOTHING }, ..SAME }),
    ("both destroyed", Config { budget: Budget { vanish: 2, ..NOTHING }, ..SAME }),
    ("two targets, one fault", Config { wants: [&[0, 1], &[0]], budget: Budget { faults: 1, ..NOTHING }, ..SAME }),
    (
        "one within the other, one fault, an administrator once",
        Config { lasting: [2, 1], budget: Budget { faults: 1, admin: 1, ..NOTHING }, ..SAME },
    ),
    ("two faults", Config { budget: Budget { faults: 2, ..NOTHING }, ..SAME }),
];
