//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::leader::Times;

/// Just-in-time access in Keycloak, asked for and approved in Kubernetes.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Run),
}

/// Flags of `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// The realms file (YAML): which Keycloak realms there are and how to sign in to them.
    #[arg(long, value_name = "FILE", env = "HALLPASS_CONFIG")]
    pub config: PathBuf,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// How long the lease lasts that says who leads, of all that run at once: from 3s to 10m. After this long without a sign of
    /// the leader another one takes over. Shorter is quicker, and asks more of the API server.
    #[arg(long, value_name = "DURATION", default_value = "15s", env = "HALLPASS_LEASE_DURATION", value_parser = Times::parse)]
    pub lease_duration: Times,
    /// How log lines are written. What is logged is set by the variable `RUST_LOG`, as in `hallpass=debug`.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
