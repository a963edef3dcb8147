//! Somebody with the right to do so changes the admission policies or CRDs, writes what they kept from being written, and
//! puts them back exactly as they were. Each line says what is changed and what that lets through.

use std::{fs, process::Command, time::Instant};

use hallpass::api::{APPROVE, Phase};
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{
    faults::Weakened,
    keycloak_admin::{Role, unique},
    people::Person,
    policy::Policy,
    request::{Request, condition},
    world::World,
};

/// What a change of the admission policies lets through.
#[derive(Clone, Copy, PartialEq)]
enum Bite {
    /// Carol, who may vote too, votes in Bob's name.
    BobsVote,
    /// Mallory, who may not, asks.
    Asking,
    /// Alice asks with a status in her manifest.
    Status,
    /// Alice's reason has a second line.
    SecondLine,
    /// What Bob writes comes out with another's name, so that he cannot vote.
    AnothersName,
}

/// What is changed, by kubectl with this standard input, what that lets through, and how the operator names it.
type Line = (&'static str, Vec<String>, String, Bite, &'static str);

fn patched(what: &'static str, object: &str, patch: &Value, bite: Bite, words: &'static str) -> Line {
    let kind = if patch.is_array() { "--type=json" } else { "--type=merge" };
    let arguments = ["patch", object, kind, "--patch"].map(str::to_owned).into_iter().chain([patch.to_string()]);
    (what, arguments.collect(), String::new(), bite, words)
}

fn deleted(what: &'static str, object: &str, bite: Bite, words: &'static str) -> Line {
    (what, vec!["delete".into(), object.into()], String::new(), bite, words)
}

const IDENTITY: &str = "validatingadmissionpolicy/hallpass-identity";
const IDENTITY_BINDING: &str = "validatingadmissionpolicybinding/hallpass-identity";
const REQUESTS: &str = "customresourcedefinition/accessrequests.hallpass.dev";

/// Where the rule is that a vote's value is its writer's name.
fn own_name(w: &World) -> usize {
    let policy = w.installed("ValidatingAdmissionPolicy", "hallpass-identity");
    let rules = policy["spec"]["validations"].as_array().unwrap();
    rules.iter().position(|rule| rule.to_string().contains("'the value of '")).unwrap()
}

#[rustfmt::skip] // one change a line
fn of_policies(stage: &Stage) -> Vec<Line> {
    use Bite::{Asking, BobsVote};
    let w = &stage.w;
    let own = own_name(w);
    let rule = |expression: &str| json!({"op": "replace", "path": format!("/spec/validations/{own}/expression"), "value": expression});
    let mut less = w.installed("ValidatingAdmissionPolicy", "hallpass-identity");
    less["spec"]["validations"].as_array_mut().unwrap().remove(own);
    let narrow = json!({"spec": {"matchConstraints": {"namespaceSelector": {"matchLabels": {"watched": "yes"}}}}});
    let but_carol = json!([{"op": "add", "path": "/spec/matchConditions", "value": [
        {"name": "but-carol", "expression": format!("request.userInfo.username != '{}'", stage.carol.username)}]}]);
    let ignored = json!([rule("variables.written.all(k, variables.annotations['nobody'] == k)"), {"op": "replace", "path": "/spec/failurePolicy", "value": "Ignore"}]);
    vec![
        deleted("the policy is deleted", IDENTITY, BobsVote, "ValidatingAdmissionPolicy hallpass-identity is missing"),
        deleted("the binding is deleted", IDENTITY_BINDING, BobsVote, "ValidatingAdmissionPolicyBinding hallpass-identity is missing"),
        patched("the binding only audits", IDENTITY_BINDING, &json!({"spec": {"validationActions": ["Audit"]}}), BobsVote, "ValidatingAdmissionPolicyBinding hallpass-identity differs at spec.validationActions[0]"),
        patched("the binding names another policy", IDENTITY_BINDING, &json!({"spec": {"policyName": "another"}}), BobsVote, "ValidatingAdmissionPolicyBinding hallpass-identity differs at spec.policyName"),
        patched("a rule is always true", IDENTITY, &json!([rule("true")]), BobsVote, "ValidatingAdmissionPolicy hallpass-identity differs at spec.validations["),
        patched("a rule fails, and failures are ignored", IDENTITY, &ignored, BobsVote, "ValidatingAdmissionPolicy hallpass-identity differs at spec.failurePolicy"),
        patched("other namespaces are watched", IDENTITY, &narrow, BobsVote, "ValidatingAdmissionPolicy hallpass-identity differs at spec.matchConstraints.namespaceSelector"),
        patched("carol is not watched", IDENTITY, &but_carol, BobsVote, "ValidatingAdmissionPolicy hallpass-identity differs at spec.matchConditions"),
        ("another policy of the same name has a rule less", vec!["replace".into(), "--force".into(), "--filename=-".into()], less.to_string(), BobsVote, "ValidatingAdmissionPolicy hallpass-identity differs at spec.validations"),
        patched("no AccessPolicy is asked", "validatingadmissionpolicybinding/hallpass-policy", &json!({"spec": {"paramRef": {"selector": {"matchLabels": {"a": "b"}}}}}), Asking, "ValidatingAdmissionPolicyBinding hallpass-policy differs at spec.paramRef.selector"),
    ]
}

