//! One authenticated exchange with the Admin API: time limits, bounded concurrency and bodies, and the classification
//! of every answer. Knows nothing of roles and users.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::OptionFuture;
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::MutexGuard,
    time::{Instant, timeout_at},
};

use super::{
    Gate, Limits, Observer, REALM, Write,
    circuit::Circuit,
    error::{Complaint, Error, Kind, describe_body, number, one_line, root_cause},
    path::Path,
    places::{Answer, Place, Places, Width},
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
    /// The same for what takes something away: it has its place already, see [`Client::unmap`](super::Client::unmap).
    Removing(Instant),
    /// The same for what may take long and gives nothing: it has places of its own, so that nothing waits behind it.
    Slowly(Instant),
}

/// What to send.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) endpoint: Endpoint,
    pub(super) path: Path,
    pub(super) body: Option<Vec<u8>>,
    /// What it does, if it is no read.
    pub(super) write: Option<Write>,
}

impl Request {
    pub(super) fn get(endpoint: Endpoint, path: Path) -> Self {
        Self { method: Method::GET, endpoint, path, body: None, write: None }
    }

    fn is_write(&self) -> bool {
        self.write.is_some()
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
    /// The realm's name.
    pub(super) realm: String,
    /// Client whose roles are the rights of the Admin API.
    pub(super) admin_client: &'static str,
    /// For reads.
    pub(super) reads: Places,
    /// For what gives, each with what it reads: its time is short, and reads are many.
    pub(super) giving: Places,
    /// For removals, each with what it reads: they wait behind nothing else.
    pub(super) removals: Places,
    /// How many places each of these has.
    pub(super) width: Mutex<Width>,
    /// For calls that may take long.
    pub(super) slow: Places,
    pub(super) circuit: Circuit,
    pub(super) limits: Limits,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) gate: Arc<dyn Gate>,
}

impl Transport {
    /// The present moment plus the limit of a write.
    pub(super) fn write_deadline(&self) -> Time {
        Time::Until(Instant::now() + self.limits.write)
    }

