//! The operator under test: a process of this test, behind the two proxies. Whenever it has died it is started again, as
//! a cluster would.

use std::{
    env,
    fs::{self, OpenOptions},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use tokio::{process::Command, task::JoinHandle, time::sleep};

use crate::{
    proxy::{self, Server},
    script::Script,
    world::Stack,
};

/// How long a dead operator stays dead, unless somebody wants more.
const PAUSE: Duration = Duration::from_millis(300);

/// Where files of these tests are, logs and reports among them.
pub fn folder(stack: &Stack) -> PathBuf {
    stack.dev.parent().and_then(Path::parent).expect("the stack's folder").join("faults")
}

/// The operator, and what is needed to start it.
pub struct Operator {
    admin: Client,
    script: Arc<Script>,
    binary: PathBuf,
    config: PathBuf,
    kubeconfig: PathBuf,
    pub log: PathBuf,
    port: u16,
    downtime: AtomicU64,
    starts: AtomicUsize,
    started: Mutex<Timestamp>,
}

impl Operator {
    /// Stops the stack's own operator, and writes what this one reads.
    pub async fn prepare(stack: &Stack, keycloak: &str, script: Arc<Script>) -> Self {
        let folder = folder(stack);
        fs::create_dir_all(&folder).expect("a folder");
        // Whatever is built meanwhile, this one is tried to the end.
        let binary = folder.join("hallpass");
        end_the_last_one(&binary);
        fs::copy(&stack.operator.binary, &binary).expect("cargo build has made it");
        if !stack.operator.kubeconfig.exists() {
            stack.dev(&["operator", "start"]).await;
        }
        stack.dev(&["operator", "stop"]).await;
        let keycloak = proxy::start(Server::Keycloak, keycloak, &stack.ca_file, script.clone()).await;
        let api = proxy::start(Server::Api, &stack.api_server, &stack.ca_file, script.clone()).await;
        let read = |path: &PathBuf| -> Value {
            let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_saphyr::from_str(&text).expect("YAML")
        };
        // The stack's first realm is enough, and a shorter wait for what may be on its way. One that is shorter than calls
        // are late here must leave something behind: HALLPASS_SETTLE_TIME=1s shows that these tests can fail.
        let mut config = read(&stack.operator.config);
        let mut realm = config["realms"][0].take();
        realm["url"] = json!(keycloak);
        realm["settleTime"] = json!(env::var("HALLPASS_SETTLE_TIME").unwrap_or("2s".into()));
        config["realms"] = json!([realm]);
        let mut kubeconfig = read(&stack.operator.kubeconfig);
        kubeconfig["clusters"][0]["cluster"] = json!({ "server": api });
        let write = |name: &str, value: &Value| {
            let path = folder.join(name);
            fs::write(&path, value.to_string()).expect("a file");
            path
        };
        Self {
            config: write("hallpass.yaml", &config),
            kubeconfig: write("operator.kubeconfig", &kubeconfig),
            log: folder.join("hallpass.log"),
            port: free_port(),
            binary,
            admin: stack.admin().await,
            script,
            downtime: AtomicU64::default(),
            starts: AtomicUsize::default(),
            started: Mutex::new(Timestamp::now()),
        }
    }

    /// Starts the process. Whoever held the lease is dead: nobody has to wait for it.
    pub async fn start(&self) {
        let leases: Api<Lease> = Api::namespaced(self.admin.clone(), "hallpass-system");
        let _ = leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let child = Command::new(&self.binary)
            .args(["run", "--listen", &format!("127.0.0.1:{}", self.port), "--config"])
            .arg(&self.config)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the operator starts");
        if let Some(pid) = child.id() {
            fs::write(self.binary.with_extension("pid"), pid.to_string()).expect("a file");
        }
        *self.script.operator.lock().expect("lock") = Some(child);
        *self.started.lock().expect("lock") = Timestamp::now();
        self.starts.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on a dead operator is started again.
    pub fn keep(self: &Arc<Self>) -> JoinHandle<()> {
        let operator = self.clone();
        tokio::spawn(async move {
            loop {
                if operator.is_dead() {
                    let downtime = operator.downtime.swap(0, Ordering::AcqRel);
                    sleep(PAUSE.max(Duration::from_millis(downtime))).await;
                    operator.start().await;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
    }

    /// The next time that it dies it stays dead for so long.
    pub fn stays_dead_for(&self, downtime: Duration) {
        self.downtime.store(downtime.as_millis().try_into().expect("not so long"), Ordering::Release);
    }

    fn is_dead(&self) -> bool {
        let mut child = self.script.operator.lock().expect("lock");
        child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|exit| exit.is_some()))
    }

    /// Tells it to stop, as a cluster does, and waits until it has done so and was started again.
    pub async fn is_told_to_stop(&self) {
        let (starts, begin) = (self.starts().0, Instant::now());
        let pid = self.script.operator.lock().expect("lock").as_ref().and_then(tokio::process::Child::id);
        let pid = pid.expect("it runs").to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(told.is_ok_and(|told| told.success()), "kill -TERM {pid}");
        while self.starts().0 == starts {
            assert!(begin.elapsed() < Duration::from_secs(20), "it does not stop: {}", self.log.display());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// How often it was started, and when last.
    pub fn starts(&self) -> (usize, Timestamp) {
        (self.starts.load(Ordering::Acquire), *self.started.lock().expect("lock"))
    }

    /// Whether it says that it is ready, and what else it says.
    pub async fn health(&self) -> Option<(bool, String)> {
        let answer = reqwest::get(&format!("http://127.0.0.1:{}/readyz", self.port)).await.ok()?;
        Some((answer.status().is_success(), answer.text().await.ok()?))
    }

    /// Waits until it says that it is ready.
    pub async fn is_ready(&self) {
        let begin = Instant::now();
        while !self.health().await.is_some_and(|(ready, _)| ready) {
            assert!(begin.elapsed() < Duration::from_mins(2), "the operator is not ready: {}", self.log.display());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its resident memory in KiB; nothing while it is dead.
    pub async fn memory(&self) -> Option<u64> {
        let pid = self.script.operator.lock().expect("lock").as_ref()?.id()?;
        let output = Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output().await.ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    }

    /// Lines of its log that contain this.
    pub fn log_about(&self, words: &str) -> Vec<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}

/// A run that was interrupted has left its operator behind: it ends, and nothing is under its name any more.
fn end_the_last_one(binary: &Path) {
    let pid = fs::read_to_string(binary.with_extension("pid")).unwrap_or_default();
    if !pid.is_empty() && fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|running| running == binary) {
        let ended = std::process::Command::new("kill").args(["-9", &pid]).status();
        assert!(ended.is_ok_and(|ended| ended.success()), "kill -9 {pid}");
    }
    let _ = fs::remove_file(binary);
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
