//! What people and machines see of it: kubectl, conditions, the log, metrics and probes. And what nobody sees: secrets.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    process::Output,
};

use hallpass::api::Phase;
use serde_json::{Value, json};

use crate::{
    keycloak_admin::Role,
    people::Person,
    policy::Policy,
    request::{Request, condition},
    world::World,
};

/// Alice has asked, under a policy by which Bob approves.
struct Scene {
    w: World,
    alice: Person,
    bob: Person,
    role: Role,
    policy: Policy,
    request: Request,
}

async fn scene() -> Scene {
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy =
        w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]).ready().await;
    let request = alice.asks(&policy).because("INC-1: checkout is failing").create().await.unwrap();
    request.says(Phase::Pending, "WaitingForVotes").await;
    Scene { w, alice, bob, role, policy, request }
}

/// What a program wrote, if it succeeded.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The lines of a table, each as its cells: columns begin where their titles do.
fn table(text: &str) -> Vec<Vec<String>> {
    let title = text.lines().next().expect("titles");
    let begins = |at: &usize| *at == 0 || (!title[*at..].starts_with(' ') && title[..*at].ends_with("   "));
    let starts: Vec<usize> = (0..title.len()).filter(begins).collect();
    let cells = |line: &str| {
        let ends = starts.iter().skip(1).copied().chain([line.len()]);
        starts.iter().zip(ends).map(|(start, end)| line[*start..end.max(*start)].trim().to_owned()).collect()
    };
    text.lines().map(cells).collect()
}

#[tokio::test]
async fn kubectl_tells_people_all_they_need() {
    // given
    let Scene { w, alice, bob, policy, request, .. } = scene().await;
    let get = async |arguments: &[&str]| table(&said(&alice.kubectl(arguments).await));
    let waiting = get(&["get", "areq"]).await;
    assert_eq!(waiting[0], ["NAME", "REQUESTER", "POLICY", "PHASE", "ENDS", "AGE"]);
    assert_eq!(waiting[1][..5], [&*request.name, &*alice.username, &*policy.name, "Pending", ""]);
    // when Bob runs the command that the request shows
    let message = condition(&request.status().await, "Ready").message;
    let (_, command) = message.split_once("To approve: kubectl ").unwrap_or_else(|| panic!("no command: {message}"));
    let (command, _) = command.split_once(" (to deny").unwrap_or((command, ""));
    said(&bob.kubectl(&command.split_whitespace().collect::<Vec<_>>()).await);
    // then
    let granted = format!("accessrequest/{}", request.name);
    said(&alice.kubectl(&["wait", "--for=condition=Granted", "--timeout=40s", &granted]).await);
    let status = request.reaches(Phase::Active).await;
    assert_eq!(status.votes.first().map(|vote| &vote.by), Some(&bob.username), "yes is the voter's name");
    let wide = get(&["get", "areq", "-o", "wide"]).await;
    let titles = ["NAME", "REQUESTER", "POLICY", "PHASE", "ENDS", "AGE", "GRANTS", "APPROVED BY", "REASON"];
    assert_eq!(wide[0], titles);
    assert_eq!((&*wide[1][3], &*wide[1][4]), ("Active", &*status.grant.unwrap().deadline.0.to_string()));
    assert_eq!(wide[1][6..], ["admin", &*bob.username, "INC-1: checkout is failing"]);
    let active = get(&["get", "areq", "--field-selector", "status.phase=Active", "-o", "name"]).await;
    assert_eq!(active, [[format!("accessrequest.hallpass.dev/{}", request.name)]]);
    let policies = get(&["get", "apol", &policy.name, "-o", "wide"]).await;
    assert_eq!(policies[0], ["NAME", "REALM", "READY", "REASON", "AGE", "MESSAGE"]);
    assert_eq!(policies[1][..4], [&*policy.name, "prod", "True", "Ready"]);
    assert_eq!(policies[1][5], "requests can be granted");
    // Events are written beside the work.
    w.until("the Events are told", async || {
        let told = said(&w.kubectl(&["describe", "areq", &request.name]).await);
        ["WaitingForVotes", "Approved", "the access is in place until"].iter().all(|words| told.contains(words))
    })
    .await;
    w.clean_up().await;
}

