//! A small typed client of Keycloak's Admin API: one method for each thing the operator needs. It knows nothing of
//! Kubernetes, of requests or of policies, decides nothing, and repeats nothing but what its methods say: when to try
//! again is the caller's business.
//!
//! Written against Keycloak 26.7.3; what is surprising about it is said where the code deals with it.

mod actions;
mod circuit;
mod closure;
mod credential;
mod error;
mod events;
mod holders;
mod http;
mod lifespans;
mod mapping;
mod path;
mod places;
mod rights;
mod sessions;
mod setup;
mod targets;
mod token;
mod types;
mod users;

use std::{
    fmt,
    path::Path as FilePath,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use reqwest::{Certificate, redirect};
use serde::Deserialize;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until},
};

pub use error::{Error, Kind};
pub use rights::Reach;
pub use sessions::Sessions;
pub use setup::{Administrator, Authenticator, Subjects};
pub use types::{
    Account, Change, ClientRole, Container, Credential, Deed, Group, Lendable, MissingRight, RealmInfo, Removal, Role,
    Target, User,
};

use crate::{clock::OtherClock, config};
use circuit::Circuit;
use http::{Endpoint, Time, Transport};
use path::{Path, escape};
use places::{Places, Width};
use token::{Slot, Tokens};

/// So many users' sessions are ended at a time: Keycloak tells clients of it meanwhile, which may hang.
const SLOW_CONCURRENCY: usize = 4;

/// Connecting and the TLS handshake; a failure here is known not to have been sent.
const CONNECT: Duration = Duration::from_secs(2);

/// An idle connection is closed before a proxy does it (60 s is usual), so that a write seldom meets a dead one.
const IDLE: Duration = Duration::from_secs(20);

/// Time limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All of one `map` or `unmap`: waiting for a connection and a token, the write, the reads around it, and its
    /// repetition. When it has passed nothing more is sent. Also the limit of one sign-in.
    pub write: Duration,
    /// One read. A method that needs several has this for each.
    pub read: Duration,
    /// One call that ends sessions. Keycloak tells the clients one after another within it.
    pub sessions: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { write: Duration::from_secs(4), read: Duration::from_secs(10), sessions: Duration::from_secs(30) }
    }
}

/// Is told of each call, for metrics.
pub trait Observer: Send + Sync {
    /// `endpoint` and `result` come from fixed sets; `result` is `Ok` or [`Error::category`].
    fn call(&self, endpoint: &'static str, result: &'static str, seconds: f64);
}

/// What a write does to what somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It may give them more.
    Give,
    /// It can only take from them.
    Take,
    /// It prepares the realm.
    Prepare,
}

/// Is asked immediately before each write is sent, and before it is sent again.
pub trait Gate: Send + Sync {
    /// Whether it may be sent; the error says why not. Then it is [`Kind::NotSent`].
    fn may_send(&self, write: Write) -> Result<(), String>;
}

struct Nobody;

impl Gate for Nobody {
    fn may_send(&self, _: Write) -> Result<(), String> {
        Ok(())
    }
}

impl Observer for Nobody {
    fn call(&self, _: &'static str, _: &'static str, _: f64) {}
}

/// What a client does not take from the configuration.
#[derive(Clone)]
pub struct Options {
    /// Time limits.
    pub limits: Limits,
    /// Who is told of each call.
    pub observer: Arc<dyn Observer>,
    /// Who is asked before each write.
    pub gate: Arc<dyn Gate>,
    /// Who signs in instead of the realm's client.
    pub administrator: Option<Administrator>,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), observer: Arc::new(Nobody), gate: Arc::new(Nobody), administrator: None }
    }
}

/// One realm. Cloning is cheap: clones share connections, the token and the limit of calls at a time.
#[derive(Clone)]
pub struct Client(Arc<Transport>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Tokens { server, client_id, .. }, realm) = (&self.0.tokens, &self.0.realm);
        f.debug_struct("Client")
            .field("server", server)
            .field("realm", realm)
            .field("client_id", client_id)
            .finish_non_exhaustive()
    }
}

const REALM: Endpoint = Endpoint { label: "realm", right: "view-realm" };

impl Client {
    /// Reads the file with the certificate authorities. Nothing is sent, and the secret is not read yet.
    pub fn new(realm: &config::Realm) -> Result<Self, Error> {
        Self::with(realm, Options::default())
    }

    /// The same with other time limits, or with somebody who is told of each call.
    pub fn with(realm: &config::Realm, options: Options) -> Result<Self, Error> {
        let Options { limits, observer, gate, administrator } = options;
        let http = connector(realm.ca_file.as_deref())
            .map_err(|error| error.during(|| format!("prepare the connection to {}", realm.url)))?;
        let server = realm.url.clone();
        let name = escape(&realm.realm);
        let no_credential =
            || Error::new(Kind::Config, REALM.label, format!("realm {}: auth names no file, or several", realm.name));
        let (sign_in_realm, client_id, credential) =
            if let Some(Administrator { username, password_file, realm }) = administrator {
                (realm, ADMIN_CLI.to_owned(), config::Credential::Password { username, file: password_file })
            } else {
                let credential = realm.auth.credential().ok_or_else(no_credential)?;
                (realm.realm.clone(), realm.auth.client_id.clone(), credential)
            };
        let place = format!("{server}/realms/{}", escape(&sign_in_realm));
        let tokens = Tokens {
            http: http.clone(),
            url: format!("{place}/protocol/openid-connect/token"),
            client_id,
            credential,
            issuer: realm.auth.issuer.clone().unwrap_or(place),
            realm: sign_in_realm,
            limit: limits.write,
            observer: Arc::clone(&observer),
            slot: Mutex::new(Slot::default()),
            finished: AtomicU64::new(0),
            clock: OtherClock::default(),
            life: AtomicU64::new(token::DEFAULT_LIFE.as_secs()),
            server,
        };
        let base = format!("{}/admin/realms/{name}", realm.url);
        let width = Width::default();
        // The rights on a realm are roles of its own client `realm-management`; those on master, of `master-realm`.
        let admin_client = if realm.realm == MASTER { "master-realm" } else { "realm-management" };
        Ok(Self(Arc::new(Transport {
            http,
            tokens,
            base,
            realm: realm.realm.clone(),
            admin_client,
            reads: Places::new(width.now()),
            giving: Places::new(width.now()),
            removals: Places::new(width.now()),
            width: width.into(),
            slow: Places::new(SLOW_CONCURRENCY),
            circuit: Circuit::default(),
            limits,
            observer,
            gate,
        })))
    }

