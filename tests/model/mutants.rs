//! One rule is taken away in each of these, and the model has to find out. A world that is too small to find it proves
//! nothing, so these say at the same time how large the worlds of `runs` have to be.
//!
//! Not found in worlds of this size, because other rules make up for it: an activation beside a Revoking (settling), own
//! writes that are not known and a leader that begins with a stale list (resourceVersions), no fence, a removal that is not due
//! before its record.

use super::{
    protocol::{COMES_TO_REST, Config, DEADLINE, FINAL, HOLDS, LEAVES_NOTHING, ONE_WRITER, Protocol, TAKES_NOTHING},
    rules::{ALL, Rules},
    runs::{NOTHING, SAME, explore},
    state::Budget,
};

/// Fails unless this is found.
#[track_caller]
fn finds(expected: &'static str, name: &str, config: Config, change: fn(&mut Rules)) {
    let mut rules = ALL;
    change(&mut rules);
    match explore(name, Protocol::new(config, rules, Some(expected)), 1) {
        Ok(line) => panic!("nothing was found. {line}"),
        Err(told) => println!("{told}"),
    }
}

macro_rules! mutants {
    ($($name:ident: $change:expr, $config:expr => $found:expr;)*) => { $(
        #[test]
        fn $name() {
            finds($found, stringify!($name), $config, $change);
        }
    )* };
}

const fn with(budget: Budget) -> Config {
    Config { budget, ..SAME }
}
const FAULT: Config = with(Budget { faults: 1, ..NOTHING });
const MEDDLED: Config = with(Budget { admin: 1, ..NOTHING });
const ENDED: Config = with(Budget { user: 1, ..NOTHING });
const ROLES: Config = with(Budget { role: 1, ..NOTHING });
const DESTROYED: Config = with(Budget { vanish: 1, ..NOTHING });
const BOTH_DESTROYED: Config = with(Budget { vanish: 2, ..NOTHING });
/// The second one ends later.
const BEYOND: Config = Config { lasting: [1, 2], ..SAME };
/// The second one begins later and ends earlier.
const WITHIN: Config = Config { lasting: [2, 1], ..SAME };

mutants! {
    held_by_another_is_taken_for_ours: |rules| rules.domain.inherits_only_ours = false, WITHIN => TAKES_NOTHING;
    what_was_there_is_taken_for_ours: |rules| rules.domain.keeps_theirs = false, SAME => TAKES_NOTHING;
    ours_is_taken_for_what_was_there:
        |rules| (rules.domain.inherits_ours, rules.domain.hands_over) = (false, false), BEYOND => COMES_TO_REST;
    what_was_there_is_mapped: |rules| rules.domain.confirms_only = false, MEDDLED => COMES_TO_REST;
    nobody_takes_over:
        |rules| rules.domain.hands_over = false, Config { budget: MEDDLED.budget, ..WITHIN } => COMES_TO_REST;
    who_is_due_holds: |rules| rules.domain.strict_holders = false, SAME => COMES_TO_REST;
    nobody_else_holds: |rules| rules.domain.heeds_holders = false, WITHIN => HOLDS;
    an_intent_was_never_mapped: |rules| rules.domain.removes_intents = false, FAULT => LEAVES_NOTHING;

    a_new_deadline_when_it_goes_on:
        |rules| (rules.domain.keeps_deadline, rules.crd) = (false, false), Config { ticks: 3, lasting: [2, 2], ..SAME } => DEADLINE;
    nothing_settles: |rules| rules.domain.settles = false, FAULT => COMES_TO_REST;
    nothing_settles_at_a_hand_over: |rules| rules.domain.settles_at_hand_over = false, FAULT => COMES_TO_REST;
    nothing_is_unsettled_after_a_takeover: |rules| rules.inherits_unsettled = false, FAULT => COMES_TO_REST;
    time_passes_between_doing_and_deciding: |rules| rules.judges_as_sent = false, FAULT => COMES_TO_REST;
    no_finalizer_first: |rules| (rules.domain.finalizer_first, rules.tombstones) = (false, false),
        Config { finalizer: false, ..ENDED } => COMES_TO_REST;
    no_resource_version: |rules| (rules.resource_version, rules.crd) = (false, false), FAULT => FINAL;
    a_replica_without_the_lease_writes: |rules| rules.lease = false, FAULT => ONE_WRITER;
    a_404_is_a_proof: |rules| rules.not_found_is_no_proof = false, ROLES => COMES_TO_REST;
    a_mapping_before_its_intent: |rules| rules.intent_first = false, FAULT => COMES_TO_REST;
    what_is_due_goes_unfenced: |rules| rules.due_once_fenced = false, FAULT => COMES_TO_REST;
    a_late_status_is_taken_for_forged: |rules| rules.knows_late_statuses = false,
        Config { lasting: [1, 1], ticks: 1, budget: Budget { faults: 1, admin: 1, ..NOTHING }, ..SAME } => TAKES_NOTHING;
    what_is_destroyed_is_forgotten: |rules| rules.tombstones = false, DESTROYED => COMES_TO_REST;
    what_is_destroyed_is_waited_for: |rules| rules.fences_no_vanished = false, BOTH_DESTROYED => COMES_TO_REST;
}
