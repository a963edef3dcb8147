//! The life of an installation: how it comes, what happens to its Pods, and how it goes.

use std::time::{Duration, Instant};

use hallpass::api::Phase;
use serde_json::{Value, json};

use crate::{
    documentation::project,
    installation::{Installation, blocks, console, step},
    keycloak_admin::{Role, unique},
    people::Person,
    policy::Policy,
    world::PATIENCE,
};

/// A role that everybody can have without anybody's consent, the policy that lends it, and somebody.
async fn lending(c: &Installation) -> (Person, Role, Policy) {
    let alice = c.person("alice").await;
    let role = c.keycloak.realm_role("admin").await;
    let policy = c.policy("oncall").realm_role("admin", &role.name).everybody().automatic().ready().await;
    (alice, role, policy)
}

/// Settings of tests that cannot wait for six minutes after a crash.
const IMPATIENT: &str = "  settleTime: 4s\n  checkInterval: 3s\n";

/// The memory that the operator's containers use, as the kubelet says.
async fn memory(c: &Installation) -> Vec<String> {
    let said = c.types("kubectl get --raw /api/v1/nodes/dev-node/proxy/stats/summary").await;
    let stats: Value = serde_json::from_str(&said).expect("JSON");
    let pods = stats["pods"].as_array().expect("Pods").iter();
    let ours = pods.filter(|pod| pod["podRef"]["name"].as_str().is_some_and(|name| name.starts_with("hallpass-")));
    let bytes = |pod: &Value| pod["containers"][0]["memory"].clone();
    ours.map(|pod| format!("{}: {}", pod["podRef"]["name"], bytes(pod))).collect()
}

#[tokio::test]
#[ignore = "needs a node: dev/cluster"]
async fn it_is_installed_and_uninstalled_in_the_words_of_the_readme() {
    // given
    let c = Installation::prepared().await;
    let alice = c.person("alice").await;
    let role = c.keycloak.realm_role("admin").await;
    c.values("");
    // when
    let begin = Instant::now();
    let (install, _) = console(&blocks(&step("5. Install"), "console")[0]);
    let said = c.types(&install).await;
    // then
    println!("helm install to ready: {:.1} s", begin.elapsed().as_secs_f64());
    assert!(said.contains("successfully rolled out"), "{said}");
    assert!(said.contains("kubectl explain accesspolicies.spec"), "the notes say how to go on: {said}");
    // when somebody asks, then access is lent, and ends
    let policy = c.policy("oncall").realm_role("admin", &role.name).everybody().automatic().ready().await;
    c.until("a trust epoch", async || c.epoch_has_begun().await).await;
    let request = alice.asks(&policy).lasting("6s").create().await.unwrap();
    request.reaches(Phase::Active).await;
    println!("helm install to the first access: {:.1} s", begin.elapsed().as_secs_f64());
    assert!(c.keycloak.has(&alice.user, &role).await);
    request.reaches(Phase::Expired).await;
    assert!(!c.keycloak.has(&alice.user, &role).await);
    println!("memory: {}", memory(&c).await.join(", "));
    // when the README looks whether it works
    let (look, expected) = console(&blocks(&step("6. Look"), "console")[0]);
    let (first, last) = look.trim_end().rsplit_once('\n').expect("commands");
    std::net::TcpListener::bind("127.0.0.1:8080").expect("the README's port 8080 is free");
    // Who types takes longer than the port-forward does.
    let first =
        first.replacen(" &  ", " & until curl --silent localhost:8080/livez > /dev/null; do sleep 0.1; done  ", 1);
    let said = c.types(&first).await;
    // then
    for line in expected.iter().filter(|line| line.starts_with('[')) {
        assert!(said.contains(line), "{line} is missing in\n{said}");
    }
    assert!(said.contains("[+] realm prod: signed in to "), "{said}");
    c.until("the README's policy is ready", async || c.types(last).await.contains("requests can be granted")).await;
    c.types("kubectl delete -f examples/policy.yaml").await;
    // when it is uninstalled while access is lent
    let lent = alice.asks(&policy).create().await.unwrap();
    lent.reaches(Phase::Active).await;
    c.types("helm uninstall hallpass --namespace hallpass-system").await;
    // then
    lent.says(Phase::Revoked, "PolicySuspended").await;
    assert!(!c.keycloak.has(&alice.user, &role).await);
    c.until("nothing is left", async || c.left().await.is_empty()).await;
    // when it comes back, then what is over is over, and people are served
    c.install("", "").await;
    policy.change(json!({"suspended": false})).await;
    policy.is_ready().await;
    let again = alice.asks(&policy).lasting("5s").create().await.unwrap();
    again.reaches(Phase::Active).await;
    again.reaches(Phase::Expired).await;
    assert!(!c.keycloak.has(&alice.user, &role).await);
    lent.says(Phase::Revoked, "PolicySuspended").await;
    c.clean_up().await;
}