#[rustfmt::skip] // one change a line
fn of_crds_and_stamp(stage: &Stage) -> Vec<Line> {
    use Bite::{AnothersName, SecondLine, Status};
    let stamp = stage.w.installed("MutatingAdmissionPolicy", "hallpass-stamp");
    let fill = stamp["spec"]["mutations"][0]["jsonPatch"]["expression"].as_str().unwrap();
    let fill = fill.replace("value: variables.caller}", &format!("value: '{}'}}", stage.carol.username));
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let unruled = json!([
        {"op": "remove", "path": format!("{schema}/x-kubernetes-validations")},
        {"op": "remove", "path": format!("{schema}/properties/spec/properties/reason/x-kubernetes-validations")}]);
    let version = json!([{"op": "add", "path": "/spec/versions/-", "value": {
        "name": "v1", "served": true, "storage": false, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}]);
    vec![
        patched("whoever writes an object writes its status", REQUESTS, &json!([{"op": "remove", "path": "/spec/versions/0/subresources"}]), Status, "CustomResourceDefinition accessrequests.hallpass.dev differs at spec.versions[0]"),
        patched("the rules of the CRD are taken out", REQUESTS, &unruled, SecondLine, "CustomResourceDefinition accessrequests.hallpass.dev differs at spec.versions[0]"),
        patched("another version has no rules", REQUESTS, &version, SecondLine, "CustomResourceDefinition accessrequests.hallpass.dev differs at spec.versions"),
        patched("another's name is filled in", "mutatingadmissionpolicy/hallpass-stamp", &json!([{"op": "replace", "path": "/spec/mutations/0/jsonPatch/expression", "value": fill}]), AnothersName, "MutatingAdmissionPolicy hallpass-stamp differs at spec.mutations[0].jsonPatch.expression"),
    ]
}

/// Alice asks, Bob and Carol must both agree; another policy is automatic.
struct Stage {
    w: World,
    alice: Person,
    bob: Person,
    carol: Person,
    mallory: Person,
    role: Role,
    other: Role,
    oncall: Policy,
    free: Policy,
}

impl Stage {
    async fn new() -> Self {
        let w = World::alone().await;
        let (alice, bob) = (w.person("alice").await, w.person("bob").await);
        let (carol, mallory) = (w.person("carol").await, w.person("mallory").await);
        let (role, other) = (w.keycloak.realm_role("admin").await, w.keycloak.realm_role("other").await);
        let oncall = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
        let oncall = oncall.stage("lead", 2, [&bob, &carol]).ready().await;
        let free = w.policy("free").realm_role("other", &other.name).requester(&alice).automatic().ready().await;
        assert!(mallory.asks(&oncall).refused().await.contains("you may not ask"));
        assert!(mallory.asks(&free).refused().await.contains("you may not ask"));
        Self { w, alice, bob, carol, mallory, role, other, oncall, free }
    }

    async fn waits(&self) -> (Request, String) {
        let waiting = self.alice.asks(&self.oncall).create().await.unwrap();
        let ballot = waiting.ballot().await;
        (waiting, ballot)
    }

    async fn lent(&self, duration: &str) -> Request {
        let lent = self.alice.asks(&self.free).lasting(duration).create().await.unwrap();
        lent.reaches(Phase::Active).await;
        lent
    }

    /// Writes what the change lets through, as soon as it does. Answers with the request, if it made one.
    async fn forges(&self, bite: Bite, waiting: &Request, ballot: &str) -> Option<Request> {
        let key = format!("{APPROVE}{ballot}.lead.forged");
        let mut made = None;
        self.w
            .until("the API server lets it through", async || match bite {
                Bite::BobsVote => self.carol.annotates(waiting, &key, &self.bob.username).await.is_ok(),
                Bite::AnothersName => {
                    let answer = self.bob.annotates(waiting, &key, "yes").await;
                    answer.is_err_and(|words| words.contains("must be your own username"))
                }
                Bite::Asking => {
                    made = self.mallory.asks(&self.free).create().await.ok();
                    made.is_some()
                }
                Bite::SecondLine => {
                    let ask = self.alice.asks(&self.free).because("INC-1\nApproved by security");
                    made = ask.create_as(&self.alice.client().await, &["v1", "v1alpha1"]).await;
                    made.is_some()
                }
                Bite::Status => {
                    let status = json!({"ballot": ballot, "observedGeneration": 1, "approvedBy": self.bob.username});
                    let mut manifest = self.alice.asks(&self.oncall).manifest();
                    manifest["status"] = status;
                    let object = serde_json::from_value(manifest).unwrap();
                    let created = self.alice.requests().await.create(&PostParams::default(), &object).await;
                    made = created
                        .ok()
                        .filter(|made| made.status.as_ref().is_some_and(|s| s.approved_by.is_some()))
                        .map(|made| {
                            Request::new(
                                &self.w,
                                made.metadata.name.as_deref().unwrap(),
                                made.metadata.uid.as_deref().unwrap(),
                            )
                        });
                    made.is_some()
                }
            })
            .await;
        made
    }

    /// The operator says what is wrong, where everybody sees it.
    async fn is_said(&self, words: &str) {
        self.w
            .until(&format!("/readyz says {words}"), async || {
                let (status, said) = self.w.stack.ask_operator("/readyz").await.unwrap();
                status == 503 && said.contains(words)
            })
            .await;
        let metrics = self.w.stack.ask_operator("/metrics").await.unwrap().1;
        assert!(metrics.contains("hallpass_admission_policies_in_force 0\n"));
    }

    /// Nothing counts of what was forged; what is honest goes on.
    async fn nothing_came_of_it(&self, waiting: &Request, ballot: &str, forged: Option<Request>) {
        if let Some(forged) = &forged {
            let over = forged.until("over", |status| status.phase.is_some_and(Phase::is_final)).await;
            let word = condition(&over, "Ready").reason + &condition(&over, "Stalled").reason;
            assert!(word.contains("NotAuthenticated") || word.contains("StatusForged"), "{over:?}");
            assert!(over.votes.is_empty() && over.approved_by.is_none() && over.grant.is_none(), "{over:?}");
        }
        self.alice.annotates(waiting, "example.com/note", "still needed").await.unwrap();
        let status = waiting.until("another ballot", |status| status.ballot.as_deref() != Some(ballot)).await;
        assert_eq!(status.phase, Some(Phase::Pending));
        assert!(status.votes.iter().all(|vote| !vote.counted), "{:?}", status.votes);
        for person in [&self.alice, &self.mallory] {
            assert!(!self.w.keycloak.has(&person.user, &self.role).await);
        }
        assert!(!self.w.keycloak.has(&self.mallory.user, &self.other).await);
        let honest = self.lent("10m").await;
        self.alice.ends(&honest).await.unwrap();
        honest.reaches(Phase::Revoked).await;
        for voter in [&self.bob, &self.carol] {
            voter.approves(waiting, "lead").await.unwrap();
        }
        waiting.reaches(Phase::Active).await;
        self.alice.ends(waiting).await.unwrap();
        waiting.reaches(Phase::Revoked).await;
    }

    async fn stands(&self, (what, arguments, input, bite, words): Line) {
        let (waiting, ballot) = self.waits().await;
        let (epoch, due) = (self.w.epoch().await, self.lent("6s").await);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let tampered = self.w.weaken_by(&arguments, &input);
        let begin = Instant::now();
        let forged = self.forges(bite, &waiting, &ballot).await;
        let through = begin.elapsed();
        if bite == Bite::BobsVote {
            let message = waiting.says(Phase::Pending, "AdmissionPoliciesNotInForce").await;
            assert!(message.contains(words), "{what}: {message}");
        }
        let told = begin.elapsed();
        self.is_said(words).await;
        println!(
            "{what}: let through after {through:.1?}, said after {told:.1?}, /readyz after {:.1?}",
            begin.elapsed()
        );
        self.w.until("what was due is gone", async || !self.w.keycloak.has(&self.alice.user, &self.other).await).await;
        drop(tampered);
        self.w.another_epoch(epoch.as_ref()).await;
        due.reaches(Phase::Expired).await;
        self.nothing_came_of_it(&waiting, &ballot, forged).await;
    }
}

#[tokio::test]
async fn ten_changes_of_the_admission_policies_give_nobody_anything() {
    let stage = Stage::new().await;
    for line in of_policies(&stage) {
        stage.stands(line).await;
    }
    stage.w.clean_up().await;
}

#[tokio::test]
async fn changes_of_the_crds_and_of_what_is_filled_in_give_nobody_anything() {
    let stage = Stage::new().await;
    for line in of_crds_and_stamp(&stage) {
        stage.stands(line).await;
    }
    stage.w.clean_up().await;
}

/// Tampers, forges and puts everything back.
async fn in_the_dark(stage: &Stage, waiting: &Request, ballot: &str) {
    let away: Weakened = stage.w.weaken(&["delete", IDENTITY_BINDING]);
    stage.forges(Bite::BobsVote, waiting, ballot).await;
    drop(away);
    stage
        .w
        .until("the policies bite again", async || {
            // Another one each time: what is there already is not written.
            let key = format!("deny.hallpass.dev/x.y.{}", unique("z"));
            stage.carol.annotates(waiting, &key, "x").await.is_err()
        })
        .await;
}

#[tokio::test]
async fn what_happens_while_the_operator_sleeps_or_is_down_gives_nobody_anything() {
    let stage = Stage::new().await;
    for asleep in [true, false] {
        // given
        let (waiting, ballot) = stage.waits().await;
        let (epoch, due) = (stage.w.epoch().await, stage.lent("10s").await);
        // when
        if asleep {
            let sleeping = stage.w.hang("hallpass");
            in_the_dark(&stage, &waiting, &ballot).await;
            drop(sleeping);
        } else {
            stage.w.operator("stop").await;
            in_the_dark(&stage, &waiting, &ballot).await;
            stage.w.operator("start").await;
        }
        // then
        stage.w.another_epoch(epoch.as_ref()).await;
        due.reaches(Phase::Expired).await;
        stage.nothing_came_of_it(&waiting, &ballot, None).await;
    }
    stage.w.clean_up().await;
}

/// helm with the stack's release and values. It insists on fields that scenarios before this one have put back with kubectl.
fn helm(w: &World, arguments: &[&str]) {
    let state = w.stack.dev.parent().and_then(std::path::Path::parent).unwrap();
    let mut helm = Command::new(&w.stack.helm);
    for (variable, folder) in [("CACHE", "cache"), ("CONFIG", "config"), ("DATA", "data")] {
        helm.env(format!("HELM_{variable}_HOME"), state.join("helm").join(folder));
    }
    helm.args(arguments).args(["--force-conflicts", "--namespace", "hallpass-system"]);
    helm.args(["--kube-context", "admin", "--kubeconfig"]);
    let output = helm.arg(&w.stack.kubeconfig).output().unwrap();
    assert!(output.status.success(), "helm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn another_chart_is_named_and_a_rollback_is_in_force_by_itself() {
    // given
    let stage = Stage::new().await;
    let w = &stage.w;
    let (waiting, ballot) = stage.waits().await;
    let epoch = w.epoch().await;
    let chart = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("chart"));
    let copied =
        Command::new("cp").args(["-r", concat!(env!("CARGO_MANIFEST_DIR"), "/charts/hallpass"), &chart]).status();
    assert!(copied.unwrap().success());
    let identity = format!("{chart}/files/admission/identity.yaml");
    let text = fs::read_to_string(&identity).unwrap();
    assert!(text.contains("variables.said <= 8"));
    fs::write(&identity, text.replace("variables.said <= 8", "variables.said <= 9")).unwrap();
    let values = w.stack.operator.config.with_file_name("config").join("values.yaml");
    // when
    helm(w, &["upgrade", "hallpass", &chart, "--values", values.to_str().unwrap()]);
    // then
    let words = "ValidatingAdmissionPolicy hallpass-identity differs at spec.validations[";
    stage.bob.approves(&waiting, "lead").await.unwrap();
    let message = waiting.says(Phase::Pending, "AdmissionPoliciesNotInForce").await;
    assert!(message.contains(words) && message.contains("install operator and chart of one version"), "{message}");
    stage.is_said(words).await;
    // when
    helm(w, &["rollback", "hallpass"]);
    // then: by itself
    w.another_epoch(epoch.as_ref()).await;
    let status = waiting.until("another ballot", |status| status.ballot.as_deref() != Some(&*ballot)).await;
    assert!(status.votes.iter().all(|vote| !vote.counted), "{:?}", status.votes);
    let message = waiting.says(Phase::Pending, "WaitingForVotes").await;
    assert!(message.contains("earlier votes no longer count"), "{message}");
    for voter in [&stage.bob, &stage.carol] {
        voter.approves(&waiting, "lead").await.unwrap();
    }
    waiting.reaches(Phase::Active).await;
    fs::remove_dir_all(&chart).unwrap();
    w.clean_up().await;
}
