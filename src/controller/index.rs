//! The requests as they are known: the watch's cache, our own writes until the watch shows them, and what is remembered of
//! each, because a status in the API server may be somebody else's.
//!
//! A decision for a subject has to see what was just written for another request of the same subject.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    ResourceExt,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};
use tokio::sync::mpsc::UnboundedSender;

use super::by_user::ByUser;
use crate::{
    api::{AccessRequest, AccessRequestStatus, FINALIZER, Phase},
    clock::Boot,
    domain::{Forged, Instead, Request, duration::later},
    guard::{Keyring, seal},
    leader::Leadership,
};

/// Most statuses of one request that were sent and may still come to be. One that is older has long been answered.
const MAX_SENT: usize = 64;

/// How long what is over is kept: what has ended is [looked at](super::drift) for a while.
pub(super) const KEPT: Duration = Duration::from_mins(30);

/// The requests about which something may have to be done, by UID.
pub struct Index {
    store: Store<AccessRequest>,
    keyring: Arc<Keyring>,
    by_user: ByUser,
    memories: Mutex<HashMap<String, Memory>>,
    /// Those that are known here only; nothing is left of those that are over.
    vanished: Mutex<HashMap<String, Option<Arc<AccessRequest>>>>,
    /// Those that are over and not held any more, as a hash of the UID: a status of theirs that is not final is an old one.
    over: Mutex<HashSet<u64>>,
    /// UIDs of requests that are not there any more.
    gone: UnboundedSender<String>,
    /// Knows the API server's clock.
    leadership: Leadership,
}

/// What is remembered of one request.
#[derive(Default)]
struct Memory {
    /// What a write of ours answered, or a read that was newer than the watch, until the watch shows it.
    newer: Option<Arc<AccessRequest>>,
    /// It, when its status was last ours.
    trusted: Option<Arc<AccessRequest>>,
    /// Seals of statuses that were sent, and the version that each is to follow. Whether they have come to be is not known:
    /// the answer may have been lost.
    sent: Vec<(String, u64)>,
    /// Whether it was told that the status is not ours.
    told: bool,
    /// The deadline, and when it comes by the boot-time clock: from when it was first seen.
    due: Option<(Timestamp, Boot)>,
    /// Whether a write of its status was acknowledged since this process leads, and none was left without an answer after it.
    fenced: bool,
}

/// A request as it is known.
pub struct Known {
    /// As the API server has it.
    pub stored: Arc<AccessRequest>,
    /// The same with a status that is ours: the stored one, or the remembered one in its place.
    pub trusted: Option<Arc<AccessRequest>>,
    /// Whether the boot-time clock says that its time is up.
    time_is_up: bool,
}

impl Known {
    /// One that is known here only: it ends anyhow.
    fn vanished(request: Arc<AccessRequest>) -> Self {
        Self { trusted: Some(request.clone()), stored: request, time_is_up: false }
    }

    /// Whether the status in the API server is ours.
    pub fn is_ours(&self) -> bool {
        self.trusted.as_ref().is_some_and(|trusted| Arc::ptr_eq(trusted, &self.stored))
    }

    /// The request with the status that is ours, if there is one.
    pub fn as_trusted(&self) -> Option<Request> {
        let request = Request::parse(self.trusted.as_ref()?);
        Some(Request { time_is_up: self.time_is_up, ..request })
    }

    /// The request as it is decided on, and the object to write. `named` is what counts if nothing is remembered; nothing
    /// comes of it if that is missing.
    pub fn believed(&self, named: Option<&Named>) -> Option<(Request, Arc<AccessRequest>)> {
        if self.is_ours() {
            return Some((self.as_trusted()?, self.stored.clone()));
        }
        let (object, instead) = match (&self.trusted, named) {
            (Some(trusted), _) => (trusted.clone(), Instead::Remembered),
            (None, Some(Named { status, nothing })) => {
                let object = with_status(&self.stored, Some(status.clone()));
                (Arc::new(object), nothing.clone().map_or(Instead::Named, Instead::Nothing))
            }
            (None, None) => return None,
        };
        let found = self.stored.status.clone().unwrap_or_default();
        let forged = Some(Forged { found, instead });
        Some((Request { forged, time_is_up: self.time_is_up, ..Request::parse(&object) }, object))
    }
}

