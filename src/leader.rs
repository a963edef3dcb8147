//! One writer: a lease, the `coordination.k8s.io/v1` Lease `hallpass` in the operator's namespace.
//!
//! Every write to it carries the version that it follows, so that of two who write only one succeeds. Who waits for it goes by
//! its own clock, from when it last saw the record change: the times in the record are another machine's, and for people.

mod claim;

use std::{
    env, fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{Timestamp, fmt::rfc2822};
use k8s_openapi::{
    api::coordination::v1::{Lease as Record, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Client, Resource,
    api::{GetParams, PostParams},
    client::Body,
    core::Request,
};
use thiserror::Error;
use tokio::time::{sleep, timeout};

pub use claim::{Leadership, NotLeading, Times, Unusable};

use crate::{api::FIELD_MANAGER, clock::Boot, controller::chain};

/// The Lease's name.
pub const NAME: &str = "hallpass";
/// On a Lease that was handed back: until when a write to Keycloak may still take effect (RFC 3339). A Lease without it was not
/// handed back, whoever emptied it.
pub const UNSETTLED_UNTIL: &str = "hallpass.dev/unsettled-until";
/// How often handing back is tried.
const ATTEMPTS: usize = 3;
/// An API server that has not answered for this long is not waited for by what is due.
const LEAST: Duration = Duration::from_secs(1);

/// How the lease was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// The one before has handed it back, with everything done but for what may still take effect until then.
    Clean {
        /// Until when a write to Keycloak of the ones before, whose outcome nobody knows, may still take effect.
        unsettled_until: Timestamp,
    },
    /// The one before has let it expire: nobody knows what was in flight.
    Unclean,
    /// There was no Lease: nobody has led before, or somebody has deleted it, and then nobody knows either.
    First,
}

/// Why the lease is not held any more.
#[derive(Debug, Error)]
pub enum Lost {
    /// Somebody else has taken it.
    #[error("{0} holds the lease")]
    Taken(String),
    /// It was handed back or emptied by somebody else.
    #[error("somebody has emptied the lease")]
    Emptied,
    /// Somebody has deleted the Lease: whoever made it anew would lead.
    #[error("somebody has deleted the Lease")]
    Deleted,
}

/// Why the Lease could not be read or written.
#[derive(Debug, Error)]
enum Failure {
    /// The API server cannot be reached, or is in trouble.
    #[error("{0}")]
    Unreachable(String),
    /// The Lease is not the one that was seen last.
    #[error("somebody else has written the Lease")]
    Conflict,
    #[error("there is no Lease")]
    NotFound,
    /// The API server answers, and does not do it.
    #[error("{0}")]
    Refused(String),
}

/// One process's part in who leads.
pub struct Lease {
    client: Client,
    namespace: String,
    identity: String,
    leadership: Leadership,
    /// As it was last written by this process.
    last: Mutex<Record>,
}

/// What one who waits has seen.
#[derive(Default)]
struct Waiting {
    /// The version of the record that was seen last, and until when it has to stay the same.
    seen: Option<(Option<String>, Boot)>,
    /// What was being done when the last attempt to take it was sent: its answer may have been lost.
    tried: Option<Takeover>,
}

impl Lease {
    /// In this namespace, for a process with a name of its own.
    pub fn new(client: Client, namespace: &str, leadership: Leadership) -> Result<Self, getrandom::Error> {
        let identity = format!("{}_{:012x}", host(), getrandom::u64()? >> 16);
        let namespace = namespace.to_owned();
        Ok(Self { client, namespace, identity, leadership, last: Mutex::default() })
    }

    /// What this process is called in the Lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Waits until this process leads.
    pub async fn acquire(&self) -> Takeover {
        // Half as long as from one renewal to the next: it is seen early that somebody has handed it back, or renews no more.
        let pause = self.leadership.times().renew_every / 2;
        let (mut waiting, mut told) = (Waiting::default(), String::new());
        loop {
            match self.try_to_acquire(&mut waiting).await {
                Ok(Some(takeover)) => return takeover,
                Ok(None) | Err(Failure::Conflict) => told.clear(),
                Err(error) => {
                    let error = error.to_string();
                    if told != error {
                        tracing::warn!(error, "cannot find out who leads, trying again");
                    }
                    told = error;
                }
            }
            sleep(waiting.left().map_or(pause, |left| pause.min(left))).await;
        }
    }

    async fn try_to_acquire(&self, waiting: &mut Waiting) -> Result<Option<Takeover>, Failure> {
        let limit = self.limit();
        let found = match self.ask(limit, self.request().get(NAME, &GetParams::default())).await {
            Ok(found) => found,
            Err(Failure::NotFound) => return self.take(waiting, Record::default(), Takeover::First).await,
            Err(error) => return Err(error),
        };
        let takeover = match holder(&found) {
            Some(holder) if holder == self.identity => waiting.tried.unwrap_or(Takeover::Unclean),
            Some(holder) => {
                self.leadership.waits_for(holder);
                if !waiting.is_over(&found, self.leadership.times().duration) {
                    return Ok(None);
                }
                Takeover::Unclean
            }
            None => handed_back(&found),
        };
        self.take(waiting, found, takeover).await
    }

    /// Writes this process into the record that was found.
    async fn take(
        &self,
        waiting: &mut Waiting,
        found: Record,
        takeover: Takeover,
    ) -> Result<Option<Takeover>, Failure> {
        waiting.tried = Some(takeover);
        let before = found.spec.clone().unwrap_or_default();
        let there = found.metadata.resource_version.is_some();
        let transitions = before.lease_transitions.unwrap_or_default();
        let mut record = found;
        record.metadata.managed_fields = None;
        record.metadata.annotations.get_or_insert_default().remove(UNSETTLED_UNTIL);
        record.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.leadership.times().duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(Timestamp::now())),
            lease_transitions: Some(if there { transitions.saturating_add(1) } else { transitions }),
            ..before
        });
        self.write(self.limit(), record).await?;
        Ok(Some(takeover))
    }

    /// Renews the lease for as long as it is this process's. To be stopped before [`Lease::release`].
    pub async fn hold(&self) -> Lost {
        let renew_every = self.leadership.times().renew_every;
        let mut failing = false;
        loop {
            let sent = Boot::now();
            let fresh = self.leadership.fresh_for();
            // The attempt ends when the claim goes stale: only one that is sent after that says that nobody can be asked.
            let limit = if fresh.is_zero() { renew_every.max(LEAST) } else { fresh.min(self.limit()) };
            match self.renew(limit).await {
                Ok(None) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("the lease is renewed again");
                    }
                }
                Ok(Some(lost)) => {
                    self.leadership.ends(&lost.to_string());
                    return lost;
                }
                Err(error) => {
                    // Also if it was refused: whoever may not renew it could not have taken it either, and what is due goes.
                    if matches!(error, Failure::Unreachable(_) | Failure::Refused(_)) {
                        self.leadership.failed(sent);
                    }
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot renew the lease, trying again");
                    }
                }
            }
            let fresh = self.leadership.fresh_for();
            let pause = renew_every.saturating_sub(Boot::now().since(sent));
            sleep(if fresh.is_zero() { pause } else { pause.min(fresh) }).await;
        }
    }

    /// Renews once. If somebody else has written the record, looks whose it is: it may have been our own write, whose answer
    /// was lost.
    async fn renew(&self, limit: Duration) -> Result<Option<Lost>, Failure> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.write(limit, last).await {
            Ok(()) => return Ok(None),
            Err(Failure::NotFound) => return Ok(Some(Lost::Deleted)),
            Err(Failure::Conflict) => {}
            Err(error) => return Err(error),
        }
        let limit = self.limit();
        let found = match self.ask(limit, self.request().get(NAME, &GetParams::default())).await {
            Ok(found) => found,
            Err(Failure::NotFound) => return Ok(Some(Lost::Deleted)),
            Err(error) => return Err(error),
        };
        match holder(&found) {
            Some(holder) if holder == self.identity => self.write(limit, found).await.map(|()| None),
            Some(holder) => Ok(Some(Lost::Taken(holder.to_owned()))),
            None => Ok(Some(Lost::Emptied)),
        }
    }

    /// Hands the lease back, once everything that was under way is finished: the next one need not wait. `unsettled_until` says
    /// until when a write to Keycloak whose outcome is not known may still take effect.
    pub async fn release(&self, unsettled_until: Timestamp) {
        // From now on this process writes nothing.
        self.leadership.ends("the lease was handed back");
        let limit = self.limit();
        let mut record = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for _ in 0..ATTEMPTS {
            let mut empty = record.clone();
            if let Some(spec) = empty.spec.as_mut() {
                spec.holder_identity = None;
            }
            let annotations = empty.metadata.annotations.get_or_insert_default();
            annotations.insert(UNSETTLED_UNTIL.into(), unsettled_until.to_string());
            let Err(error) = self.replace(limit, &empty).await else {
                return tracing::info!("handed the lease back");
            };
            tracing::warn!(%error, "cannot hand the lease back");
            match self.ask(limit, self.request().get(NAME, &GetParams::default())).await {
                Ok(found) if holder(&found) == Some(&self.identity) => record = found,
                Ok(_) => return,
                Err(_) => {}
            }
        }
    }

    /// Writes the record as this process's, with the present time.
    async fn write(&self, limit: Duration, mut record: Record) -> Result<(), Failure> {
        if let Some(spec) = record.spec.as_mut() {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let sent = Boot::now();
        let written = self.replace(limit, &record).await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = written;
        self.leadership.renewed(sent);
        Ok(())
    }

    /// Replaces the record that has this version; makes it, if it has none.
    async fn replace(&self, limit: Duration, record: &Record) -> Result<Record, Failure> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let mut record = record.clone();
        record.metadata.name = Some(NAME.into());
        let text = serde_json::to_vec(&record).map_err(|error| Failure::Refused(error.to_string()))?;
        let request = match record.metadata.resource_version {
            Some(_) => self.request().replace(NAME, &params, text),
            None => self.request().create(&params, text),
        };
        self.ask(limit, request).await
    }

    /// How long the API server may take to answer.
    fn limit(&self) -> Duration {
        self.leadership.times().duration / 3
    }

    fn request(&self) -> Request {
        Request::new(Record::url_path(&(), Some(&self.namespace)))
    }

    /// Asks the API server, and notes what its clock says.
    async fn ask(
        &self,
        limit: Duration,
        request: Result<axum::http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Record, Failure> {
        let request = request.map_err(|error| Failure::Refused(error.to_string()))?;
        let before = Boot::now();
        let answer = async {
            let response = self.client.send(request.map(Body::from)).await?;
            let (head, body) = response.into_parts();
            Ok((head, body.collect_bytes().await?))
        };
        let (head, body) = match timeout(limit, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error @ kube::Error::Auth(_))) => return Err(Failure::Refused(chain(&error))),
            Ok(Err(error)) => return Err(Failure::Unreachable(chain(&error))),
            Err(_) => return Err(Failure::Unreachable("the API server does not answer".into())),
        };
        let date = head.headers.get("date").and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
        if let Some(date) = date {
            self.leadership.api_server_clock().said(date.timestamp().as_second(), before);
        }
        let words = || {
            let status: Option<kube::core::Status> = serde_json::from_slice(&body).ok();
            format!("{}: {}", head.status.as_u16(), status.map(|status| status.message).unwrap_or_default())
        };
        match head.status.as_u16() {
            200..=299 => serde_json::from_slice(&body).map_err(|error| Failure::Refused(error.to_string())),
            404 => Err(Failure::NotFound),
            409 => Err(Failure::Conflict),
            429 | 500.. => Err(Failure::Unreachable(words())),
            _ => Err(Failure::Refused(words())),
        }
    }
}