    /// The same, for a removal that has its place.
    pub(super) fn removal_deadline(&self) -> Time {
        Time::Removing(Instant::now() + self.limits.write)
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
            Time::Until(deadline) | Time::Removing(deadline) | Time::Slowly(deadline) => deadline,
        };
        // Whoever may ask later does not take the memory for it: there are thousands.
        let outcome = Box::pin(self.answer(request, time, deadline)).await;
        let result = outcome.as_ref().map_or_else(Error::category, |_| "Ok");
        let seconds = started.elapsed().as_secs_f64();
        self.observer.call(request.endpoint.label, result, seconds);
        tracing::debug!(endpoint = request.endpoint.label, result, seconds, "asked Keycloak");
        outcome
    }

    async fn answer(&self, request: &Request, time: Time, deadline: Instant) -> Result<Vec<u8>, Error> {
        self.admit(deadline).await?;
        let places = match time {
            Time::PerRead => Some(&self.reads),
            Time::Until(_) => Some(&self.giving),
            Time::Slowly(_) => Some(&self.slow),
            Time::Removing(_) => None,
        };
        let place = timeout_at(deadline, OptionFuture::from(places.map(|places| self.place_in(places)))).await;
        let _place = place.map_err(|_| request.error(Kind::NotSent, "no time left: every connection was busy"))?;
        // Those who had the connections may have found out meanwhile that nobody answers.
        self.admit(deadline).await?;
        let began = Instant::now();
        let outcome = self.ask(request, deadline).await;
        // What takes long by itself says nothing of the server.
        if outcome.is_ok() || !matches!(time, Time::Slowly(_)) {
            self.circuit.learn(&outcome, began);
        }
        if !matches!(time, Time::Slowly(_)) && !outcome.as_ref().is_err_and(Error::is_local) {
            let failed =
                |error: &Error| error.is_outage() || matches!(error.kind(), Kind::ServerError | Kind::Unavailable);
            let answer = Answer { took: began.elapsed(), refused: outcome.as_ref().is_err_and(failed) };
            self.width().learn(answer, Instant::now(), &self.removals, [&self.reads, &self.giving]);
        }
        outcome
    }

    /// Waits for a place.
    pub(super) async fn place_in<'a>(&self, places: &'a Places) -> Place<'a> {
        let (place, waited) = places.take().await;
        if waited {
            self.width().waited();
        }
        place
    }

    fn width(&self) -> std::sync::MutexGuard<'_, Width> {
        self.width.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails at once while the server is away. Once a try is due, tries first.
    async fn admit(&self, deadline: Instant) -> Result<(), Error> {
        let Some(open) = self.circuit.open() else { return Ok(()) };
        if open.try_at <= Instant::now()
            && let Ok(alone) = self.circuit.trying.try_lock()
        {
            self.try_again(alone, deadline).await;
        }
        self.circuit.open().map_or(Ok(()), |open| Err(open.refusal))
    }

    /// Tries whether the server is back, with a small read. A write is never the one to find out: its outcome could be unknown.
    /// One at a time does.
    pub(super) async fn try_again(&self, _alone: MutexGuard<'_, ()>, deadline: Instant) {
        let request = Request::get(REALM, Path::default());
        let deadline = deadline.min(Instant::now() + self.limits.write);
        self.circuit.tried(&self.ask(&request, deadline).await);
    }

    async fn ask(&self, request: &Request, deadline: Instant) -> Result<Vec<u8>, Error> {
        let token = self.token(request, deadline, None).await?;
        match self.attempt(request, &token, deadline).await {
            // It was refused before anything was done.
            Err(error) if error.kind() == Kind::Unauthorized => {
                let token = self.token(request, deadline, Some(&token)).await?;
                self.attempt(request, &token, deadline).await
            }
            outcome => outcome,
        }
    }

    async fn token(&self, request: &Request, deadline: Instant, refused: Option<&Token>) -> Result<Token, Error> {
        let enough = self.is_enough(deadline);
        let Ok(token) = timeout_at(deadline, self.tokens.get(refused)).await else {
            let words = format!("{}: no time left: signing in took too long", self.tokens.server);
            return Err(late(request.error(Kind::NotSent, words), enough));
        };
        token
    }

    async fn attempt(&self, request: &Request, token: &Token, deadline: Instant) -> Result<Vec<u8>, Error> {
        let limit = deadline.saturating_duration_since(Instant::now());
        // A write that has no time to be answered would only leave its outcome unknown.
        let least = if request.is_write() { self.limits.write / 10 } else { Duration::ZERO };
        if limit <= least {
            return Err(request.error(Kind::NotSent, "no time left to send it"));
        }
        // The wait for a connection and a token may have been long: who may write now?
        if let Some(write) = request.write {
            self.gate.may_send(write).map_err(|why| request.error(Kind::NotSent, format!("not sent: {why}")))?;
        }
        let enough = self.is_enough(deadline);
        let outcome = timeout_at(deadline, self.send(request, token)).await;
        // Without the time that was left: the same failure reads the same each time, so that it is written once.
        let words = || format!("{}: no answer within the time limit", self.tokens.server);
        outcome.unwrap_or_else(|_| Err(late(request.unanswered(words()), enough)))
    }

    /// Whether a server that works would answer by then.
    fn is_enough(&self, deadline: Instant) -> bool {
        deadline.saturating_duration_since(Instant::now()) >= self.limits.write / 4
    }

    async fn send(&self, request: &Request, token: &Token) -> Result<Vec<u8>, Error> {
        let url = format!("{}{}", self.base, request.path.as_str());
        let mut builder = self.http.request(request.method.clone(), url).bearer_auth(token.expose());
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = builder.send().await.map_err(|error| {
            let words = format!("{}: {}", self.tokens.server, root_cause(&error));
            // A connection that died while it was idle is here, too, unless nothing of the request was on it: then hyper-util
            // has taken another by itself.
            if error.is_builder() {
                request.error(Kind::NotSent, words)
            } else if error.is_connect() {
                request.error(Kind::NotSent, words).of_the_server()
            } else {
                request.unanswered(words).of_the_server()
            }
        })?;
        self.classify(request, response).await
    }

    async fn classify(&self, request: &Request, response: Response) -> Result<Vec<u8>, Error> {
        let status = response.status();
        // What prepares a realm makes objects, and changes some as if it made them.
        let made = request.write == Some(Write::Prepare) && status == StatusCode::CREATED;
        if request.is_write() && (made || status == StatusCode::NO_CONTENT) {
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
        let error = self.refusal(request, status, &body.unwrap_or_default()).with_retry_after(delay);
        Err(if is_away(status) { error.of_the_server() } else { error })
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
            // Keycloak's own says that it is done with it.
            StatusCode::INTERNAL_SERVER_ERROR if request.is_write() && complaint.is_some() => {
                request.error(Kind::ServerError, text)
            }
            // 502, 503 and 504 come from what stands before Keycloak too, while Keycloak may still be at work.
            _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => request.unanswered(text),
            _ if status.is_success() && request.is_write() => {
                request.unanswered(format!("{text}, where Keycloak answers 204"))
            }
            _ => request.error(Kind::Malformed, text),
        }
    }
}

/// No answer in time: says something of the server only if the time was enough.
fn late(error: Error, enough: bool) -> Error {
    if enough { error.of_the_server() } else { error }
}

/// Whether a status says that the server is away, or that it wants to be left alone.
pub(super) fn is_away(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
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
