//! Ending the sessions of a user, once what they must not come back with is gone.
//!
//! What Keycloak 26.7.3 does that shapes this module:
//! * `POST users/{id}/logout` ends the sessions that it finds, and makes offline tokens stale that were issued before the
//!   second in which it runs. One of that very second survives. Offline sessions stay listed either way, so a list does
//!   not tell the dead from the living: each is taken out by its id.
//! * `DELETE sessions/{id}` wants to be told whether the session is an offline one, and answers 404 if it is the other.
//! * A session that is refreshed in the moment in which it is ended can live on (6 of 100 offline ones here), and no list shows
//!   it any more. Its id still ends it: 204, and 404 once it is dead.
//! * A session has no part that could be ended alone: whoever ends it for one client ends it for all that it spans.
//!   (`DELETE users/{id}/consents/{client}` ends offline sessions of one client, but takes what the user consented to.)
//! * Clients are told of the end one after another, within the call.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::Method;
use serde::Deserialize;

use super::{
    Client, Error, Kind, Write,
    http::{Endpoint, Request, Time},
    path::Path,
};

const SESSIONS: Endpoint = Endpoint { label: "sessions", right: "manage-users" };
const OFFLINE_SESSIONS: Endpoint = Endpoint { label: "offline-sessions", right: "manage-users" };
const LOGOUT: Endpoint = Endpoint { label: "logout", right: "manage-users" };
const END_SESSION: Endpoint = Endpoint { label: "end-session", right: "manage-users" };

/// After so long Keycloak's clock shows another second, whatever ours says. It is also the time that sign-ins have to show
/// up that were under way: with Keycloak busy, one was seen to show a role two seconds after that was gone.
const NEXT_SECOND: Duration = Duration::from_millis(1100);

/// How often a session may come back to life. Each time is one refresh in the very moment.
const MOST_LIVES: usize = 10;

/// How Keycloak calls an offline session among what a user has agreed to.
const OFFLINE_TOKEN: &str = "Offline Token";

/// Which sessions of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// All, offline ones too.
    All,
    /// Those in which one of these clients (ids) takes part, with whatever else takes part in them.
    OfClients(Vec<String>),
}

/// Sessions by their ids, and when each was begun: milliseconds by Keycloak's clock.
struct Found {
    online: BTreeMap<String, i64>,
    offline: BTreeMap<String, i64>,
}

#[derive(Deserialize)]
struct SessionRep {
    id: String,
    #[serde(default = "lately")]
    start: i64,
    /// `clientId` by id.
    #[serde(default)]
    clients: HashMap<String, String>,
}

