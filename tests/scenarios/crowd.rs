//! Many people at once, each with a request. They are made in one call, and need not sign in.
#![allow(dead_code, reason = "each scenario needs another part")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    env,
    time::Duration,
};

use futures::{StreamExt, stream};
use hallpass::api::{AccessRequest, Phase};
use jiff::Timestamp;
use kube::{
    api::ListParams,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    keycloak_admin::{Admin, Role, unique},
    policy::Policy,
    request::{Ask, Request},
    world::World,
};

/// So many people of one realm.
pub struct Crowd {
    start: String,
    /// Their ids in Keycloak.
    pub ids: Vec<String>,
}

/// How many there are in a scenario: `HALLPASS_GRANTS`, or so many.
pub fn size_or(usual: usize) -> usize {
    env::var("HALLPASS_GRANTS").map_or(usual, |text| text.parse().expect("a number"))
}

impl Crowd {
    /// Makes them in Keycloak.
    pub async fn of(keycloak: &Admin, size: usize) -> Self {
        let start = unique("many");
        let users: Vec<_> = (0..size).map(|i| json!({"username": format!("{start}-{i}"), "enabled": true})).collect();
        let users = json!({"ifResourceExists": "FAIL", "users": users});
        let made = keycloak.call(Method::POST, "partialImport", Some(&users)).await.1;
        let id = |i| {
            let name = format!("{start}-{i}");
            let made = made["results"].as_array().expect("results").iter().find(|made| made["resourceName"] == name);
            made.and_then(|made| made["id"].as_str()).unwrap_or_else(|| panic!("{name} in {made:?}")).to_owned()
        };
        Self { ids: (0..size).map(id).collect(), start }
    }

    /// How long it may take until all have what they ask for.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(30) + Duration::from_millis(500) * self.size()
    }

    /// What the API server calls one of them.
    pub fn username(&self, i: usize) -> String {
        format!("oidc:{}-{i}", self.start)
    }

    /// How many they are.
    pub fn size(&self) -> u32 {
        u32::try_from(self.ids.len()).expect("few")
    }

    /// Each asks for all that the policy grants, until this time; the requests in their order.
    pub async fn ask(&self, w: &World, policy: &Policy, until: impl Fn(usize) -> Timestamp) -> Vec<Request> {
        stream::iter(0..self.ids.len())
            .map(|i| (i, until(i)))
            .map(async |(i, end)| {
                let username = self.username(i);
                let client = w.somebody_called(&username).await;
                let ask = Ask::of(w, &username, &policy.name).with("notAfter", json!(end.to_string()));
                ask.create_with(&client).await.expect("asked")
            })
            .buffered(8)
            .collect()
            .await
    }

    /// Waits until all have it, which must be before the first loses it.
    pub async fn have_it(&self, w: &World, end: Timestamp) {
        let left = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
        let all = are_in_phase(w, Phase::Active, self.ids.len(), left.min(self.patience())).await;
        all.unwrap_or_else(|how| panic!("not all were active before the end: {how}"));
    }

    /// Takes them out of Keycloak.
    pub async fn leave(&self, keycloak: &Admin) {
        for id in &self.ids {
            keycloak.call(Method::DELETE, &format!("users/{id}"), None).await;
        }
    }
}

/// The world's requests.
pub async fn requests(w: &World) -> Vec<AccessRequest> {
    w.requests().list(&ListParams::default()).await.expect("requests").items
}

/// Waits until so many of the world's requests are in this phase. It watches: who lists a thousand of them again and again
/// slows down what is measured.
pub async fn are_in_phase(w: &World, phase: Phase, size: usize, patience: Duration) -> Result<(), String> {
    let mut there = HashSet::new();
    let mut events = watcher(w.requests(), watcher::Config::default()).default_backoff().boxed();
    let watching = async {
        while there.len() < size {
            match events.next().await {
                Some(Ok(Event::InitApply(request) | Event::Apply(request))) => {
                    let uid = request.metadata.uid.clone().expect("a UID");
                    if request.phase() == Some(phase) {
                        there.insert(uid)
                    } else {
                        there.remove(&uid)
                    };
                }
                Some(Ok(Event::Init | Event::InitDone | Event::Delete(_)) | Err(_)) => {}
                None => return,
            }
        }
    };
    let _ = timeout(patience, watching).await;
    if there.len() < size { Err(format!("{} of {size} are {phase:?} after {patience:?}", there.len())) } else { Ok(()) }
}

/// Ids of those who have the role directly.
pub async fn holders(keycloak: &Admin, role: &Role) -> BTreeSet<String> {
    let users = keycloak.get(&format!("roles/{}/users?max=5000", role.name)).await;
    let id = |user: &serde_json::Value| user["id"].as_str().expect("an id").to_owned();
    users.as_array().expect("users").iter().map(id).collect()
}

/// How long after the end Keycloak removed a role from each of them, the first of them first: for the first time, and for the
/// last. They have one role each. A removal that is repeated because its status could not be written has an event, too.
pub async fn lags(keycloak: &Admin, crowd: &Crowd, end: Timestamp) -> [Vec<Duration>; 2] {
    let lags = removals(keycloak, crowd, end).await;
    assert_eq!(lags.len(), crowd.ids.len(), "each was removed");
    [0, 1].map(|i| {
        let mut lags: Vec<Duration> = lags.values().map(|both| both[i]).collect();
        lags.sort();
        lags
    })
}

/// The same, by the ids of person and role.
pub async fn removals(keycloak: &Admin, crowd: &Crowd, end: Timestamp) -> BTreeMap<(String, String), [Duration; 2]> {
    let there: HashSet<&str> = crowd.ids.iter().map(String::as_str).collect();
    let mut removals: BTreeMap<(String, String), [Duration; 2]> = BTreeMap::new();
    let since = end.as_millisecond();
    // Events of the same millisecond have no order that all pages agree on: few pages, so that none is missed between two.
    for page in 0.. {
        let query = "admin-events?operationTypes=DELETE&resourceTypes=REALM_ROLE_MAPPING&max=20000";
        let events = keycloak.get(&format!("{query}&first={}", page * 20_000)).await;
        let events = events.as_array().expect("events");
        // The newest are first.
        for event in events {
            let time = event["time"].as_i64().expect("a time");
            let user = event["resourcePath"].as_str().and_then(|path| path.split('/').nth(1)).unwrap_or_default();
            if !there.contains(user) {
                continue;
            }
            let lag = Duration::from_millis(u64::try_from(time - since).expect("not before the end"));
            let roles = event["representation"].as_str().unwrap_or_default();
            let key = (user.to_owned(), roles.to_owned());
            removals.entry(key).or_insert([lag; 2])[0] = lag;
        }
        let older = events.last().is_none_or(|event| event["time"].as_i64().is_none_or(|time| time < since));
        if older {
            break;
        }
    }
    removals
}

/// The lag that so many in a hundred do not exceed.
pub fn percentile(lags: &[Duration], percent: usize) -> Duration {
    lags[(lags.len() * percent / 100).min(lags.len() - 1)]
}

/// A time of whole seconds from now.
pub fn from_now(time: Duration) -> Timestamp {
    let seconds = Timestamp::now().as_second() + i64::try_from(time.as_secs()).expect("not for ever");
    Timestamp::from_second(seconds).expect("a time")
}

/// Waits until this time.
pub async fn comes(time: Timestamp) {
    tokio::time::sleep(Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default()).await;
}
