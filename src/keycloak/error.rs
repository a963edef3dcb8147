//! What can go wrong with Keycloak, in words for people and kinds for code. A text names what was being done and the
//! root cause; no text carries a secret or a token.

use std::{fmt::Write as _, time::Duration};

use reqwest::StatusCode;
use serde::Deserialize;

/// What sort of failure it was. Decides what the caller may conclude and when it makes sense to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing reached Keycloak: refused connection, unknown host, failed TLS handshake, no time left to send, not allowed to,
    /// or a server that is known to be away.
    NotSent,
    /// A write was sent, or may have been, and its outcome is not known: no answer in time, a reset, 502, 503, 504, or an
    /// answer that Keycloak does not give. The write may still happen.
    Unknown,
    /// A read got no usable answer: timeout, reset, 5xx. Nothing was changed.
    Unavailable,
    /// Keycloak itself answered a write with 500. It is done with it, but whether something changed must be read.
    ServerError,
    /// Signing in failed, or Keycloak refused a token that it had just issued.
    Unauthorized,
    /// The service account lacks a right.
    Forbidden,
    /// Keycloak itself (not a proxy before it) says that it is not there.
    NotFound,
    /// The realm answers, but it has another id than the pinned one.
    OtherRealm,
    /// Keycloak refused the content: 400, 409, 422.
    Rejected,
    /// Too many requests, or starting up: see [`Error::retry_after`].
    Throttled,
    /// The answer is not one of Keycloak's Admin API: a web page, a redirect, truncated or too large JSON.
    Malformed,
    /// Several things have this name.
    Ambiguous,
    /// The caller's input cannot name anything; nothing was sent.
    InvalidInput,
    /// A file that the configuration names cannot be used.
    Config,
}

/// A call that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action}: {detail}")]
pub struct Error {
    action: String,
    endpoint: &'static str,
    kind: Kind,
    detail: String,
    retry_after: Option<Duration>,
    outage: bool,
}

impl Error {
    pub(super) fn new(kind: Kind, endpoint: &'static str, detail: impl Into<String>) -> Self {
        Self { action: String::new(), endpoint, kind, detail: detail.into(), retry_after: None, outage: false }
    }

    /// Says what was being done. What was said further in stays: "cannot sign in" is not "cannot find user".
    pub(super) fn during(mut self, action: impl FnOnce() -> String) -> Self {
        if self.action.is_empty() {
            self.action = action();
        }
        self
    }

    pub(super) fn with_retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self
    }

    /// The server cannot be reached, hangs, or wants to be left alone: any other call would fare the same.
    pub(super) fn of_the_server(mut self) -> Self {
        self.outage = true;
        self
    }

    /// Whether it says of the server that it is away.
    pub(super) fn is_outage(&self) -> bool {
        self.outage
    }

    /// Whether it says nothing of the server, because nothing was sent.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.kind, Kind::NotSent | Kind::InvalidInput | Kind::Config)
    }

    /// The same words for another sort of failure.
    pub(super) fn instead(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(super) fn add(mut self, words: &str) -> Self {
        self.detail.push_str(words);
        self
    }

    /// What was being done, as `find user "alice"`.
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The endpoint's label, one of a fixed set, as in the metrics.
    pub fn endpoint(&self) -> &'static str {
        self.endpoint
    }

    /// The sort of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The failure without the action.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// A label from a fixed set, for metrics and for reasons of conditions.
    pub fn category(&self) -> &'static str {
        self.kind.category()
    }

    /// True when a write may have happened, or may yet happen: nothing may be concluded about it.
    pub fn outcome_unknown(&self) -> bool {
        self.kind == Kind::Unknown
    }

    /// When the server asked to come back, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl Kind {
    /// A label from a fixed set, for metrics and for reasons of conditions.
    pub fn category(self) -> &'static str {
        match self {
            Self::NotSent => "NotSent",
            Self::Unknown => "OutcomeUnknown",
            Self::Unavailable => "Unavailable",
            Self::ServerError => "ServerError",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::OtherRealm => "OtherRealm",
            Self::Rejected => "Rejected",
            Self::Throttled => "Throttled",
            Self::Malformed => "Malformed",
            Self::Ambiguous => "Ambiguous",
            Self::InvalidInput => "InvalidInput",
            Self::Config => "Config",
        }
    }
}

/// The two shapes in which Keycloak says what is wrong (26.7.3): OAuth's for signing in and for most of the Admin
/// API, `errorMessage` for validation.
#[derive(Default, Deserialize)]
pub(super) struct Complaint {
    error: Option<String>,
    error_description: Option<String>,
    #[serde(rename = "errorMessage")]
    error_message: Option<String>,
    field: Option<String>,
}

/// What Keycloak 26.7.3 says about a path that it does not have. About a thing that is not there it says which sort of
/// thing, as "User not found" or "Could not find role with id".
const NO_SUCH_PATH: [&str; 2] = ["HTTP 404 Not Found", "Unable to find matching target resource method"];

impl Complaint {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let complaint: Self = serde_json::from_slice(body).ok()?;
        (complaint.error.is_some() || complaint.error_message.is_some()).then_some(complaint)
    }

    /// Whether a 404 with this complaint is about the thing and not about the URL.
    pub(super) fn is_about_the_thing(&self) -> bool {
        !self.error.as_deref().is_some_and(|error| NO_SUCH_PATH.contains(&error))
    }

    /// Keycloak's words, on one line and of bounded length.
    pub(super) fn words(&self) -> String {
        let mut words = String::new();
        for part in [&self.error, &self.error_description, &self.error_message].into_iter().flatten() {
            if !words.is_empty() {
                words.push_str(": ");
            }
            words.push_str(part);
        }
        if let Some(field) = &self.field {
            let _ = write!(words, " (field {field})");
        }
        one_line(&words)
    }
}

/// Control characters out, at most 300 characters.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// What an unusable body was, for a person.
pub(super) fn describe_body(body: &[u8]) -> &'static str {
    match body.trim_ascii_start().first() {
        None => "an empty body",
        Some(b'<') => "a web page instead of JSON (is the URL right, is there a proxy in between?)",
        Some(_) => "something that is not Keycloak's JSON",
    }
}

/// The end of the source chain: "Connection refused", not "error sending request".
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let hint =
        if text.contains("UnknownIssuer") { " (does caFile hold the server's certificate authority?)" } else { "" };
    let mut letters = one_line(text).chars().collect::<Vec<_>>();
    if let [first, second, ..] = letters.as_mut_slice()
        && second.is_lowercase()
    {
        first.make_ascii_lowercase();
    }
    letters.into_iter().collect::<String>() + hint
}

/// `401 Unauthorized` → `401`.
pub(super) fn number(status: StatusCode) -> u16 {
    status.as_u16()
}
