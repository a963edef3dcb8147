//! Whether this process may write now. Knows no server: time is an argument.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;

use crate::{
    clock::{Boot, OtherClock},
    domain::duration,
    keycloak,
};

/// The shortest lease.
const SHORTEST: Duration = Duration::from_secs(3);
/// The longest lease.
const LONGEST: Duration = Duration::from_mins(10);
/// The longest that one write to Keycloak may take.
const LONGEST_WRITE: Duration = Duration::from_secs(4);
/// The shortest limit of one write to Keycloak: with less a healthy Keycloak would fail.
const SHORTEST_WRITE: Duration = Duration::from_secs(1);

/// The lease's duration and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// After this long without a renewal somebody else may lead.
    pub duration: Duration,
    /// From one renewal to the next.
    pub renew_every: Duration,
    /// Something may be given for this long since the last successful renewal was sent.
    pub fresh_for: Duration,
    /// The limit of one write to Keycloak: one that was begun in time is over before somebody else leads.
    pub write: Duration,
}

/// A duration that is none for a lease.
#[derive(Debug, Error)]
#[error(
    "must be between 3s and 10m, as 15s: a third of it is left for a last write to Keycloak, which needs at least one second"
)]
pub struct Unusable;

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { duration: seconds(15), renew_every: seconds(2), fresh_for: seconds(10), write: LONGEST_WRITE }
    }
}

impl Times {
    /// What follows from the duration.
    pub fn of(duration: Duration) -> Result<Self, Unusable> {
        if !(SHORTEST..=LONGEST).contains(&duration) {
            return Err(Unusable);
        }
        let (fresh_for, write) = (duration * 2 / 3, duration * 4 / 15);
        let write = write.clamp(SHORTEST_WRITE, LONGEST_WRITE);
        Ok(Self { duration, renew_every: duration * 2 / 15, fresh_for, write })
    }

    /// The same for a duration as it is written, as `15s`.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        Self::of(duration::parse(text).ok_or(Unusable)?)
    }
}

/// Why this process may not write. The words are the same each time, so that a status that has them is written once.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotLeading {
    /// It has not held the lease yet.
    #[error("this process does not lead")]
    Waiting,
    /// The lease was not renewed in time.
    #[error("the lease could not be renewed in time, so another operator may lead by now")]
    Stale,
    /// It holds the lease no more.
    #[error("this process does not lead any more: {0}")]
    Over(String),
}

/// What is known about the lease. To be asked immediately before each write.
#[derive(Clone)]
pub struct Leadership(Arc<Inner>);

struct Inner {
    times: Times,
    claim: Mutex<Claim>,
    api_server: OtherClock,
}

enum Claim {
    /// Somebody else may hold it; who, if that is known.
    Waiting(Option<String>),
    Held(Held),
    /// It is somebody else's, or was handed back.
    Over(String),
}

/// Times of sending, not of answers: the API server may have taken it at once.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// When the last successful renewal was sent.
    renewed: Boot,
    /// When a renewal was sent, after the claim went stale, that failed because the API server cannot be reached.
    cut_off: Option<Boot>,
}

impl Held {
    fn is_fresh(&self, times: &Times, now: Boot) -> bool {
        now.since(self.renewed) < times.fresh_for
    }

    fn may_give(&self, times: &Times, now: Boot) -> Result<(), NotLeading> {
        if self.is_fresh(times, now) { Ok(()) } else { Err(NotLeading::Stale) }
    }

    /// A failure is good for a while only: whoever was paused since then asks again first.
    fn may_take(&self, times: &Times, now: Boot) -> Result<(), NotLeading> {
        let cut_off = self.cut_off.is_some_and(|sent| now.since(sent) < times.duration);
        if cut_off { Ok(()) } else { self.may_give(times, now) }
    }

    /// A renewal that was sent then failed because the API server cannot be reached.
    fn failed(&mut self, times: &Times, sent: Boot) {
        if !self.is_fresh(times, sent) {
            self.cut_off = Some(sent);
        }
    }
}

impl Leadership {
    /// For a process that does not lead yet.
    pub fn new(times: Times) -> Self {
        Self(Arc::new(Inner { times, claim: Mutex::new(Claim::Waiting(None)), api_server: OtherClock::default() }))
    }

    /// The lease's times.
    pub fn times(&self) -> &Times {
        &self.0.times
    }

    /// The API server's clock, as its answers about the lease say it.
    pub fn api_server_clock(&self) -> &OtherClock {
        &self.0.api_server
    }

    /// Whether something may be given: only while nobody else can lead.
    pub fn may_give(&self) -> Result<(), NotLeading> {
        self.held()?.may_give(self.times(), Boot::now())
    }

    /// Whether something may be taken away: also while nobody can say who leads, because the API server cannot be reached.
    pub fn may_take(&self) -> Result<(), NotLeading> {
        self.held()?.may_take(self.times(), Boot::now())
    }

