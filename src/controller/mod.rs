//! Around [`crate::domain::decide`]: [`observe`] looks, [`report`] writes down, [`enact`] does.
//!
//! [`reconcile`] is the way of one request, [`next_look`] says when it goes it again, [`at_once`] of one whose time is up; [`policies`] is that of one policy; [`realm`] translates between a policy's
//! words and Keycloak, [`reach`] knows whether it can be worked in, [`people`] shares its answers, [`approvers`] asks who
//! could vote, [`actions`] what somebody has done; [`index`] knows the requests and
//! whose their statuses are, [`sealing`] deals with those that are not ours; [`sessions`] ends sessions; [`record`] knows
//! what has started without a vote; [`due_first`] sees to the order at the start, [`clocks`] to clocks that differ,
//! [`writes`] to how many are on their way.

mod actions;
mod approvers;
mod at_once;
mod by_user;
mod clocks;
mod drift;
mod due_first;
mod enact;
mod error;
mod fence;
mod index;
mod lenient;
mod next_look;
mod observe;
mod people;
mod policies;
mod reach;
mod realm;
mod reconcile;
mod record;
mod report;
mod run;
mod sealing;
mod sessions;
mod settling;
mod trace;
mod vanished;
mod writes;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::channel::mpsc;
use jiff::Timestamp;
use kube::{
    Client,
    api::ObjectMeta,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::{sync::watch, time::Instant};

use crate::{
    api::{AccessPolicy, AccessRequest, Phase, PinnedSubject},
    domain::{Request, TAKEN_AWAY, conditions::Reason, duration::later},
    guard::{Guard, InForce, Keyring, NotInForce},
    keycloak::Reach,
    leader::Leadership,
    metrics::{Metrics, Snapshot},
};

pub use clocks::clock_of_keycloak_problem;
pub use error::{Error, chain};
pub use policies::words;
pub use reach::test_realms;
pub use realm::{Realm, locate, unpinned};
pub use run::{SILENCE, Wiring, run, stopped};

use crate::config::Release;
use clocks::Differences;
use due_first::DueFirst;
use index::Index;
use policies::Verdict;
use record::Record;
use settling::Settling;
use writes::{Urgency, Writes};

/// Access that should have been gone this long ago is overdue.
const OVERDUE: Duration = Duration::from_secs(10);

/// What every reconcile needs.
pub struct Context {
    client: Client,
    realms: Arc<BTreeMap<String, Realm>>,
    guard: Guard,
    keyring: Arc<Keyring>,
    /// Whether this process may write: to be asked immediately before each write.
    leadership: Leadership,
    metrics: Arc<Metrics>,
    listed: Listed,
    index: Index,
    policies: Store<AccessPolicy>,
    policy_reads: policies::Reads,
    verdicts: Mutex<HashMap<String, Verdict>>,
    locks: Locks,
    memory: Mutex<HashMap<String, Memory>>,
    settling: Settling,
    found: drift::Found,
    release: Release,
    woken: mpsc::UnboundedSender<ObjectRef<AccessRequest>>,
    /// Whether the process is told to stop.
    stop: watch::Receiver<bool>,
    record: Record,
    writes: Arc<Writes>,
    due_first: DueFirst,
    differences: Differences,
    guard_state: Mutex<Result<InForce, String>>,
    /// How many requests are sealed with another key than the newest.
    older_key: AtomicUsize,
}

/// Whose holdings: a Keycloak user, by the server's URL and the ids of realm and user. Names can change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    url: String,
    realm_id: String,
    user_id: String,
}

/// One lock for each subject that is being decided on.
#[derive(Default)]
struct Locks(Mutex<HashMap<Holder, Arc<tokio::sync::Mutex<()>>>>);

impl Locks {
    /// Waits until nobody else decides on this subject. Without a subject there is nothing to be alone with.
    async fn lock(&self, holder: Option<&Holder>) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody holds or waits for a lock that only this map knows. They are many while many are looked at: not each time.
            if locks.len() == locks.capacity() {
                locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            locks.entry(holder?.clone()).or_default().clone()
        };
        // One that is free is taken at once. tokio has others wait for a while where a task takes many, and thousands of looks would
        // be under way, each with its memory.
        match lock.clone().try_lock_owned() {
            Ok(alone) => Some(alone),
            Err(_) => Some(lock.lock_owned().await),
        }
    }
}

/// Whether all there is has been listed once: before that nobody looks at it.
#[derive(Default)]
struct Listed {
    policies: AtomicBool,
    requests: AtomicBool,
}

