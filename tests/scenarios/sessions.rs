//! What sessions and tokens are worth after the access: kept, ended with the clients concerned, all ended. Whatever is left
//! gives no token with the role any more.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hallpass::api::{AccessRequestStatus, AtEnd, Phase};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::{
    keycloak_admin::{App, Role, claims, unique},
    people::Person,
    policy::PolicyBuilder,
    realms::{PATIENT_CLIENT, PATIENT_LIFESPAN},
    request::Request,
    sso::Browser,
    world::World,
};

const OFFLINE: &str = "openid offline_access";

/// Alice, signed in at two clients in one session, at a third in another, and with offline tokens of the first and the third,
/// while a role of the first is lent to her.
struct SignedIn {
    alice: Person,
    apps: [App; 3],
    role: Role,
    request: Request,
    /// Of the sessions, by client.
    online: [Value; 3],
    /// Of the first and of the third client.
    offline: [Value; 2],
}

impl SignedIn {
    async fn new(w: &World, policy: impl FnOnce(PolicyBuilder) -> PolicyBuilder) -> Self {
        let alice = w.person("alice").await;
        let apps = [w.keycloak.app().await, w.keycloak.app().await, w.keycloak.app().await];
        let role = w.keycloak.client_role(&apps[0].client_id, &unique("debug")).await;
        let lends = w.policy("oncall").client_role("debug", &apps[0].client_id, &role.name).requester(&alice);
        let policy = policy(lends).automatic().ready().await;
        let request = alice.asks(&policy).create().await.unwrap();
        request.reaches(Phase::Active).await;
        let (k, user) = (&w.keycloak, &alice.user);
        let (browser, another) = (Browser::new(k), Browser::new(k));
        let online = [
            browser.signs_in(k, user, &apps[0], "openid").await,
            browser.signs_in(k, user, &apps[1], "openid").await,
            another.signs_in(k, user, &apps[2], "openid").await,
        ];
        let offline = [k.signs_in_at(user, &apps[0], OFFLINE).await, k.signs_in_at(user, &apps[2], OFFLINE).await];
        let signed_in = Self { alice, apps, role, request, online, offline };
        for tokens in signed_in.online.iter().chain(&signed_in.offline) {
            assert!(signed_in.has_role(&access(tokens)), "a token of before has the role");
        }
        signed_in
    }

    fn has_role(&self, claims: &Value) -> bool {
        let roles = claims["resource_access"][&self.apps[0].client_id]["roles"].as_array();
        roles.is_some_and(|roles| roles.contains(&json!(self.role.name)))
    }

    /// Which sessions still give tokens: those of the three clients, and the two offline ones. None gives one with the role.
    async fn alive(&self, w: &World) -> ([bool; 3], [bool; 2]) {
        let alive = async |app: &App, tokens: &Value| match w.keycloak.refresh(app, tokens).await {
            Ok(claims) => {
                assert!(!self.has_role(&claims), "a new token has the role: {claims}");
                true
            }
            Err(why) => {
                assert!(why.contains("invalid_grant"), "{why}");
                false
            }
        };
        let [a, b, c] = &self.apps;
        let [first, second, third] = &self.online;
        let online = [alive(a, first).await, alive(b, second).await, alive(c, third).await];
        (online, [alive(a, &self.offline[0]).await, alive(c, &self.offline[1]).await])
    }

    async fn ends(&self) -> AccessRequestStatus {
        self.alice.ends(&self.request).await.unwrap();
        self.request.reaches(Phase::Revoked).await
    }
}

fn access(tokens: &Value) -> Value {
    claims(tokens["access_token"].as_str().expect("an access token"))
}

fn at_end(at_end: AtEnd) -> impl FnOnce(PolicyBuilder) -> PolicyBuilder {
    move |policy| policy.with("sessions", json!({ "atEnd": at_end }))
}

#[tokio::test]
async fn sessions_that_are_kept_give_tokens_without_the_role() {
    let w = World::new().await;
    let signed_in = SignedIn::new(&w, |policy| policy).await;
    let grant = signed_in.ends().await.grant.unwrap();
    assert_eq!(grant.sessions, None);
    assert_eq!(signed_in.alive(&w).await, ([true; 3], [true; 2]));
    w.clean_up().await;
}

#[tokio::test]
async fn sessions_end_in_which_the_client_takes_part_whose_role_was_lent() {
    let w = World::new().await;
    let signed_in = SignedIn::new(&w, at_end(AtEnd::EndClientSessions)).await;
    let grant = signed_in.ends().await.grant.unwrap();
    assert_eq!(grant.sessions, Some(AtEnd::EndClientSessions));
    // The second client shared a session with the first. The third had one of its own.
    assert_eq!(signed_in.alive(&w).await, ([false, false, true], [false, true]));
    w.clean_up().await;
}

