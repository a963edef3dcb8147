//! What Keycloak says about people, and about what is lent, asked once for all requests that need it at the same moment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::realm::Found;
use crate::{
    domain::Problem,
    keycloak::{Error, Lendable, RealmInfo, User},
    shared::Shared,
};

/// How old an answer about somebody may be whom a request that only waits was told of before.
pub const RECENT: Duration = Duration::from_secs(2);

/// So many answers are kept of each kind.
const LIMIT: usize = 1024;

/// Answers of one realm. How old one may be is for each asker to say.
pub struct Answers {
    /// Users by Kubernetes username; the inner error says why a name leads to nobody.
    pub users: Cache<Result<User, String>>,
    /// Ids of all groups that a user is directly in, by the user's id: each policy picks its own.
    pub groups: Cache<Arc<[String]>>,
    /// Ids of groups, by their names in policies.
    pub group_ids: Cache<String, Problem>,
    /// What grants are, wherever they lead, by the policy's UID and generation and the grant's name.
    pub places: Cache<Lendable, Problem>,
    /// The same of those that may be lent.
    pub targets: Cache<Found, Problem>,
    /// The realm.
    pub realm: Shared<RealmInfo, Error>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            users: Cache::holding(LIMIT),
            groups: Cache::holding(LIMIT),
            group_ids: Cache::holding(LIMIT),
            places: Cache::holding(LIMIT),
            targets: Cache::holding(LIMIT),
            realm: Shared::default(),
        }
    }
}

/// Answers to questions of one kind, as [`Shared`] keeps one: bounded, the oldest goes first.
pub struct Cache<T, E = Error> {
    limit: usize,
    entries: Mutex<HashMap<String, Entry<T, E>>>,
}

struct Entry<T, E> {
    answer: Arc<Shared<T, E>>,
    asked: Instant,
}

impl<T: Clone, E: Clone> Cache<T, E> {
    /// With room for so many.
    pub fn holding(limit: usize) -> Self {
        Self { limit, entries: Mutex::default() }
    }

    /// The answer of a call that began at `not_before` or since then.
    pub async fn get<F>(&self, key: &str, not_before: Instant, ask: impl FnOnce() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.entry(key).get(not_before, ask).await
    }

    fn entry(&self, key: &str) -> Arc<Shared<T, E>> {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(key) {
            entry.asked = now;
            return entry.answer.clone();
        }
        if entries.len() >= self.limit
            && let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.asked).map(|(key, _)| key.clone())
        {
            entries.remove(&oldest);
        }
        entries.entry(key.to_owned()).or_insert(Entry { answer: Arc::default(), asked: now }).answer.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    const CALL: Duration = Duration::from_millis(100);

    struct Keycloak {
        cache: Cache<usize>,
        calls: AtomicUsize,
    }

    impl Keycloak {
        fn with_room_for(limit: usize) -> Self {
            Self { cache: Cache::holding(limit), calls: AtomicUsize::new(0) }
        }

        /// Answers with the number of the call that told it.
        async fn ask(&self, name: &str, not_before: Instant) -> usize {
            let call = || async {
                let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
                sleep(CALL).await;
                Ok(call)
            };
            self.cache.get(name, not_before, call).await.expect("an answer")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_about_one_person_at_the_same_time_shares_a_call() {
        let k = Keycloak::with_room_for(8);
        let now = Instant::now();
        let names = ["alice", "bob", "alice", "alice", "bob"];
        assert_eq!(join_all(names.map(|name| k.ask(name, now))).await, [1, 2, 1, 1, 2]);
        assert_eq!(now.elapsed(), CALL, "nobody waited for the call about somebody else");
    }

    #[tokio::test(start_paused = true)]
    async fn a_recent_answer_serves_who_waits_and_nobody_who_asks_anew() {
        let k = Keycloak::with_room_for(8);
        k.ask("alice", Instant::now()).await;
        advance(Duration::from_secs(1)).await;
        assert_eq!(k.ask("alice", Instant::now() - RECENT).await, 1);
        assert_eq!(k.ask("alice", Instant::now()).await, 2);
        advance(RECENT).await;
        assert_eq!(k.ask("alice", Instant::now() - RECENT).await, 3, "counted from when its call began");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_answer_goes_first() {
        let k = Keycloak::with_room_for(2);
        let begin = Instant::now();
        for name in ["alice", "bob", "alice", "carol"] {
            k.ask(name, begin).await;
            advance(CALL).await;
        }
        assert_eq!(k.cache.entries.lock().expect("a lock").len(), 2);
        assert_eq!(k.ask("alice", begin).await, 1, "asked about since");
        assert_eq!(k.ask("bob", begin).await, 4, "gone");
    }
}