impl Listed {
    fn follow_policies(&self, event: &watcher::Event<AccessPolicy>) {
        self.policies.fetch_or(matches!(event, watcher::Event::InitDone), Ordering::Relaxed);
    }

    fn follow_requests(&self, event: &watcher::Event<AccessRequest>) {
        self.requests.fetch_or(matches!(event, watcher::Event::InitDone), Ordering::Relaxed);
    }

    /// Requests are listed after policies.
    fn state(&self) -> Result<(), String> {
        let awaited = match (self.policies.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed)) {
            (true, true) => return Ok(()),
            (true, false) => "AccessRequests",
            (false, _) => "AccessPolicies",
        };
        Err(format!("all {awaited} are being listed; before that nothing is given or taken away"))
    }
}

/// What is remembered of an object between two reconciles; nothing is lost with it.
#[derive(Default)]
struct Memory {
    /// Failures in a row.
    attempts: u32,
    /// How it looked when nothing was left to do.
    settled: Option<Settled>,
    /// How often somebody has had it looked at again, whatever was settled.
    woken: u64,
    /// What others had written before the look that failed last.
    failed_at: Option<Others>,
    /// Before this it is not tried again, unless others write something.
    not_before: Option<Instant>,
    /// Targets that were proved gone while the status could not be written.
    gone: HashSet<String>,
}

/// A request for which nothing is to be done until something changes or a time comes.
#[derive(Clone, PartialEq, Eq)]
struct Settled {
    request: Option<String>,
    policy: KnownPolicy,
    wake: Option<Timestamp>,
}

/// What others write, and a request goes by.
#[derive(Clone, PartialEq)]
struct Others {
    metadata: ObjectMeta,
    policy: KnownPolicy,
}

/// UID and version of a policy.
type KnownPolicy = Option<(Option<String>, Option<String>)>;

impl Context {
    /// Whose holdings a request with this subject is about, once that is known.
    fn holder(&self, subject: Option<&PinnedSubject>) -> Option<Holder> {
        let subject = subject?;
        let here = self.realms.get(&subject.realm).map(|realm| &realm.config);
        let url = match (&subject.url, here) {
            (Some(url), Some(here)) if !here.is_of_server(url) => url,
            (_, Some(here)) => &here.url,
            // A realm that is not configured any more still keeps its requests apart from others.
            (url, None) => url.as_ref().unwrap_or(&subject.realm),
        };
        Some(Holder { url: url.clone(), realm_id: subject.realm_id.clone(), user_id: subject.user_id.clone() })
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verdicts(&self) -> MutexGuard<'_, HashMap<String, Verdict>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what the guard said last, for people. When it changes, that is said, and whom it concerns is looked at
    /// again: not when it only fails in other words, which would make an API server in trouble busier still.
    fn remember_guard(&self, answer: &Result<InForce, NotInForce>) {
        let state = match answer {
            Ok(in_force) => Ok(in_force.clone()),
            Err(error) => Err(chain(error)),
        };
        let mut last = self.guard_state.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == state {
            return;
        }
        match &state {
            Ok(InForce { epoch, since, stamp }) => {
                tracing::info!(epoch, %since, stamp, "the admission policies are in force");
            }
            Err(why) => tracing::error!(why, "the admission policies are not in force"),
        }
        report::guard(self, &state);
        let epoch = answer.as_ref().ok().map(|in_force| in_force.epoch.as_str());
        let concerns = epoch.is_some() || last.is_ok();
        *last = state;
        drop(last);
        if concerns {
            self.wake_whom_the_guard_concerns(epoch);
        }
    }

    /// The trust epoch in which the admission policies were last seen in force.
    fn known_epoch(&self) -> Option<String> {
        let state = self.guard_state.lock().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().ok().map(|in_force| in_force.epoch.clone())
    }

    /// How the operator is.
    pub fn health(&self) -> Health {
        Health {
            guard: self
                .guard_state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .map(drop)
                .map_err(Clone::clone),
            clocks: self.api_server_clock_problem().map_or(Ok(()), Err),
            requests: self.listed.state(),
            realms: self.realms.iter().map(|(name, realm)| (name.clone(), self.state_of(realm))).collect(),
        }
    }

    /// Whether something can be given in a realm, and how far the operator's rights reach there.
    fn state_of(&self, realm: &Realm) -> Result<String, String> {
        realm.state()?;
        let words = self.privilege(realm).map(|privilege| format!("; {}", privilege.reason.message));
        self.keycloak_clock_problem(realm).map_or_else(|| Ok(format!("ok{}", words.unwrap_or_default())), Err)
    }

    /// Whether the operator's rights in a realm reach no further than its policies; nothing before that was looked at.
    fn privilege(&self, realm: &Realm) -> Option<Privilege> {
        let here = |policy: &AccessPolicy| {
            self.realms.get(&policy.spec.realm).is_some_and(|theirs| theirs.config.place() == realm.config.place())
        };
        let policies = self.policies.state();
        let named = policies.iter().filter(|policy| here(policy)).flat_map(|policy| &policy.spec.grants);
        let named: HashSet<&str> = named.filter_map(|grant| grant.realm_role.as_deref()).collect();
        Some(Privilege::of(&realm.reach()?, &named))
    }

    /// What a scrape counts.
    pub fn snapshot(&self) -> Snapshot {
        let now = Timestamp::now();
        let requests: Vec<Request> = self.index.all().iter().map(|request| Request::parse(request)).collect();
        let live = |request: &&Request| request.phase().is_some_and(|phase| !phase.is_final());
        let lacks = |request: &&Request| {
            let conditions = &request.status.conditions;
            request.phase() == Some(Phase::Active) && conditions.iter().any(|condition| condition.reason == TAKEN_AWAY)
        };
        let late = |request: &&Request| request.due_since().is_some_and(|due| later(due, OVERDUE) <= now);
        let still_there = |request: &&Request| !self.is_proved_gone(request);
        Snapshot {
            phases: requests.iter().filter_map(Request::phase).collect(),
            overdue: requests.iter().filter(live).filter(late).filter(still_there).count(),
            taken_away: requests.iter().filter(lacks).count(),
            in_force: self.guard_state.lock().unwrap_or_else(PoisonError::into_inner).is_ok(),
            realms: self.realms.iter().map(|(name, realm)| (name.clone(), realm.state().is_ok())).collect(),
            leader: self.leadership.may_give().is_ok(),
            older_key: self.older_key.load(Ordering::Relaxed),
        }
    }
}

/// Whether the operator could lend no more than policies name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Privilege {
    least: bool,
    reason: Reason,
}

