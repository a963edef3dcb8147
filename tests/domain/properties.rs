//! What holds in every life, however it goes. `PROPTEST_CASES` asks for more lives than the usual 256.

use proptest::prelude::*;

use super::{
    events::{Event, Killed, event, event_of_holdings},
    simulator::Simulator,
};

/// Lives to their end: after these events nothing fails any more.
fn live(policy: usize, before: &[bool], first: &[Event], events: &[Event]) {
    let mut simulator = Simulator::new(policy, before);
    for event in first {
        simulator.happens(event);
    }
    // Everybody has been looked at: most of the interesting lives begin there.
    for request in 0..3 {
        simulator.happens(&Event::Work { request, steps: 2, killed: Killed::No });
    }
    for event in events {
        simulator.happens(event);
    }
    simulator.runs_out();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn access_ends_and_nothing_is_left_behind(
        policy in 0..3usize,
        before in prop::collection::vec(prop::bool::weighted(0.3), 3),
        events in prop::collection::vec(event(), 0..50),
    ) {
        live(policy, &before, &[], &events);
    }

    #[test]
    fn a_mapping_stays_as_long_as_somebody_holds_it_and_no_longer(
        before in prop::collection::vec(any::<bool>(), 3),
        one in 0..2usize,
        events in prop::collection::vec(event_of_holdings(), 0..40),
    ) {
        // One had it before, and it is taken away by hand: the other one is its owner.
        let work = |request| Event::Work { request, steps: 6, killed: Killed::No };
        live(1, &before, &[work(one), Event::AdminUnmaps(0), work(1 - one)], &events);
    }
}
