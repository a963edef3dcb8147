//! Whether a realm's server is asked at all. One that does not answer is not asked by everybody all the time: after some
//! failures in a row every call fails at once, with nothing sent, and one small read at a time tries whether the server is
//! back. Each realm has a circuit of its own, so that a dead server costs nothing elsewhere.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::error::{Error, Kind};

/// So many calls in a row without an answer mean that the server is away.
const FAILURES: u32 = 3;
/// The pause before the first try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause: revocations wait for it, and one small read in two seconds is nothing to a server that is up.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause that a server gets by asking for it (`Retry-After`).
const LONGEST_WISH: Duration = Duration::from_secs(10);

/// What the calls to one realm have shown of its server.
pub(super) struct Circuit {
    state: Mutex<State>,
    /// Whether calls are sent.
    closed: watch::Sender<bool>,
    /// Held by whoever tries whether the server is back.
    pub(super) trying: tokio::sync::Mutex<()>,
}

struct State {
    /// Calls in a row that got no answer.
    failures: u32,
    /// The last proof of life.
    answered: Option<Instant>,
    pause: Duration,
    open: Option<Open>,
}

/// Nothing is sent now.
#[derive(Clone)]
pub(super) struct Open {
    /// What every call answers meanwhile.
    pub(super) refusal: Error,
    /// When to try whether the server is back.
    pub(super) try_at: Instant,
}

impl Default for Circuit {
    fn default() -> Self {
        let state = State { failures: 0, answered: None, pause: FIRST_PAUSE, open: None };
        Self { state: Mutex::new(state), closed: watch::Sender::new(true), trying: tokio::sync::Mutex::default() }
    }
}

impl Circuit {
    /// Why nothing is sent now, if so.
    pub(super) fn open(&self) -> Option<Open> {
        self.state().open.clone()
    }