#[tokio::test]
#[ignore = "needs a node: dev/cluster"]
async fn it_is_not_uninstalled_while_something_could_be_left_behind() {
    // given access that is lent, and an operator that does not run any more
    let c = Installation::prepared().await;
    c.install(IMPATIENT, "--set uninstall.timeout=3s").await;
    let (alice, role, policy) = lending(&c).await;
    let lent = alice.asks(&policy).create().await.unwrap();
    lent.reaches(Phase::Active).await;
    let before = c.left().await;
    c.types("kubectl --namespace hallpass-system scale deployment/hallpass --replicas=0").await;
    c.until("no Pod runs", async || c.running().await.is_empty()).await;
    // when
    let said = c.is_refused("helm uninstall hallpass --namespace hallpass-system").await;
    // then it says what is left, and has uninstalled nothing
    assert!(said.contains(&format!("{}/{}: Active", lent.namespace, lent.name)), "{said}");
    assert_eq!(c.left().await, before);
    assert!(c.keycloak.has(&alice.user, &role).await);
    // when mending takes an upgrade
    c.types("helm rollback hallpass 1 --namespace hallpass-system").await;
    c.types(
        "helm upgrade hallpass charts/hallpass --namespace hallpass-system --reuse-values --set uninstall.timeout=60s",
    )
    .await;
    // then the operator is back, and what it could not end meanwhile ends
    lent.says(Phase::Revoked, "PolicySuspended").await;
    c.types("helm uninstall hallpass --namespace hallpass-system").await;
    assert!(!c.keycloak.has(&alice.user, &role).await);
    c.until("nothing is left", async || c.left().await.is_empty()).await;
    c.clean_up().await;
}

#[tokio::test]
#[ignore = "needs a node: dev/cluster"]
async fn the_deadline_holds_when_the_leading_pod_is_killed() {
    // given
    let c = Installation::prepared().await;
    c.install(IMPATIENT, "--set replicas=2").await;
    let (alice, role, policy) = lending(&c).await;
    let request = alice.asks(&policy).lasting("5s").create().await.unwrap();
    request.reaches(Phase::Active).await;
    // when
    let leader = c.leader().await.expect("somebody leads");
    let killed = c.kill(&leader).await;
    // then
    c.until("the role is gone", async || !c.keycloak.has(&alice.user, &role).await).await;
    println!(
        "from the leader killed to the role gone, its deadline 5 s after it was lent: {:.1} s",
        killed.elapsed().as_secs_f64()
    );
    assert!(killed.elapsed() < Duration::from_secs(15 + 5), "the lease of 15 s, and the work");
    request.reaches(Phase::Expired).await;
    assert_ne!(c.leader().await.expect("somebody leads"), leader);
    // and people are served again
    let again = alice.asks(&policy).lasting("5s").create().await.unwrap();
    again.reaches(Phase::Active).await;
    again.reaches(Phase::Expired).await;
    c.clean_up().await;
}

