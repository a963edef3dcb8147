//! A scripted Keycloak: answers that a real one does not give on demand.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hallpass::{
    config::{Auth, Identity, Realm},
    keycloak::{Client, Limits, Observer, Options},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{method, path},
};

pub(crate) const SECRET: &str = "s3cret-of-the-client";
pub(crate) const TOKEN: &str = "token-of-the-operator";
pub(crate) const REALM_ID: &str = "realm-id";
pub(crate) const TOKEN_PATH: &str = "/realms/acme/protocol/openid-connect/token";
const ADMIN: &str = "/admin/realms/acme";

pub(crate) struct Peer {
    pub(crate) server: MockServer,
    pub(crate) secret_file: PathBuf,
}

pub(crate) fn token_answer() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({"access_token": TOKEN, "expires_in": 300}))
}

/// Keycloak's way to say that something is not there.
pub(crate) fn missing(words: &str) -> ResponseTemplate {
    ResponseTemplate::new(404).set_body_json(json!({"error": words}))
}

pub(crate) fn answer(status: u16) -> ResponseTemplate {
    ResponseTemplate::new(status)
}

pub(crate) fn answer_json(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

impl Peer {
    /// Signing in works.
    pub(crate) async fn start() -> Self {
        let peer = Self::without_sign_in().await;
        Mock::given(method("POST")).and(path(TOKEN_PATH)).respond_with(token_answer()).mount(&peer.server).await;
        peer
    }

    pub(crate) async fn without_sign_in() -> Self {
        Self { server: MockServer::start().await, secret_file: secret_file(SECRET) }
    }

    /// Answers a path below the realm from now on.
    pub(crate) async fn always(&self, verb: &str, below: &str, response: ResponseTemplate) {
        Mock::given(method(verb)).and(path(format!("{ADMIN}{below}"))).respond_with(response).mount(&self.server).await;
    }

    /// Answers a path below the realm once; later `once`s and `always` follow.
    pub(crate) async fn once(&self, verb: &str, below: &str, response: ResponseTemplate) {
        let place = path(format!("{ADMIN}{below}"));
        Mock::given(method(verb)).and(place).respond_with(response).up_to_n_times(1).mount(&self.server).await;
    }

    /// The realm answers with this id.
    pub(crate) async fn realm_is(&self, id: &str) {
        self.always("GET", "", answer_json(json!({"id": id, "realm": "acme", "accessTokenLifespan": 60}))).await;
    }

    pub(crate) fn realm(&self) -> Realm {
        realm(&self.server.uri(), self.secret_file.clone())
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.realm()).expect("valid configuration")
    }

    /// A client that waits for as long as a test can.
    pub(crate) fn hasty_client(&self) -> Client {
        hasty(&self.realm())
    }

    pub(crate) async fn requests(&self) -> Vec<Request> {
        self.server.received_requests().await.expect("recording")
    }

    /// What was sent with this verb below the realm: path and body.
    pub(crate) async fn sent(&self, verb: &str) -> Vec<(String, String)> {
        let all = self.requests().await;
        let wanted = all.iter().filter(|request| request.method.as_str() == verb && request.url.path() != TOKEN_PATH);
        wanted
            .map(|request| {
                let place = request.url.path().trim_start_matches(ADMIN).to_owned();
                (place, String::from_utf8_lossy(&request.body).into_owned())
            })
            .collect()
    }

    pub(crate) async fn sign_ins(&self) -> usize {
        self.requests().await.iter().filter(|request| request.url.path() == TOKEN_PATH).count()
    }
}

/// The realm `acme` at this address.
pub(crate) fn realm(url: &str, secret_file: PathBuf) -> Realm {
    Realm {
        former_urls: Vec::new(),
        name: "prod".into(),
        url: url.into(),
        realm: "acme".into(),
        auth: Auth { client_id: "hallpass".into(), client_secret_file: Some(secret_file), ..Auth::default() },
        ca_file: None,
        identity: Identity::default(),
        service_accounts: Vec::new(),
        settle_time: None,
        check_interval: None,
        allow_admin_roles: false,
    }
}

pub(crate) fn hasty(realm: &Realm) -> Client {
    limited(realm, Duration::from_secs(1))
}

/// A client that waits for so long and no longer.
pub(crate) fn limited(realm: &Realm, limit: Duration) -> Client {
    let limits = Limits { write: limit, read: limit, sessions: limit };
    Client::with(realm, Options { limits, ..Options::default() }).expect("valid configuration")
}

/// A file with this secret, and the line end that editors leave.
pub(crate) fn secret_file(secret: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("secret-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, format!("{secret}\n")).expect("write a secret");
    file
}

/// Signs everybody in and answers everything else with these very bytes, then closes the connection.
pub(crate) async fn raw_peer(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 8192];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let token = json!({"access_token": TOKEN, "expires_in": 300}).to_string();
            let token =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{token}", token.len());
            let signing_in = request[..read].starts_with(b"POST /realms/");
            let _ = stream.write_all(if signing_in { token.as_bytes() } else { bytes }).await;
        }
    });
    url
}

/// Remembers each call.
#[derive(Default)]
pub(crate) struct Calls(pub Mutex<Vec<(&'static str, &'static str)>>);

impl Observer for Calls {
    fn call(&self, endpoint: &'static str, result: &'static str, seconds: f64) {
        assert!(seconds >= 0.0);
        self.0.lock().expect("lock").push((endpoint, result));
    }
}

/// A client that tells of its calls.
pub(crate) fn watched(peer: &Peer) -> (Client, Arc<Calls>) {
    let calls = Arc::new(Calls::default());
    let observer: Arc<dyn Observer> = calls.clone();
    (Client::with(&peer.realm(), Options { observer, ..Options::default() }).expect("valid configuration"), calls)
}
