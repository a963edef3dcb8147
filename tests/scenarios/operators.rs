//! Operators that a scenario starts itself, in place of the stack's: several at once, cut off, paused, with another clock.

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use regex::Regex;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};

use crate::{keycloak_admin::unique, world::World};

/// The lease of these operators.
pub const LEASE: Duration = Duration::from_secs(5);
/// What `/readyz` of the one says who leads.
const LEADS: &str = "[+] lease: this process leads";

/// A process that is killed when it is dropped.
pub struct Operator {
    child: Child,
    /// What it is called in the Lease, up to a random word.
    pub name: String,
    url: String,
    log: PathBuf,
    /// Id of its token, by which the API server's audit log tells it from others.
    token_id: String,
}

/// How an operator is started.
#[derive(Default)]
pub struct Start<'a> {
    /// Where it finds the API server, if not at the real address.
    pub api_server: Option<&'a str>,
    /// More variables.
    pub env: Vec<(&'static str, String)>,
    /// The realms are called so in Keycloak, which has none of this name.
    pub realms: Option<&'a str>,
    /// How long its lease lasts, if not [`LEASE`].
    pub lease: Option<Duration>,
}

impl World {
    /// Stops the stack's operator: the scenario runs its own. To be undone with [`World::own_operators_are_over`].
    pub async fn runs_its_own_operators(&self) {
        self.operator("stop").await;
    }

    /// Starts the stack's operator again, once those of the scenario are gone.
    pub async fn own_operators_are_over(&self, operators: Vec<Operator>) {
        drop(operators);
        self.nobody_leads().await;
        self.operator("start").await;
    }

