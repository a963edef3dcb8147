//! One authenticated exchange with the Admin API: time limits, bounded concurrency and bodies, and the classification
//! of every answer. Knows nothing of roles and users.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    Limits, Observer,
    error::{Complaint, Error, Kind, describe_body, number, one_line, root_cause},
    path::Path,
    token::{Token, Tokens},
};

/// A longer body is not read to its end.
pub(super) const MAX_BODY: usize = 4 * 1024 * 1024;

/// Size of a page of a list. Keycloak 26.7.3 does not sort what has the same name: between two pages something can be on
/// neither, so a page holds more than anybody has of one name.
const PAGE: usize = 1000;

/// Pages after which a list is taken for endless.
const MAX_PAGES: usize = 100;

/// An endpoint's name in metrics and errors, and the right it needs.
#[derive(Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) label: &'static str,
    pub(super) right: &'static str,
}

/// Until when there must be an answer.
#[derive(Clone, Copy)]
pub(super) enum Time {
    /// Each read has the limit of a read.
    PerRead,
    /// All that a write needs, reads included, ends here: after it nothing of ours is on its way any more.
    Until(Instant),
    /// The same for what may take long and gives nothing: it has places of its own, so that nothing waits behind it.
    Slowly(Instant),
}

/// What to send.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) endpoint: Endpoint,
    pub(super) path: Path,
    pub(super) body: Option<Vec<u8>>,
}

impl Request {
    pub(super) fn get(endpoint: Endpoint, path: Path) -> Self {
        Self { method: Method::GET, endpoint, path, body: None }
    }

    fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    fn error(&self, kind: Kind, detail: impl Into<String>) -> Error {
        Error::new(kind, self.endpoint.label, detail)
    }

    /// The request was sent and no usable answer came.
    fn unanswered(&self, detail: impl Into<String>) -> Error {
        self.error(if self.is_write() { Kind::Unknown } else { Kind::Unavailable }, detail)
    }
}

/// The way to one realm.
pub(super) struct Transport {
    pub(super) http: reqwest::Client,
    pub(super) tokens: Tokens,
    /// `{server}/admin/realms/{realm}`
    pub(super) base: String,
    /// Client whose roles are the rights of the Admin API.
    pub(super) admin_client: &'static str,
    pub(super) permits: Semaphore,
    /// For calls that may take long.
    pub(super) slow_permits: Semaphore,
    pub(super) limits: Limits,
    pub(super) observer: Arc<dyn Observer>,
}

impl Transport {
    /// The present moment plus the limit of a write.
    pub(super) fn write_deadline(&self) -> Time {
        Time::Until(Instant::now() + self.limits.write)
    }

    /// The present moment plus the limit of a call that may take long.
    pub(super) fn slow_deadline(&self) -> Time {
        Time::Slowly(Instant::now() + self.limits.sessions)
    }