    /// Whether calls are sent; tells of each change.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Whether the last call got no answer.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.state().failures > 0
    }

    /// Learns from a call that began then. Its failure says nothing if another call was answered since.
    pub(super) fn learn<T>(&self, outcome: &Result<T, Error>, began: Instant) {
        let mut state = self.state();
        match outcome {
            Err(error) if error.is_outage() => {
                if state.answered.is_some_and(|answered| began < answered) {
                    return;
                }
                state.failures = state.failures.saturating_add(1);
                let enough = state.failures >= FAILURES || error.retry_after().is_some();
                if enough && state.open.is_none() {
                    self.stays_open(&mut state, error);
                }
            }
            Err(error) if error.is_local() => {}
            Ok(_) | Err(_) => {
                state.failures = 0;
                state.pause = FIRST_PAUSE;
                self.closes(&mut state);
            }
        }
    }

    /// Learns from a try. Until a call that somebody needs was answered too, the next failure opens it again: a server can
    /// answer small reads from its memory while nothing else works.
    pub(super) fn tried<T>(&self, outcome: &Result<T, Error>) {
        let mut state = self.state();
        match outcome {
            Err(error) if error.is_outage() || error.kind() == Kind::Config => self.stays_open(&mut state, error),
            // What fails before anything is sent says nothing of the server, and is not tried all the time either.
            Err(error) if error.is_local() => {
                let try_at = Instant::now() + state.pause;
                state.open.iter_mut().for_each(|open| open.try_at = try_at);
            }
            Ok(_) | Err(_) => {
                state.failures = FAILURES - 1;
                self.closes(&mut state);
            }
        }
    }

    fn stays_open(&self, state: &mut State, error: &Error) {
        let wished = error.retry_after().unwrap_or_default().min(LONGEST_WISH);
        let try_at = Instant::now() + state.pause.max(wished);
        state.pause = (state.pause * 2).min(LONGEST_PAUSE);
        let refusal = error.clone().instead(Kind::NotSent).add("; not asked again until it answers");
        if state.open.replace(Open { refusal, try_at }).is_none() {
            self.closed.send_replace(false);
        }
    }

    fn closes(&self, state: &mut State) {
        state.answered = Some(Instant::now());
        if state.open.take().is_some() {
            self.closed.send_replace(true);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn away() -> Result<(), Error> {
        Err(Error::new(Kind::Unavailable, "user", "no answer").of_the_server())
    }

    fn asks_for(seconds: u64) -> Result<(), Error> {
        away().map_err(|error| error.with_retry_after(Some(Duration::from_secs(seconds))))
    }

    fn circuit(outcomes: &[Result<(), Error>]) -> Circuit {
        let circuit = Circuit::default();
        for outcome in outcomes {
            circuit.learn(outcome, Instant::now());
        }
        circuit
    }

    /// How long until the next try.
    fn pause(circuit: &Circuit) -> Option<Duration> {
        circuit.open().map(|open| open.try_at - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn only_failures_in_a_row_open_it() {
        assert_eq!(pause(&circuit(&[away(), away()])), None);
        assert_eq!(pause(&circuit(&[away(), away(), Ok(()), away(), away()])), None);
        assert_eq!(pause(&circuit(&[away(), away(), away()])), Some(FIRST_PAUSE));
        let refused = |kind| Err(Error::new(kind, "user", "words"));
        assert_eq!(pause(&circuit(&[away(), away(), refused(Kind::Forbidden), away()])), None, "that was an answer");
        assert!(pause(&circuit(&[away(), away(), refused(Kind::NotSent), away()])).is_some(), "nothing was asked");
        let open = circuit(&[away(), away(), away()]).open().expect("open");
        assert_eq!(open.refusal.kind(), Kind::NotSent);
        assert_eq!(open.refusal.detail(), "no answer; not asked again until it answers");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_began_before_another_was_answered_says_nothing() {
        let circuit = circuit(&[away(), away()]);
        let began = Instant::now();
        advance(Duration::from_secs(1)).await;
        circuit.learn(&Ok::<_, Error>(()), began);
        for _ in 0..8 {
            circuit.learn(&away(), began);
        }
        assert_eq!(pause(&circuit), None);
        assert!(!circuit.is_in_doubt());
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_grows_and_the_server_may_ask_for_more_but_not_for_any() {
        let open = circuit(&[away(), away(), away()]);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            pauses.push(pause(&open).expect("open").as_millis());
            open.tried(&away());
        }
        assert_eq!(pauses, [500, 1000, 2000, 2000]);
        assert_eq!(pause(&circuit(&[asks_for(7)])), Some(Duration::from_secs(7)), "at once");
        assert_eq!(pause(&circuit(&[asks_for(3600)])), Some(LONGEST_WISH));
        assert_eq!(pause(&circuit(&[asks_for(0)])), Some(FIRST_PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_cannot_be_made_is_not_made_all_the_time() {
        let circuit = circuit(&[away(), away(), away()]);
        advance(FIRST_PAUSE).await;
        circuit.tried(&Err::<(), _>(Error::new(Kind::NotSent, "realm", "no time left")));
        assert_eq!(pause(&circuit), Some(FIRST_PAUSE * 2));
        assert!(circuit.open().is_some_and(|open| open.refusal.detail().starts_with("no answer")));
        circuit.tried(&Err::<(), _>(Error::new(Kind::Config, "token", "the secret's file is empty")));
        assert!(circuit.open().is_some_and(|open| open.refusal.detail().starts_with("the secret's file is empty")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_answers_a_try_and_nothing_else_is_left_alone_again() {
        let circuit = circuit(&[away(), away(), away()]);
        let mut watch = circuit.watch();
        circuit.tried(&Ok::<_, Error>(()));
        assert!(watch.has_changed().is_ok_and(|changed| changed) && *watch.borrow_and_update());
        advance(Duration::from_millis(1)).await;
        circuit.learn(&away(), Instant::now());
        assert_eq!(pause(&circuit), Some(FIRST_PAUSE * 2), "the pause goes on growing");
        circuit.tried(&Ok::<_, Error>(()));
        circuit.learn(&Ok::<_, Error>(()), Instant::now());
        advance(Duration::from_millis(1)).await;
        circuit.learn(&away(), Instant::now());
        assert_eq!(pause(&circuit), None, "one failure after a call that was answered");
    }
}
