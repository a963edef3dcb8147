//! The real code, asked about a state of the model: a real `Request` and a real `Observed` are built from it, and what
//! `decide` says is turned back. A status is kept whole under a number, so nothing of it is lost; only its times of the
//! past, which steer nothing, are all the same. Each question is asked once.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hallpass::{
    api::{AccessRequestStatus, Phase, TargetStatus},
    domain::{
        Decision, Effect, Forged, Instead, Next, Observed, Outcome, OutcomeResult, PolicyView, Request, Signal,
        SignalKind, TargetsError, decide,
    },
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    planted,
    rules::Domain,
    state::{Came, Do, Object, PerTarget, REQUESTS, Status, TARGETS, Todo},
    vocabulary::{
        policies::{PolicyBuilder, policy},
        requests::{ours, request},
        world::{ALICE, World, at, world},
    },
};

/// Seconds in a tick.
const TICK: i64 = 3600;
/// What is unsettled is so until then, as far as the texts say: when it is over is up to the model.
const A_LONG_TIME: u8 = 99;
/// The grants of the policy: the targets' names.
pub const GRANTS: PerTarget<&str> = ["admin", "debug"];
/// The requests' names, and UIDs.
pub const NAMES: [&str; REQUESTS] = ["one", "two"];

/// What a step of the controller goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    pub request: u8,
    pub now: u8,
    pub object: Object,
    /// The status in the API server, if it is not ours.
    pub found: Option<Status>,
    /// The other request, as far as it is known to be there.
    pub other: Option<Object>,
    /// Whether the person has a target, and whether it can be found by its name, for a request that is about to get them.
    pub has: Option<PerTarget<(bool, bool)>>,
    pub unsettled: PerTarget<bool>,
    pub outcomes: PerTarget<Option<Came>>,
    /// What was unsettled when the outcomes came.
    pub unsettled_then: PerTarget<bool>,
}

/// What the real code decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    pub status: Option<Status>,
    pub effects: Todo,
}

