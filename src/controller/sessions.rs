//! Ends sessions, and asks how long tokens live. Both can take long, and keep nothing from being taken away.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Context, realm::Realm};
use crate::{
    api::{AccessRequest, PinnedSubject},
    domain::{Effect, Outcome, OutcomeResult, Request, Sessions},
    keycloak,
};

/// How old an answer about lifespans may be: clients are many, and all who begin and end in this time share one look.
const RECENT: Duration = Duration::from_mins(1);
/// How long a request waits for it. What is not there by then is there for the next.
const PATIENCE: Duration = Duration::from_secs(2);

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
            outcomes.push(Outcome { target: String::new(), result });
            let again = |target: &String| Outcome { target: target.clone(), result: OutcomeResult::Removed };
            outcomes.extend(removed.iter().map(again));
        }
        outcomes
    }

    async fn end_sessions_of(&self, subject: &PinnedSubject, which: &Sessions) -> Result<(), String> {
        let PinnedSubject { realm, realm_id, user_id, username: _ } = subject;
        let Some(realm) = self.realms.get(realm) else {
            return Err(format!("realm {realm:?} is not in the operator's configuration any more"));
        };
        let which = match which {
            Sessions::All => keycloak::Sessions::All,
            Sessions::OfClients(clients) => keycloak::Sessions::OfClients(clients.iter().cloned().collect()),
        };
        let ended = realm.keycloak.end_sessions(user_id, &which, realm_id).await;
        ended.map_err(|error| error.to_string())
    }
}

impl Realm {
    /// How long an access token lives at most, as it was a minute ago at most; why that is not known, if it cannot be said
    /// soon.
    pub async fn token_lifespan(&self) -> Result<Duration, String> {
        let (keycloak, answer) = (self.keycloak.clone(), self.lifespan.clone());
        let since = Instant::now().checked_sub(RECENT).unwrap_or_else(Instant::now);
        // It goes on when nobody waits for it any more.
        let look = tokio::spawn(async move { answer.get(since, || async { keycloak.token_lifespan().await }).await });
        match timeout(PATIENCE, look).await {
            Ok(Ok(answer)) => answer.map_err(|error| error.to_string()),
            Ok(Err(_)) | Err(_) => Err(format!("no answer within {} seconds", PATIENCE.as_secs())),
        }
    }
}