#[tokio::test]
async fn one_line_of_the_log_for_each_change_of_phase() {
    // given
    let Scene { w, alice, bob, policy, request, .. } = scene().await;
    bob.approves(&request, "lead").await.unwrap();
    request.reaches(Phase::Active).await;
    // when
    alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    // then
    let log = request.log();
    let steps: Vec<(&str, &str)> =
        log.iter().filter_map(|line| Some((line["from"].as_str()?, line["to"].as_str()?))).collect();
    let life = ["", "Pending", "Activating", "Active", "Revoking", "Revoked"];
    assert_eq!(steps, life.windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>(), "{log:#?}");
    // Who decided what, on which evidence.
    let said = |what: &str| log.iter().filter(|line| line["message"] == what).collect::<Vec<_>>();
    let (votes, ends) = (said("vote"), said("end"));
    assert_eq!(log.len(), steps.len() + votes.len() + ends.len(), "and no other line: {log:#?}");
    let status = request.status().await;
    for (line, by, user, why) in [
        (votes[0], &bob.username, &bob.user.id, json!(format!("as User {}", bob.username))),
        (ends[0], &alice.username, &alice.user.id, Value::Null),
    ] {
        assert_eq!((&line["by"], &line["counted"], &line["why"]), (&json!(by), &json!(true), &why), "{line}");
        assert_eq!((&line["uid"], &line["epoch"]), (&json!(request.uid), &json!(status.trust_epoch)), "{line}");
        assert!(line["user"] == json!(user) || line["message"] == "end", "{line}");
    }
    assert_eq!((votes.len(), ends.len()), (1, 1), "{log:#?}");
    let active = log.iter().find(|line| line["to"] == "Active").unwrap();
    for (key, value) in [
        ("message", "phase"),
        ("level", "INFO"),
        ("policy", &policy.name),
        ("requester", &alice.username),
        ("subject", &alice.user.username),
        ("approved_by", &bob.username),
        ("reason", "Active"),
    ] {
        assert_eq!(active[key], value, "{key}: {active}");
    }
    // Every line is JSON, and has no key twice: written again it is as long.
    let text = fs::read_to_string(&w.stack.operator.log).unwrap();
    for line in text.lines().filter(|line| line.contains(&w.namespace)) {
        let read: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(read.to_string().len(), line.len(), "a key is there twice: {line}");
    }
    w.clean_up().await;
}

/// What the API server's audit log says from now on.
struct Audit {
    file: PathBuf,
    from: u64,
}

impl Audit {
    fn new() -> Self {
        let stack = std::env::var("HALLPASS_STACK").unwrap();
        let stack: Value = serde_json::from_slice(&fs::read(stack).unwrap()).unwrap();
        let file = PathBuf::from(stack["auditLog"].as_str().unwrap());
        Self { from: fs::metadata(&file).unwrap().len(), file }
    }

