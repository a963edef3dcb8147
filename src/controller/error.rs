//! Why a reconcile could not be finished.

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use crate::leader::NotLeading;

/// Named after what was being done.
#[derive(Debug, Error)]
pub enum Error {
    /// The status could not be written.
    #[error("cannot write the status")]
    WriteStatus(#[source] ApiError),
    /// The status could not be written, and what is due could not be taken away without it.
    #[error("cannot take away what is due, and cannot write the status")]
    NotRemoved(#[source] ApiError),
    /// The finalizer could not be put on or taken off.
    #[error("cannot write the finalizer")]
    WriteFinalizer(#[source] ApiError),
    /// The request could not be read.
    #[error("cannot read the request")]
    ReadRequest(#[source] ApiError),
    /// This request, or another one of the same person, fell due meanwhile: that goes first.
    #[error("something falls due")]
    FallsDue,
    /// The request makes no sense to this version.
    #[error("this version cannot read the request")]
    Unreadable(#[source] Arc<serde_json::Error>),
    /// The policy could not be read.
    #[error("cannot read policy {name}")]
    ReadPolicy {
        /// Its name.
        name: String,
        /// Why.
        source: Arc<ApiError>,
    },
    /// What starts without a fresh vote could not be put on record.
    #[error("cannot write the record of what has started without a vote")]
    WriteRecord(#[source] ApiError),
    /// The request was deleted while it was decided on, or made anew under its name.
    #[error("the request is gone")]
    Gone,
    /// The steps of a reconcile did not come to an end.
    #[error("the request did not settle after {0} steps")]
    Unsettled(usize),
    /// The status is somebody else's, nothing is remembered, and whom and what spec and policy name cannot be told now.
    #[error("the status was written by somebody else, and what it gave cannot be taken away yet: {0}")]
    Named(String),
    /// The operating system gave no random bytes.
    #[error("cannot draw a ballot")]
    Random(#[source] getrandom::Error),
}

impl Error {
    /// Nothing failed: too many others were on their way.
    pub const fn is_for_want_of_a_turn(&self) -> bool {
        matches!(self, Self::WriteStatus(ApiError::NoTurn) | Self::WriteFinalizer(ApiError::NoTurn))
    }

    /// A bounded label for metrics.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::WriteStatus(_) => "write_status",
            Self::NotRemoved(_) => "not_removed",
            Self::WriteFinalizer(_) => "write_finalizer",
            Self::ReadRequest(_) => "read_request",
            Self::FallsDue => "falls_due",
            Self::Unreadable(_) => "unreadable",
            Self::ReadPolicy { .. } => "read_policy",
            Self::WriteRecord(_) => "write_record",
            Self::Gone => "gone",
            Self::Unsettled(_) => "unsettled",
            Self::Named(_) => "named",
            Self::Random(_) => "random",
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// Why a call to the API server failed.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The API server said so, or could not be reached.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// It did not answer in time.
    #[error("no answer within {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// What it has stored does not carry its seal, or lacks the finalizer: something changes requests on their way, or the CRD is
    /// another version's.
    #[error("the API server has stored something else than it was sent")]
    NotAsSent,
    /// It was not sent: too many others were on their way.
    #[error("not sent: the API server has not answered other writes yet")]
    NoTurn,
    /// It was not sent: only who leads writes.
    #[error("not sent")]
    NotLeading(#[from] NotLeading),
}

impl ApiError {
    /// Somebody else wrote in between: read again, decide again.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// The API server, or somebody whom it asks, does not take it, though nobody else wrote in between.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::NotAsSent) || self.code().is_some_and(|code| !matches!(code, 404 | 409 | 429))
    }

    /// Whether the write may have been carried out, or may yet be.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Kube(_) => self.code().is_none_or(|code| code >= 500),
            Self::Timeout(_) => true,
            Self::NotAsSent | Self::NoTurn | Self::NotLeading(_) => false,
        }
    }

    /// The object is gone.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            Self::Kube(_) | Self::Timeout(_) | Self::NotAsSent | Self::NoTurn | Self::NotLeading(_) => None,
        }
    }
}

/// How long a call to the API server may take. kube repeats 429, 503 and 504 by itself, up to 15 times: revocations must
/// not wait for that.
pub const API_LIMIT: Duration = Duration::from_secs(5);

/// Gives a call to the API server a time limit.
pub fn limited<T>(call: impl Future<Output = Result<T, kube::Error>>) -> impl Future<Output = Result<T, ApiError>> {
    within(API_LIMIT, call)
}

/// Gives a call to the API server this time limit.
pub fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> impl Future<Output = Result<T, ApiError>> {
    // kube's calls are large. Whoever may make one later does not take the memory for it: there are thousands.
    let call = Box::pin(call);
    async move {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ApiError::Timeout(limit)),
        }
    }
}