/// Whom and what a request's spec and policy name now.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Subject and targets, as a status has them.
    pub status: AccessRequestStatus,
    /// Why they name nothing, if so.
    pub nothing: Option<String>,
}

impl Index {
    /// An index over the watch's cache.
    pub fn new(
        store: Store<AccessRequest>,
        keyring: Arc<Keyring>,
        gone: UnboundedSender<String>,
        leadership: Leadership,
    ) -> Self {
        let (memories, vanished, over) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { store, keyring, by_user: ByUser::default(), memories, vanished, over, gone, leadership }
    }

    /// By how much the API server's clock is ahead of ours, if that is more than is tolerated: what a leader on another machine
    /// gave ends when its clock says so.
    fn ahead(&self) -> Duration {
        let ahead = self.leadership.api_server_clock().ahead().and_then(|ahead| u64::try_from(ahead).ok());
        Duration::from_secs(ahead.filter(|ahead| *ahead > super::clocks::TOLERATED).unwrap_or_default())
    }

    /// Follows the watch: to be told of each event that its cache has taken in.
    pub fn follow(&self, event: &Event<AccessRequest>) {
        self.by_user.follow(event);
        if matches!(event, Event::InitDone) {
            self.forget_whose_are_gone(&self.memories());
        }
    }

    fn forget_whose_are_gone(&self, memories: &HashMap<String, Memory>) {
        let remembered = memories.values().flat_map(|memory| memory.newer.iter().chain(&memory.trusted));
        self.by_user.forget_all_but(|request| self.store.get(request).is_some(), remembered.map(Arc::as_ref));
    }

    /// Remembers what a write of ours answered, or a read that was newer than the watch.
    /// A status that is ours is remembered at once: somebody may write over it before anybody looks.
    pub fn put(&self, mut request: AccessRequest) -> Arc<AccessRequest> {
        request.metadata.managed_fields = None;
        let request = Arc::new(request);
        let Some(uid) = request.metadata.uid.clone() else { return request };
        self.by_user.add(&request);
        let was_over = self.was_over(&uid);
        let mut memories = self.memories();
        let memory = memories.entry(uid).or_default();
        if memory.newer.as_ref().is_none_or(|known| version(known) < version(&request)) {
            memory.newer = Some(request.clone());
            memory.judge(&self.keyring, request.clone(), self.ahead(), was_over);
        }
        drop(memories);
        request
    }

    /// Remembers that a status was sent: it is ours when it is seen, also if the answer gets lost.
    pub fn sends(&self, request: &AccessRequest) {
        let seal = request.status.as_ref().and_then(|status| status.seal.clone());
        let (Some(uid), Some(seal)) = (request.metadata.uid.clone(), seal) else { return };
        let mut memories = self.memories();
        let sent = &mut memories.entry(uid).or_default().sent;
        sent.retain(|(other, _)| *other != seal);
        sent.push((seal, version(request)));
        let old = sent.len().saturating_sub(MAX_SENT);
        sent.drain(..old);
    }

    /// A write of a request's status was acknowledged; whether it was the first since nothing was known of it.
    pub fn fence(&self, uid: &str) -> bool {
        !std::mem::replace(&mut self.memories().entry(uid.to_owned()).or_default().fenced, true)
    }

    /// A write of a request's status was left without an answer.
    pub fn unfence(&self, uid: &str) {
        self.memories().entry(uid.to_owned()).or_default().fenced = false;
    }

    /// Whether nothing that was sent before can change a request's status any more.
    pub fn is_fenced(&self, uid: &str) -> bool {
        self.memories().get(uid).is_some_and(|memory| memory.fenced)
    }

    /// Forgets what the watch does not show any more.
    pub fn forget_the_gone(&self) {
        let there: HashSet<_> = self.store.state().iter().filter_map(|stored| stored.metadata.uid.clone()).collect();
        // What disappeared while it was live is kept until somebody has taken over what it gave.
        let live = |memory: &Memory| memory.trusted.as_ref().is_some_and(|trusted| trusted.is_live());
        let mut memories = self.memories();
        memories.retain(|uid, memory| there.contains(uid) || live(memory));
        self.forget_whose_are_gone(&memories);
    }