    /// What the operator did with the object of this name, as verbs.
    fn of_operator(&self, name: &str) -> Vec<String> {
        let mut file = File::open(&self.file).unwrap();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| line.contains(name));
        let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let own = events.filter(|event| event["user"]["username"] == "system:serviceaccount:hallpass-system:hallpass");
        let about = own.filter(|event| event["objectRef"]["name"] == name);
        about.map(|event| event["verb"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

#[tokio::test]
async fn nothing_is_written_when_nothing_has_changed() {
    // given a request that waits and one that is active
    let Scene { w, alice, bob, policy, request: waiting, .. } = scene().await;
    let active = alice.asks(&policy).create().await.unwrap();
    bob.approves(&active, "lead").await.unwrap();
    active.reaches(Phase::Active).await;
    let (waiting_version, active_version) = (waiting.resource_version().await, active.resource_version().await);
    let audit = Audit::new();
    // when the policy is touched several times, and with it its requests are looked at
    for round in 1..=3 {
        policy.patch(&json!({"metadata": {"annotations": {"touched": round.to_string()}}})).await;
        w.until("the waiting request was looked at", async || {
            let reads = audit.of_operator(&policy.name);
            reads.iter().filter(|verb| *verb == "get").count() >= round
        })
        .await;
    }
    // then
    assert_eq!(waiting.resource_version().await, waiting_version);
    assert_eq!(active.resource_version().await, active_version);
    // when the requests themselves are touched: that is one change, and it stays the only one
    let note = json!({"metadata": {"annotations": {"note": "to myself"}}});
    for request in [&waiting, &active] {
        alice.patches(request, &note).await.unwrap();
    }
    let (waiting_version, active_version) = (waiting.resource_version().await, active.resource_version().await);
    let reads = audit.of_operator(&policy.name).len();
    policy.patch(&json!({"metadata": {"annotations": {"touched": "again"}}})).await;
    w.until("the waiting request was looked at", async || audit.of_operator(&policy.name).len() > reads).await;
    // then
    assert_eq!(waiting.resource_version().await, waiting_version);
    assert_eq!(active.resource_version().await, active_version);
    for name in [&waiting.name, &active.name, &policy.name] {
        let verbs = audit.of_operator(name);
        assert!(verbs.iter().all(|verb| verb == "get"), "{name}: {verbs:?}");
    }
    w.clean_up().await;
}

#[tokio::test]
async fn what_is_sent_twice_is_there_once() {
    // given
    let Scene { w, alice, bob, role, policy, request } = scene().await;
    bob.approves(&request, "lead").await.unwrap();
    let version = request.reaches(Phase::Active).await;
    // when the same manifest comes again
    let again = alice.asks(&policy).because("INC-1: checkout is failing").named(&request.name);
    let refusal = again.clone().create().await.err().expect("refused");
    assert!(refusal.contains("already exists"), "{refusal}");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.json", request.name));
    fs::write(&file, again.manifest().to_string()).unwrap();
    said(&alice.kubectl(&["apply", "-f", &file.display().to_string()]).await);
    // then
    let status = request.status().await;
    assert_eq!((&status.phase, &status.grant, &status.votes), (&version.phase, &version.grant, &version.votes));
    assert!(w.keycloak.has(&alice.user, &role).await);
    // when a change comes
    fs::write(&file, again.clone().lasting("2h").manifest().to_string()).unwrap();
    let output = alice.kubectl(&["apply", "-f", &file.display().to_string()]).await;
    // then
    let refusal = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && refusal.contains("spec is immutable; create a new AccessRequest"), "{refusal}");
    // when a grant is named twice
    let refusal = alice.asks(&policy).grants(["admin", "admin"]).create().await.err().expect("refused");
    assert!(refusal.contains("spec.grants[1]") && refusal.contains("Duplicate value"), "{refusal}");
    w.clean_up().await;
}

#[tokio::test]
async fn everybody_is_who_has_a_keycloak_user() {
    // given
    let w = World::new().await;
    let alice = w.person("alice").await;
    let role = w.keycloak.realm_role("read").await;
    let policy = w.policy("all").realm_role("read", &role.name).everybody().automatic().ready().await;
    // when somebody asks who has a certificate of the cluster, and one who leaves out who she is
    let admin = alice.asks(&policy).with("requester", json!(null)).create_with(&w.admin).await.unwrap();
    let own = alice.asks(&policy).with("requester", json!(null)).create().await.unwrap();
    // then
    own.reaches(Phase::Active).await;
    assert_eq!(own.get().await.spec.requester.as_ref(), Some(&alice.username));
    assert!(w.keycloak.has(&alice.user, &role).await);
    let message = admin.says(Phase::Rejected, "Rejected").await;
    assert!(message.contains("leads to no Keycloak user: usernames of people begin with \"oidc:\""), "{message}");
    w.clean_up().await;
}

#[tokio::test]
async fn probes_and_metrics_tell_how_the_operator_is() {
    // given
    let Scene { w, alice, bob, policy, request, .. } = scene().await;
    bob.approves(&request, "lead").await.unwrap();
    request.reaches(Phase::Active).await;
    let second = alice.asks(&policy).create().await.unwrap();
    second.says(Phase::Pending, "WaitingForVotes").await;
    // when
    let (alive, _) = w.stack.ask_operator("/livez").await.unwrap();
    let (ready, text) = w.stack.ask_operator("/readyz").await.unwrap();
    let (status, metrics) = w.stack.ask_operator("/metrics").await.unwrap();
    // then
    assert_eq!((alive, ready, status), (200, 200, 200));
    let lends = "with manage-users the operator could lend any role that is not of Keycloak's administration";
    let realm = format!("[+] realm prod: ok; {lends}");
    for line in
        ["[+] lease: this process leads", "[+] admission policies: ok", "[+] clocks: ok", "[+] requests: ok", &*realm]
    {
        assert!(text.lines().any(|other| other == line), "{line:?} is missing in: {text}");
    }
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in: {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("hallpass_requests{phase=\"Active\"}") >= 1.0);
    assert!(value("hallpass_requests{phase=\"Pending\"}") >= 1.0);
    assert!(value("hallpass_reconciles_total{kind=\"request\",outcome=\"ok\",category=\"\"}") >= 2.0);
    assert!(value("hallpass_keycloak_call_seconds_count{endpoint=\"map\",result=\"Ok\"}") >= 1.0);
    assert!((value("hallpass_admission_policies_in_force") - 1.0).abs() < f64::EPSILON);
    assert!((value("hallpass_leader") - 1.0).abs() < f64::EPSILON);
    value("hallpass_overdue_revocations");
    value("hallpass_expiry_lag_seconds_count");
    assert!(metrics.ends_with("# EOF\n"), "OpenMetrics");
    for name in [&alice.user.username, &w.namespace, &policy.name, &request.name] {
        assert!(!metrics.contains(name.as_str()), "labels are from fixed sets, {name} is not");
    }
    w.clean_up().await;
}

#[tokio::test]
async fn secrets_are_nowhere() {
    // given a life, and realms in which signing in fails
    let Scene { w, alice, bob, request, .. } = scene().await;
    bob.approves(&request, "lead").await.unwrap();
    request.reaches(Phase::Active).await;
    alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    // when all that can be read is read
    let folder = w.stack.operator.config.parent().unwrap().join("secrets");
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let mut secrets: Vec<String> = files.map(|secret| secret.trim().to_owned()).collect();
    let kubeconfig = fs::read_to_string(&w.stack.operator.kubeconfig).unwrap();
    let token = kubeconfig.split("token: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    // The end of it: the beginning, and any token of Keycloak's, is the same in all.
    secrets.push(token[token.len() - 40..].to_owned());
    secrets.push("eyJhbGci".to_owned());
    let everything = async |kind: &str| said(&w.kubectl(&["get", kind, "--all-namespaces", "--output", "json"]).await);
    for (place, text) in [
        ("the log", fs::read_to_string(&w.stack.operator.log).unwrap()),
        ("/metrics", w.stack.ask_operator("/metrics").await.unwrap().1),
        ("/readyz", w.stack.ask_operator("/readyz").await.unwrap().1),
        ("Events", everything("events").await),
        ("requests", everything("accessrequests").await),
        ("policies", everything("accesspolicies").await),
    ] {
        // then
        assert!(!text.is_empty(), "{place}");
        for secret in &secrets {
            assert!(secret.len() >= 8 && !text.contains(secret.as_str()), "{place}: {}…", &secret[..4]);
        }
    }
    w.clean_up().await;
}
