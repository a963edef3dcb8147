//! Writes to Keycloak whose answer was lost. A time-out does not stop a request that Keycloak, or a proxy before it, already
//! has: until the settling time has passed it can still arrive, and change what was read or removed meanwhile. No request on
//! such a target becomes final before that.
//!
//! The settling time is the life of the operator's token (a later request is refused with 401) and Keycloak's limit of a
//! transaction. After a leader that did not hand over cleanly the same holds for what it may have left on its way.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Context, Holder, clocks::TOLERATED};
use crate::{
    api::{AccessRequest, AccessRequestStatus, EndReason, Phase},
    domain::{
        self, Request, SignalKind,
        duration::{later, whole_seconds},
    },
    leader::Takeover,
};

/// The longest settling time that is assumed of a realm that is not in the configuration any more: the default life of
/// Keycloak's tokens and its default limit of a transaction (26.7.3).
const UNKNOWN_REALM: Duration = Duration::from_mins(10);

/// What may still arrive, by whose holding and which target.
pub struct Settling {
    travelling: Mutex<HashMap<(Holder, String), Instant>>,
    takeover: Takeover,
    since: Instant,
}

/// A write that was not answered yet.
struct UnderWay<'a, F: Fn() -> Duration> {
    settling: &'a Settling,
    holder: &'a Holder,
    target: &'a str,
    /// As it is when it is dropped: how long the token lives is known once it was signed in.
    settling_time: F,
    answered: bool,
}

impl<F: Fn() -> Duration> Drop for UnderWay<'_, F> {
    fn drop(&mut self) {
        if !self.answered {
            self.settling.sent(self.holder.clone(), self.target, (self.settling_time)());
        }
    }
}

impl Settling {
    /// Nothing is on its way, but for what the leader before may have left.
    pub fn new(takeover: Takeover) -> Self {
        Self { travelling: Mutex::default(), takeover, since: Instant::now() }
    }

    /// A write to a target was sent, and no answer came that could be used.
    pub fn sent(&self, holder: Holder, target: &str, settling_time: Duration) {
        self.travels(holder, target, Instant::now() + settling_time);
    }

