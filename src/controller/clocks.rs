//! Clocks that differ, and clocks that are set. While the API server's or Keycloak's clock is far from ours nothing is given: its
//! deadline would be wrong. What was given ends when the wall clock or the boot-time clock says so.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{Context, Realm};
use crate::clock::Going;

/// Seconds by which clocks may differ.
pub const TOLERATED: u64 = 30;
/// A difference is told anew only when it has changed by more seconds than this: the same words are written once.
const STEADY: u64 = 10;
/// How often it is looked whether a clock was set.
const TICK: Duration = Duration::from_secs(1);

/// Differences as they were told last, in seconds, by whose clock it is.
#[derive(Default)]
pub struct Differences(Mutex<HashMap<String, i64>>);

impl Differences {
    /// Why nothing is given, if this clock is so many seconds ahead of ours.
    fn problem(&self, whose: &str, ahead: Option<i64>) -> Option<String> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ahead) = ahead.filter(|ahead| ahead.unsigned_abs() > TOLERATED) else {
            told.remove(whose);
            return None;
        };
        let last = told.entry(whose.to_owned()).or_insert(ahead);
        if last.abs_diff(ahead) > STEADY {
            *last = ahead;
        }
        let (seconds, where_to) = (last.unsigned_abs(), if *last > 0 { "ahead of" } else { "behind" });
        Some(format!(
            "{whose} is {seconds} s {where_to} the operator's ({TOLERATED} s are tolerated): set the clocks right"
        ))
    }
}

/// Why nothing is given in a realm whose Keycloak has this clock, for whoever looks once.
pub fn clock_of_keycloak_problem(realm: &Realm) -> Option<String> {
    Differences::default().problem("Keycloak's clock", realm.keycloak.clock_skew())
}

impl Context {
    /// Why nothing can be given in a realm, if clocks differ.
    pub fn clock_problem(&self, realm: &Realm) -> Option<String> {
        self.api_server_clock_problem().or_else(|| self.keycloak_clock_problem(realm))
    }

    /// What is wrong with the API server's clock, or with ours.
    pub fn api_server_clock_problem(&self) -> Option<String> {
        self.differences.problem("the clock of the API server", self.leadership.api_server_clock().ahead())
    }

    /// What is wrong with the clock of a realm's Keycloak, or with ours.
    pub fn keycloak_clock_problem(&self, realm: &Realm) -> Option<String> {
        let whose = format!("the clock of Keycloak for realm {}", realm.config.name);
        self.differences.problem(&whose, realm.keycloak.clock_skew())
    }

    /// Looks each second whether a clock was set or the machine was suspended: timers do not notice. Then what is live is looked
    /// at, and when clocks begin or cease to differ, so is what waits.
    pub async fn look_after_clocks(&self) {
        let (mut going, mut told, mut was_cut_off) = (Going::now(), Vec::new(), false);
        loop {
            tokio::time::sleep(TICK).await;
            // From now on what is due goes although its status cannot be written; or the status can be written again.
            let cut_off = self.leadership.may_give().is_err() && self.leadership.may_take().is_ok();
            if cut_off != was_cut_off {
                self.wake_what_ends();
            }
            was_cut_off = cut_off;
            if let Some((set, suspended)) = going.broke() {
                tracing::warn!(%set, %suspended, "the wall clock was set, or the machine was suspended");
                self.wake_all();
            }
            let here = self.realms.values().filter_map(|realm| self.keycloak_clock_problem(realm));
            let problems: Vec<String> = self.api_server_clock_problem().into_iter().chain(here).collect();
            if problems != told {
                if problems.is_empty() {
                    tracing::info!("the clocks agree again");
                } else {
                    tracing::error!(why = problems.join("; "), "nothing is given while clocks differ");
                }
                told = problems;
                self.wake_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_with_its_clock_and_in_the_same_words_while_it_hardly_changes() {
        let differences = Differences::default();
        let told = |ahead| differences.problem("the clock of X", ahead);
        for near in [None, Some(0), Some(30), Some(-30)] {
            assert_eq!(told(near), None);
        }
        let behind =
            "the clock of X is 31 s behind the operator's (30 s are tolerated): set the clocks right".to_owned();
        assert_eq!(told(Some(-31)), Some(behind.clone()));
        assert_eq!(told(Some(-41)), Some(behind));
        assert!(told(Some(-42)).is_some_and(|words| words.contains("42 s behind")));
        assert!(told(Some(3600)).is_some_and(|words| words.contains("3600 s ahead of")));
        assert_eq!(told(Some(1)), None);
    }
}
