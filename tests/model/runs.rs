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
pub const SAME: Config =
    Config { wants: [&[0], &[0]], lasting: [1, 1], ticks: 2, finalizer: true, budget: NOTHING };

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
}
