//! Ends sessions, and asks how long tokens live. Both can take long, and keep nothing from being taken away.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{Context, realm::Realm};
use crate::{
    api::{AccessRequest, PinnedSubject},
    domain::{Effect, Outcome, OutcomeResult, Request, Sessions},
    keycloak,
    shared::Shared,
};

/// How old an answer about lifespans may be for who begins: who ends asks again.
const RECENT: Duration = Duration::from_mins(1);
/// An answer is good for so many times as long as it took: clients are many, and Keycloak has other things to do.
const REST: u32 = 10;
/// How long who begins waits for it. What is not there by then is there for the next.
const PATIENCE_AT_ACTIVATION: Duration = Duration::from_secs(1);
/// How long who ends waits for it, once everything is gone.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(2);

/// How long an access token of a realm lives at most, asked once for all who need it.
#[derive(Default)]
pub struct Lifespans {
    answer: Shared<Duration, keycloak::Error>,
    /// Milliseconds that the last look took.
    took: AtomicU64,
}

impl Lifespans {
    async fn get(&self, keycloak: &keycloak::Client, max_age: Duration) -> Result<Duration, keycloak::Error> {
        let rest = Duration::from_millis(self.took.load(Ordering::Relaxed)).saturating_mul(REST);
        let now = Instant::now();
        let look = || async {
            let began = Instant::now();
            let longest = keycloak.token_lifespan().await;
            self.took.store(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            longest
        };
        self.answer.get(now.checked_sub(max_age.max(rest)).unwrap_or(now), look).await
    }
}

impl Context {
    /// Ends the sessions that effects say, and says what became of it. For who is not alone with the subject any more.
    pub async fn end_sessions(&self, object: &AccessRequest, effects: &[Effect]) -> Vec<Outcome> {
        let subject = Request::parse(object).status.subject;
        let mut outcomes = Vec::new();
        for effect in effects {
            let Effect::EndSessions { which, removed } = effect else { continue };
            let ended = match &subject {
                Some(subject) => self.end_sessions_of(subject, which).await,
                None => Err("the request has no subject".into()),
            };
            let result = ended.map_or_else(OutcomeResult::SessionsLeft, |()| OutcomeResult::SessionsEnded);
            outcomes.push(Outcome { target: String::new(), result, travelling: None });
            let again =
                |target: &String| Outcome { target: target.clone(), result: OutcomeResult::Removed, travelling: None };
            outcomes.extend(removed.iter().map(again));
        }
        outcomes
    }

    async fn end_sessions_of(&self, subject: &PinnedSubject, which: &Sessions) -> Result<(), String> {
        let PinnedSubject { realm, realm_id, user_id, url: _, username: _ } = subject;
        let Some(realm) = self.realms.get(realm) else {
            return Err(format!("realm {realm:?} is not in the operator's configuration any more"));
        };
        if let Some(why) = realm.is_another_than(subject).await {
            return Err(why);
        }
        let which = match which {
            Sessions::All => keycloak::Sessions::All,
            Sessions::OfClients(clients) => keycloak::Sessions::OfClients(clients.iter().cloned().collect()),
        };
        let ended = realm.keycloak.end_sessions(user_id, &which, realm_id).await;
        ended.map_err(|error| {
            realm.met(&error);
            let error = error.to_string();
            tracing::warn!(user = user_id, error, "sessions are not ended yet");
            error
        })
    }
}

impl Realm {
    /// How long an access token lives at most, for who begins.
    pub async fn lifespan_at_activation(&self) -> Result<Duration, String> {
        self.token_lifespan(RECENT, PATIENCE_AT_ACTIVATION).await
    }

    /// The same for who ends.
    pub async fn lifespan_at_the_end(&self) -> Result<Duration, String> {
        self.token_lifespan(Duration::ZERO, PATIENCE_AT_THE_END).await
    }

    async fn token_lifespan(&self, max_age: Duration, patience: Duration) -> Result<Duration, String> {
        let (keycloak, lifespans) = (self.keycloak.clone(), self.lifespans.clone());
        // It goes on when nobody waits for it any more.
        let look = tokio::spawn(async move { lifespans.get(&keycloak, max_age).await });
        match timeout(patience, look).await {
            Ok(Ok(answer)) => answer.map_err(|error| error.to_string()),
            Ok(Err(_)) | Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
        }
    }
}