    /// Somebody found that a request is not there any more.
    pub fn is_gone(&self, uid: &str) {
        // Nobody listens while the process stops.
        let _ = self.gone.send(uid.to_owned());
    }

    /// A request is gone. If it was live when it was last seen, it is known here only from now on.
    pub fn vanish(&self, uid: &str) -> Option<Arc<AccessRequest>> {
        self.over().remove(&hash_of(uid));
        let last = self.memories().remove(uid)?.trusted.filter(|trusted| trusted.is_live())?;
        let mut vanished = self.vanished();
        if vanished.contains_key(uid) {
            return None;
        }
        let mut request = last.as_ref().clone();
        request.metadata.finalizers = None;
        request.metadata.deletion_timestamp.get_or_insert_with(|| Time(Timestamp::now()));
        let request = Arc::new(request);
        vanished.insert(uid.to_owned(), Some(request.clone()));
        Some(request)
    }

    /// UIDs of the requests that were live when they were last seen.
    pub fn live(&self) -> HashSet<String> {
        let live = |memory: &Memory| memory.trusted.as_ref().is_some_and(|trusted| trusted.is_live());
        self.memories().iter().filter(|(_, memory)| live(memory)).map(|(uid, _)| uid.clone()).collect()
    }

    /// Live requests that the watch does not show: they are gone, or came and went while it was broken.
    pub fn not_shown(&self) -> Vec<Arc<AccessRequest>> {
        let vanished = self.vanished().clone();
        let live: Vec<_> = self.memories().values().filter_map(|memory| memory.trusted.clone()).collect();
        let shown = |request: &Arc<AccessRequest>| {
            let stored = self.store.get(&ObjectRef::from_obj(request.as_ref()));
            stored.is_some_and(|stored| stored.metadata.uid == request.metadata.uid)
        };
        let known_here =
            |request: &Arc<AccessRequest>| request.metadata.uid.as_ref().is_some_and(|uid| vanished.contains_key(uid));
        live.into_iter().filter(|request| request.is_live() && !shown(request) && !known_here(request)).collect()
    }

    /// A request that is over is not held from now on.
    pub fn let_go(&self, request: &AccessRequest) {
        self.over().insert(hash_of(request.metadata.uid.as_deref().unwrap_or_default()));
    }

    /// Of those that are over, forgets all but these.
    pub fn keep_over(&self, there: &HashSet<u64>) {
        self.over().retain(|hash| there.contains(hash));
    }

    fn was_over(&self, uid: &str) -> bool {
        self.over().contains(&hash_of(uid))
    }

