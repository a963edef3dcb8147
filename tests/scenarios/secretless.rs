//! Signing in without a secret: by a service account's token, or with a private key.

use std::{fs, time::Instant};

use hallpass::{
    config::{Auth, Config, Realm},
    keycloak::{Client, Error, Kind, MissingRight},
};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use serde_json::{Value, json};

use crate::{
    keycloak_admin::Robot,
    world::{GLANCE, PATIENCE, World, file},
};

const RIGHTS: [&str; 3] = ["manage-users", "view-realm", "view-clients"];

/// What the operator calls the cluster in Keycloak.
const CLUSTER: &str = "cluster";

/// The stack's first realm, and this as the way in.
fn realm(w: &World, auth: Auth) -> Realm {
    let config = Config::load(&w.stack.operator.config).expect("the stack's configuration");
    Realm { auth, ..config.realms[0].clone() }
}

/// A service account in the world's namespace.
async fn service_account(w: &World, name: &str) -> Api<ServiceAccount> {
    let api: Api<ServiceAccount> = Api::namespaced(w.admin.clone(), &w.namespace);
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    api.create(&PostParams::default(), &account).await.expect("a service account");
    api
}

/// A token of a service account for this audience, as the kubelet would put it into a pod.
async fn token(api: &Api<ServiceAccount>, name: &str, audience: &str) -> String {
    let spec = TokenRequestSpec {
        audiences: Some(vec![audience.into()]),
        expiration_seconds: Some(600),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = api.create_token_request(name, &PostParams::default(), &request).await.expect("a token");
    answer.status.and_then(|status| status.token).expect("a token")
}

/// A client that signs in by what a service account shows.
async fn federated(w: &World, subject: &str) -> Robot {
    w.keycloak.trusts_cluster(CLUSTER, &w.stack.api_server).await;
    let attributes = json!({"jwt.credential.issuer": CLUSTER, "jwt.credential.sub": subject});
    let more = json!({"clientAuthenticatorType": "federated-jwt", "attributes": attributes});
    w.keycloak.robot_that(&more, &RIGHTS).await
}

/// What Keycloak says to this client. A busy machine may take longer for it than the client waits.
async fn self_test(client: &Client) -> Result<Vec<MissingRight>, Error> {
    let begin = Instant::now();
    loop {
        match client.self_test().await {
            Err(error) if error.kind() == Kind::Unavailable && begin.elapsed() < PATIENCE => {
                eprintln!("after {:?}: {error}", begin.elapsed());
                tokio::time::sleep(GLANCE).await;
            }
            outcome => return outcome,
        }
    }
}

#[tokio::test]
async fn a_service_accounts_token_is_enough_and_its_file_is_read_anew() {
    // given
    let w = World::new().await;
    let api = service_account(&w, "hallpass").await;
    service_account(&w, "stranger").await;
    let subject = format!("system:serviceaccount:{}:hallpass", w.namespace);
    let robot = federated(&w, &subject).await;
    let issuer = format!("{}/realms/{}", w.keycloak.stack.url, w.keycloak.stack.realm);
    let path = file("token", &token(&api, "hallpass", &issuer).await);
    let auth =
        Auth { client_id: robot.client_id.clone(), service_account_token_file: Some(path.clone()), ..Auth::default() };
    // when
    let client = Client::new(&realm(&w, auth)).expect("valid");
    // then
    let missing = self_test(&client).await.expect("signed in");
    assert!(missing.is_empty(), "{missing:?}");
    // when the token is for somebody else, or of somebody else, or none
    for (text, words) in [
        (token(&api, "hallpass", "kube").await, "for kube: it must be for the realm's issuer alone"),
        (token(&api, "stranger", &issuer).await, ":stranger, from https://"),
        ("nonsense".into(), "holds no token"),
        (String::new(), "is empty"),
    ] {
        fs::write(&path, &text).unwrap();
        let error = self_test(&client).await.expect_err("refused");
        assert!(error.to_string().contains(words), "{words:?} is missing in: {error}");
        assert!(text.is_empty() || !error.to_string().contains(&text), "the token is in: {error}");
    }
    // when it was renewed
    fs::write(&path, token(&api, "hallpass", &issuer).await).unwrap();
    // then
    assert!(self_test(&client).await.expect("signed in").is_empty());
    w.clean_up().await;
}

#[tokio::test]
async fn a_private_key_is_enough() {
    // given a client that has a key of RSA, and one with the key of a certificate
    let w = World::new().await;
    let signed = |attributes: Value| json!({"clientAuthenticatorType": "client-jwt", "attributes": attributes});
    let rsa = w.keycloak.robot_that(&signed(json!({})), &RIGHTS).await;
    let rsa_key = w.keycloak.key_of(&rsa).await;
    let pki = w.stack.ca_file.parent().unwrap();
    let certificate = fs::read_to_string(pki.join("keycloak.crt")).unwrap();
    let certificate: String = certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    let ecdsa = w.keycloak.robot_that(&signed(json!({"jwt.credential.certificate": certificate})), &RIGHTS).await;
    let ecdsa_key = fs::read_to_string(pki.join("keycloak.key")).unwrap();
    for (robot, key, other) in [(&rsa, &rsa_key, &ecdsa_key), (&ecdsa, &ecdsa_key, &rsa_key)] {
        let path = file("key", key);
        let auth = Auth { client_id: robot.client_id.clone(), client_key_file: Some(path.clone()), ..Auth::default() };
        let client = Client::new(&realm(&w, auth.clone())).expect("valid");
        // when, then
        assert!(self_test(&client).await.expect("signed in").is_empty());
        assert!(self_test(&client).await.expect("again").is_empty(), "each assertion is a new one");
        // when it is another key
        fs::write(&path, other).unwrap();
        let error = self_test(&client).await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Unauthorized, "{error}");
        assert!(error.to_string().contains("does the client have the public key that belongs to this one"), "{error}");
        // when it is none
        fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        let error = self_test(&client).await.expect_err("no key");
        assert!(
            error.kind() == Kind::Config && error.to_string().contains("neither RSA nor, in PKCS#8, ECDSA"),
            "{error}"
        );
        // when the assertion is meant for another realm
        fs::write(&path, key).unwrap();
        let elsewhere = Auth { issuer: Some("https://elsewhere.example.com/realms/acme".into()), ..auth };
        let client = Client::new(&realm(&w, elsewhere)).expect("valid");
        let error = self_test(&client).await.expect_err("refused");
        assert!(
            error.to_string().contains("is https://elsewhere.example.com/realms/acme the realm's issuer"),
            "{error}"
        );
    }
    w.clean_up().await;
}
