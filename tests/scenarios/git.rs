//! Requests for other people, as a controller that applies from Git makes them: server-side apply that takes over fields,
//! replace, prune and apply again. What may start without a fresh vote starts once.

use hallpass::api::{AccessRequest, Phase};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    accounts::Robot,
    keycloak_admin::Role,
    people::Person,
    policy::Policy,
    request::{Ask, Request},
    world::World,
};

/// Flux applies for people, Alice asks for nothing herself, Bob leads.
struct Scene {
    w: World,
    flux: Robot,
    alice: Person,
    bob: Person,
    role: Role,
    policy: Policy,
}

/// A time as people write it: in whole seconds.
fn seconds_from_now(seconds: i64) -> Value {
    json!((Timestamp::from_second(Timestamp::now().as_second() + seconds).expect("a time")).to_string())
}

impl Scene {
    /// Flux may submit, and pre-approve these stages of `lead` and `security`; Bob is an approver of both.
    async fn new(w: World, pre_approves: &[&str]) -> Self {
        let (alice, bob) = (w.person("alice").await, w.person("bob").await);
        let role = w.keycloak.realm_role("admin").await;
        let flux = w.robot("flux").await;
        let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice);
        let policy = policy.stage("lead", 1, [&bob]).submitter(&flux, pre_approves).ready().await;
        Self { w, flux, alice, bob, role, policy }
    }

    /// What lies in Git: for Alice, by Flux, from now on for ten minutes.
    fn manifest(&self) -> Ask {
        let now = seconds_from_now(0);
        let ask = self.alice.asks(&self.policy).with("submittedBy", json!(self.flux.username)).because("from Git");
        ask.with("notBefore", now).with("notAfter", seconds_from_now(600))
    }

    fn api(&self) -> Api<AccessRequest> {
        Api::namespaced(self.flux.client.clone(), &self.w.namespace)
    }

    /// Applies a manifest as a GitOps controller does.
    async fn applies(&self, manager: &str, manifest: &Ask) -> Result<AccessRequest, String> {
        let object = manifest.manifest();
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let params = PatchParams::apply(manager).force();
        self.api().patch(&name, &params, &Patch::Apply(object)).await.map_err(|error| error.to_string())
    }

    /// Applies it for the first time.
    async fn submits(&self, manifest: &Ask) -> Request {
        let applied = self.applies("kustomize-controller", manifest).await.expect("taken");
        manifest.clone().applied(&applied)
    }

    /// Takes the object away because it is not in Git any more.
    async fn prunes(&self, request: &Request) {
        self.api().delete(&request.name, &DeleteParams::default()).await.expect("Flux may delete what it submitted");
        request.is_gone().await;
    }

    async fn has_the_role(&self) -> bool {
        self.w.keycloak.has(&self.alice.user, &self.role).await
    }
}

#[tokio::test]
async fn a_vote_stands_although_the_next_apply_takes_its_annotation_away() {
    for manager in ["kustomize-controller", "argocd-controller"] {
        // given
        let scene = Scene::new(World::new().await, &[]).await;
        let Scene { bob, .. } = &scene;
        let manifest = scene.manifest();
        let request = scene.submits(&manifest).await;
        let ballot = request.ballot().await;
        assert!(!scene.has_the_role().await);
        // when
        let vote = format!("approve.hallpass.dev/{ballot}.lead.1");
        let voted = bob.kubectl(&["annotate", "areq", &request.name, &format!("{vote}=yes")]).await;
        assert!(voted.status.success(), "{voted:?}");
        let active = request.reaches(Phase::Active).await;
        // Flux takes over what managers named kubectl… have written, and applies what Git says.
        let mut object = request.get().await;
        for entry in object.managed_fields_mut().iter_mut() {
            if entry.manager.as_deref().is_some_and(|name| name.starts_with("kubectl")) {
                entry.manager = Some(manager.into());
                entry.operation = Some("Apply".into());
            }
        }
        scene.api().replace(&request.name, &PostParams::default(), &object).await.expect("taken over");
        scene.applies(manager, &manifest).await.expect("applied again");
        // then
        let after = request.get().await;
        assert!(!after.annotations().contains_key(&vote), "{:?}", after.annotations());
        assert_eq!(after.status.as_ref().map(|status| &status.votes), Some(&active.votes));
        assert!(scene.has_the_role().await);
        assert_eq!(request.status().await.phase, Some(Phase::Active));
        scene.w.clean_up().await;
    }
}

