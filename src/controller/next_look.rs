//! When a request is looked at next: at a time, after a pause, or when something happens that concerns it. What is remembered for that
//! is lost with the process, and nothing else is.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use kube::{api::ObjectMeta, runtime::reflector::ObjectRef};
use tokio::time::Instant;

use super::{Context, KnownPolicy, Others, Settled, error::Error, index::Known};
use crate::{
    api::{AccessRequest, Phase},
    domain::{self, Next, Request, duration::later},
};

/// The first wait after a failure; it doubles with each in a row.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long to wait until a request is looked at again, if nothing happens before; nothing: until something happens.
pub struct Wait(pub Option<Duration>);

impl Context {
    /// The same answer as last time, if the request, its policy and the time are what they were: most news are echoes of
    /// our own writes. They come also where a write counts as failed: then its pause goes on.
    pub(super) fn nothing_new(&self, newest: &Known) -> Option<Wait> {
        let object = &newest.stored;
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let memory = self.memory();
        let memory = memory.get(uid)?;
        let pause = memory.not_before.map(|time| time.saturating_duration_since(Instant::now()));
        if let Some(pause) = pause.filter(|pause| !pause.is_zero())
            && newest.is_ours()
            && memory.failed_at.as_ref() == Some(&self.others(object))
        {
            return Some(Wait(Some(pause)));
        }
        let settled = memory.settled.as_ref()?;
        let wait = settled.wake.map(|wake| self.until(object, wake));
        let same = *settled == seen(object, self.known_policy(object), settled.wake) && wait != Some(Duration::ZERO);
        same.then_some(Wait(wait))
    }

    /// What others have written.
    pub(super) fn others(&self, object: &AccessRequest) -> Others {
        // These change with each write, ours included.
        let metadata = ObjectMeta { resource_version: None, managed_fields: None, ..object.metadata.clone() };
        Others { metadata, policy: self.known_policy(object) }
    }

    /// A look has failed: how long to wait until the next one, and at most until what falls due. The pauses of what ends do not
    /// grow for want of a turn: it has waited for that, and would end long after those with which it fell due.
    pub fn pause(&self, object: &AccessRequest, error: &Error, due: Option<Duration>) -> Duration {
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let ends = || domain::is_ending(&Request::parse(object), Timestamp::now());
        let wait = if error.is_for_want_of_a_turn() && ends() { FIRST_WAIT } else { self.retry_after(uid) };
        let wait = due.map_or(wait, |due| wait.min(due));
        let mut memory = self.memory();
        let memory = memory.entry(uid.to_owned()).or_default();
        (memory.settled, memory.not_before) = (None, Some(Instant::now() + wait));
        wait
    }

    /// The version of a request's policy that the watch has shown.
    pub(super) fn known_policy(&self, object: &AccessRequest) -> KnownPolicy {
        let policy = self.policies.get(&ObjectRef::new(&object.spec.policy_name))?;
        Some((policy.metadata.uid.clone(), policy.metadata.resource_version.clone()))
    }

    /// How often somebody has had a request looked at again.
    pub(super) fn woken(&self, uid: &str) -> u64 {
        self.memory().get(uid).map(|memory| memory.woken).unwrap_or_default()
    }

    /// Remembers that nothing is left to do, unless somebody has had it looked at again meanwhile; says when to look again.
    pub(super) fn wait(&self, object: &AccessRequest, policy: KnownPolicy, woken: u64, next: Next) -> Wait {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let wake = match next {
            Next::At(time) => Some(time),
            Next::OnChange | Next::Now => None,
            Next::Retry { until: limit } => {
                let retry = later(Timestamp::now(), self.retry_after(&uid));
                Some(limit.map_or(retry, |limit| limit.min(retry)))
            }
        };
        let settled = seen(object, policy, wake);
        let mut memory = self.memory();
        let memory = memory.entry(uid).or_default();
        let settled = (memory.woken == woken).then_some(settled);
        (memory.settled, memory.failed_at, memory.not_before) = (settled, None, None);
        if !matches!(next, Next::Retry { .. }) {
            memory.attempts = 0;
        }
        Wait(wake.map(|wake| self.until(object, wake)))
    }

