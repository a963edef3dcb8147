//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{domain::duration, leader::Times};

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
    /// Look whether the operator could work with this configuration, and change nothing.
    ///
    /// Signs in to each realm and tries each right; says what is missing and how to give it. Run as the operator's service
    /// account (in its Pod, or with its kubeconfig) it looks at the admission policies and CRDs, too. Exits with 1 if
    /// something is wrong.
    Check(Check),
    /// Read, and change nothing.
    Report(Report),
    /// Prepare a Keycloak realm: the operator's client, with the rights that it needs and no others.
    ///
    /// Without --administrator it only says what will be there. With it, it signs in, changes what differs, and says what it
    /// changed. May be repeated: in the limited profile it has to be when policies lend something new.
    KeycloakSetup(KeycloakSetup),
    /// Suspend every policy, and wait until no request is open: before Hallpass is uninstalled.
    ///
    /// What is live is taken away by the operator, which has to run. The chart does this when it is uninstalled. Exits with 1
    /// and a list if requests are still open after the timeout; the policies stay suspended. May be repeated.
    Drain(Drain),
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

/// Flags of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// The realms file (YAML), as for `run`.
    #[arg(long, value_name = "FILE", env = "HALLPASS_CONFIG")]
    pub config: PathBuf,
    /// Look at the realms only, and not at the cluster: before it is installed there.
    #[arg(long)]
    pub realms_only: bool,
}

/// Flags of `keycloak-setup`.
#[derive(Args, Debug)]
pub struct KeycloakSetup {
    /// The realms file (YAML), as for `run`.
    #[arg(long, value_name = "FILE", env = "HALLPASS_CONFIG")]
    pub config: PathBuf,
    /// The realm's name in that file. Not needed if it has only one.
    #[arg(long, value_name = "NAME")]
    pub realm: Option<String>,
    /// How far the operator's rights are to reach. For `limited` the policies are read as KUBECONFIG says.
    #[arg(long, value_name = "PROFILE", value_enum, default_value_t = Profile::ManageUsers)]
    pub profile: Profile,
    /// Sign in as this administrator of Keycloak, and make it so.
    #[arg(long, value_name = "USERNAME", requires = "password_file")]
    pub administrator: Option<String>,
    /// The file with the administrator's password; /dev/stdin, too.
    #[arg(long, value_name = "FILE", requires = "administrator")]
    pub password_file: Option<PathBuf>,
    /// The realm in which the administrator signs in.
    #[arg(long, value_name = "REALM", default_value = "master")]
    pub administrator_realm: String,
}

/// How far the operator's rights reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// The right `manage-users`: it could lend any role that is not of Keycloak's administration.
    ManageUsers,
    /// Fine-grained permissions for what policies lend, and nothing else.
    Limited,
}

/// Flags of `drain`.
#[derive(Args, Debug)]
pub struct Drain {
    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = patience)]
    pub timeout: Duration,
}

fn patience(text: &str) -> Result<Duration, &'static str> {
    duration::parse(text).ok_or("a duration is written as 30s, 5m or 1h30m")
}

/// Arguments of `report`.
#[derive(Args, Debug)]
pub struct Report {
    /// What to report.
    #[command(subcommand)]
    pub what: Topic,
}

/// What can be reported.
#[derive(Debug, Subcommand)]
pub enum Topic {
    /// Who has directly what policies can lend, without a live request that lent it.
    ///
    /// Only what is mapped to a user itself: what comes through parent groups, composite roles or default roles is not
    /// shown. Policies and requests are read as KUBECONFIG says, of all namespaces; Keycloak is read as the realms' clients.
    /// Exits with 0 if everything was looked at, with 3 if not (it says what is missing), with 1 if there is no report.
    Standing(Standing),
}

/// Flags of `report standing`.
#[derive(Args, Debug)]
pub struct Standing {
    /// The realms file (YAML), as for `run`.
    #[arg(long, value_name = "FILE", env = "HALLPASS_CONFIG")]
    pub config: PathBuf,
    /// How it is written.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
