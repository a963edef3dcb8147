//! The protocol as a model: its states, what can happen in each, and what must hold.

use std::sync::{Arc, OnceLock};

use hallpass::api::Phase;
use stateright::{Model, Property};

use super::{
    real::Real,
    rest::Rest,
    rules::Rules,
    servers::{Answer, Event, happens},
    state::{Broken, Budget, Known, Mapping, Object, PerTarget, REQUESTS, State, TARGETS},
};

/// How large the world is.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The targets of each request.
    pub wants: [&'static [usize]; REQUESTS],
    /// How many ticks each lasts.
    pub lasting: [u8; REQUESTS],
    /// The last tick.
    pub ticks: u8,
    /// Whether the finalizer is on from the start.
    pub finalizer: bool,
    pub budget: Budget,
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Tick,
    Happens(Event),
    /// The watch shows a request as it is now.
    Shows(u8),
    /// The same, for the replica that does not lead.
    ShowsStandby(u8),
    Step(u8),
    CarriesOut,
    Answered(Answer),
    /// A write that nobody waits for arrives.
    Lands(u8),
    /// It never arrives.
    Dies(u8),
    TakesOver,
    /// So much time has passed that nothing can be on its way to Keycloak.
    Settles,
}

/// The model.
pub struct Protocol {
    pub config: Config,
    pub rules: Rules,
    pub real: Arc<Real>,
    pub rest: Rest,
    /// What is looked at; all of it if nothing is said.
    pub only: Option<&'static str>,
    /// What was violated first, and where: what is violated later is further away.
    pub first: OnceLock<(&'static str, State)>,
}

/// What must hold.
pub const TAKES_NOTHING: &str = "what was there before is never removed";
pub const FINAL: &str = "final stays final";
pub const DEADLINE: &str = "the deadline never moves later";
pub const ONE_WRITER: &str = "nobody without the lease writes to Keycloak";
pub const HOLDS: &str = "what is Active and not due is in Keycloak";
pub const LEAVES_NOTHING: &str = "when all requests are over nothing of ours is left";
pub const COMES_TO_REST: &str = "without further faults every request ends and nothing of ours is left";

impl Protocol {
    pub fn new(config: Config, rules: Rules, only: Option<&'static str>) -> Self {
        let real = Real::shared(&config.wants, config.lasting, config.ticks, rules.domain);
        Self { config, rules, real, rest: Rest::default(), only, first: OnceLock::new() }
    }

    fn targets(&self) -> usize {
        self.config.wants.iter().flat_map(|wants| wants.iter()).max().map_or(0, |last| last + 1)
    }

    /// Whether this holds, or something was violated before.
    fn unless(&self, name: &'static str, state: &State, violated: bool) -> bool {
        !(violated && self.first.set((name, *state)).is_ok())
    }

    fn start(&self, before: PerTarget<bool>) -> State {
        let mut state = State { budget: self.config.budget, ..State::default() };
        for request in 0..REQUESTS {
            let status = self.real.approved(request);
            let object = Object { there: true, status, finalizer: self.config.finalizer, ..Object::default() };
            state.api[request] = object;
            state.process.known[request] = Known { object, current: true, ..Known::default() };
            if !self.rules.fresh_list {
                state.standby[request] = object;
            }
        }
        for (mapping, there) in state.keycloak.iter_mut().zip(before) {
            *mapping = Mapping { there, admins: there, protected: there, ..Mapping::default() };
        }
        state
    }

    /// Whether a person has lost what a request still holds, and nobody meddled.
    fn has_lost(state: &State) -> bool {
        let active =
            |object: &&Object| object.there && object.status.phase == Phase::Active && !object.is_ending(state.now);
        let lost = |mapping: Mapping| !mapping.there && !mapping.meddled && !mapping.forgotten;
        let lacks =
            |object: &Object| (0..TARGETS).any(|target| object.status.has(target) && lost(state.keycloak[target]));
        state.api.iter().filter(active).any(lacks)
    }

