//! Many grants end in the same second: how long until the last is gone from Keycloak?

use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use hallpass::api::Phase;
use jiff::Timestamp;
use kube::api::ListParams;
use serde_json::json;

use crate::{
    keycloak_admin::{Admin, unique},
    request::Ask,
    world::World,
};

/// So many grants, unless `HALLPASS_GRANTS` says otherwise.
const GRANTS: usize = 20;

/// When Keycloak removed this role from whom, in milliseconds since 1970.
async fn removals(keycloak: &Admin, role: &str) -> BTreeMap<String, i64> {
    let query = "admin-events?operationTypes=DELETE&resourceTypes=REALM_ROLE_MAPPING&max=5000";
    let events = keycloak.get(query).await;
    let of_role =
        events.as_array().expect("events").iter().filter(|event| {
            event["representation"].as_str().is_some_and(|representation| representation.contains(role))
        });
    let user = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
    of_role
        .map(|event| {
            (user(event["resourcePath"].as_str().unwrap_or_default()), event["time"].as_i64().unwrap_or_default())
        })
        .collect()
}

#[tokio::test]
async fn many_that_end_in_the_same_second_are_gone_soon() {
    // given
    let grants = env::var("HALLPASS_GRANTS").map_or(GRANTS, |text| text.parse().expect("a number"));
    let w = World::new().await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).everybody().automatic().ready().await;
    let start = unique("many");
    let users: Vec<_> = (0..grants).map(|i| json!({"username": format!("{start}-{i}"), "enabled": true})).collect();
    let users = json!({"ifResourceExists": "FAIL", "users": users});
    w.keycloak.call(reqwest::Method::POST, "partialImport", Some(&users)).await;
    let begin = Instant::now();
    let patience = Duration::from_secs(30) + Duration::from_millis(250) * u32::try_from(grants).expect("few");
    let end = Timestamp::now().as_second() + i64::try_from(patience.as_secs()).expect("few");
    let end = Timestamp::from_second(end).expect("a time");
    let lent: Vec<_> = stream::iter(0..grants)
        .map(async |i| {
            let username = format!("oidc:{start}-{i}");
            // A thousand people need not sign in.
            let client = w.somebody_called(&username).await;
            let ask = Ask::of(&w, &username, &policy.name).with("notAfter", json!(end.to_string()));
            ask.create_with(&client).await.expect("asked")
        })
        .buffer_unordered(8)
        .collect()
        .await;
    let all = async |phase: Phase| {
        let all = w.requests().list(&ListParams::default()).await.expect("requests").items;
        all.iter().filter(|request| request.phase() == Some(phase)).count()
    };
    w.until_within(patience, "all are active", async || all(Phase::Active).await == grants || Timestamp::now() >= end)
        .await;
    println!("{} requests, {} active after {:?}", lent.len(), all(Phase::Active).await, begin.elapsed());
    assert!(Timestamp::now() < end, "the machine is too slow: not all were active before the end");
    // when
    tokio::time::sleep(Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default()).await;
    // then
    w.until_within(patience, "all are expired", async || all(Phase::Expired).await == grants).await;
    let lag = |time: &i64| Duration::from_millis(u64::try_from(time - end.as_millisecond()).unwrap_or_default());
    let mut lags: Vec<Duration> = removals(&w.keycloak, &role.id).await.values().map(lag).collect();
    lags.sort();
    assert_eq!(lags.len(), grants, "each was removed, and nobody else");
    let (middle, late) = (lags[grants / 2], lags[(grants * 99 / 100).min(grants - 1)]);
    println!("gone from Keycloak after the deadline: p50 {middle:?}, p99 {late:?}, last {:?}", lags[grants - 1]);
    assert!(
        late < Duration::from_secs(10) + Duration::from_millis(20) * u32::try_from(grants).expect("few"),
        "{late:?}"
    );
    let members = w.keycloak.get(&format!("roles/{}/users", role.name)).await;
    assert_eq!(members.as_array().map(Vec::len), Some(0), "nobody has it: {members}");
    w.clean_up().await;
    let made = w.keycloak.get(&format!("users?search={start}&max=2000")).await;
    for user in made.as_array().expect("users") {
        let place = format!("users/{}", user["id"].as_str().expect("an id"));
        w.keycloak.call(reqwest::Method::DELETE, &place, None).await;
    }
}