#[tokio::test]
async fn all_sessions_end_also_if_the_policy_is_gone_that_said_so() {
    // given
    let w = World::new().await;
    let signed_in = SignedIn::new(&w, at_end(AtEnd::EndAll)).await;
    let other = signed_in.alice.asks_under(&signed_in.request.get().await.spec.policy_name).create().await.unwrap();
    other.reaches(Phase::Active).await;
    // when one of two ends that hold the role
    let grant = signed_in.ends().await.grant.unwrap();
    // then nothing is over
    assert_eq!(grant.powerless_at, None, "{grant:?}");
    assert!(w.keycloak.refresh(&signed_in.apps[0], &signed_in.online[0]).await.is_ok());
    // when
    w.all_policies().delete(&other.get().await.spec.policy_name, &DeleteParams::default()).await.unwrap();
    other.says(Phase::Revoked, "PolicyDeleted").await;
    // then
    assert_eq!(signed_in.alive(&w).await, ([false; 3], [false; 2]));
    let sessions = w.keycloak.get(&format!("users/{}/sessions", signed_in.alice.user.id)).await;
    assert_eq!(sessions, json!([]));
    assert_eq!(w.keycloak.get(&format!("users/{}/consents", signed_in.alice.user.id)).await, json!([]), "offline");
    w.clean_up().await;
}

#[tokio::test]
async fn an_offline_session_that_is_used_all_the_time_does_not_survive() {
    // given an offline token that is exchanged for a new one all the time, also in the very second of the end: a logout makes
    // stale what was issued before its second, and leaves that one alive, and with it the session
    let w = World::new().await;
    let signed_in = SignedIn::new(&w, at_end(AtEnd::EndAll)).await;
    let (app, mut tokens) = (signed_in.apps[0].clone(), signed_in.offline[0].clone());
    let exchanges = Arc::new(AtomicUsize::new(0));
    let exchanging = {
        let (w, exchanges) = (w.clone(), exchanges.clone());
        tokio::spawn(async move {
            loop {
                let token = tokens["refresh_token"].as_str().expect("a refresh token");
                let form = [("grant_type", "refresh_token"), ("client_id", &app.client_id), ("refresh_token", token)];
                let (status, answer) = w.keycloak.protocol("token", &form).await;
                if status != 200 {
                    return answer;
                }
                tokens = answer;
                exchanges.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    w.until("it was exchanged several times", async || exchanges.load(Ordering::Relaxed) > 5).await;
    // when
    signed_in.ends().await;
    // then
    let after = exchanges.load(Ordering::Relaxed);
    w.until("it is dead, or was exchanged some times more", async || {
        exchanging.is_finished() || exchanges.load(Ordering::Relaxed) > after + 5
    })
    .await;
    assert!(exchanging.is_finished(), "exchanged {after} times until the end, and still alive");
    let why = exchanging.await.expect("an answer");
    assert_eq!(why["error"], "invalid_grant", "{why}");
    assert_eq!(signed_in.alive(&w).await, ([false; 3], [false; 2]));
    w.clean_up().await;
}

#[tokio::test]
async fn powerless_at_is_not_before_the_last_token_that_carries_the_role() {
    // given a client whose tokens live for longer than others
    let w = World::new().await;
    let signed_in = SignedIn::new(&w, |policy| policy).await;
    let patient = App { id: w.keycloak.find_client(PATIENT_CLIENT).await, client_id: PATIENT_CLIENT.into() };
    // Who asks has to be in the token's audience.
    let robot = w.keycloak.robot(&[]).await;
    w.keycloak.map(&signed_in.alice.user, &w.keycloak.client_role(&robot.client_id, "any").await).await;
    let active = async |tokens: &Value| {
        let token = tokens["access_token"].as_str().expect("a token");
        let form = [("client_id", robot.client_id.as_str()), ("client_secret", &robot.secret), ("token", token)];
        let (status, answer) = w.keycloak.protocol("token/introspect", &form).await;
        assert_eq!(status, 200, "{answer}");
        signed_in.has_role(&answer)
    };
    // when
    let last = w.keycloak.signs_in_at(&signed_in.alice.user, &patient, "openid").await;
    assert!(signed_in.has_role(&access(&last)) && active(&last).await, "{}", access(&last));
    let grant = signed_in.ends().await.grant.unwrap();
    // then who asks Keycloak sees the end at once
    assert!(!active(&last).await, "introspection still shows the role");
    // and who looks at the token only sees it when the token expires
    let (ended_at, powerless_at) = (grant.ended_at.unwrap().0.as_second(), grant.powerless_at.unwrap().0.as_second());
    let expires = access(&last)["exp"].as_i64().expect("a time");
    println!(
        "ended {ended_at}; token expires {} s later; powerless {} s later",
        expires - ended_at,
        powerless_at - ended_at
    );
    assert!(expires > ended_at + 300, "the client's own lifespan");
    assert_eq!(powerless_at, ended_at + PATIENT_LIFESPAN + 60);
    // Nobody waits for long at the beginning.
    assert!(grant.token_lifespan.is_none_or(|lifespan| lifespan == PATIENT_LIFESPAN), "{:?}", grant.token_lifespan);
    assert!(expires <= powerless_at);
    w.clean_up().await;
}
