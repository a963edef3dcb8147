//! Signing in: client credentials, one renewal at a time, before the token expires. Knows nothing of the Admin API.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::{
    Observer,
    error::{Complaint, Error, Kind, describe_body, number, root_cause},
    http::{MAX_BODY, body_of, is_away, retry_after},
};
use crate::{
    clock::{Boot, OtherClock},
    config::Credential,
};

pub(super) const ENDPOINT: &str = "token";

/// A token is renewed this long before it expires, or after three quarters of a shorter life.
const MARGIN: Duration = Duration::from_secs(20);

/// How long Keycloak's tokens live unless a realm says otherwise (26.7.3).
pub(super) const DEFAULT_LIFE: Duration = Duration::from_mins(5);

/// An access token. Does not print itself.
#[derive(Clone)]
pub(super) struct Token {
    value: Arc<SecretString>,
    renew_at: Instant,
    /// Tells this token from its successor.
    serial: u64,
}

impl Token {
    pub(super) fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

/// Gets tokens and keeps the last one.
pub(super) struct Tokens {
    pub(super) http: reqwest::Client,
    /// Server, for the texts.
    pub(super) server: String,
    /// Realm, for the texts.
    pub(super) realm: String,
    pub(super) url: String,
    pub(super) client_id: String,
    pub(super) credential: Credential,
    /// The realm's issuer, for which an assertion is meant.
    pub(super) issuer: String,
    /// Time limit of one sign-in.
    pub(super) limit: Duration,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) slot: Mutex<Slot>,
    /// Number of finished sign-ins, successful or not.
    pub(super) finished: AtomicU64,
    /// Keycloak's clock, as the last sign-in said it.
    pub(super) clock: OtherClock,
    /// Seconds for which the last token was issued.
    pub(super) life: AtomicU64,
}

/// The last outcome.
#[derive(Default)]
pub(super) struct Slot {
    token: Option<Token>,
    failure: Option<Error>,
}

/// Never printed: no `Debug`.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

impl Tokens {
    /// The present token, or a new one if it is about to expire or is the `refused` one. Who waited while somebody
    /// else signed in gets that outcome, a failure too: a server in trouble is asked once, not once per waiter.
    pub(super) async fn get(&self, refused: Option<&Token>) -> Result<Token, Error> {
        let before = self.finished.load(Ordering::Acquire);
        let mut slot = self.slot.lock().await;
        if let Some(token) = &slot.token
            && Instant::now() < token.renew_at
            && refused.is_none_or(|refused| refused.serial != token.serial)
        {
            return Ok(token.clone());
        }
        if let Some(failure) = &slot.failure
            && self.finished.load(Ordering::Acquire) != before
        {
            return Err(failure.clone());
        }
        slot.token = None;
        let outcome = self.sign_in().await;
        self.finished.fetch_add(1, Ordering::AcqRel);
        slot.failure = outcome.as_ref().err().cloned();
        slot.token = outcome.as_ref().ok().cloned();
        outcome
    }

    /// Drops the present token, so that the next call signs in: rights given since then need no new token, but the
    /// secret might have changed.
    pub(super) async fn forget(&self) {
        self.slot.lock().await.token = None;
    }

    pub(super) fn life(&self) -> Duration {
        Duration::from_secs(self.life.load(Ordering::Acquire))
    }

    async fn sign_in(&self) -> Result<Token, Error> {
        let started = Instant::now();
        let outcome = timeout_at(started + self.limit, self.ask(started)).await.unwrap_or_else(|_| {
            let words = format!("no answer within {:?}", self.limit);
            Err(Error::new(Kind::Unavailable, ENDPOINT, words).of_the_server())
        });
        let result = outcome.as_ref().map_or_else(Error::category, |_| "Ok");
        self.observer.call(ENDPOINT, result, started.elapsed().as_secs_f64());
        outcome.map_err(|error| {
            error.during(|| format!("sign in to {} realm {} as client {}", self.server, self.realm, self.client_id))
        })
    }

    async fn ask(&self, started: Instant) -> Result<Token, Error> {
        let fields = self.credential.fields(&self.client_id, &self.issuer)?;
        let mut form = vec![("grant_type", self.credential.grant_type())];
        form.extend(fields.iter().map(|(name, value)| (*name, value.expose_secret())));
        let before = Boot::now();
        let response = self.http.post(&self.url).form(&form).send().await.map_err(|error| {
            let kind = if error.is_connect() { Kind::NotSent } else { Kind::Unavailable };
            Error::new(kind, ENDPOINT, root_cause(&error)).of_the_server()
        })?;
        let status = response.status();
        let delay = retry_after(&response);
        let body = body_of(response, MAX_BODY).await.map_err(|words| Error::new(Kind::Malformed, ENDPOINT, words))?;
        if status != StatusCode::OK {
            let error = self.refusal(status, &body).with_retry_after(delay);
            return Err(if is_away(status) { error.of_the_server() } else { error });
        }
        // The parser's words could quote the token: they are not repeated.
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| Error::new(Kind::Malformed, ENDPOINT, format!("the answer is {}", describe_body(&body))))?;
        match issued_at(&answer.access_token) {
            Some(issued) => self.clock.said(issued, before),
            None => self.clock.forget(),
        }
        self.life.store(answer.expires_in, Ordering::Release);
        let life = Duration::from_secs(answer.expires_in);
        let renew_at = started + life.saturating_sub(MARGIN.min(life / 4));
        let serial = self.finished.load(Ordering::Acquire);
        Ok(Token { value: Arc::new(SecretString::from(answer.access_token)), renew_at, serial })
    }

    /// A sign-in that was refused. Never [`Kind::NotFound`]: that would read as "the user is not there" further up.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> Error {
        let code = number(status);
        let complaint = Complaint::read(body);
        let words = complaint.as_ref().map_or_else(|| describe_body(body).to_owned(), Complaint::words);
        let (kind, hint) = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => (Kind::Throttled, None),
            _ if status.is_server_error() => (Kind::Unavailable, None),
            _ if complaint.is_none() => (Kind::Malformed, None),
            StatusCode::NOT_FOUND => (Kind::Unauthorized, Some("is the realm's name right?".to_owned())),
            _ => (Kind::Unauthorized, self.hint(&words)),
        };
        let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        Error::new(kind, ENDPOINT, format!("{code} {words}{hint}"))
    }

    /// What Keycloak's words (26.7.3) usually mean.
    fn hint(&self, words: &str) -> Option<String> {
        if words.contains("service account") {
            return Some("turn on \"Service accounts roles\" of the client".into());
        }
        let concerns_the_client =
            ["invalid_client", "unauthorized_client", "invalid_grant"].iter().any(|error| words.contains(error));
        concerns_the_client.then(|| self.credential.hint(&self.issuer))
    }
}

/// The `iat` of a token, in seconds since 1970. The token came from its issuer.
fn issued_at(token: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Claims {
        iat: i64,
    }
    Some(claims::<Claims>(token)?.iat)
}

/// What a token says of itself. The signature is not looked at.
pub(super) fn claims<T: DeserializeOwned>(token: &str) -> Option<T> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_has_no_time() {
        let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(r#"{"exp":2,"iat":1}"#));
        assert_eq!(issued_at(&token), Some(1));
        for token in ["", "opaque", "a.b.c", "e30.e30.sig"] {
            assert_eq!(issued_at(token), None);
        }
    }
}