    /// Whether something of ours is in Keycloak.
    pub fn leaves_something(state: &State) -> bool {
        state.keycloak.iter().any(|mapping| mapping.there && mapping.ours && !mapping.admins && !mapping.forgotten)
    }

    /// Whether all requests are over, and nothing is on its way.
    pub fn is_quiet(state: &State) -> bool {
        let over = state.api.iter().all(|object| object.is_over() && !(object.there && object.deleting));
        let over = over && !(0..REQUESTS).any(|request| state.has_vanished(request));
        over && state.process.work.is_none() && state.late == [None; 2]
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let targets = self.targets();
        let before = |bits: usize| std::array::from_fn(|target| bits >> target & 1 == 1);
        (0..1 << targets).map(|bits| self.start(before(bits))).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        actions.extend([Action::Tick, Action::CarriesOut, Action::TakesOver, Action::Settles]);
        for answer in [Answer::Given, Answer::Lost, Answer::Late, Answer::Unread] {
            actions.push(Action::Answered(answer));
        }
        for i in 0..2 {
            actions.extend([Action::Step(i), Action::Shows(i), Action::Lands(i), Action::Dies(i)]);
            let of_a_request = [Event::Ends(i), Event::Deletes(i), Event::Vanishes(i), Event::Bares(i)];
            actions.extend(of_a_request.map(Action::Happens));
            if !self.rules.fresh_list {
                actions.push(Action::ShowsStandby(i));
            }
        }
        for target in 0..u8::try_from(self.targets()).expect("few") {
            let of_a_target =
                [Event::Maps(target), Event::Unmaps(target), Event::Renames(target), Event::DeletesRole(target)];
            actions.extend(of_a_target.map(Action::Happens));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = match action {
            Action::Tick => (state.now < self.config.ticks).then(|| State { now: state.now + 1, ..*state }),
            Action::Happens(event) => happens(state, event),
            Action::Shows(request) => self.shows(state, request.into()),
            Action::ShowsStandby(request) => {
                let mut next = *state;
                next.standby[usize::from(request)] = state.api[usize::from(request)];
                Some(next)
            }
            Action::Step(request) => self.step(state, request.into()),
            Action::CarriesOut => self.carry_out(state),
            Action::Answered(answer) => self.answered(state, answer),
            Action::Lands(place) => self.lands(state, place.into()),
            Action::Dies(place) => state.late[usize::from(place)].map(|_| {
                let mut next = *state;
                next.late[usize::from(place)] = None;
                next.sort_late();
                next
            }),
            Action::TakesOver => self.takes_over(state),
            Action::Settles => Some(Self::settles(state)),
        };
        next.filter(|next| next != state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let never = Property::<Self>::always;
        let all = vec![
            never(TAKES_NOTHING, |model, state| {
                model.unless(TAKES_NOTHING, state, state.broken == Some(Broken::TookAway))
            }),
            never(FINAL, |model, state| model.unless(FINAL, state, state.broken == Some(Broken::Revived))),
            never(DEADLINE, |model, state| model.unless(DEADLINE, state, state.broken == Some(Broken::Prolonged))),
            never(ONE_WRITER, |model, state| model.unless(ONE_WRITER, state, state.broken == Some(Broken::TwoWriters))),
            never(HOLDS, |model, state| model.unless(HOLDS, state, Protocol::has_lost(state))),
            never(LEAVES_NOTHING, |model, state| {
                let violated = Protocol::is_quiet(state) && Protocol::leaves_something(state);
                model.unless(LEAVES_NOTHING, state, violated)
            }),
            never(COMES_TO_REST, |model, state| {
                model.unless(COMES_TO_REST, state, state.broken.is_none() && !model.comes_to_rest(state))
            }),
        ];
        all.into_iter().filter(|property| self.only.is_none_or(|only| only == property.name)).collect()
    }
}