/// What the answers depend on.
type Key = ([&'static [usize]; REQUESTS], [u8; REQUESTS], u8, Domain);

/// The real code.
pub struct Real {
    rules: Domain,
    policy: PolicyBuilder,
    requests: [Request; REQUESTS],
    memory: Mutex<Memory>,
    /// Worlds that nobody asks now: making one takes longer than asking.
    worlds: Mutex<Vec<World>>,
}

#[derive(Default)]
struct Memory {
    statuses: Vec<Arc<AccessRequestStatus>>,
    numbers: HashMap<String, Status>,
    answers: HashMap<Question, Decided>,
    handed_over: HashMap<(Status, u8), Status>,
    may_follow: HashMap<(Status, Status), Result<(), Refusal>>,
}

/// Which of the CRD's rules a status breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Final,
    Deadline,
    Targets,
}

impl Real {
    /// `wants` are the targets of each request, and `lasting` how many ticks; nothing lasts longer than
    /// time does.
    fn new(wants: &[&[usize]; REQUESTS], lasting: [u8; REQUESTS], ticks: u8, rules: Domain) -> Self {
        let policy = policy().automatic().at_most("720h");
        let read = |i: usize| {
            let grants: Vec<&str> = wants[i].iter().map(|target| GRANTS[*target]).collect();
            let lasting = format!("{}h", lasting[i]);
            let request = request(NAMES[i]).wants(&grants).lasting(&lasting).not_after(i64::from(ticks) * TICK);
            request.approved_automatically(&policy).read()
        };
        Self { rules, requests: [read(0), read(1)], policy, memory: Mutex::default(), worlds: Mutex::default() }
    }

    /// The same for all models that ask the same.
    pub fn shared(
        wants: &[&'static [usize]; REQUESTS],
        lasting: [u8; REQUESTS],
        ticks: u8,
        rules: Domain,
    ) -> Arc<Self> {
        static ALL: Mutex<Option<HashMap<Key, Arc<Real>>>> = Mutex::new(None);
        let key = (*wants, lasting, ticks, rules);
        let mut all = lock(&ALL);
        let all = all.get_or_insert_default();
        all.entry(key).or_insert_with(|| Arc::new(Self::new(wants, lasting, ticks, rules))).clone()
    }

    /// A request as it is when it was approved.
    pub fn approved(&self, request: usize) -> Status {
        self.memory().keep(self.requests[request].status.clone())
    }

    /// How many questions were asked.
    pub fn questions(&self) -> usize {
        self.memory().answers.len()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    fn status(&self, status: Status) -> Arc<AccessRequestStatus> {
        self.memory().statuses[usize::from(status.number)].clone()
    }

    /// What the real code decides.
    pub fn decide(&self, question: &Question) -> Decided {
        if let Some(known) = self.memory().answers.get(question) {
            return *known;
        }
        let mut seen = lock(&self.worlds).pop().unwrap_or_else(|| world(&self.policy));
        let decision = self.ask(&mut seen, question, 0);
        // A sample is enough, and half as much work.
        if self.memory().answers.len().is_multiple_of(8) {
            assert_eq!(self.ask(&mut seen, question, 1), decision, "times of the past steer {question:?}");
        }
        lock(&self.worlds).push(seen);
        let mut memory = self.memory();
        let status = decision.status.map(|status| memory.keep(*status));
        let decided = Decided { status, effects: self.effects(&decision.effects) };
        memory.answers.insert(*question, decided);
        decided
    }

    /// Asks the real code; times of the past are so many seconds after noon.
    fn ask(&self, seen: &mut World, question: &Question, past: i64) -> Decision {
        let number = usize::from(question.request);
        let request = self.request(number, &question.object, question.found, past);
        let now = time(question.now);
        let mut observed = self.observed(seen, question, &request, now, past);
        let request = planted::before(&self.rules, request, &mut observed, now);
        let mut decision = planted::after(&self.rules, decide(&request, &observed, now), &request, now);
        if let Some(status) = &mut decision.status {
            forget_the_past(status, 0);
        }
        // When it is looked at again may depend on the past: here it may be looked at at any time.
        decision.next = Next::OnChange;
        decision
    }

    fn request(&self, number: usize, object: &Object, found: Option<Status>, past: i64) -> Request {
        let status = |status: Status| {
            let mut status = (*self.status(status)).clone();
            forget_the_past(&mut status, past);
            status
        };
        let end = Signal { key: "end.hallpass.dev/1".into(), by: ALICE.into(), kind: SignalKind::End };
        Request {
            deleting: object.deleting,
            has_finalizer: object.finalizer,
            signals: object.ends.then_some(end).into_iter().collect(),
            status: status(object.status),
            forged: found.map(|found| Forged { found: status(found), instead: Instead::Remembered }),
            ..self.requests[number].clone()
        }
    }

    /// What the controller would show: see `controller/observe.rs`.
    fn observed(
        &self,
        seen: &mut World,
        question: &Question,
        request: &Request,
        now: Timestamp,
        past: i64,
    ) -> Observed {
        seen.now = now;
        let has = question.has.unwrap_or_default();
        let named = |target: usize| request.grants.iter().any(|grant| grant == GRANTS[target]);
        let lost = (0..TARGETS).any(|target| named(target) && !has[target].1);
        seen.targets_error = lost.then(|| TargetsError::Refused(vec!["there is no such role".into()]));
        seen.mapped = (0..TARGETS).filter(|target| has[*target].0).map(|target| GRANTS[target].to_owned()).collect();
        let siblings = |other: &Object| {
            let other = self.request(1 - usize::from(question.request), other, None, past);
            (!other.phase().is_some_and(Phase::is_final)).then_some(other)
        };
        seen.siblings = question.other.as_ref().and_then(siblings).into_iter().collect();
        seen.travelling.clear();
        for (_, name) in GRANTS.iter().enumerate().filter(|(target, _)| question.unsettled[*target]) {
            seen.travelling.insert(ours(name).id, time(A_LONG_TIME));
        }
        seen.outcomes.clear();
        for (target, came) in question.outcomes.iter().enumerate() {
            let result = came.map(|came| match came {
                Came::Mapped => OutcomeResult::Mapped,
                Came::Missing => OutcomeResult::Missing,
                Came::Removed => OutcomeResult::Removed,
                Came::HandedOver => OutcomeResult::HandedOver,
                Came::Failed => OutcomeResult::Failed("it did not work".into()),
            });
            let travelling = question.unsettled_then[target].then(|| time(A_LONG_TIME));
            seen.outcomes.extend(result.map(|result| Outcome { target: GRANTS[target].into(), result, travelling }));
        }
        let observed = seen.observed(request);
        assert!(
            question.has.is_some() || observed.targets.is_none(),
            "the model did not look into Keycloak: {request:?}"
        );
        assert!(matches!(observed.policy, PolicyView::Ready(_) | PolicyView::Absent));
        observed
    }

    fn effects(&self, effects: &[Effect]) -> Todo {
        let number = |target: &TargetStatus| u8::try_from(target_of(target)).expect("a small number");
        let mut todo = Todo::default();
        assert!(effects.len() <= todo.len(), "too many effects: {effects:?}");
        for (place, effect) in todo.iter_mut().zip(effects) {
            *place = Some(match effect {
                Effect::AddFinalizer => Do::AddFinalizer,
                Effect::RemoveFinalizer => Do::RemoveFinalizer,
                Effect::Map(target) => Do::Map(number(target)),
                Effect::Confirm(target) => Do::Confirm(number(target)),
                Effect::Unmap(target) => Do::Unmap(number(target)),
                Effect::HandOver { target, to } => {
                    let to = self.requests.iter().position(|request| request.uid == *to).expect("a request");
                    Do::HandOver { target: number(target), to: u8::try_from(to).expect("a small number") }
                }
                Effect::Record { .. } => panic!("nobody submits for others here"),
                Effect::EndSessions { .. } | Effect::AskForActions(_) => panic!("no policy here wants this"),
            });
        }
        todo
    }

    /// The heir's status when it owns a target: see `hand_over` in `controller/enact.rs`.
    pub fn handed_over(&self, status: Status, target: u8) -> Status {
        let mut memory = self.memory();
        if let Some(known) = memory.handed_over.get(&(status, target)) {
            return *known;
        }
        let mut new = (*memory.statuses[usize::from(status.number)]).clone();
        let targets = new.grant.iter_mut().flat_map(|grant| &mut grant.targets);
        targets
            .filter(|theirs| target_of(theirs) == usize::from(target))
            .for_each(|theirs| theirs.pre_existing = false);
        let new = memory.keep(new);
        memory.handed_over.insert((status, target), new);
        new
    }

    /// Whether a status goes on from another, so that it may be an earlier leader's.
    pub fn goes_on_from(&self, new: Status, old: Status) -> bool {
        self.status(new).goes_on_from(&self.status(old))
    }

    /// Whether the API server takes a status after another: the rules at the head of `api/request.rs`.
    pub fn may_follow(&self, old: Status, new: Status) -> Result<(), Refusal> {
        let mut memory = self.memory();
        if let Some(known) = memory.may_follow.get(&(old, new)) {
            return *known;
        }
        let (old_status, new_status) =
            (&memory.statuses[usize::from(old.number)], &memory.statuses[usize::from(new.number)]);
        let answer = may_follow(old_status, new_status);
        memory.may_follow.insert((old, new), answer);
        answer
    }
}

impl Memory {
    /// Keeps a status under a number.
    fn keep(&mut self, mut status: AccessRequestStatus) -> Status {
        forget_the_past(&mut status, 0);
        let text = serde_json::to_string(&status).expect("a status");
        let next = self.numbers.len();
        *self.numbers.entry(text).or_insert_with(|| {
            let targets = || status.grant.iter().flat_map(|grant| &grant.targets);
            let bits = |of: &dyn Fn(&TargetStatus) -> bool| {
                targets().filter(|target| of(target)).fold(0, |bits, target| bits | 1 << target_of(target))
            };
            let kept = Status {
                number: u16::try_from(next).expect("not so many statuses"),
                phase: status.phase.expect("somebody has looked"),
                deadline: status.grant.as_ref().map_or(0, |grant| ticks(grant.deadline.0)),
                targets: bits(&|_| true),
                pre_existing: bits(&|target| target.pre_existing),
            };
            self.statuses.push(Arc::new(status.clone()));
            kept
        })
    }
}

/// Since when a condition is so, and when something was recorded: nothing is decided by that, and it makes two states of
/// one.
fn forget_the_past(status: &mut AccessRequestStatus, past: i64) {
    let past = || Time(at(past));
    status.conditions.iter_mut().for_each(|condition| condition.last_transition_time = past());
    // A fence is a new version in the model.
    status.fence = None;
    status.ends.iter_mut().for_each(|end| end.at = past());
    if let Some(grant) = &mut status.grant {
        grant.starts_at = past();
        grant.ended_at = grant.ended_at.as_ref().map(|_| past());
    }
}

fn may_follow(old: &AccessRequestStatus, new: &AccessRequestStatus) -> Result<(), Refusal> {
    if old.phase.is_some_and(Phase::is_final) && old.phase != new.phase {
        return Err(Refusal::Final);
    }
    let Some(before) = &old.grant else { return Ok(()) };
    let Some(after) = new.grant.as_ref().filter(|after| after.deadline <= before.deadline) else {
        return Err(Refusal::Deadline);
    };
    let stays = |old: &TargetStatus| {
        let same = |new: &&TargetStatus| (&old.name, &old.id, old.type_) == (&new.name, &new.id, new.type_);
        after.targets.iter().filter(same).any(|new| old.pre_existing || !new.pre_existing)
    };
    if before.targets.iter().all(stays) { Ok(()) } else { Err(Refusal::Targets) }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn target_of(target: &TargetStatus) -> usize {
    GRANTS.iter().position(|grant| *grant == target.name).expect("a target of the policy")
}

/// The time at a tick.
pub fn time(tick: u8) -> Timestamp {
    at(i64::from(tick) * TICK)
}

fn ticks(time: Timestamp) -> u8 {
    u8::try_from((time.as_second() - at(0).as_second()) / TICK).expect("a time near by")
}

/// A status in few words.
pub fn words(real: &Real, status: Status) -> String {
    let status = real.status(status);
    let mut words = status.phase.map_or_else(String::new, |phase| format!("{phase:?}"));
    if let Some(grant) = &status.grant {
        let _ = write!(words, " until {}", ticks(grant.deadline.0));
        for target in &grant.targets {
            let whose = if target.pre_existing { "theirs" } else { "ours" };
            let _ = write!(words, ", {} {whose} {:?}", target.name, target.state);
        }
    }
    words
}