    /// From now to a time, or until the boot-time clock says that a live request is due.
    pub fn until(&self, object: &AccessRequest, time: Timestamp) -> Duration {
        let wait = until(time);
        self.index.time_left(object).map_or(wait, |left| wait.min(left))
    }

    /// Has requests looked at again that may have waited for this one's end.
    pub(super) fn wake(&self, siblings: &[Request]) {
        for sibling in siblings.iter().filter(|sibling| sibling.phase() == Some(Phase::Approved)) {
            self.look_again(&sibling.uid, ObjectRef::new(&sibling.name).within(&sibling.namespace));
        }
    }

    /// Has requests looked at again that have no access yet, because what they wait for may have changed, and live ones
    /// that have not taken on this trust epoch: an end that is written from now on is not from before it.
    pub fn wake_whom_the_guard_concerns(&self, epoch: Option<&str>) {
        self.wake_those(|request| {
            let took_on = request.status.as_ref().and_then(|status| status.trust_epoch.as_deref());
            match request.phase() {
                None | Some(Phase::Pending | Phase::Approved) => true,
                Some(Phase::Activating | Phase::Active) => epoch.is_some() && took_on != epoch,
                Some(_) => false,
            }
        });
    }

    /// Has all requests looked at again that are not over.
    pub fn wake_all(&self) {
        self.wake_those(|request| !request.phase().is_some_and(Phase::is_final));
    }

    /// Has requests looked at again that wait for votes under this policy.
    pub fn wake_who_waits_under(&self, policy: &str) {
        self.wake_those(|request| request.spec.policy_name == policy && request.phase() == Some(Phase::Pending));
    }

    /// UIDs of the objects whose last attempt failed.
    pub fn failed_last(&self) -> HashSet<String> {
        self.memory().iter().filter(|(_, memory)| memory.attempts > 0).map(|(uid, _)| uid.clone()).collect()
    }

    /// Has what ends looked at again.
    pub fn wake_what_ends(&self) {
        let now = Timestamp::now();
        self.wake_those(|request| {
            let over = request.phase().is_none_or(Phase::is_final);
            !over && domain::is_ending(&Request::parse(request), now)
        });
    }

    fn wake_those(&self, concerned: impl Fn(&AccessRequest) -> bool) {
        for request in self.index.all().iter().filter(|request| concerned(request)) {
            let uid = request.metadata.uid.as_deref().unwrap_or_default();
            self.look_again(uid, ObjectRef::from_obj(request.as_ref()));
        }
    }

    /// Has a request looked at again, whatever was settled about it.
    pub fn look_again(&self, uid: &str, request: ObjectRef<AccessRequest>) {
        let mut memory = self.memory();
        let memory = memory.entry(uid.to_owned()).or_default();
        (memory.attempts, memory.settled, memory.not_before) = (0, None, None);
        memory.woken += 1;
        // Nobody listens while the process stops.
        let _ = self.woken.unbounded_send(request);
    }

    /// How long to wait after one more failure in a row.
    pub fn retry_after(&self, uid: &str) -> Duration {
        let mut memory = self.memory();
        let memory = memory.entry(uid.to_owned()).or_default();
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(memory.attempts)).min(LONGEST_WAIT);
        memory.attempts = memory.attempts.saturating_add(1);
        memory.settled = None;
        wait
    }

    /// Forgets what is not there any more, and what is over.
    pub fn forget_the_gone(&self) {
        self.index.forget_the_gone();
        let all = self.index.known();
        let over = |known: &Known| known.is_ours() && known.stored.phase().is_some_and(Phase::is_final);
        let requests = all.iter().filter(|known| !over(known)).filter_map(|known| known.stored.metadata.uid.clone());
        let policies = self.policies.state();
        let policies = policies.iter().filter_map(|policy| policy.metadata.uid.clone());
        let there: HashSet<String> = requests.chain(policies).collect();
        self.memory().retain(|uid, _| there.contains(uid));
        self.verdicts().retain(|_, verdict| there.contains(&verdict.uid));
    }
}

fn seen(object: &AccessRequest, policy: KnownPolicy, wake: Option<Timestamp>) -> Settled {
    Settled { request: object.metadata.resource_version.clone(), policy, wake }
}

/// From now to a time; nothing if it has passed.
pub fn until(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default()
}