#[tokio::test]
#[ignore = "needs a node: dev/cluster"]
async fn an_upgrade_and_a_rollback_end_nothing_early_and_nothing_late() {
    // given access that lasts, and access that ends while Pods are replaced
    let c = Installation::prepared().await;
    c.install(IMPATIENT, "--set replicas=2").await;
    let (alice, role, policy) = lending(&c).await;
    let bob = c.person("bob").await;
    let lasting = alice.asks(&policy).create().await.unwrap();
    lasting.reaches(Phase::Active).await;
    let before = c.running().await;
    let changes = [
        "helm upgrade hallpass charts/hallpass --namespace hallpass-system --reuse-values --set image.tag=next",
        "helm rollback hallpass 1 --namespace hallpass-system",
        "helm upgrade hallpass charts/hallpass --namespace hallpass-system --reuse-values --set priorityClassName=system-cluster-critical",
    ];
    for change in changes {
        let ending = bob.asks(&policy).lasting("6s").create().await.unwrap();
        let deadline = ending.reaches(Phase::Active).await.grant.expect("lent").deadline;
        // when
        let kept = async {
            c.types(&format!(
                "{change} && kubectl --namespace hallpass-system rollout status deployment/hallpass --timeout=60s"
            ))
            .await;
        };
        let watched = async {
            loop {
                assert!(c.keycloak.has(&alice.user, &role).await, "early: {change}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! { () = kept => {}, () = watched => {} }
        // then
        let ended = ending.reaches(Phase::Expired).await.grant.expect("lent").ended_at.expect("an end");
        let late = ended.0.duration_since(deadline.0);
        println!("{change}: {:.1} s after the deadline", late.as_secs_f64());
        assert!(!c.keycloak.has(&bob.user, &role).await);
        assert!(late.as_secs() < 3, "late: {deadline:?}, {ended:?}: {change}");
        assert!(c.keycloak.has(&alice.user, &role).await);
        c.works().await;
    }
    assert!(c.running().await.iter().all(|pod| !before.contains(pod)), "each Pod was replaced");
    alice.ends(&lasting).await.unwrap();
    lasting.reaches(Phase::Revoked).await;
    c.clean_up().await;
}

#[tokio::test]
#[ignore = "needs a node: dev/cluster"]
async fn a_node_that_is_drained_does_not_take_the_last_pod() {
    // given
    let c = Installation::prepared().await;
    c.install(IMPATIENT, "--set replicas=2,podDisruptionBudget.enabled=true").await;
    let (alice, role, policy) = lending(&c).await;
    let request = alice.asks(&policy).lasting("15s").create().await.unwrap();
    request.reaches(Phase::Active).await;
    // when there is no other node for the second Pod
    let said =
        c.is_refused("kubectl drain dev-node --ignore-daemonsets --delete-emptydir-data --force --timeout=8s").await;
    // then
    assert!(said.contains("disruption budget"), "{said}");
    request.reaches(Phase::Expired).await;
    assert!(!c.keycloak.has(&alice.user, &role).await);
    // when
    c.types("kubectl uncordon dev-node").await;
    // then
    c.works().await;
    c.clean_up().await;
}

#[tokio::test]
#[ignore = "needs a node: dev/cluster"]
async fn a_pod_signs_in_without_a_secret() {
    // given a client that trusts the operator's service account
    let c = Installation::prepared().await;
    c.keycloak.trusts_cluster("cluster", &c.stack.api_server).await;
    let attributes = json!({
        "jwt.credential.issuer": "cluster", "jwt.credential.sub": "system:serviceaccount:hallpass-system:hallpass",
    });
    let more = json!({"clientAuthenticatorType": "federated-jwt", "attributes": attributes});
    let robot = c.keycloak.robot_that(&more, &["manage-users", "view-realm", "view-clients"]).await;
    c.types("kubectl --namespace hallpass-system delete secret hallpass-prod").await;
    // when
    c.values(IMPATIENT);
    c.changes_values("clientId: hallpass", &format!("clientId: {}", robot.client_id));
    c.changes_values("clientSecretRef: {name: hallpass-prod, key: client-secret}", "serviceAccountToken: true");
    c.install_with("").await;
    // then
    let (alice, role, policy) = lending(&c).await;
    let request = alice.asks(&policy).lasting("5s").create().await.unwrap();
    request.reaches(Phase::Active).await;
    assert!(c.keycloak.has(&alice.user, &role).await);
    request.reaches(Phase::Expired).await;
    c.clean_up().await;
}

#[tokio::test]
#[ignore = "needs a node: dev/cluster"]
async fn what_is_restored_from_a_backup_gives_nothing() {
    // given access that was lent and is over, in a backup
    let c = Installation::prepared().await;
    c.install(IMPATIENT, "").await;
    let (alice, role, policy) = lending(&c).await;
    let lent = alice.asks(&policy).create().await.unwrap();
    lent.reaches(Phase::Active).await;
    let backup = unique("backup");
    c.types(&format!("kubectl --namespace {} get areq --output yaml > {backup}", lent.namespace)).await;
    alice.ends(&lent).await.unwrap();
    lent.reaches(Phase::Revoked).await;
    c.types(&format!("kubectl --namespace {} delete areq --all", lent.namespace)).await;
    // when, then nobody can bring it back in her name
    let said = c.is_refused(&format!("kubectl create --filename {backup}")).await;
    // Which of the two the API server says is chance.
    let both = ["you may not submit requests for others", "cannot carry the operator's finalizer"];
    assert!(both.iter().any(|why| said.contains(why)), "{said}");
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE / 10 {
        assert!(!c.keycloak.has(&alice.user, &role).await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    c.clean_up().await;
}

#[tokio::test]
#[ignore = "needs a node: dev/cluster"]
async fn the_demo_is_a_guest_that_leaves_a_cluster_as_it_was() {
    // given a cluster that has a namespace of the demo's name already, and in it something of its owner's
    let c = Installation::before().await;
    c.types("kubectl delete crd accessrequests.hallpass.dev accesspolicies.hallpass.dev --ignore-not-found").await;
    c.types("kubectl --namespace team-payments create configmap precious").await;
    let all = "kubectl get namespaces,crd,clusterroles,clusterrolebindings,validatingadmissionpolicies --output name";
    let before = c.types(all).await;
    let dev = format!("HALLPASS_DEV_STATE=$PWD/guest {}", project("dev/dev").display());
    // when
    c.types(&format!("{dev} up --context admin")).await;
    // then
    let said = c.types(&format!("{dev} demo")).await;
    for words in ["denied request", "payments-admin", "Expired", "deadline -> gone from Keycloak"] {
        assert!(said.contains(words), "{words} is missing in\n{said}");
    }
    // when somebody wants a second one, then it is refused, and the first one stays
    let second = format!("HALLPASS_DEV_STATE=$PWD/second {}", project("dev/dev").display());
    let said = c.is_refused(&format!("{second} up --context admin")).await;
    assert!(said.contains("Hallpass is in this cluster already"), "{said}");
    c.types(&format!("{second} down --clean")).await;
    c.types("kubectl get crd accessrequests.hallpass.dev").await;
    // when access is lent, and the guest goes
    let guest = "kubectl --kubeconfig guest/kubeconfig --context";
    c.types(&format!("{guest} alice create --filename examples/request.yaml")).await;
    let how = r#"'jsonpath={.status.conditions[?(@.type=="Approved")].message}'"#;
    let mut vote = String::new();
    c.until("how to approve", async || {
        let said = c.types(&format!("{guest} bob get areq fix-checkout --output {how}")).await;
        let command = said.split("kubectl ").nth(1).and_then(|rest| rest.split(" (to deny").next());
        vote = command.unwrap_or_default().to_owned();
        !vote.is_empty()
    })
    .await;
    c.types(&format!("{guest} bob {vote}")).await;
    c.types(&format!("{guest} bob wait --for=condition=Granted areq/fix-checkout --timeout=20s")).await;
    c.types(&format!("{dev} down")).await;
    // then
    assert_eq!(c.types(all).await, before);
    c.types("kubectl --namespace team-payments get configmap precious").await;
    assert!(!c.types("ls guest").await.contains("kubeconfig"), "it has the owner's credentials");
    c.types(&format!("{dev} down --clean && kubectl --namespace team-payments delete configmap precious")).await;
    c.types(&format!("kubectl delete namespace {}", c.namespace)).await;
}
