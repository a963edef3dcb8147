//! Keycloak is gone for good, and with it every way to prove that access is gone.

use std::fs;

use hallpass::api::{AccessRequestStatus, Phase, TargetState};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};

use crate::{
    request::condition,
    world::{Stack, World},
};

/// The operator's configuration is as it was when this is dropped.
struct Configuration {
    stack: Stack,
    before: String,
}

impl Configuration {
    fn of(w: &World) -> Self {
        w.is_alone();
        let before = fs::read_to_string(&w.stack.operator.config).expect("the operator's configuration");
        Self { stack: w.stack.clone(), before }
    }

    fn is(&self, text: &str) {
        fs::write(&self.stack.operator.config, text).expect("the operator's configuration");
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        self.is(&self.before);
    }
}

#[tokio::test]
async fn what_can_never_be_proved_gone_is_held_until_the_configuration_gives_it_up() {
    // given
    let w = World::alone().await;
    let alice = w.person("alice").await;
    let (role, own) = (w.keycloak.realm_role("admin").await, w.keycloak.realm_role("own").await);
    w.keycloak.map(&alice.user, &own).await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).realm_role("own", &own.name).requester(&alice);
    let policy = policy.automatic().ready().await;
    let request = alice.asks(&policy).lasting("5s").create().await.unwrap();
    let realm = request.reaches(Phase::Active).await.subject.unwrap().realm_id;
    // when its server is gone
    let configuration = Configuration::of(&w);
    let url = configuration.before.lines().find(|line| line.trim().starts_with("url: ")).unwrap();
    let elsewhere = configuration.before.replacen(url, "  url: https://127.0.0.1:1", 1);
    configuration.is(&elsewhere);
    w.operator("restart").await;
    // then what is elsewhere now is not asked: it may be a copy
    let says = async |words: &str| {
        let said = |status: &AccessRequestStatus| condition(status, "Ready").message.contains(words);
        request.until(words, |status| status.phase == Some(Phase::Revoking) && said(status)).await;
    };
    let given_on = url.trim().trim_start_matches("url: ");
    let words = "realm prod of the operator's configuration leads to https://127.0.0.1:1 now: nothing is touched there";
    says(&format!("the access was given on {given_on}, and {words}")).await;
    // when somebody says that it is the same server
    let gone = elsewhere.replacen(
        "  url: https://127.0.0.1:1",
        &format!("  url: https://127.0.0.1:1\n  formerUrls: [\"{given_on}\"]"),
        1,
    );
    configuration.is(&gone);
    w.operator("restart").await;
    // then it is held
    says("connection refused").await;
    // when somebody gives it up
    configuration.is(&format!("{gone}\nrelease:\n  realms: [{realm}]\n"));
    w.operator("restart").await;
    // then it is let go, and it is said what that means
    let words = request.says(Phase::Expired, "Released").await;
    for part in ["release.realms", &realm, &alice.user.username, &role.name] {
        assert!(words.contains(part), "{part:?} is missing in {words:?}");
    }
    w.until("it is let go", async || request.get().await.metadata.finalizers.is_none_or(|all| all.is_empty())).await;
    let grant = request.get().await.status.unwrap().grant.unwrap();
    assert_eq!(grant.ended_at, None, "nobody has seen it go");
    let states: Vec<_> = grant.targets.iter().map(|target| target.state).collect();
    assert_eq!(states, [TargetState::Released, TargetState::Kept]);
    let events: Api<Event> = Api::namespaced(w.admin.clone(), &w.namespace);
    w.until("an Event says so", async || {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        all.iter().any(|event| event.reason.as_deref() == Some("Released") && event.type_.as_deref() == Some("Warning"))
    })
    .await;
    assert!(w.keycloak.has(&alice.user, &role).await, "it was gone for the operator only");
    drop(configuration);
    w.operator("restart").await;
    w.clean_up().await;
}