    /// Makes a call that writes to a target. If it is dropped before it was answered, because the process stops, it counts as sent.
    pub fn until_answered<'a, T>(
        &'a self,
        holder: &'a Holder,
        target: &'a str,
        settling_time: impl Fn() -> Duration,
        call: impl Future<Output = T>,
    ) -> impl Future<Output = T> {
        let under_way = UnderWay { settling: self, holder, target, settling_time, answered: false };
        let call = Box::pin(call);
        async move {
            let mut under_way = under_way;
            let answer = call.await;
            under_way.answered = true;
            answer
        }
    }

    /// The targets of a subject to which something may still be on its way, and until when, in whole seconds.
    pub fn travelling(&self, holder: &Holder) -> BTreeMap<String, Timestamp> {
        let (now, time) = (Instant::now(), Timestamp::now());
        let mut travelling = self.lock();
        travelling.retain(|_, until| *until > now);
        let of_holder = travelling.iter().filter(|((other, _), _)| other == holder);
        of_holder.map(|((_, target), until)| (target.clone(), seconds_from(time, *until - now))).collect()
    }

    /// Until when something that was sent by the leaders before may be on its way, in a realm with this settling time.
    fn inherited(&self, settling_time: Duration) -> Instant {
        match self.takeover {
            Takeover::Unclean | Takeover::First => self.since + settling_time,
            Takeover::Clean { unsettled_until } => Instant::now() + super::next_look::until(unsettled_until),
        }
    }

    /// By how much the clock of the leader before may have been ahead of ours when it could last send something, counted from
    /// now: two clocks that are tolerated can differ by twice as much from one another.
    fn may_be_behind(&self) -> Duration {
        Duration::from_secs(2 * TOLERATED).saturating_sub(self.since.elapsed())
    }

    /// The last of what this process knows to be on its way.
    fn last(&self) -> Option<Instant> {
        self.lock().values().copied().max()
    }

    fn travels(&self, holder: Holder, target: &str, until: Instant) {
        let mut travelling = self.lock();
        let known = travelling.entry((holder, target.to_owned())).or_insert(until);
        *known = (*known).max(until);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Holder, String), Instant>> {
        self.travelling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first whole second that is at least so long after a time: the same one whenever it is asked for.
fn seconds_from(time: Timestamp, duration: Duration) -> Timestamp {
    let then = later(time, duration);
    let second = whole_seconds(then);
    if second == then { then } else { later(second, Duration::from_secs(1)) }
}

impl Context {
    /// A write of a request's status was acknowledged. If that is the first since this process leads, what the leader before
    /// may have sent for it may still be on its way. What is due is taken away before its status says so, and what is to end
    /// even if that cannot be written, so this is so, too, of an Active one that has a reason to end, or is found to end
    /// because of its policy.
    pub fn acknowledged(&self, before: &AccessRequest, written: &AccessRequestStatus) {
        let request = Request::parse(before);
        let first = self.index.fence(&request.uid);
        let wanted = || request.signals.iter().any(|signal| signal.kind == SignalKind::End);
        let up = || self.index.time_left(before).is_some_and(|left| left.is_zero());
        let cause = written.grant.as_ref().and_then(|grant| grant.end_reason);
        // The clock of the leader before may have been ahead: what is due soon after it died was perhaps due for it.
        let by_their_clock = later(Timestamp::now(), self.settling.may_be_behind());
        let may_be_written = match request.phase() {
            Some(Phase::Activating | Phase::Revoking) => first,
            Some(Phase::Active) => {
                (first && (domain::is_ending(&request, by_their_clock) || up() || wanted()))
                    || matches!(cause, Some(EndReason::PolicyDeleted | EndReason::PolicySuspended))
            }
            Some(_) | None => false,
        };
        if may_be_written {
            self.inherit(&request);
        }
    }

    fn inherit(&self, request: &Request) {
        let Some(holder) = self.holder(request.subject()) else { return };
        let realm = request.subject().map(|subject| subject.realm.as_str()).unwrap_or_default();
        let until = self.settling.inherited(self.settling_time(realm));
        let targets = request.status.grant.iter().flat_map(|grant| &grant.targets);
        for target in targets.filter(|target| !target.pre_existing) {
            self.settling.travels(holder.clone(), &target.id, until);
        }
    }

    /// Until when anything may be on its way, for the leader after this one: what this one has sent, and what it may not have
    /// come to look at of what was sent before it.
    pub fn unsettled_until(&self) -> Timestamp {
        let longest = self.realms.values().map(super::Realm::settling_time).max().unwrap_or_default();
        let inherited = self.settling.inherited(longest);
        let last = self.settling.last().map_or(inherited, |last| last.max(inherited));
        seconds_from(Timestamp::now(), last.saturating_duration_since(Instant::now()))
    }

    /// How long a write to a realm can arrive after its answer was lost.
    pub fn settling_time(&self, realm: &str) -> Duration {
        self.realms.get(realm).map_or(UNKNOWN_REALM, super::Realm::settling_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_before_it_was_answered_may_be_on_its_way() {
        let settling = Settling::new(Takeover::Clean { unsettled_until: Timestamp::now() });
        let holder = Holder { url: "https://sso".into(), realm_id: "r".into(), user_id: "alice".into() };
        let limit = Duration::from_secs(100);
        let answered = settling.until_answered(&holder, "one", || limit, std::future::ready(1)).await;
        let dropped = settling.until_answered(&holder, "two", || limit, std::future::pending::<()>());
        let dropped = tokio::time::timeout(Duration::from_secs(1), dropped).await;
        assert!(answered == 1 && dropped.is_err());
        assert_eq!(settling.travelling(&holder).into_keys().collect::<Vec<_>>(), ["two"]);
        assert!(settling.last().is_some_and(|last| last == Instant::now() + limit));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_leaders_before_have_sent_is_waited_for() {
        let settling_time = Duration::from_secs(100);
        let unclean = Settling::new(Takeover::Unclean);
        let clean = |seconds| {
            Settling::new(Takeover::Clean { unsettled_until: later(Timestamp::now(), Duration::from_secs(seconds)) })
        };
        assert_eq!(unclean.inherited(settling_time) - Instant::now(), settling_time);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(unclean.inherited(settling_time) - Instant::now(), Duration::from_secs(40));
        let left = clean(30).inherited(settling_time) - Instant::now();
        assert!(left > Duration::from_secs(29) && left <= Duration::from_secs(30), "{left:?}");
        assert_eq!(clean(0).inherited(settling_time), Instant::now(), "nothing is on its way any more");
    }
}