fn lately() -> i64 {
    i64::MAX
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConsentRep {
    #[serde(default)]
    additional_grants: Vec<AdditionalGrant>,
}

#[derive(Deserialize)]
struct AdditionalGrant {
    client: String,
    key: String,
}

impl Client {
    /// Ends sessions of the user. `Ok` means that none is left of those that were there a second after this was called, or
    /// that had begun before it and showed up within another second; younger ones may be. A user who is gone has none, if
    /// the realm with this id says so. Doing it twice is fine, and anything but `Ok` is to be tried again.
    pub async fn end_sessions(&self, user: &str, which: &Sessions, realm_id: &str) -> Result<(), Error> {
        tokio::time::sleep(NEXT_SECOND).await;
        let ended = async {
            match self.end(user, which).await {
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let realm = self.realm_within(Time::PerRead).await?;
            if realm.id == realm_id {
                return Ok(());
            }
            let detail = format!("the realm has the id {:?} now, not {realm_id:?}", realm.id);
            Err(Error::new(Kind::OtherRealm, SESSIONS.label, detail))
        };
        ended.await.map_err(|error| error.during(|| format!("end the sessions of user {user:?}")))
    }

    async fn end(&self, user: &str, which: &Sessions) -> Result<(), Error> {
        let long_ago = self.a_second_ago();
        let before = self.sessions(user, which).await;
        let before = match which {
            Sessions::All => {
                // Also if there are more of them than can be listed.
                self.slow_write(Method::POST, LOGOUT, Path::of(&["users", user, "logout"])?).await?;
                before?
            }
            Sessions::OfClients(_) => {
                let before = before?;
                for id in before.online.keys() {
                    self.end_session(id, "false").await?;
                }
                before
            }
        };
        for id in before.offline.keys() {
            self.end_session(id, "true").await?;
        }
        tokio::time::sleep(NEXT_SECOND).await;
        self.are_dead(&before).await?;
        let now = self.sessions(user, which).await?;
        let left = [(&before.online, &now.online), (&before.offline, &now.offline)].map(|(before, now)| {
            now.iter().filter(|(id, start)| before.contains_key(*id) || **start < long_ago).count()
        });
        let left: usize = left.iter().sum();
        if left == 0 {
            return Ok(());
        }
        Err(Error::new(Kind::ServerError, SESSIONS.label, format!("{left} of them are still there")))
    }

    /// Ends what was ended once more, until there is nothing to end: only that is a proof.
    async fn are_dead(&self, ended: &Found) -> Result<(), Error> {
        for (ids, offline) in [(&ended.online, "false"), (&ended.offline, "true")] {
            for id in ids.keys() {
                let mut times = 0;
                while self.end_session(id, offline).await? {
                    times += 1;
                    if times == MOST_LIVES {
                        let words = format!("one of them came back {times} times");
                        return Err(Error::new(Kind::ServerError, END_SESSION.label, words));
                    }
                }
            }
        }
        Ok(())
    }

    /// Milliseconds by Keycloak's clock, of a second ago: about as exact as that second.
    fn a_second_ago(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let skew = self.clock_skew().unwrap_or_default().saturating_mul(1000);
        i64::try_from(now).unwrap_or_default().saturating_add(skew).saturating_sub(1000)
    }

    /// The sessions that there are. [`Kind::NotFound`] if there is no such user.
    async fn sessions(&self, user: &str, which: &Sessions) -> Result<Found, Error> {
        let online: Vec<SessionRep> =
            self.0.read(SESSIONS, Path::of(&["users", user, "sessions"])?, Time::PerRead).await?;
        let concerned = |session: &SessionRep| match which {
            Sessions::All => true,
            Sessions::OfClients(clients) => clients.iter().any(|client| session.clients.contains_key(client)),
        };
        let online = online.into_iter().filter(concerned).map(|session| (session.id, session.start)).collect();
        let clients = match which {
            Sessions::All => self.clients_with_offline_sessions(user).await?,
            Sessions::OfClients(clients) => clients.iter().cloned().collect(),
        };
        let mut offline = BTreeMap::new();
        for client in &clients {
            let path = Path::of(&["users", user, "offline-sessions", client])?;
            // A client that is gone took its sessions along.
            let sessions: Option<Vec<SessionRep>> = self.0.read_if_there(OFFLINE_SESSIONS, path, Time::PerRead).await?;
            offline.extend(sessions.unwrap_or_default().into_iter().map(|session| (session.id, session.start)));
        }
        Ok(Found { online, offline })
    }

    /// Ids of the clients that have an offline session of the user, consent or not.
    async fn clients_with_offline_sessions(&self, user: &str) -> Result<BTreeSet<String>, Error> {
        let consents: Vec<ConsentRep> =
            self.0.read(OFFLINE_SESSIONS, Path::of(&["users", user, "consents"])?, Time::PerRead).await?;
        let grants = consents.into_iter().flat_map(|consent| consent.additional_grants);
        Ok(grants.filter(|grant| grant.key == OFFLINE_TOKEN).map(|grant| grant.client).collect())
    }

    /// Ends one session; whether it was there.
    async fn end_session(&self, id: &str, offline: &str) -> Result<bool, Error> {
        let path = Path::of(&["sessions", id])?.query(&[("isOffline", offline)]);
        match self.slow_write(Method::DELETE, END_SESSION, path).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    async fn slow_write(&self, method: Method, endpoint: Endpoint, path: Path) -> Result<(), Error> {
        let request = Request { method, endpoint, path, body: None, write: Some(Write::Take) };
        self.0.exchange(&request, self.0.slow_deadline()).await.map(drop)
    }
}