#[tokio::test]
async fn a_replace_from_git_takes_neither_vote_nor_finalizer() {
    // given
    let scene = Scene::new(World::new().await, &[]).await;
    let manifest = scene.manifest();
    let request = scene.submits(&manifest).await;
    scene.bob.approves(&request, "lead").await.unwrap();
    request.reaches(Phase::Active).await;
    // when
    let mut bare: AccessRequest = serde_json::from_value(manifest.manifest()).unwrap();
    bare.metadata.resource_version = Some(request.resource_version().await);
    scene.api().replace(&request.name, &PostParams::default(), &bare).await.unwrap();
    // then
    assert_eq!(request.get().await.finalizers(), [hallpass::api::FINALIZER]);
    assert!(scene.has_the_role().await);
    assert_eq!(request.reaches(Phase::Active).await.votes.len(), 1);
    scene.w.clean_up().await;
}

#[tokio::test]
async fn what_was_reviewed_in_git_is_active_without_a_vote_where_the_policy_says_so() {
    // given
    let scene = Scene::new(World::new().await, &["lead"]).await;
    let Scene { w, flux, alice, policy, .. } = &scene;
    // when
    let request = scene.submits(&scene.manifest().with("preApproved", json!(true))).await;
    // then
    let status = request.reaches(Phase::Active).await;
    assert!(scene.has_the_role().await);
    assert_eq!(status.approved_by.as_deref(), Some(flux.username.as_str()));
    let why = status.votes[0].why.as_deref();
    assert_eq!((status.votes.len(), why), (1, Some("spec.preApproved: its submitter pre-approves this stage")));
    // where it does not
    let other = w.robot("other").await;
    for (what, ask, who, words) in [
        (
            "somebody who is no submitter",
            scene.manifest().with("submittedBy", json!(other.username)).with("preApproved", json!(true)),
            &other.client,
            "may not submit requests for others",
        ),
        (
            "without a window",
            scene.manifest().with("notBefore", Value::Null).with("preApproved", json!(true)),
            &flux.client,
            "preApproved needs submittedBy and an absolute window",
        ),
        (
            "Alice for herself",
            scene.manifest().with("submittedBy", json!(alice.username)).with("preApproved", json!(true)),
            &alice.client().await,
            "pre-approve",
        ),
    ] {
        let answer = ask.create_with(who).await.err().unwrap_or_else(|| panic!("{what}: done"));
        assert!(answer.contains(words), "{what}: {answer}");
    }
    // The policy takes it back: requests that wait are asked again.
    policy.change(json!({"submitters": [{"kind": "ServiceAccount", "namespace": w.namespace, "name": "flux"}]})).await;
    policy.is_ready().await;
    let answer = async || {
        let ask = scene.manifest().with("preApproved", json!(true));
        ask.create_with(&flux.client).await.err().is_some_and(|words| words.contains("may not pre-approve"))
    };
    w.until("the API server knows the policy", answer).await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_manifest_that_still_lies_in_git_gives_nothing_twice() {
    // given: reviewed, lent and over
    let scene = Scene::new(World::new().await, &["lead"]).await;
    let manifest = scene.manifest().with("preApproved", json!(true)).lasting("5s");
    let request = scene.submits(&manifest).await;
    request.runs_out().await;
    // when
    scene.prunes(&request).await;
    let again = scene.submits(&manifest).await;
    let elsewhere = scene.submits(&manifest.clone().named("a-copy").with("source", json!({"revision": "2"}))).await;
    // then
    for request in [&again, &elsewhere] {
        let message = request.says(Phase::Rejected, "StartsOnce").await;
        assert!(message.contains("was approved in this window before, and starts once"), "{message}");
    }
    assert!(!scene.has_the_role().await);
    // A window that has closed.
    let late = scene
        .manifest()
        .with("preApproved", json!(true))
        .with("notBefore", seconds_from_now(-60))
        .with("notAfter", seconds_from_now(-1));
    scene.submits(&late).await.says(Phase::TimedOut, "TimedOut").await;
    assert!(!scene.has_the_role().await);
    scene.w.clean_up().await;
}

#[tokio::test]
async fn what_was_ended_early_is_not_started_again_by_git() {
    // given
    let scene = Scene::new(World::new().await, &["lead"]).await;
    let manifest = scene.manifest().with("preApproved", json!(true));
    let request = scene.submits(&manifest).await;
    request.reaches(Phase::Active).await;
    // when
    scene.alice.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    scene.applies("kustomize-controller", &manifest).await.expect("nothing to change");
    assert_eq!(request.status().await.phase, Some(Phase::Revoked));
    scene.prunes(&request).await;
    let again = scene.submits(&manifest).await;
    // then
    again.says(Phase::Rejected, "StartsOnce").await;
    assert!(!scene.has_the_role().await);
    // Withdrawn before it began, too.
    let planned = manifest.named("planned").with("notBefore", seconds_from_now(300));
    let request = scene.submits(&planned).await;
    request.says(Phase::Approved, "WaitingForStart").await;
    scene.bob.ends(&request).await.unwrap();
    request.reaches(Phase::Revoked).await;
    scene.prunes(&request).await;
    scene.submits(&planned).await.says(Phase::Rejected, "StartsOnce").await;
    scene.w.clean_up().await;
}

#[tokio::test]
async fn an_automatic_policy_lends_to_others_in_a_window_only_and_once() {
    // given
    let scene = Scene::new(World::new().await, &[]).await;
    let Scene { w, flux, alice, role, .. } = &scene;
    let policy = w.policy("free").realm_role("admin", &role.name).requester(alice).automatic();
    let policy = policy.submitter(flux, &[]).ready().await;
    let manifest = scene.manifest().with("policyName", json!(policy.name)).lasting("5s");
    // when
    let open = manifest.clone().named("open").with("notAfter", Value::Null);
    let answer = match scene.applies("kustomize-controller", &open).await {
        Ok(applied) => open.clone().applied(&applied).says(Phase::Rejected, "Rejected").await,
        Err(words) => words,
    };
    // then
    assert!(answer.contains("spec.notBefore and spec.notAfter are needed"), "{answer}");
    let request = scene.submits(&manifest).await;
    request.runs_out().await;
    scene.submits(&manifest.named("again")).await.says(Phase::Rejected, "StartsOnce").await;
    // Alice, for herself, may ask as often as she likes.
    alice.asks(&policy).lasting("10m").create().await.unwrap().reaches(Phase::Active).await;
    w.clean_up().await;
}

#[tokio::test]
async fn a_lost_record_starts_nothing_whose_window_has_begun() {
    // given
    let scene = Scene::new(World::alone().await, &["lead"]).await;
    let manifest = scene.manifest().with("preApproved", json!(true)).lasting("5s");
    let request = scene.submits(&manifest).await;
    request.runs_out().await;
    scene.prunes(&request).await;
    // when
    scene.w.does(&["delete", "configmap", "hallpass-started", "--namespace=hallpass-system"]).await;
    let again = scene.submits(&manifest).await;
    // then
    let message = again.says(Phase::Rejected, "StartsOnce").await;
    assert!(message.contains("submit one with a later spec.notBefore"), "{message}");
    let next = scene.submits(&manifest.named("next").with("notBefore", seconds_from_now(2))).await;
    next.reaches(Phase::Active).await;
    scene.w.clean_up().await;
}

#[tokio::test]
async fn who_submitted_it_may_end_it_and_not_vote_on_it() {
    // given
    let scene = Scene::new(World::new().await, &[]).await;
    let Scene { w, flux, bob, .. } = &scene;
    let (ended, pruned) = (scene.submits(&scene.manifest()).await, scene.submits(&scene.manifest()).await);
    let api = scene.api();
    let annotate = async |request: &Request, key: &str| {
        let patch = json!({"metadata": {"annotations": { key: flux.username }}});
        api.patch(&request.name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(|error| error.to_string())
    };
    let ballot = ended.ballot().await;
    let vote = annotate(&ended, &format!("approve.hallpass.dev/{ballot}.lead.flux")).await;
    let words = vote.unwrap_err();
    assert!(words.contains("cannot vote") || words.contains("may not vote"), "{words}");
    for request in [&ended, &pruned] {
        bob.approves(request, "lead").await.unwrap();
        request.reaches(Phase::Active).await;
    }
    // when
    annotate(&ended, "end.hallpass.dev/flux").await.unwrap();
    scene.prunes(&pruned).await;
    // then
    ended.says(Phase::Revoked, "Ended").await;
    assert!(!scene.has_the_role().await);
    w.clean_up().await;
}