    fn over(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is to be done about a request any more: its status is ours and final, and it has been so for a while. Such
    /// requests are not held in memory, but for [a word](Self::let_go).
    pub fn is_over(&self, request: &AccessRequest, now: Timestamp) -> bool {
        let Some(status) = request.status.as_ref().filter(|status| status.phase.is_some_and(Phase::is_final)) else {
            return false;
        };
        let ended = request.grant().and_then(|grant| grant.ended_at.as_ref()).map(|ended| ended.0);
        let decided = || status.conditions.iter().map(|condition| condition.last_transition_time.0).max();
        let since = ended.or_else(decided);
        since.is_some_and(|since| later(since, KEPT) <= now)
            && !request.finalizers().iter().any(|name| name == FINALIZER)
            && self.keyring.verify(request.metadata.uid.as_deref().unwrap_or_default(), status)
    }

    /// Requests that are known here only.
    pub fn left_of_the_vanished(&self) -> Vec<Arc<AccessRequest>> {
        self.vanished().values().flatten().cloned().collect()
    }

    /// Whether a request is known here only.
    pub fn is_vanished(&self, uid: &str) -> bool {
        self.vanished().get(uid).is_some_and(Option::is_some)
    }

    /// Whether a request disappeared, and everything is done about it.
    pub fn is_done(&self, uid: &str) -> bool {
        self.vanished().get(uid).is_some_and(Option::is_none)
    }

    /// Keeps the status of a request that is known here only, until it is final. Says whether it is one.
    pub fn keep(&self, request: &AccessRequest) -> bool {
        let uid = request.metadata.uid.as_deref().unwrap_or_default();
        let mut vanished = self.vanished();
        let Some(known) = vanished.get_mut(uid) else { return false };
        let over = request.phase().is_some_and(Phase::is_final);
        *known = known.take().filter(|_| !over).map(|known| Arc::new(with_status(&known, request.status.clone())));
        true
    }

    fn vanished(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<AccessRequest>>>> {
        self.vanished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest known version.
    pub fn newest(&self, seen: &Arc<AccessRequest>) -> Known {
        let vanished = self.vanished().get(seen.metadata.uid.as_deref().unwrap_or_default()).cloned();
        if let Some(Some(vanished)) = vanished {
            return Known::vanished(vanished);
        }
        let stored = self.store.get(&ObjectRef::from_obj(seen.as_ref()));
        let stored = stored.filter(|stored| stored.metadata.uid == seen.metadata.uid);
        self.know(stored.unwrap_or_else(|| seen.clone()))
    }

    /// All requests, each in its newest known version.
    pub fn known(&self) -> Vec<Known> {
        self.know_those(self.store.state(), |_| true)
    }

    /// Those of a Keycloak user, by its id: few of many, and only they are judged.
    pub fn known_of(&self, user: &str) -> Vec<Known> {
        let stored = self.by_user.of(user).iter().filter_map(|request| self.store.get(request)).collect();
        self.know_those(stored, |request| {
            let subject = request.subject();
            subject.is_some_and(|subject| subject.user_id == user)
        })
    }

    /// Those of the stored ones of which this is so as they are stored, or as they are remembered; and the vanished ones.
    fn know_those(&self, mut stored: Vec<Arc<AccessRequest>>, wanted: impl Fn(&AccessRequest) -> bool) -> Vec<Known> {
        let vanished = self.vanished().clone();
        {
            let memories = self.memories();
            let remembered = |uid: &str| {
                memories
                    .get(uid)
                    .is_some_and(|memory| memory.newer.iter().chain(&memory.trusted).any(|one| wanted(one)))
            };
            stored.retain(|stored| {
                let uid = stored.metadata.uid.as_deref().unwrap_or_default();
                !vanished.contains_key(uid) && (wanted(stored) || remembered(uid))
            });
        }
        let mut known: Vec<_> = stored.into_iter().map(|stored| self.know(stored)).collect();
        known.extend(vanished.into_values().flatten().filter(|request| wanted(request)).map(Known::vanished));
        known
    }

    /// All requests with a status that is ours.
    pub fn all(&self) -> Vec<Arc<AccessRequest>> {
        self.known().into_iter().filter_map(|known| known.trusted).collect()
    }

    /// How long a live request has left by the boot-time clock, whatever becomes of the wall clock.
    pub fn time_left(&self, request: &AccessRequest) -> Option<Duration> {
        let live = matches!(request.phase(), Some(Phase::Activating | Phase::Active));
        let (deadline, due) = self.memories().get(request.metadata.uid.as_deref()?)?.due?;
        (live && deadline_of(request) == Some(deadline)).then(|| due.since(Boot::now()))
    }

    /// Whether nobody was told yet that a request's status is not ours.
    pub fn is_news(&self, request: &AccessRequest) -> bool {
        let mut memories = self.memories();
        let memory = memories.entry(request.metadata.uid.clone().unwrap_or_default()).or_default();
        !std::mem::replace(&mut memory.told, true)
    }

    /// How many requests may come to carry a seal of another key than this.
    pub fn coming_with_another_key(&self, key: &str) -> usize {
        let other = |seal: &str| seal::key_id(seal) != Some(key);
        self.memories().values().filter(|memory| memory.sent.iter().any(|(seal, _)| other(seal))).count()
    }

    fn know(&self, stored: Arc<AccessRequest>) -> Known {
        let uid = stored.metadata.uid.clone().unwrap_or_default();
        let was_over = self.was_over(&uid);
        let mut memories = self.memories();
        let memory = memories.entry(uid).or_default();
        let newer = memory.newer.take().filter(|newer| version(newer) > version(&stored));
        memory.newer.clone_from(&newer);
        memory.judge(&self.keyring, newer.unwrap_or(stored), self.ahead(), was_over)
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// What is known of a request, if this is stored: also when its time is up.
    fn judge(&mut self, keyring: &Keyring, stored: Arc<AccessRequest>, ahead: Duration, was_over: bool) -> Known {
        let (stored, trusted) = self.whose(keyring, stored, was_over);
        let deadline = trusted.as_ref().and_then(|trusted| deadline_of(trusted));
        if self.due.map(|(known, _)| known) != deadline {
            let left = |deadline| super::next_look::until(deadline).saturating_sub(ahead);
            self.due = deadline.map(|deadline| (deadline, Boot::now().after(left(deadline))));
        }
        let time_is_up = self.due.is_some_and(|(_, due)| due <= Boot::now());
        Known { stored, trusted, time_is_up }
    }

    /// Whether the status of what is stored is ours; what is ours is remembered.
    fn whose(
        &mut self,
        keyring: &Keyring,
        stored: Arc<AccessRequest>,
        was_over: bool,
    ) -> (Arc<AccessRequest>, Option<Arc<AccessRequest>>) {
        if let Some(trusted) = &self.trusted
            && version(trusted) >= version(&stored)
        {
            return (trusted.clone(), Some(trusted.clone()));
        }
        let goes_back = was_over && !stored.phase().is_some_and(Phase::is_final);
        let ours = !goes_back && self.recognises(keyring, &stored);
        // What was to follow an older version than this has come to be by now, or never will.
        self.sent.retain(|(_, follows)| *follows >= version(&stored));
        if ours {
            self.trusted = Some(stored.clone());
            self.told = false;
            return (stored.clone(), Some(stored));
        }
        let remembered = self.trusted.as_ref().map(|trusted| Arc::new(with_status(&stored, trusted.status.clone())));
        (stored, remembered)
    }

    /// Ours is a status that says nothing, as long as nobody has looked; and one with a seal of its own, unless it is not the
    /// one that is remembered nor one that was sent: then it is an older one that somebody has put back. As long as this
    /// process has had no write acknowledged, one that an earlier leader had sent can still arrive: that one goes on from what
    /// is remembered, and never back.
    fn recognises(&self, keyring: &Keyring, stored: &AccessRequest) -> bool {
        let status = stored.status.clone().unwrap_or_default();
        let remembered = self.trusted.as_ref().and_then(|trusted| trusted.status.as_ref());
        match &status.seal {
            None => {
                let looked_at = remembered.is_some_and(|remembered| remembered.phase.is_some());
                seal::is_blank(&status) && !looked_at && !stored.finalizers().iter().any(|name| name == FINALIZER)
            }
            Some(seal) => {
                let known = self.trusted.is_none()
                    || remembered.is_some_and(|remembered| {
                        remembered.seal.as_ref() == Some(seal) || (!self.fenced && status.goes_on_from(remembered))
                    })
                    || self.sent.iter().any(|(sent, _)| sent == seal);
                known && keyring.verify(stored.metadata.uid.as_deref().unwrap_or_default(), &status)
            }
        }
    }
}

/// A UID in few bytes. Two of a hundred thousand UIDs have one hash once in thousands of millions of times; then a request of theirs is not believed.
pub fn hash_of(uid: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    hasher.finish()
}

fn with_status(stored: &AccessRequest, status: Option<AccessRequestStatus>) -> AccessRequest {
    AccessRequest { metadata: stored.metadata.clone(), spec: stored.spec.clone(), status }
}

fn deadline_of(request: &AccessRequest) -> Option<Timestamp> {
    Some(request.grant()?.deadline.0)
}

/// Resource versions of one resource can be compared as numbers (Kubernetes 1.35, KEP-5504; etcd's before).
fn version(request: &AccessRequest) -> u64 {
    request.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