    /// The realm. [`Kind::NotFound`] if there is none of this name; [`Kind::Forbidden`] without `view-realm`, with
    /// which alone Keycloak tells the id.
    pub async fn realm(&self) -> Result<RealmInfo, Error> {
        self.realm_within(Time::PerRead).await.map_err(|error| error.during(|| self.action("read")))
    }

    async fn realm_within(&self, time: Time) -> Result<RealmInfo, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Realm {
            id: Option<String>,
            access_token_lifespan: Option<i64>,
            access_token_lifespan_for_implicit_flow: Option<i64>,
            sso_session_max_lifespan: Option<u64>,
            sso_session_max_lifespan_remember_me: Option<u64>,
        }
        let realm: Realm = self.0.read(REALM, Path::default(), time).await?;
        let (Some(id), Some(life)) = (realm.id, realm.access_token_lifespan) else {
            return Err(self.forbidden(REALM));
        };
        let longest_session = realm.sso_session_max_lifespan.max(realm.sso_session_max_lifespan_remember_me);
        let mut info = RealmInfo {
            id,
            access_token_lifespan: Duration::ZERO,
            implicit_token_lifespan: Duration::ZERO,
            longest_session: Duration::from_secs(longest_session.unwrap_or_default()),
        };
        info.access_token_lifespan = info.lifespan(life);
        info.implicit_token_lifespan = info.lifespan(realm.access_token_lifespan_for_implicit_flow.unwrap_or(life));
        Ok(info)
    }

    /// How many seconds Keycloak's clock is ahead of ours now (negative: behind), as far as the last sign-in tells; `None`
    /// before the first. A difference within the time that the sign-in took counts as none. From the token's `iat`, because
    /// Keycloak 26.7.3 sends no `Date`, and a proxy's would be another clock.
    pub fn clock_skew(&self) -> Option<i64> {
        self.0.tokens.clock.ahead()
    }

    /// Why nothing is sent to the server now, if so: it did not answer several times in a row. Calls fail at once then,
    /// with [`Kind::NotSent`].
    pub fn outage(&self) -> Option<String> {
        self.0.circuit.open().map(|open| open.refusal.during(|| self.action("read")).to_string())
    }

    /// Whether the last call got no answer.
    pub fn is_in_doubt(&self) -> bool {
        self.0.circuit.is_in_doubt()
    }

    /// Whether calls are sent; tells of each change.
    pub fn is_asked(&self) -> watch::Receiver<bool> {
        self.0.circuit.watch()
    }

    /// Waits until it is time to try whether the server is back, and tries.
    pub async fn try_again(&self) {
        if let Some(open) = self.0.circuit.open() {
            sleep_until(open.try_at).await;
            let alone = self.0.circuit.trying.lock().await;
            // Whoever was there before may have found out.
            if self.0.circuit.open().is_some_and(|open| open.try_at <= Instant::now()) {
                self.0.try_again(alone, Instant::now() + self.0.limits.write).await;
            }
        }
    }

    /// How long the operator's token lives: what is sent with it arrives within this time, or is refused. Keycloak's default
    /// before the first sign-in.
    pub fn token_life(&self) -> Duration {
        self.0.tokens.life()
    }

    /// A right is missing although Keycloak did not say so.
    fn forbidden(&self, endpoint: Endpoint) -> Error {
        let right = endpoint.right;
        let detail = format!("the client's service account lacks the right {right} of {}", self.0.admin_client);
        Error::new(Kind::Forbidden, endpoint.label, detail)
    }

    fn action(&self, verb: &str) -> String {
        format!("{verb} realm {:?} of {}", self.0.realm, self.0.tokens.server)
    }
}

/// The client at which administrators sign in with a password.
const ADMIN_CLI: &str = "admin-cli";

/// Keycloak's realm of administrators.
const MASTER: &str = "master";

fn connector(ca_file: Option<&FilePath>) -> Result<reqwest::Client, Error> {
    let problem = |words: String| Error::new(Kind::Config, "none", words);
    // reqwest panics without a provider. The first one that is installed stays.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("hallpass/", env!("CARGO_PKG_VERSION")))
        // A redirect could turn a DELETE with a body into one without, and that one removes every role of the user.
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE);
    if let Some(file) = ca_file {
        let name = file.display();
        let pem =
            std::fs::read(file).map_err(|error| problem(format!("caFile {name}: {}", error::root_cause(&error))))?;
        let authorities = Certificate::from_pem_bundle(&pem)
            .map_err(|error| problem(format!("caFile {name}: {}", error::root_cause(&error))))?;
        if authorities.is_empty() {
            return Err(problem(format!("caFile {name} holds no certificate in PEM form")));
        }
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|error| problem(error::root_cause(&error)))
}
