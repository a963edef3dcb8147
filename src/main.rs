//! Parses arguments, reads the configuration, and runs until told to stop.
#![expect(clippy::large_futures, reason = "there is one of each")]

use std::{
    collections::BTreeMap,
    error::Error,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use clap::Parser;
use hallpass::{
    admin::{self, Shown},
    api::AccessRequest,
    args::{Arguments, Check, Command, Drain, KeycloakSetup, Output, Profile, Report, Run, Standing, Topic},
    check,
    config::Config,
    controller::{self, Realm, SILENCE, Wiring, chain, line, stopped},
    drain,
    guard::{Guard, Keyring, namespace_of},
    keycloak,
    leader::{Leadership, Lease, Takeover},
    metrics::Metrics,
    setup, standing, telemetry,
};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    core::PartialObjectMeta,
};
use reqwest::header::{HeaderValue, USER_AGENT};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How long the API server may take to say who we are.
const WHO_AM_I: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let arguments = match command {
        Command::Run(arguments) => arguments,
        Command::Check(arguments) => return look(arguments).await,
        Command::Report(Report { what: Topic::Standing(arguments) }) => return report(arguments).await,
        Command::Drain(arguments) => return empty(arguments).await,
        Command::KeycloakSetup(arguments) => return prepare(arguments).await,
    };
    telemetry::init(arguments.log_format);
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(error.as_ref()), "cannot go on");
            ExitCode::FAILURE
        }
    }
}

/// Something could not be looked at: the exit code of a report that is not complete.
const INCOMPLETE: u8 = 3;