impl Privilege {
    /// What a reach means where these realm roles are named.
    fn of(reach: &Reach, named: &HashSet<&str>) -> Self {
        let Reach::Limited { realm_roles, manages } = reach else {
            let words = "with manage-users the operator could lend any role that is not of Keycloak's administration";
            return Self { least: false, reason: Reason::new("ManageUsers", words) };
        };
        let more: Vec<_> = realm_roles.iter().filter(|role| !named.contains(role.as_str())).collect();
        if more.is_empty() {
            let more = if *manages { ", but may change users and their passwords" } else { "" };
            let words = format!("the operator could lend no realm role that no policy names{more}");
            return Self {
                least: !manages,
                reason: Reason::new(if *manages { "ManagesUsers" } else { "Limited" }, words),
            };
        }
        let few: Vec<_> = more.iter().take(3).map(|role| format!("{role:?}")).collect();
        let rest = if more.len() > few.len() { format!(" and {} more", more.len() - few.len()) } else { String::new() };
        let words = format!("the operator could also lend realm roles that no policy names: {}{rest}", few.join(", "));
        Self { least: false, reason: Reason::new("MoreThanNamed", words) }
    }
}

/// How the operator is: what `/readyz` says.
#[derive(Clone, Debug)]
pub struct Health {
    guard: Result<(), String>,
    clocks: Result<(), String>,
    requests: Result<(), String>,
    realms: BTreeMap<String, Result<String, String>>,
}

impl Health {
    /// Ready if something can be granted: the admission policies are in force, the clocks agree, all requests are known, and there is
    /// a realm to work in.
    pub fn is_ready(&self) -> bool {
        self.guard.is_ok() && self.clocks.is_ok() && self.requests.is_ok() && self.realms.values().any(Result::is_ok)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ok = |state: &Result<(), String>| state.clone().map(|()| "ok".to_owned());
        write!(f, "{}", line("admission policies", &ok(&self.guard)))?;
        write!(f, "{}", line("clocks", &ok(&self.clocks)))?;
        write!(f, "{}", line("requests", &ok(&self.requests)))?;
        for (name, state) in &self.realms {
            write!(f, "{}", line(&format!("realm {name}"), state))?;
        }
        Ok(())
    }
}

/// A line of `/readyz`.
pub fn line(what: &str, state: &Result<String, String>) -> String {
    match state {
        Ok(how) => format!("[+] {what}: {how}\n"),
        Err(why) => format!("[-] {what}: {why}\n"),
    }
}
