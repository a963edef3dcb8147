//! The chart as helm renders it, and what the API server makes of the CRDs and the examples. Nothing is left behind:
//! objects are only sent as server-side dry runs, or deleted at once.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use hallpass::{
    config::{Config, Credential},
    guard::{Guard, OBJECTS},
};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::world::World;

const MUTATING: &str = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy";

fn stack() -> Value {
    let file =
        std::env::var("HALLPASS_STACK").expect("HALLPASS_STACK is the stack.json of running servers: dev/scenarios");
    serde_json::from_str(&fs::read_to_string(file).expect("stack.json")).expect("JSON")
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a tool of the stack with this standard input; what it wrote, and whether it succeeded.
fn run(tool: &str, kubeconfig: &Value, arguments: &[&str], input: &str) -> (bool, String) {
    let stack = stack();
    let mut command = Command::new(stack[tool].as_str().expect("a path in stack.json"));
    command.args(arguments).env("KUBECONFIG", kubeconfig.as_str().expect("a path in stack.json"));
    feed(&mut command, input)
}

fn feed(command: &mut Command, input: &str) -> (bool, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("standard input");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

fn kubectl(arguments: &[&str], input: &str) -> (bool, String) {
    run("kubectl", &stack()["kubeconfig"], arguments, input)
}

/// `helm template`, of a release `rel` in the namespace `access`, with a file of values and further arguments.
fn template(values: &str, arguments: &[&str]) -> (bool, String) {
    let chart = project("charts/hallpass");
    let mut all = vec!["template", "rel", chart.to_str().expect("UTF-8"), "--namespace", "access", "--values", "-"];
    all.extend(arguments);
    run("helm", &stack()["kubeconfig"], &all, values)
}

/// One file of the chart, rendered as helm does it where Hallpass is installed: `lookup` finds what is in the cluster.
pub fn in_the_cluster(file: &str, values: &str, set: &str) -> (bool, String) {
    let chart = project("charts/hallpass");
    let chart = chart.to_str().expect("UTF-8");
    let release = ["template", "hallpass", chart, "--namespace", "hallpass-system", "--dry-run=server"];
    let all = [&release[..], &["--show-only", file, "--set", set, "--values", "-"]].concat();
    run("helm", &stack()["kubeconfig"], &all, values)
}

pub fn example(file: &str) -> String {
    fs::read_to_string(project("examples").join(file)).expect(file)
}

fn parsed(file: &str) -> Value {
    serde_saphyr::from_str(&example(file)).expect(file)
}

pub fn rendered(values: &str, arguments: &[&str]) -> Vec<Value> {
    let (done, text) = template(values, arguments);
    assert!(done, "{text}");
    serde_saphyr::from_multiple(&text).expect(&text)
}

pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

#[test]
fn the_example_values_make_a_chart_that_the_operator_accepts() {
    let values = example("helm-values.yaml");
    let chart = project("charts/hallpass");
    let (done, text) = run(
        "helm",
        &stack()["kubeconfig"],
        &["lint", "--strict", chart.to_str().expect("UTF-8"), "--values", "-"],
        &values,
    );
    assert!(done, "{text}");

    let rest = "realms[0].formerUrls={https://old.example.com},realms[0].settleTime=6m,realms[0].checkInterval=5m";
    let set = ["--set", "serviceAccount.name=op", "--set", rest, "--api-versions", MUTATING];
    let objects = rendered(&values, &set);
    for object in OBJECTS {
        let (kind, name) = object.split_once(' ').expect("kind and name");
        let object = find(&objects, kind, name);
        if kind == "CustomResourceDefinition" {
            assert_eq!(object["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{name}");
        }
        if kind.ends_with("Policy") {
            assert!(
                object.to_string().contains("'system:serviceaccount:access:op'"),
                "{name} does not name the operator"
            );
        }
    }
    assert!(objects.iter().all(|object| !object.to_string().contains("hallpass-system")), "a namespace is hard-coded");

    let config = find(&objects, "ConfigMap", "hallpass")["data"]["hallpass.yaml"].as_str().expect("a file");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hallpass.yaml");
    fs::write(&file, config).expect("write");
    let config = Config::load(&file).expect("a configuration that the operator reads");
    let realm = &config.realms[0];
    assert_eq!((realm.name.as_str(), realm.identity.username_prefix.as_str()), ("prod", "oidc:"));
    assert!(realm.is_of_server("https://old.example.com"));
    let durations = (realm.settling_time(), realm.checking_interval());
    assert_eq!(durations, (Some(Duration::from_mins(6)), Duration::from_mins(5)));
    // What the configuration names is what the Pod mounts.
    let pod = &find(&objects, "Deployment", "hallpass")["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "op");
    let sources = &pod["volumes"][1]["projected"]["sources"];
    let mount = pod["containers"][0]["volumeMounts"][1]["mountPath"].as_str().expect("a path");
    for (file, source, name) in [
        (realm.auth.client_secret_file.as_ref(), &sources[0]["secret"], "hallpass-prod"),
        (realm.ca_file.as_ref(), &sources[1]["configMap"], "internal-ca"),
    ] {
        assert_eq!(source["name"], name);
        let path = source["items"][0]["path"].as_str().expect("a path");
        assert_eq!(file, Some(&Path::new(mount).join(path)));
    }
}

#[test]
fn each_way_to_sign_in_mounts_what_the_operator_reads() {
    let values = example("helm-values.yaml");
    let secret = "clientSecretRef: {name: hallpass-prod, key: client-secret}";
    assert!(values.contains(secret));
    let mounted = |path: &str| PathBuf::from("/etc/hallpass/realms/prod").join(path);
    let token = |audience: &str| json!({"serviceAccountToken": {"path": "prod/token", "audience": audience, "expirationSeconds": 1800}});
    for (way, credential, source) in [
        (
            "serviceAccountToken: true",
            Credential::ServiceAccountToken(mounted("token")),
            Some(token("https://sso.example.com/realms/acme")),
        ),
        (
            "serviceAccountToken: true\n    issuer: https://login.example.com/realms/acme",
            Credential::ServiceAccountToken(mounted("token")),
            Some(token("https://login.example.com/realms/acme")),
        ),
        (
            "clientKeyRef: {name: key, key: tls.key}",
            Credential::Key(mounted("client-key")),
            Some(json!({"secret": {"name": "key", "items": [{"key": "tls.key", "path": "prod/client-key"}]}})),
        ),
        ("clientKeyFile: /k", Credential::Key("/k".into()), None),
        ("clientSecretFile: /s", Credential::Secret("/s".into()), None),
        ("serviceAccountTokenFile: /t", Credential::ServiceAccountToken("/t".into()), None),
    ] {
        let objects = rendered(&values.replace(secret, way), &[]);
        let config = find(&objects, "ConfigMap", "hallpass")["data"]["hallpass.yaml"].as_str().expect("a file");
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hallpass-ways.yaml");
        fs::write(&file, config).expect("write");
        let config = Config::load(&file).unwrap_or_else(|error| panic!("{way}: {error}"));
        assert_eq!(config.realms[0].auth.credential(), Some(credential), "{way}");
        let pod = &find(&objects, "Deployment", "hallpass")["spec"]["template"]["spec"];
        let sources = pod["volumes"][1]["projected"]["sources"].as_array().expect("the certificate authority at least");
        let mut found = sources.iter().filter(|source| source["configMap"].is_null());
        assert_eq!(found.next(), source.as_ref(), "{way}");
    }
}

/// Every option that is off by default.
const OPTIONS: &str = "podDisruptionBudget.enabled=true,networkPolicy.enabled=true,serviceMonitor.enabled=true,\
                       serviceMonitor.labels.release=monitoring,prometheusRule.enabled=true,dashboard.enabled=true,\
                       topologySpreadConstraints[0].maxSkew=1,topologySpreadConstraints[0].topologyKey=zone,\
                       topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway";

#[test]
fn what_is_not_asked_for_is_not_there_and_what_is_asked_for_is_about_the_operators_pods() {
    let values = example("helm-values.yaml");
    let options = ["PodDisruptionBudget", "NetworkPolicy", "Service", "ServiceMonitor", "PrometheusRule"];
    let plain = rendered(&values, &[]);
    assert!(plain.iter().all(|object| options.iter().all(|kind| object["kind"] != *kind)));
    assert!(plain.iter().all(|object| object["metadata"]["name"] != "hallpass-dashboard"));
    let objects = rendered(&values, &["--set", OPTIONS]);
    let pod = &find(&objects, "Deployment", "hallpass")["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    let spread = &pod["spec"]["topologySpreadConstraints"][0];
    assert_eq!((&spread["topologyKey"], &spread["maxSkew"]), (&json!("zone"), &json!(1)));
    let object = |kind: &str, name: &str| find(&objects, kind, name);
    let port = &pod["spec"]["containers"][0]["ports"][0]["name"];
    let service = object("Service", "hallpass-metrics");
    assert_eq!(&service["spec"]["ports"][0]["targetPort"], port);
    assert_eq!(&object("NetworkPolicy", "hallpass")["spec"]["ingress"][0]["ports"][0]["port"], port);
    for (selector, among) in [
        (&spread["labelSelector"]["matchLabels"], labels),
        (&object("PodDisruptionBudget", "hallpass")["spec"]["selector"]["matchLabels"], labels),
        (&object("NetworkPolicy", "hallpass")["spec"]["podSelector"]["matchLabels"], labels),
        (&service["spec"]["selector"], labels),
        (&object("ServiceMonitor", "hallpass")["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]),
    ] {
        let selector = selector.as_object().expect("labels");
        assert!(
            !selector.is_empty() && selector.iter().all(|(key, value)| among[key] == *value),
            "{selector:?} {among}"
        );
    }
    assert_eq!(object("ServiceMonitor", "hallpass")["metadata"]["labels"]["release"], "monitoring");
    // The API server knows all but those of the Prometheus operator.
    let known =
        |object: &&Value| !object["apiVersion"].as_str().is_some_and(|version| version.starts_with("monitoring."));
    for object in objects.iter().filter(known).filter(|object| options.iter().any(|kind| object["kind"] == *kind)) {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!("default");
        let arguments = ["create", "--dry-run=server", "--validate=strict", "--filename=-"];
        let (done, text) = kubectl(&arguments, &object.to_string());
        assert!(done, "{text}");
    }
}

/// A version of each minor that the chart is for, as client-go has it.
const KUBERNETES: [&str; 6] = ["0.32.13", "0.33.13", "0.34.13", "0.35.10", "0.36.6", "0.37.2"];

#[test]
fn each_supported_version_of_kubernetes_knows_every_field() {
    for version in KUBERNETES {
        let kubernetes = format!("1{}", version.trim_start_matches('0'));
        let mut arguments = vec!["--kube-version", &kubernetes, "--set", OPTIONS];
        // It is there since then.
        if version >= "0.36" {
            arguments.extend(["--api-versions", MUTATING]);
        }
        let (done, text) = template(&example("helm-values.yaml"), &arguments);
        assert!(done, "{text}");
        let knows = |text: &str| {
            let mut schemas = Command::new("go");
            schemas.current_dir(project("dev/schemas")).args(["run", ".", &format!("v{version}")]);
            feed(&mut schemas, text)
        };
        let (done, words) = knows(&text);
        let others = "not looked at: apiextensions.k8s.io/v1 CustomResourceDefinition, \
                      monitoring.coreos.com/v1 PrometheusRule, monitoring.coreos.com/v1 ServiceMonitor\n";
        assert!(done && words.ends_with(others), "{kubernetes}: {words}");
        // It would notice.
        let (done, words) = knows(&text.replace("replicas:", "replica:"));
        assert!(!done && words.contains("Deployment hallpass: .spec.replica: field not declared"), "{words}");
    }
}

#[test]
fn alerts_and_the_dashboard_speak_of_metrics_that_there_are() {
    let objects = rendered(&example("helm-values.yaml"), &["--set", OPTIONS]);
    let rules = &find(&objects, "PrometheusRule", "hallpass")["spec"]["groups"][0]["rules"];
    let dashboard =
        find(&objects, "ConfigMap", "hallpass-dashboard")["data"]["hallpass.json"].as_str().expect("a file");
    let dashboard: Value = serde_json::from_str(dashboard).expect("JSON");
    let rules = rules.as_array().expect("rules").iter().map(|rule| &rule["expr"]);
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets")).map(|target| &target["expr"]);
    let documented = fs::read_to_string(project("docs/configuration.md")).expect("docs/configuration.md");
    let mut found = 0;
    for expression in rules.chain(targets).map(|expression| expression.as_str().expect("an expression")) {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.starts_with("hallpass_")) {
            let name = metric.trim_end_matches("_bucket").trim_end_matches("_count");
            assert!(documented.contains(&format!("| `{name}` |")), "{metric} in {expression}");
            found += 1;
        }
    }
    assert!(found > 10, "{found}");
}

#[test]
fn a_second_release_is_refused_in_plain_words() {
    let chart = project("charts/hallpass");
    let chart = chart.to_str().expect("UTF-8");
    let arguments = ["install", "another", chart, "--namespace", "default", "--dry-run=server", "--values", "-"];
    let (done, text) = run("helm", &stack()["kubeconfig"], &arguments, &example("helm-values.yaml"));
    let words =
        "Hallpass is in this cluster already, as release hallpass in the namespace hallpass-system: there can be one";
    assert!(!done && text.contains(words), "{text}");
}

#[test]
fn wrong_values_are_refused_in_plain_words() {
    let values = example("helm-values.yaml");
    let edited = |from: &str, to: &str| {
        assert!(values.contains(from), "{from}");
        values.replace(from, to)
    };
    let secret = "clientSecretRef: {name: hallpass-prod, key: client-secret}";
    for (values, words) in [
        (String::new(), "no realms are configured: list at least one Keycloak realm in `realms`"),
        (edited("\npeople:", "\nreplica: 1\npeople:"), "additional properties 'replica' not allowed"),
        (edited("    clientId: hallpass\n", ""), "realms[0] (prod): auth.clientId is missing"),
        (
            edited(secret, ""),
            "realms[0] (prod): set exactly one of auth.clientSecretRef, clientSecretFile, serviceAccountToken",
        ),
        (
            edited(secret, &format!("{secret}\n    clientSecretFile: /x")),
            "clientKeyRef and clientKeyFile, not clientSecretRef and clientSecretFile",
        ),
        (
            edited(secret, &format!("{secret}\n    issuer: https://x")),
            "realms[0] (prod): auth.issuer is for serviceAccountToken, clientKeyRef and clientKeyFile, not for clientSecretRef",
        ),
        (
            edited("  realm: acme", "  realm: acme\n  caFile: /x"),
            "realms[0] (prod): set caConfigMapRef or caFile, not both",
        ),
        (
            edited(
                "\npeople:",
                "\n- {name: prod, url: 'https://x', realm: other, auth: {clientId: a, clientSecretFile: /b}}\npeople:",
            ),
            "realms[1] (prod): another realm has this name",
        ),
        (edited("usernamePrefix", "userPrefix"), "additional properties 'userPrefix' not allowed"),
        (
            edited("url: https://sso.example.com", "url: sso.example.com"),
            "at '/realms/0/url': 'sso.example.com' does not match pattern",
        ),
        (
            edited("Group, name: \"oidc:/payments\"", "Team, name: x"),
            "at '/people/subjects/0/kind': value must be one of 'User', 'Group', 'ServiceAccount'",
        ),
        (
            edited("kind: Group, name: \"oidc:/payments\"", "kind: ServiceAccount, name: \"oidc:/payments\""),
            "people.subjects: ServiceAccount oidc:/payments: a ServiceAccount needs a namespace",
        ),
    ] {
        let (done, text) = template(&values, &[]);
        assert!(!done && text.contains(words), "{words:?} is missing in: {text}\nfor the values\n{values}");
    }
}

#[test]
fn the_pods_satisfy_the_restricted_pod_security_standard() {
    // The API server warns about a Deployment, or a Job, whose Pods a namespace would refuse.
    let namespace = format!("hallpass-chart-{}", std::process::id());
    let object = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/warn": "restricted"}}});
    let (done, text) = kubectl(&["create", "-f", "-"], &object.to_string());
    assert!(done, "{text}");
    let answers = ["deployment", "uninstall"].map(|file| {
        let file = format!("templates/{file}.yaml");
        let (done, text) = in_the_cluster(&file, &example("helm-values.yaml"), "replicas=1");
        assert!(done, "{text}");
        let text = text.replace("namespace: hallpass-system", &format!("namespace: {namespace}"));
        let create = |text: &str| kubectl(&["create", "--dry-run=server", "-f", "-"], text);
        (create(&text), create(&text.replace("runAsNonRoot: true", "runAsNonRoot: false")))
    });
    kubectl(&["delete", "namespace", "--wait=false", &namespace], "");
    for ((done, said), (_, control)) in answers {
        assert!(done && !said.contains("violate"), "{said}");
        assert!(control.contains("violate"), "without runAsNonRoot there is no warning: {control}");
    }
}

#[test]
fn what_is_lent_is_ended_before_anything_is_uninstalled() {
    let values = example("helm-values.yaml");
    let file = "templates/uninstall.yaml";
    let hooks = |set: &str| {
        let (done, text) = in_the_cluster(file, &values, set);
        if done {
            return serde_saphyr::from_multiple::<Value>(&text).expect(&text);
        }
        // helm calls a file that renders nothing an error.
        assert!(text.contains(&format!("could not find template {file}")), "{text}");
        Vec::new()
    };
    let found = hooks("uninstall.timeout=90s,image.repository=own,image.tag=v1,podLabels.mine=yes");
    let kinds: Vec<_> = found.iter().map(|hook| hook["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"]);
    for hook in &found {
        let says = |key: &str| hook["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned();
        assert_eq!(says("helm.sh/hook"), "pre-delete");
        // They are no part of the release, which would not take them away.
        assert_eq!(says("helm.sh/hook-delete-policy"), "before-hook-creation,hook-succeeded,hook-failed");
        assert_eq!(says("helm.sh/hook-weight"), if hook["kind"] == "Job" { "1" } else { "" });
    }
    let pod = &found[3]["spec"]["template"];
    assert_eq!(pod["spec"]["containers"][0]["args"], json!(["drain", "--timeout", "90s"]));
    assert_eq!(pod["spec"]["containers"][0]["image"], "own:v1");
    assert_eq!(pod["metadata"]["labels"]["mine"], "yes");
    assert_ne!(pod["metadata"]["labels"]["app.kubernetes.io/name"], "hallpass", "it would count as the operator's");
    for nobody in ["uninstall.drain=false", "replicas=0"] {
        assert!(hooks(nobody).is_empty(), "{nobody}");
    }
    let (done, text) = template(&values, &["--show-only", file]);
    assert!(!done && text.contains("could not find template"), "applied as it is, it would drain at once: {text}");
}

#[tokio::test]
async fn what_is_installed_is_in_force_as_the_operator_sees_it() {
    // Nobody weakens it meanwhile.
    let w = World::new().await;
    let kubeconfig = &stack()["operator"]["kubeconfig"];
    let (done, me) = run("kubectl", kubeconfig, &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"], "");
    assert!(done, "{me}");
    let config = Kubeconfig::read_from(kubeconfig.as_str().expect("a path")).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.expect("a context");
    let client = Client::try_from(config.clone()).expect("a client");
    let guard = Guard::new(client, config, &me).expect("a service account");
    // The stored epoch is the operator's: nothing has changed since.
    let in_force = guard.keep().await.expect("in force");
    assert!(in_force.stamp, "this API server knows MutatingAdmissionPolicies");
    w.clean_up().await;
}

#[test]
fn the_operator_may_do_what_it_does_and_nothing_else() {
    let kubeconfig = &stack()["operator"]["kubeconfig"];
    for (may, what) in [
        (true, "list accessrequests.hallpass.dev --all-namespaces"),
        (true, "patch accessrequests.hallpass.dev --all-namespaces"),
        (true, "update accessrequests.hallpass.dev --subresource=status --all-namespaces"),
        (false, "patch accessrequests.hallpass.dev --subresource=status --all-namespaces"),
        (true, "watch accesspolicies.hallpass.dev"),
        (true, "patch accesspolicies.hallpass.dev --subresource=status"),
        (true, "create events.events.k8s.io --all-namespaces"),
        (true, "get validatingadmissionpolicies.admissionregistration.k8s.io/hallpass-identity"),
        (true, "get customresourcedefinitions.apiextensions.k8s.io/accessrequests.hallpass.dev"),
        (true, "create accessrequests.hallpass.dev --namespace=hallpass-system"),
        (true, "patch configmaps/hallpass-trust --namespace=hallpass-system"),
        (true, "patch configmaps/hallpass-started --namespace=hallpass-system"),
        (false, "patch configmaps/hallpass --namespace=hallpass-system"),
        (false, "create accessrequests.hallpass.dev --namespace=default"),
        (false, "delete accessrequests.hallpass.dev --namespace=hallpass-system"),
        (false, "update accesspolicies.hallpass.dev"),
        (false, "patch accesspolicies.hallpass.dev"),
        (false, "patch validatingadmissionpolicies.admissionregistration.k8s.io/hallpass-identity"),
        (false, "list validatingadmissionpolicies.admissionregistration.k8s.io"),
        (false, "create clusterrolebindings.rbac.authorization.k8s.io"),
        (true, "get leases.coordination.k8s.io/hallpass --namespace=hallpass-system"),
        (true, "update leases.coordination.k8s.io/hallpass --namespace=hallpass-system"),
        (true, "create leases.coordination.k8s.io --namespace=hallpass-system"),
        (false, "delete leases.coordination.k8s.io/hallpass --namespace=hallpass-system"),
        (false, "update leases.coordination.k8s.io/other --namespace=hallpass-system"),
        (false, "update leases.coordination.k8s.io/hallpass --namespace=default"),
        (true, "get secrets/hallpass-seal --namespace=hallpass-system"),
        (true, "create secrets --namespace=hallpass-system"),
        (false, "get secrets --namespace=hallpass-system"),
        (false, "update secrets/hallpass-seal --namespace=hallpass-system"),
        (false, "patch secrets/hallpass-seal --namespace=hallpass-system"),
        (false, "delete secrets/hallpass-seal --namespace=hallpass-system"),
        (false, "get secrets/hallpass-seal --namespace=default"),
        (false, "create secrets --namespace=default"),
        (false, "get secrets --all-namespaces"),
        (false, "impersonate users"),
    ] {
        let arguments: Vec<_> = ["auth", "can-i"].into_iter().chain(what.split(' ')).collect();
        let (yes, text) = run("kubectl", kubeconfig, &arguments, "");
        assert_eq!(yes, may, "{what}: {text}");
    }
    // Whoever may work with AccessRequests at all may include the operator's account: what it may do to them, the role says.
    let objects = rendered(&example("helm-values.yaml"), &[]);
    assert_eq!(
        find(&objects, "ClusterRole", "hallpass")["rules"][0],
        json!({"apiGroups": ["hallpass.dev"], "resources": ["accessrequests"], "verbs": ["get", "list", "watch", "patch"]})
    );
}

#[test]
fn the_api_server_accepts_the_examples() {
    for file in ["namespace.yaml", "policy.yaml", "policy-automatic.yaml", "policy-two-stages.yaml"] {
        // Under another name: it may be there already.
        let mut object = parsed(file);
        object["metadata"]["name"] = json!("chart-example");
        let (done, text) = kubectl(&["create", "--dry-run=server", "-f", "-"], &object.to_string());
        assert!(done && !text.contains("Warning"), "{file}: {text}");
    }
    // Under a policy that is not there: nothing but the request itself is looked at.
    let request = example("request.yaml").replace("policyName: payments-oncall", "policyName: not-there");
    let (done, text) = kubectl(&["--context", "alice", "create", "--dry-run=server", "-f", "-"], &request);
    assert!(done && !text.contains("Warning"), "{text}");
    let nameless = request.replace("  requester:", "  # requester:");
    let (done, text) =
        kubectl(&["--context", "alice", "create", "--dry-run=server", "-o", "yaml", "-f", "-"], &nameless);
    assert!(done && text.contains("requester: oidc:alice"), "the API server fills in the requester: {text}");
}

/// One edit of an example, and what the API server must answer.
fn refusals(file: &str, edits: &[(&str, Value, &str)]) {
    for (pointer, value, words) in edits {
        let mut object = parsed(file);
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match object.pointer_mut(parent).expect(pointer) {
            Value::Array(list) => list[key.parse::<usize>().expect(pointer)] = value.clone(),
            parent if value.is_null() => drop(parent.as_object_mut().expect(pointer).remove(key)),
            parent => parent[key] = value.clone(),
        }
        let (done, text) = kubectl(&["create", "--dry-run=server", "-f", "-"], &object.to_string());
        assert!(!done && text.contains(words), "{pointer} = {value}\n  wanted: {words}\n  got: {text}");
        assert!(
            !text.contains("CEL") && !text.contains("conversion error"),
            "{pointer} = {value}: not for people: {text}"
        );
    }
}

#[test]
fn a_wrong_policy_is_refused_with_the_field_and_what_would_be_right() {
    let duration = |path: &str, value: &str| {
        format!("{path}: Invalid value: \"{value}\": must be a duration between 5s and 720h, as 30s or 1h30m")
    };
    let one_kind = "spec.grants[0]: Invalid value: a grant names exactly one of realmRole, clientRole and group";
    let approval = "spec.approval: Invalid value: name at least one stage, or say automatic: true, and not both";
    let label = |path: &str, value: &str| {
        format!("{path}: Invalid value: \"{value}\": must be lower-case letters, digits and dashes")
    };
    let account = "spec.requesters[0]: Invalid value: a ServiceAccount needs a namespace; a User or Group has none";
    refusals(
        "policy.yaml",
        &[
            ("/metadata/name", json!("a".repeat(64)), "the name of an AccessPolicy has at most 63 characters"),
            ("/spec/realn", json!("prod"), "unknown field \"spec.realn\""),
            ("/spec/realm", json!(null), "spec.realm: Required value"),
            ("/spec/realm", json!(""), "spec.realm in body should be at least 1 chars long"),
            ("/spec/grants", json!([]), "spec.grants in body should have at least 1 items"),
            ("/spec/grants/1/name", json!("admin"), "spec.grants[1]: Duplicate value: {\"name\":\"admin\"}"),
            ("/spec/grants/0/group", json!("/x"), one_kind),
            ("/spec/grants/0/realmRole", json!(null), one_kind),
            ("/spec/grants/0/name", json!("Admin"), &label("spec.grants[0].name", "Admin")),
            (
                "/spec/grants/2/group",
                json!("oncall"),
                "spec.grants[2].group: Invalid value: \"oncall\": must be the full path of a group, as /oncall/payments",
            ),
            (
                "/spec/requesters/0/kind",
                json!("group"),
                "spec.requesters[0].kind: Unsupported value: \"group\": supported values: \"User\", \"Group\", \"ServiceAccount\"",
            ),
            ("/spec/requesters/0/kind", json!("ServiceAccount"), account),
            ("/spec/requesters/0/namespace", json!("ci"), account),
            ("/spec/namespaces", json!(["a", "a"]), "spec.namespaces[1]: Duplicate value: \"a\""),
            ("/spec/duration", json!(null), "spec.duration: Required value"),
            ("/spec/duration/max", json!(null), "spec.duration.max: Required value"),
            (
                "/spec/duration/default",
                json!("9h"),
                "spec.duration.default: Invalid value: must not be longer than duration.max",
            ),
            ("/spec/duration/max", json!("1s"), &duration("spec.duration.max", "1s")),
            ("/spec/duration/max", json!("721h"), &duration("spec.duration.max", "721h")),
            ("/spec/duration/max", json!("1d"), &duration("spec.duration.max", "1d")),
            ("/spec/duration/max", json!("9999999h"), &duration("spec.duration.max", "9999999h")),
            ("/spec/approval/timeout", json!("1 hour"), &duration("spec.approval.timeout", "1 hour")),
            (
                "/spec/reason/pattern",
                json!("INC-["),
                "spec.reason.pattern: Invalid value: \"string\": error parsing regexp: missing closing ]",
            ),
            ("/spec/approval", json!(null), approval),
            ("/spec/approval/stages", json!(null), approval),
            ("/spec/approval/automatic", json!(true), approval),
            ("/spec/approval/stages/0/name", json!("Lead"), &label("spec.approval.stages[0].name", "Lead")),
            (
                "/spec/approval/stages/0/name",
                json!("a".repeat(41)),
                "spec.approval.stages[0].name: Too long: may not be more than 40 bytes",
            ),
            (
                "/spec/approval/stages/0/required",
                json!(0),
                "spec.approval.stages[0].required in body should be greater than or equal to 1",
            ),
            (
                "/spec/approval/stages/0/approvers",
                json!([]),
                "spec.approval.stages[0].approvers in body should have at least 1 items",
            ),
            (
                "/spec/approval/stages/0/approvers/0/kind",
                json!("ServiceAccount"),
                "supported values: \"User\", \"Group\"",
            ),
        ],
    );
}

#[test]
fn a_wrong_request_is_refused_with_the_field_and_what_would_be_right() {
    let duration = |value: &str| {
        format!("spec.duration: Invalid value: \"{value}\": must be a duration between 5s and 720h, as 30s or 1h30m")
    };
    refusals(
        "request.yaml",
        &[
            ("/spec/requestor", json!("oidc:alice"), "unknown field \"spec.requestor\""),
            ("/spec/policyName", json!(null), "spec.policyName: Required value"),
            ("/spec/policyName", json!("a".repeat(64)), "spec.policyName: Too long: may not be more than 63 bytes"),
            ("/spec/grants", json!(["a", "a"]), "spec.grants[1]: Duplicate value: \"a\""),
            ("/spec/duration", json!("1s"), &duration("1s")),
            ("/spec/duration", json!("2 hours"), &duration("2 hours")),
            ("/spec/duration", json!("9999999h"), &duration("9999999h")),
            ("/spec/notAfter", json!("9999-12-31T23:59:59Z"), "spec.notAfter must be before the year 9999"),
            ("/spec/duration", json!(30), "spec.duration in body must be of type string: \"integer\""),
            (
                "/spec/reason",
                json!("INC-1\nApproved by security"),
                "spec.reason: Invalid value: \"INC-1\\nApproved by security\": reason is one line of plain text",
            ),
            ("/spec/reason", json!("INC-1 \u{202e}txt"), "reason is one line of plain text"),
            ("/spec/notBefore", json!("tomorrow"), "spec.notBefore in body must be of type date-time: \"tomorrow\""),
            (
                "/spec/preApproved",
                json!(true),
                "spec.preApproved: Invalid value: preApproved needs submittedBy and an absolute window (notBefore and notAfter)",
            ),
        ],
    );
    let mut backwards = parsed("request.yaml");
    backwards["spec"]["notBefore"] = json!("2030-01-02T00:00:00Z");
    backwards["spec"]["notAfter"] = json!("2030-01-01T00:00:00Z");
    let (done, text) = kubectl(&["create", "--dry-run=server", "-f", "-"], &backwards.to_string());
    assert!(!done && text.contains("spec.notAfter: Invalid value: must be later than notBefore"), "{text}");
}

/// Needs an object that is there, but not for long: nobody has a policy of this name, and the operator may not be running.
#[test]
fn the_spec_of_a_request_never_changes() {
    let mut request = parsed("request.yaml");
    request["metadata"]["name"] = json!(format!("chart-{}", std::process::id()));
    request["spec"]["policyName"] = json!("not-there");
    let (done, text) = kubectl(&["--context", "alice", "create", "-f", "-"], &request.to_string());
    assert!(done, "{text}");
    request["spec"]["duration"] = json!("8h");
    let changed = kubectl(&["--context", "alice", "apply", "--dry-run=server", "-f", "-"], &request.to_string());
    kubectl(&["delete", "--wait=false", "-f", "-"], &request.to_string());
    assert!(
        !changed.0 && changed.1.contains("spec: Invalid value: spec is immutable; create a new AccessRequest"),
        "{}",
        changed.1
    );
}