/// Prints the report of standing access.
async fn report(Standing { config, output }: Standing) -> ExitCode {
    let made = async {
        provide_tls()?;
        let client = Client::try_from(api_server().await?)?;
        let report = standing::report(client, Config::load(&config)?).await?;
        let text = match output {
            Output::Table => report.to_string(),
            Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        };
        Ok::<_, Box<dyn Error>>((report.missing.is_empty(), text))
    };
    match made.await {
        Ok((complete, text)) => {
            print!("{text}");
            if complete { ExitCode::SUCCESS } else { INCOMPLETE.into() }
        }
        Err(error) => {
            eprintln!("hallpass: no report: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Prints what works and what does not.
async fn look(Check { config, realms_only }: Check) -> ExitCode {
    let looked = async {
        provide_tls()?;
        let config = Config::load(&config)?;
        let cluster = async {
            let api_server = api_server().await?;
            let client = Client::try_from(api_server.clone())?;
            let me = who_am_i(&client).await?;
            Ok::<_, Box<dyn Error>>(check::cluster(client, api_server, &me).await)
        };
        let mut lines = match if realms_only { Ok(Vec::new()) } else { cluster.await } {
            Ok(lines) => lines,
            Err(error) => vec![("API server".into(), Err(chain(error.as_ref())))],
        };
        lines.extend(check::realms(config).await);
        Ok::<_, Box<dyn Error>>(lines)
    };
    match looked.await {
        Ok(lines) => {
            for (what, state) in &lines {
                print!("{}", line(what, state));
            }
            if lines.iter().all(|(_, state)| state.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("hallpass: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Prepares a realm, or says what will be there.
async fn prepare(arguments: KeycloakSetup) -> ExitCode {
    let KeycloakSetup { config, realm, profile, administrator, password_file, administrator_realm } = arguments;
    let prepared = async {
        provide_tls()?;
        let config = Config::load(&config)?;
        let realm = config.realm(realm.as_deref())?;
        let lent = match profile {
            Profile::ManageUsers => None,
            Profile::Limited => {
                let client = Client::try_from(api_server().await?)?;
                Some(setup::Lent::in_cluster(client, realm, &config.realms).await?)
            }
        };
        let plan = setup::plan(realm, lent.as_ref());
        println!("realm {} of {}, for client {:?}:", realm.realm, realm.url, realm.auth.client_id);
        let (Some(username), Some(password_file)) = (administrator, password_file) else {
            for step in &plan {
                println!("    {step}");
            }
            println!("Nothing was changed. --administrator and --password-file make it so.");
            return Ok::<_, Box<dyn Error>>(true);
        };
        let administrator = keycloak::Administrator { username, password_file, realm: administrator_realm };
        let lines = setup::apply(realm, administrator, &plan).await?;
        for (what, state) in &lines {
            print!("{}", line(what, state));
        }
        Ok(lines.iter().all(|(_, state)| state.is_ok()))
    };
    match prepared.await {
        Ok(done) => {
            if done {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("hallpass: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Ends all that is lent.
async fn empty(Drain { timeout }: Drain) -> ExitCode {
    let drained = async {
        provide_tls()?;
        let client = Client::try_from(api_server().await?)?;
        Ok::<_, Box<dyn Error>>(drain::drain(&client, timeout).await?)
    };
    match drained.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hallpass: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Run) -> Result<(), Box<dyn Error>> {
    let Run { config, listen, lease_duration, log_format: _ } = arguments;
    provide_tls()?;
    let config = Config::load(&config)?;
    let (metrics, leadership) = (Arc::new(Metrics::default()), Leadership::new(lease_duration));
    let mut realms = BTreeMap::new();
    for realm in config.realms {
        let observer: Arc<dyn keycloak::Observer> = metrics.clone();
        realms.insert(realm.name.clone(), Realm::new(realm, observer, &leadership)?);
    }
    let api_server = api_server().await?;
    let client = Client::try_from(api_server.clone())?;
    let me = who_am_i(&client).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), username = me, %listen, "starting");
    let guard = Guard::new(client.clone(), api_server, &me)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let stopping = stopping()?;
    let realms = Arc::new(realms);
    let shown = Arc::new(Shown {
        metrics: metrics.clone(),
        leadership: leadership.clone(),
        realms: realms.clone(),
        context: OnceLock::new(),
    });
    tokio::spawn(serve(listener, shown.clone(), stopping.clone()));

    let lease = Arc::new(Lease::new(client.clone(), namespace_of(&me), leadership.clone())?);
    let takeover = tokio::select! {
        takeover = lease.acquire() => takeover,
        // Who could not take over is not ready: a rollout waits for it, and leaves the one before at work.
        () = controller::test_realms(&realms) => return Ok(()),
        () = stopped(stopping.clone()) => return Ok(()),
    };
    tracing::info!(identity = lease.identity(), ?takeover, "this process leads");
    // In a task of its own: it must not wait for what the controllers do.
    let holding = lease.clone();
    let mut holding = tokio::spawn(async move { holding.hold().await });
    let lead = async {
        let keyring = tokio::select! {
            keyring = Box::pin(Keyring::open(client.clone(), namespace_of(&me))) => Arc::new(keyring?),
            () = stopped(stopping.clone()) => return Ok(None),
        };
        let takeover = if takeover == Takeover::First && keyring.is_new() && nothing_was_asked(&client).await {
            Takeover::Clean { unsettled_until: Timestamp::now() }
        } else {
            takeover
        };
        let release = config.release;
        let wiring = Wiring { client: client.clone(), guard, keyring, realms, release, metrics, leadership, takeover };
        let started = |context| drop(shown.context.set(context));
        Ok(Some(controller::run(wiring, stopping.clone(), started).await))
    };
    let outcome: Result<_, Box<dyn Error>> = tokio::select! {
        // Whoever leads now must not meet us: what is under way is dropped.
        lost = &mut holding => return Err(format!("this process does not lead any more: {}", lost?).into()),
        outcome = lead => outcome,
    };
    holding.abort();
    // Its last word about the lease is said before ours.
    drop(holding.await);
    // Who has not come to work knows only what the one before said. If that one said nothing, so does this one: the lease runs out.
    let before = match takeover {
        Takeover::Clean { unsettled_until } => Some(unsettled_until),
        Takeover::Unclean | Takeover::First => None,
    };
    if let Some(until) = outcome.as_ref().ok().copied().flatten().or(before) {
        lease.release(until).await;
    }
    tracing::info!("stopped");
    outcome.map(drop)
}

/// Whether there are no requests at all. With neither a Lease nor keys that means that no operator has been at work here, and
/// nothing of one is under way.
async fn nothing_was_asked(client: &Client) -> bool {
    let requests: Api<PartialObjectMeta<AccessRequest>> = Api::all(client.clone());
    let found = tokio::time::timeout(WHO_AM_I, requests.list(&ListParams::default().limit(1))).await;
    found.is_ok_and(|found| found.is_ok_and(|found| found.items.is_empty()))
}

/// reqwest is built without a provider of its own, so that there is one TLS stack in the process.
fn provide_tls() -> Result<(), &'static str> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "there is a TLS provider already")
}

/// Becomes true when the process is told to stop.
fn stopping() -> Result<watch::Receiver<bool>, Box<dyn Error>> {
    let (stop, stopping) = watch::channel(false);
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        tracing::info!("stopping: finishing what is under way");
        let _ = stop.send(true);
    });
    Ok(stopping)
}

async fn serve(listener: TcpListener, shown: Arc<Shown>, stopping: watch::Receiver<bool>) {
    if let Err(error) = admin::serve(listener, shown, stopped(stopping)).await {
        tracing::error!(%error, "probes and metrics are not served");
    }
}

/// The way to the API server.
async fn api_server() -> Result<kube::Config, String> {
    let mut config = kube::Config::infer().await.map_err(|error| {
        format!(
            "cannot find the API server; set KUBECONFIG to a file that is there, or run in a pod: {}",
            chain(&error)
        )
    })?;
    config.read_timeout = Some(SILENCE);
    // Time in which a connection is not used is no silence.
    config.reset_reader_on_write = true;
    // The audit log names whoever asks.
    config.headers.push((USER_AGENT, HeaderValue::from_static(concat!("hallpass/", env!("CARGO_PKG_VERSION")))));
    Ok(config)
}

/// Our own username, as the API server sees it: the admission policies name it.
async fn who_am_i(client: &Client) -> Result<String, Box<dyn Error>> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let parameters = PostParams::default();
    let review = SelfSubjectReview::default();
    let answer = tokio::time::timeout(WHO_AM_I, reviews.create(&parameters, &review)).await;
    let review = answer.map_err(|_| format!("the API server did not answer within {} s", WHO_AM_I.as_secs()))??;
    let user = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
    Ok(user.ok_or("the API server does not say who we are")?)
}