    /// Reads one JSON document.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        endpoint: Endpoint,
        path: Path,
        time: Time,
    ) -> Result<T, Error> {
        let request = Request::get(endpoint, path);
        let body = self.exchange(&request, time).await?;
        parse(&request, &body)
    }

    /// Reads one JSON document that may be missing.
    pub(super) async fn read_if_there<T: DeserializeOwned>(
        &self,
        endpoint: Endpoint,
        path: Path,
        time: Time,
    ) -> Result<Option<T>, Error> {
        match self.read(endpoint, path, time).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// Goes through the pages of a list until `pick` has found something.
    pub(super) async fn search<T: DeserializeOwned, R>(
        &self,
        endpoint: Endpoint,
        path: Path,
        time: Time,
        mut pick: impl FnMut(T) -> Option<R>,
    ) -> Result<Option<R>, Error> {
        for page in 0..MAX_PAGES {
            let window = [("first", (page * PAGE).to_string()), ("max", PAGE.to_string())];
            let path = path.clone().query(&window.each_ref().map(|(key, value)| (*key, value.as_str())));
            let items: Vec<T> = self.read(endpoint, path, time).await?;
            let last = items.len() < PAGE;
            if let Some(found) = items.into_iter().find_map(&mut pick) {
                return Ok(Some(found));
            }
            if last {
                return Ok(None);
            }
        }
        Err(Error::new(Kind::Malformed, endpoint.label, format!("the list goes on after {} entries", MAX_PAGES * PAGE)))
    }

    /// All pages of a list.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        endpoint: Endpoint,
        path: Path,
        time: Time,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        self.search(endpoint, path, time, |item| {
            all.push(item);
            None::<()>
        })
        .await?;
        Ok(all)
    }

    /// Sends and classifies; the body of a successful read. Signs in anew once if the token is refused.
    pub(super) async fn exchange(&self, request: &Request, time: Time) -> Result<Vec<u8>, Error> {
        let started = Instant::now();
        let deadline = match time {
            Time::PerRead => started + self.limits.read,
            Time::Until(deadline) | Time::Slowly(deadline) => deadline,
        };
        let permits = match time {
            Time::PerRead | Time::Until(_) => &self.permits,
            Time::Slowly(_) => &self.slow_permits,
        };
        let outcome = self.answer(request, permits, deadline).await;
        let result = outcome.as_ref().map_or_else(Error::category, |_| "Ok");
        let seconds = started.elapsed().as_secs_f64();
        self.observer.call(request.endpoint.label, result, seconds);
        tracing::debug!(endpoint = request.endpoint.label, result, seconds, "asked Keycloak");
        outcome
    }

    async fn answer(&self, request: &Request, permits: &Semaphore, deadline: Instant) -> Result<Vec<u8>, Error> {
        let late = |what: &str| request.error(Kind::NotSent, format!("no time left: {what}"));
        let permit = timeout_at(deadline, permits.acquire()).await;
        let _permit = permit.map_err(|_| late("every connection was busy"))?;
        let token =
            timeout_at(deadline, self.tokens.get(None)).await.map_err(|_| late("signing in took too long"))??;
        match self.attempt(request, &token, deadline).await {
            Err(error) if error.kind() == Kind::Unauthorized => {
                let token = timeout_at(deadline, self.tokens.get(Some(&token))).await;
                let token = token.map_err(|_| late("signing in again took too long"))??;
                self.attempt(request, &token, deadline).await
            }
            outcome => outcome,
        }
    }

    async fn attempt(&self, request: &Request, token: &Token, deadline: Instant) -> Result<Vec<u8>, Error> {
        let limit = deadline.saturating_duration_since(Instant::now());
        // A write that has no time to be answered would only leave its outcome unknown.
        let least = if request.is_write() { self.limits.write / 10 } else { Duration::ZERO };
        if limit <= least {
            return Err(request.error(Kind::NotSent, "no time left to send it"));
        }
        match timeout_at(deadline, self.send(request, token)).await {
            Ok(outcome) => outcome,
            // Without the time that was left: the same failure reads the same each time, so that it is written once.
            Err(_) => Err(request.unanswered(format!("{}: no answer within the time limit", self.tokens.server))),
        }
    }

    async fn send(&self, request: &Request, token: &Token) -> Result<Vec<u8>, Error> {
        let url = format!("{}{}", self.base, request.path.as_str());
        let mut builder = self.http.request(request.method.clone(), url).bearer_auth(token.expose());
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = builder.send().await.map_err(|error| {
            let words = format!("{}: {}", self.tokens.server, root_cause(&error));
            if error.is_connect() || error.is_builder() {
                request.error(Kind::NotSent, words)
            } else {
                request.unanswered(words)
            }
        })?;
        self.classify(request, response).await
    }

    async fn classify(&self, request: &Request, response: Response) -> Result<Vec<u8>, Error> {
        let status = response.status();
        if request.is_write() && status == StatusCode::NO_CONTENT {
            return Ok(Vec::new());
        }
        let delay = retry_after(&response);
        let location =
            response.headers().get(LOCATION).map(|value| one_line(&String::from_utf8_lossy(value.as_bytes())));
        let body = body_of(response, MAX_BODY).await;
        if status == StatusCode::OK && !request.is_write() {
            return body.map_err(|words| request.error(Kind::Malformed, words));
        }
        if status.is_redirection() {
            let place = location.unwrap_or_default();
            return Err(request
                .error(Kind::Malformed, format!("{}: redirected to {place} (is the URL right?)", number(status))));
        }
        Err(self.refusal(request, status, &body.unwrap_or_default()).with_retry_after(delay))
    }

    fn refusal(&self, request: &Request, status: StatusCode, body: &[u8]) -> Error {
        let complaint = Complaint::read(body);
        let words = complaint.as_ref().map_or_else(|| describe_body(body).to_owned(), Complaint::words);
        let text = format!("{}: {words}", number(status));
        match status {
            StatusCode::UNAUTHORIZED => request.error(
                Kind::Unauthorized,
                format!("{text} (Keycloak refuses the token that it issued: is its URL here the one that it issues tokens for, is the client enabled?)"),
            ),
            StatusCode::FORBIDDEN if complaint.is_some() => request.error(
                Kind::Forbidden,
                format!(
                    "403: the client's service account lacks the right {} of {}",
                    request.endpoint.right, self.admin_client
                ),
            ),
            StatusCode::FORBIDDEN => request.error(Kind::Forbidden, text),
            // Only Keycloak's own 404 about this very thing counts: not a proxy's, not an unknown path's.
            StatusCode::NOT_FOUND if complaint.as_ref().is_some_and(Complaint::is_about_the_thing) => {
                request.error(Kind::NotFound, text)
            }
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
                request.error(Kind::Rejected, text)
            }
            StatusCode::TOO_MANY_REQUESTS => request.error(Kind::Throttled, text),
            StatusCode::SERVICE_UNAVAILABLE if !request.is_write() => request.error(Kind::Throttled, text),
            StatusCode::INTERNAL_SERVER_ERROR if request.is_write() => request.error(Kind::ServerError, text),
            // 502, 503 and 504 come from what stands before Keycloak too, while Keycloak may still be at work.
            _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => request.unanswered(text),
            _ if status.is_success() && request.is_write() => {
                request.unanswered(format!("{text}, where Keycloak answers 204"))
            }
            _ => request.error(Kind::Malformed, text),
        }
    }
}

fn parse<T: DeserializeOwned>(request: &Request, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| {
        let words = if error.is_data() {
            format!("JSON that Keycloak does not send: {error}")
        } else {
            describe_body(body).into()
        };
        request.error(Kind::Malformed, format!("the answer is {}", one_line(&words)))
    })
}

/// The body, if it is complete and not too long; otherwise what is wrong with it.
pub(super) async fn body_of(mut response: Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                return Err(format!("the answer is larger than {} MiB", limit / (1024 * 1024)));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => {
                return Err(format!("the answer was cut off after {} bytes: {}", body.len(), root_cause(&error)));
            }
        }
    }
}

/// `Retry-After` in seconds; the form with a date is not used by Keycloak.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