    /// Starts an operator of the scenario's own.
    pub async fn start(&self, name: &str, how: Start<'_>) -> Operator {
        let folder = self.stack.operator.log.parent().expect("a folder");
        let name = unique(name);
        let token = self.kubectl(&["create", "token", "hallpass", "--namespace=hallpass-system"]).await;
        assert!(token.status.success(), "{token:?}");
        let token = String::from_utf8(token.stdout).expect("a token").trim().to_owned();
        let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("a JWT")).expect("base64");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        let kubeconfig = self.kubeconfig(&token, how.api_server.unwrap_or(&self.stack.api_server), &name);
        // Nobody else takes it meanwhile: it was free just now, and the system gives the same one again last.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).expect("a log");
        let mut config = self.stack.operator.config.clone();
        if let Some(realms) = how.realms {
            let text = fs::read_to_string(&config).expect("the configuration");
            let called = Regex::new(r"(?m)^  realm: .*$").expect("a regular expression");
            let text = called.replace_all(&text, format!("  realm: {realms}"));
            config = config.with_file_name(format!("{name}.yaml"));
            fs::write(&config, text.as_ref()).expect("a configuration");
        }
        let child = Command::new(&self.stack.operator.binary)
            .args(["run", "--config"])
            .arg(config)
            .args([
                "--listen",
                &address.to_string(),
                "--lease-duration",
                &format!("{}s", how.lease.unwrap_or(LEASE).as_secs()),
            ])
            .env("KUBECONFIG", kubeconfig)
            .env("HOSTNAME", &name)
            .envs(how.env)
            .stdout(output.try_clone().expect("a log"))
            .stderr(output)
            .stdin(Stdio::null())
            .spawn()
            .expect("the operator starts");
        let token_id = claims["jti"].as_str().expect("an id").to_owned();
        Operator { child, name, url: format!("http://{address}"), log, token_id }
    }

    fn kubeconfig(&self, token: &str, api_server: &str, name: &str) -> PathBuf {
        let text = fs::read_to_string(&self.stack.operator.kubeconfig).expect("the operator's kubeconfig");
        let old = text.split("token: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
        let text = text.replace(old, token).replace(&self.stack.api_server, api_server);
        let file = self.stack.operator.kubeconfig.with_file_name(format!("{name}.kubeconfig"));
        fs::write(&file, text).expect("a kubeconfig");
        file
    }

    /// Waits until an operator leads, and can give.
    pub async fn leads(&self, operator: &Operator) {
        self.until(&format!("{} leads", operator.name), async || {
            let answer = operator.ask("/readyz").await;
            answer.is_ok_and(|(status, text)| status == 200 && text.lines().any(|line| line == LEADS))
        })
        .await;
    }

    /// Waits until an operator is ready and waits for this one.
    pub async fn waits_for(&self, operator: &Operator, leader: &Operator) {
        self.until(&format!("{} waits", operator.name), async || {
            let answer = operator.ask("/readyz").await;
            answer.is_ok_and(|(status, text)| {
                status == 200 && text.starts_with(&format!("[+] lease: {}_", leader.name)) && text.contains(" leads")
            })
        })
        .await;
    }

    /// Waits until the process has ended; how.
    pub async fn ended(&self, operator: &mut Operator) -> ExitStatus {
        let mut status = None;
        self.until(&format!("{} has ended", operator.name), async || {
            status = operator.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.expect("it has ended")
    }

    /// What the API server noted of an operator: verb, resource and code of what it sent after this many entries of its own.
    pub fn sent_by(&self, operator: &Operator) -> Vec<(String, String)> {
        let log = fs::read_to_string(&self.stack.audit_log).expect("the audit log");
        let id = format!("JTI={}", operator.token_id);
        let own = log.lines().filter(|line| line.contains(&id) && line.contains("\"ResponseComplete\""));
        own.filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .map(|entry| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (text(&entry["verb"]), text(&entry["objectRef"]["resource"]))
            })
            .collect()
    }
}

impl Operator {
    /// What its HTTP server answers.
    pub async fn ask(&self, path: &str) -> Result<(u16, String), reqwest::Error> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let answer = reqwest::get(format!("{}{path}", self.url)).await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Sends a signal to it, as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(done.is_ok_and(|done| done.success()), "kill {signal}");
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(30);
            eprintln!("=== {}\n{}", self.name, log.lines().skip(from).collect::<Vec<_>>().join("\n"));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may be stopped: this signal reaches it all the same.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Whether the process was ended by this signal.
pub fn by_signal(status: ExitStatus, signal: i32) -> bool {
    status.signal() == Some(signal)
}

/// The way to the API server that can be cut.
pub struct Way {
    pub url: String,
    address: std::net::SocketAddr,
    to: String,
    connections: JoinSet<()>,
}

impl Way {
    /// A way to the server with this URL.
    pub async fn to(url: &str) -> Self {
        let to = url.trim_start_matches("https://").to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut way = Self { url: format!("https://{address}"), address, to, connections: JoinSet::new() };
        way.serve(listener);
        way
    }

    fn serve(&mut self, listener: tokio::net::TcpListener) {
        let to = self.to.clone();
        self.connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut here, _)) = listener.accept().await {
                let to = to.clone();
                open.spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                    }
                });
            }
        });
    }

    /// Closes all connections, and takes no new ones.
    pub async fn cut(&mut self) {
        self.connections.shutdown().await;
    }

    /// Is there again.
    pub async fn mend(&mut self) {
        let listener = tokio::net::TcpListener::bind(self.address).await.expect("the same port");
        self.serve(listener);
    }
}

/// A library that shifts the wall clock of a process that it is preloaded into, by the seconds in a file.
pub struct Shift {
    library: PathBuf,
    file: PathBuf,
}

impl Shift {
    /// Compiled with `cc`, which is needed to link Rust anyhow.
    pub fn compiled() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (library, file) = (folder.join(format!("{}.so", unique("shift"))), folder.join(unique("shift")));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clock/shift.c");
        let done = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
        assert!(done.is_ok_and(|done| done.success()), "cc compiles the library");
        let shift = Self { library, file };
        shift.by(0);
        shift
    }

    /// The clock is this many seconds ahead from now on.
    pub fn by(&self, seconds: i64) {
        let next = self.file.with_extension("next");
        fs::write(&next, seconds.to_string()).expect("a file");
        fs::rename(next, &self.file).expect("a file");
    }

    /// The variables with which a process gets this clock.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![("LD_PRELOAD", text(&self.library)), ("HALLPASS_TEST_SHIFT", text(&self.file))]
    }
}