impl Waiting {
    /// Whether the record has been the same for the whole duration: the longer of its holder's and our own.
    fn is_over(&mut self, found: &Record, ours: Duration) -> bool {
        let now = Boot::now();
        let version = &found.metadata.resource_version;
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != version) {
            let theirs = found.spec.as_ref().and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
            let wait = ours.max(Duration::from_secs(theirs.unwrap_or_default()));
            self.seen = Some((version.clone(), now.after(wait)));
        }
        self.left().is_none()
    }

    /// How long it has to stay the same yet; nothing if that is over, or nobody has looked.
    fn left(&self) -> Option<Duration> {
        let (_, until) = self.seen.as_ref()?;
        Some(until.since(Boot::now())).filter(|left| !left.is_zero())
    }
}

/// Who holds it, if anybody does.
fn holder(record: &Record) -> Option<&str> {
    record.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// How a Lease that nobody holds was left. What cannot be read is taken for the worst.
fn handed_back(record: &Record) -> Takeover {
    let text = record.metadata.annotations.as_ref().and_then(|annotations| annotations.get(UNSETTLED_UNTIL));
    let until = text.and_then(|text| text.parse().ok());
    until.map_or(Takeover::Unclean, |unsettled_until| Takeover::Clean { unsettled_until })
}

/// The Pod's name, or that of the machine.
fn host() -> String {
    let named = env::var("HOSTNAME").ok().or_else(|| fs::read_to_string("/proc/sys/kernel/hostname").ok());
    named.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "hallpass".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_handed_it_back_says_what_is_on_its_way() {
        let left = |until: Option<&str>| {
            let mut record = Record::default();
            let until = until.map(|until| (UNSETTLED_UNTIL.to_owned(), until.to_owned()));
            record.metadata.annotations = Some(until.into_iter().collect());
            handed_back(&record)
        };
        let until = "2026-11-24T12:00:00Z";
        assert_eq!(left(Some(until)), Takeover::Clean { unsettled_until: until.parse().expect("a time") });
        assert_eq!(left(Some("soon")), Takeover::Unclean);
        assert_eq!(left(None), Takeover::Unclean, "somebody has emptied it");
    }
}
