//! Logs.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::args::LogFormat;

/// What is logged unless `RUST_LOG` says otherwise. What kube's client says of a failed call has no context; we say it with one.
const DEFAULT: &str = "info,kube=warn,kube_client::client=off";

/// Starts logging to standard output.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => registry.with(fmt::layer().json().flatten_event(true).with_target(false)).init(),
        LogFormat::Text => registry.with(fmt::layer().with_ansi(io::stdout().is_terminal()).with_target(false)).init(),
    }
}