    /// For people: whether all is well, and what is so.
    pub fn describe(&self) -> Result<String, String> {
        match &*self.claim() {
            Claim::Waiting(Some(leader)) => Ok(format!("{leader} leads, this process waits")),
            Claim::Waiting(None) => Err("nobody has looked yet who leads".into()),
            Claim::Over(why) => Err(NotLeading::Over(why.clone()).to_string()),
            Claim::Held(held) => match held.may_give(self.times(), Boot::now()) {
                Ok(()) => Ok("this process leads".into()),
                Err(why) => Err(why.to_string()),
            },
        }
    }

    fn held(&self) -> Result<Held, NotLeading> {
        match &*self.claim() {
            Claim::Waiting(_) => Err(NotLeading::Waiting),
            Claim::Over(why) => Err(NotLeading::Over(why.clone())),
            Claim::Held(held) => Ok(*held),
        }
    }

    /// Somebody else holds the lease.
    pub(super) fn waits_for(&self, leader: &str) {
        let mut claim = self.claim();
        if !matches!(&*claim, Claim::Waiting(Some(known)) if known == leader) {
            tracing::info!(leader, "another operator leads, this process waits");
        }
        *claim = Claim::Waiting(Some(leader.to_owned()));
    }

    /// The lease was taken or renewed; the write was sent then.
    pub(super) fn renewed(&self, sent: Boot) {
        *self.claim() = Claim::Held(Held { renewed: sent, cut_off: None });
    }

    /// A renewal that was sent then failed because the API server cannot be reached.
    pub(super) fn failed(&self, sent: Boot) {
        if let Claim::Held(held) = &mut *self.claim() {
            held.failed(self.times(), sent);
        }
    }

    /// It leads no more.
    pub(super) fn ends(&self, why: &str) {
        *self.claim() = Claim::Over(why.to_owned());
    }

    /// How long the claim is fresh yet; nothing if it is not.
    pub(super) fn fresh_for(&self) -> Duration {
        let left = |held: Held| held.renewed.after(self.times().fresh_for).since(Boot::now());
        self.held().map(left).unwrap_or_default()
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        self.0.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl keycloak::Gate for Leadership {
    fn may_send(&self, write: keycloak::Write) -> Result<(), String> {
        let allowed = match write {
            keycloak::Write::Give | keycloak::Write::Prepare => self.may_give(),
            keycloak::Write::Take => self.may_take(),
        };
        allowed.map_err(|why| why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_write_that_was_begun_in_time_is_over_before_somebody_else_leads() {
        for text in ["3s", "4s", "5s", "14s", "15s", "16s", "1m", "10m"] {
            let Times { duration, renew_every, fresh_for, write } = Times::parse(text).expect(text);
            assert!(fresh_for + write <= duration, "{text}: {fresh_for:?} + {write:?}");
            assert!(renew_every * 5 <= fresh_for && write >= SHORTEST_WRITE && write <= LONGEST_WRITE, "{text}");
        }
        let expected =
            Times { duration: seconds(15.0), renew_every: seconds(2.0), fresh_for: seconds(10.0), write: seconds(4.0) };
        assert_eq!(Times::parse("15s").expect("15s"), expected);
        for text in ["", "0s", "2s", "601s", "15", "1d"] {
            assert!(Times::parse(text).is_err(), "{text}");
        }
    }

    /// What a process may do that sent its last successful renewal at 0, `cut_off` a failed one, and is asked at `now`.
    fn may(cut_off: Option<f64>, now: f64) -> (bool, bool) {
        let times = Times::parse("15s").expect("15s");
        let start = Boot::now();
        let at = |time: f64| start.after(seconds(time));
        let mut held = Held { renewed: start, cut_off: None };
        if let Some(sent) = cut_off {
            held.failed(&times, at(sent));
        }
        (held.may_give(&times, at(now)).is_ok(), held.may_take(&times, at(now)).is_ok())
    }

    #[test]
    fn who_cannot_say_who_leads_gives_nothing_and_takes_only_when_cut_off() {
        for (what, cut_off, now, expected) in [
            ("fresh", None, 9.9, (true, true)),
            ("stale: paused, or the API server has said no", None, 10.0, (false, false)),
            ("a renewal from before it went stale failed", Some(9.9), 10.1, (false, false)),
            ("a renewal from after that failed", Some(10.0), 10.1, (false, true)),
            ("still cut off", Some(10.0), 24.9, (false, true)),
            ("paused since the failure", Some(10.0), 25.0, (false, false)),
        ] {
            assert_eq!(may(cut_off, now), expected, "{what}");
        }
    }

    #[test]
    fn a_renewal_ends_being_cut_off_and_losing_the_lease_ends_everything() {
        let leadership = Leadership::new(Times::parse("15s").expect("15s"));
        assert_eq!(leadership.may_take(), Err(NotLeading::Waiting));
        leadership.renewed(Boot::now());
        assert_eq!((leadership.may_give(), leadership.may_take()), (Ok(()), Ok(())));
        leadership.ends("b holds the lease");
        leadership.failed(Boot::now());
        let over = || Err(NotLeading::Over("b holds the lease".into()));
        assert_eq!((leadership.may_give(), leadership.may_take()), (over(), over()));
    }
}
