//! Liveness: from every state there is a way without further faults on which all requests end and nothing of ours is left.
//!
//! stateright's `eventually` is sound only where no state is reached twice, and here most are. So this is a property of a
//! state: the one way is walked on which everybody does what there is to do, in turn, and time passes when nobody has
//! anything. It is walked twice: as if all that is late never arrived, and as if it did. That is more than that some way
//! exists, and less than that every fair one leads there. What is known to lead there is remembered, so that a state costs
//! about one step.

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Mutex, PoisonError},
};

use stateright::Model;

use super::{
    protocol::{Action, Protocol},
    servers::Answer,
    state::State,
};

/// More steps at one time than a request has.
const STEPS: usize = 60;
/// So many turns at the end of time.
const TURNS_AT_THE_END: u8 = 4;

/// States that are known to lead to rest: if what is late dies, and if it arrives.
#[derive(Default)]
pub struct Rest {
    known: [Mutex<HashSet<u64>>; 2],
}

impl Protocol {
    pub fn comes_to_rest(&self, state: &State) -> bool {
        [false, true].into_iter().all(|arrives| self.way_to_rest(state, arrives).is_ok())
    }

    /// The way, or where it does not end.
    pub fn way_to_rest(&self, state: &State, arrives: bool) -> Result<(), Vec<(Action, State)>> {
        let hasher = BuildHasherDefault::<DefaultHasher>::new();
        let known = || self.rest.known[usize::from(arrives)].lock().unwrap_or_else(PoisonError::into_inner);
        let (mut state, mut turn, mut passed, mut way) = (*state, 0, Vec::new(), Vec::new());
        for _ in state.now..=self.config.ticks + TURNS_AT_THE_END {
            for _ in 0..STEPS {
                let hash = hasher.hash_one(state);
                let rests = Self::is_quiet(&state) && !Self::leaves_something(&state);
                if rests || known().contains(&hash) {
                    known().extend(passed);
                    return Ok(());
                }
                passed.push(hash);
                let Some((action, next)) = self.goes_on(&state, arrives, &mut turn) else { break };
                way.push((action, next));
                state = next;
            }
            if let Some(next) = self.next_state(&state, Action::Tick) {
                way.push((Action::Tick, next));
                state = next;
            }
        }
        Err(way)
    }

    /// What happens next if nothing goes wrong.
    fn goes_on(&self, state: &State, arrives: bool, turn: &mut u8) -> Option<(Action, State)> {
        let late = if arrives { Action::Lands(0) } else { Action::Dies(0) };
        let steps = [Action::Step(*turn), Action::Step(1 - *turn)];
        let first = [late, Action::Answered(Answer::Given), Action::CarriesOut, Action::Shows(0), Action::Shows(1)];
        let mut all = first.into_iter().chain([Action::Settles]).chain(steps);
        let found = all.find_map(|action| Some((action, self.next_state(state, action)?)))?;
        if matches!(found.0, Action::Step(_)) {
            *turn = 1 - *turn;
        }
        Some(found)
    }
}
