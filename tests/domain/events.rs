//! What may happen in a random life.

use proptest::prelude::*;

use super::world::*;

pub const PEOPLE: [&str; 6] = [ALICE, ALICES_OTHER_NAME, BOB, CAROL, DAVE, ERIN];

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// The controller works on a request: this many steps, killed in the last one.
    Work {
        request: usize,
        steps: usize,
        killed: Killed,
    },
    Vote {
        request: usize,
        by: usize,
        stage: usize,
        decision: bool,
    },
    End {
        request: usize,
        by: usize,
    },
    Delete {
        request: usize,
    },
    /// The policy becomes one of [`Simulator::policies`], is deleted, or is not ready.
    Policy(usize),
    Guard(bool),
    /// Somebody can or cannot be looked up.
    Known {
        who: usize,
        known: bool,
    },
    /// From now on writes of this grant work, are refused, or work and say that they failed.
    Keycloak {
        grant: usize,
        mood: Mood,
    },
    AdminMaps(usize),
    AdminUnmaps(usize),
    Time(i64),
}

/// Where the controller is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    No,
    BeforeStatus,
    /// After the status and this many effects.
    AfterEffects(usize),
}

/// How Keycloak is about a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Works,
    Refuses,
    LosesAnswers,
}

/// What happens around holdings: access that begins and ends in every order, and administrators who meddle.
pub fn event_of_holdings() -> impl Strategy<Value = Event> {
    let request = || 0..3usize;
    prop_oneof![
        10 => work(),
        1 => request().prop_map(|request| Event::End { request, by: 0 }),
        1 => request().prop_map(|request| Event::Delete { request }),
        3 => (request(), mood()).prop_map(|(grant, mood)| Event::Keycloak { grant, mood }),
        1 => request().prop_map(Event::AdminMaps),
        3 => request().prop_map(Event::AdminUnmaps),
        2 => prop_oneof![4 => Just(300), 1 => Just(3600)].prop_map(Event::Time),
    ]
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![3 => Just(Mood::Works), 1 => Just(Mood::Refuses), 1 => Just(Mood::LosesAnswers)]
}

fn work() -> impl Strategy<Value = Event> {
    let killed = prop_oneof![
        4 => Just(Killed::No),
        1 => Just(Killed::BeforeStatus),
        2 => (0..3usize).prop_map(Killed::AfterEffects),
    ];
    (0..3usize, 1..8usize, killed).prop_map(|(request, steps, killed)| Event::Work { request, steps, killed })
}

/// Everything that may happen.
pub fn event() -> impl Strategy<Value = Event> {
    let request = || 0..3usize;
    // Mostly those whose vote counts.
    let voter = prop_oneof![6 => 2..5usize, 1 => 0..PEOPLE.len()];
    let time = prop_oneof![4 => Just(1), 4 => Just(300), 2 => Just(1200), 1 => Just(3600)];
    prop_oneof![
        30 => work(),
        16 => (request(), voter, 0..2usize, prop::bool::weighted(0.95))
            .prop_map(|(request, by, stage, decision)| Event::Vote { request, by, stage, decision }),
        2 => (request(), 0..PEOPLE.len()).prop_map(|(request, by)| Event::End { request, by }),
        1 => request().prop_map(|request| Event::Delete { request }),
        2 => prop_oneof![4 => 0..3usize, 1 => 3..8usize].prop_map(Event::Policy),
        1 => prop::bool::weighted(0.7).prop_map(Event::Guard),
        1 => (0..PEOPLE.len(), prop::bool::weighted(0.7)).prop_map(|(who, known)| Event::Known { who, known }),
        4 => (request(), mood()).prop_map(|(grant, mood)| Event::Keycloak { grant, mood }),
        3 => request().prop_map(Event::AdminMaps),
        5 => request().prop_map(Event::AdminUnmaps),
        6 => time.prop_map(Event::Time),
    ]
}
