//! An installation in a namespace of its own, in a folder of its own: what a platform engineer types there, and what it says.

use std::{
    env, fs,
    ops::Deref,
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{Api, ResourceExt, api::ListParams};
use tokio::process::Command;

use crate::{
    documentation::{self, project},
    keycloak_admin::unique,
    world::{Stack, World},
};

const NAMESPACE: &str = "hallpass-system";
/// The chapter of the README.
const CHAPTER: &str = "## Install it beside your own Keycloak";
/// How long a command may take.
const COMMAND: Duration = Duration::from_mins(2);

/// A cluster in which Hallpass is not installed yet, or is.
pub struct Installation {
    pub w: World,
    folder: PathBuf,
}

impl Deref for Installation {
    type Target = World;

    fn deref(&self) -> &World {
        &self.w
    }
}

/// What stands below a heading of the README's chapter, up to the next.
pub fn step(heading: &str) -> String {
    let readme = documentation::read("README.md");
    let (_, chapter) = readme.split_once(CHAPTER).expect(CHAPTER);
    let (_, below) = chapter.split_once(&format!("\n### {heading}\n")).expect(heading);
    below.split("\n##").next().expect("text").to_owned()
}

/// The blocks of this language in a text.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().expect("text").to_owned()).collect()
}

/// The commands of a block, and what they say.
pub fn console(block: &str) -> (String, Vec<String>) {
    let (mut commands, mut said, mut goes_on) = (Vec::new(), Vec::new(), false);
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push(command),
            None if goes_on => commands.push(line),
            None => said.push(line.to_owned()),
        }
        goes_on = line.ends_with('\\');
    }
    (commands.join("\n"), said)
}

