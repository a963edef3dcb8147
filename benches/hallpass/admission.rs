//! What the admission policies cost those who ask and vote.

use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PatchParams, PostParams},
};

use crate::{
    crowd::Crowd,
    request::Ask,
    results::{Row, Unit, Values},
    scene::Scene,
    stage::Stage,
};

const NAME: &str = "admission";

pub async fn run(stage: &mut Stage) {
    let times = stage.size(200, 3);
    let w = stage.w.clone();
    let scene = Scene::prepare(&w, "admission").await;
    let approver = w.person("approver").await;
    let build = || w.policy("admission").realm_role("role", &scene.role.name).everybody().stage("lead", 1, [&approver]);
    let crowd = Crowd::of(&w.keycloak, 1).await;
    let username = crowd.username(0);
    let asking = w.somebody_called(&username).await;
    let request = Ask::of(&w, &username, &scene.policy.name).create_with(&asking).await.expect("asked");
    let ballot = request.ballot().await;
    stage.stops().await;
    let (mut there, mut rows) =
        (w.all_policies().list_metadata(&ListParams::default()).await.expect("policies").items.len(), Vec::new());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(w.admin.clone());
    for count in stage.sizes(&[1, 100, 1000], &[1, 3]) {
        while there < count {
            build().create().await.expect("a policy");
            there += 1;
        }
        let measure = async || {
            let (mut created, mut voted) = (Vec::new(), Vec::new());
            for _ in 0..times {
                let begin = Instant::now();
                Ask::of(&w, &username, &scene.policy.name).try_out(&asking).await.expect("admitted");
                created.push(begin.elapsed());
                let vote = scene.vote_on(&ballot);
                let begin = Instant::now();
                let dry = PatchParams { dry_run: true, ..PatchParams::default() };
                scene.requests(&request.namespace).patch(&request.name, &dry, &vote).await.expect("a vote");
                voted.push(begin.elapsed());
            }
            [Values::of_times(&created), Values::of_times(&voted)]
        };
        let with = measure().await;
        let taken_away = take_away(&bindings).await;
        let without = measure().await;
        give_back(&bindings, taken_away).await;
        for ((what, with), without) in ["create", "vote"].into_iter().zip(with).zip(without) {
            let words = format!("{what}, {count} policies");
            rows.push(Row::new(NAME, words, Unit::Milliseconds, with).beside("without admission policies", without));
        }
    }
    for row in rows {
        stage.add(row);
    }
    let policies: Vec<String> = w.policies.lock().expect("lock").drain(..).collect();
    for policy in policies {
        let _ = w.all_policies().delete(&policy, &DeleteParams::default()).await;
    }
    stage.starts().await;
    stage.clear().await;
    crowd.leave(&w.keycloak).await;
}

/// Takes Hallpass's bindings away, and waits until the API server has noticed.
async fn take_away(bindings: &Api<ValidatingAdmissionPolicyBinding>) -> Vec<ValidatingAdmissionPolicyBinding> {
    let all = bindings.list(&ListParams::default()).await.expect("bindings").items;
    let ours: Vec<_> = all.into_iter().filter(|binding| binding.name_any().contains("hallpass")).collect();
    assert!(!ours.is_empty(), "there are some");
    for binding in &ours {
        bindings.delete(&binding.name_any(), &DeleteParams::default()).await.expect("deleted");
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    ours
}

async fn give_back(bindings: &Api<ValidatingAdmissionPolicyBinding>, all: Vec<ValidatingAdmissionPolicyBinding>) {
    for mut binding in all {
        binding.metadata.resource_version = None;
        binding.metadata.uid = None;
        bindings.create(&PostParams::default(), &binding).await.expect("made again");
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
}