impl Installation {
    /// The folder in which the README's commands are typed, before the first of them. What a failed test has left is taken away.
    pub async fn before() -> Self {
        let w = World::without_operator().await;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("installation"));
        fs::create_dir(&folder).expect("a folder");
        for part in ["charts", "examples"] {
            std::os::unix::fs::symlink(project(part), folder.join(part)).expect("a link");
        }
        let state = w.stack.operator.config.parent().expect("a folder");
        fs::copy(state.join("secrets/hallpass-client"), folder.join("client-secret")).expect("the client's secret");
        fs::copy(&w.stack.ca_file, folder.join("ca.crt")).expect("the authority");
        let installation = Self { w, folder };
        installation.types("helm uninstall hallpass --namespace hallpass-system --no-hooks --ignore-not-found").await;
        installation.types("kubectl delete namespace hallpass-system --ignore-not-found --wait").await;
        installation
    }

    /// The namespace, and in it what the README's third step wants, and Keycloak's authority; only Pods of the level restricted.
    pub async fn prepared() -> Self {
        let installation = Self::before().await;
        let (commands, _) = console(&blocks(&step("3. The secret"), "console")[0]);
        installation.types(&commands).await;
        installation.types("kubectl --namespace hallpass-system create configmap internal-ca --from-file=ca.crt").await;
        installation
            .types("kubectl label namespace hallpass-system pod-security.kubernetes.io/enforce=restricted")
            .await;
        installation
    }

    /// The README's values for this cluster, with this at the realm.
    pub fn values(&self, of_the_realm: &str) {
        let readme = blocks(&step("4. The values"), "yaml").remove(0);
        let realm = "  realm: acme\n";
        assert!(readme.contains(realm), "{readme}");
        let values = readme
            .replace("https://sso.example.com", &self.w.keycloak.stack.url)
            .replace("registry.example.com/hallpass", "localhost/hallpass")
            .replace(r#""oidc:/payments""#, r#""oidc:everybody""#)
            .replace(realm, &format!("{realm}  caConfigMapRef: {{name: internal-ca, key: ca.crt}}\n{of_the_realm}"));
        fs::write(self.folder.join("values.yaml"), values).expect("a file");
    }

    /// Says something else in the file of values.
    pub fn changes_values(&self, this: &str, other: &str) {
        let file = self.folder.join("values.yaml");
        let values = fs::read_to_string(&file).expect("the values");
        assert!(values.contains(this), "{this} is missing in {values}");
        fs::write(file, values.replace(this, other)).expect("a file");
    }

    /// Installs it with these values besides the README's, and waits until it is ready to be asked.
    pub async fn install(&self, of_the_realm: &str, settings: &str) {
        self.values(of_the_realm);
        self.install_with(settings).await;
    }

    /// The same with the file of values that is there.
    pub async fn install_with(&self, settings: &str) {
        let before = self.w.epoch().await;
        self.types(&format!(
            "helm install hallpass charts/hallpass --namespace hallpass-system --values values.yaml {settings}"
        ))
        .await;
        self.works().await;
        // Without the admission policies there was no epoch that could go on.
        let another = async || self.w.epoch().await != before && self.w.epoch_has_begun().await;
        self.w.until("another trust epoch", another).await;
    }

    /// Waits until its Pods are ready, and one of them leads.
    pub async fn works(&self) {
        self.types("kubectl --namespace hallpass-system rollout status deployment/hallpass --timeout=60s").await;
        let leads = async || {
            let running = self.running().await;
            self.leader().await.is_some_and(|leader| running.contains(&leader))
        };
        self.w.until("a Pod leads", leads).await;
    }

    async fn shell(&self, commands: &str) -> (bool, String) {
        let tools = self.w.stack.kubectl.parent().expect("a folder");
        let path = format!("{}:{}", tools.display(), env::var("PATH").expect("PATH"));
        let mut shell = Command::new("bash");
        // What is begun with & ends with the shell.
        let script = format!("set -eo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{commands}");
        shell.args(["-c", &script]).current_dir(&self.folder).env("PATH", path);
        shell.env("KUBECONFIG", &self.w.stack.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND, shell.output()).await;
        let output = output.unwrap_or_else(|_| panic!("not within {COMMAND:?}: {commands}")).expect("bash runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    /// Types commands in the folder, as the administrator; what they said.
    pub async fn types(&self, commands: &str) -> String {
        let (done, said) = self.shell(commands).await;
        assert!(done, "{commands}\n{said}");
        said
    }

    /// Types a command that must be refused; what it said.
    pub async fn is_refused(&self, command: &str) -> String {
        let (done, said) = self.shell(command).await;
        assert!(!done, "{command} was done\n{said}");
        said
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.w.admin.clone(), NAMESPACE)
    }

    /// The operator's Pods that are not on their way out.
    pub async fn running(&self) -> Vec<String> {
        let ours = ListParams::default().labels("app.kubernetes.io/name=hallpass");
        let pods = self.pods().list(&ours).await.expect("the API server answers");
        pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(|pod| pod.name_any()).collect()
    }

    /// The Pod that leads; nothing while there is none.
    pub async fn leader(&self) -> Option<String> {
        let leases: Api<Lease> = Api::namespaced(self.w.admin.clone(), NAMESPACE);
        let lease = leases.get("hallpass").await.ok()?;
        let holder = lease.spec?.holder_identity.filter(|holder| !holder.is_empty())?;
        Some(holder.rsplit_once('_').map_or(holder.as_str(), |(pod, _)| pod).to_owned())
    }

    /// Ends a Pod's process without a goodbye. (Whoever deletes the Pod, even with force, lets it hand back the lease.)
    pub async fn kill(&self, pod: &str) -> Instant {
        let uid = self.pods().get(pod).await.expect("it is there").metadata.uid.expect("a UID");
        let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let of_the_pod = |process: &fs::DirEntry| {
            let read = |file: &str| fs::read_to_string(process.path().join(file)).unwrap_or_default();
            read("cgroup").contains(&uid) && read("cmdline").starts_with("/hallpass\0run\0")
        };
        let found: Vec<_> = processes.filter(of_the_pod).map(|process| process.file_name()).collect();
        let [process] = &found[..] else { panic!("one process of {pod}, not {found:?}") };
        let killed = Command::new("kill").arg("-9").arg(process).status().await.expect("kill runs");
        assert!(killed.success());
        Instant::now()
    }

    /// What is left of it in the cluster, besides the CRDs.
    pub async fn left(&self) -> Vec<String> {
        let everywhere = "validatingadmissionpolicies,validatingadmissionpolicybindings,mutatingadmissionpolicies,\
                          mutatingadmissionpolicybindings,clusterroles,clusterrolebindings";
        let inside = "deployments,jobs,serviceaccounts,configmaps,roles,rolebindings";
        let found = self
            .types(&format!(
                "kubectl get {everywhere} --output name; kubectl --namespace {NAMESPACE} get {inside} --output name"
            ))
            .await;
        let ours = |line: &&str| {
            line.contains("/hallpass") && !line.contains("/hallpass-trust") && !line.contains("/hallpass-started")
        };
        found.lines().filter(ours).map(str::to_owned).collect()
    }

    /// Takes all of it away.
    pub async fn clean_up(&self) {
        self.w.clean_up().await;
        self.types("helm uninstall hallpass --namespace hallpass-system --ignore-not-found").await;
        self.types("kubectl delete namespace hallpass-system --wait").await;
        fs::remove_dir_all(&self.folder).expect("the folder");
    }
}

impl Drop for Installation {
    /// A test that failed tells how the Pods were.
    fn drop(&mut self) {
        if thread::panicking() {
            tell(&self.w.stack);
        }
    }
}

fn tell(stack: &Stack) {
    let kubectl = |arguments: &[&str]| {
        let mut kubectl = std::process::Command::new(&stack.kubectl);
        kubectl.env("KUBECONFIG", &stack.kubeconfig).args(["--namespace", NAMESPACE]).args(arguments);
        let said = kubectl.output().map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        eprintln!("--- kubectl {}\n{}", arguments.join(" "), String::from_utf8_lossy(&said));
    };
    kubectl(&["get", "all"]);
    kubectl(&["get", "events"]);
    kubectl(&["describe", "pods"]);
    kubectl(&["logs", "--selector=app.kubernetes.io/name=hallpass", "--prefix", "--tail=100", "--max-log-requests=20"]);
}
