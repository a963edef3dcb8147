//! When Keycloak took what from whom: its admin events, which the stack's realm keeps.

use jiff::Timestamp;

use crate::keycloak_admin::{Admin, Person};

/// When this role or group of a person was removed, the first time first. Keycloak 26.7.3 writes an event for a repetition
/// that changed nothing, too.
pub async fn removals(keycloak: &Admin, user: &Person, id: &str) -> Vec<Timestamp> {
    changes(keycloak, user, id, "DELETE").await
}

/// When it was given (`CREATE`) or taken (`DELETE`), the first time first.
pub async fn changes(keycloak: &Admin, user: &Person, id: &str, what: &str) -> Vec<Timestamp> {
    let query = format!("admin-events?operationTypes={what}&resourcePath=users/{}/*&max=1000", user.id);
    let events = keycloak.get(&query).await;
    let says = |text: &serde_json::Value| text.as_str().is_some_and(|text| text.contains(id));
    // A group is in the path, a role in the body.
    let about = events.as_array().expect("events").iter();
    let about = about.filter(|event| says(&event["resourcePath"]) || says(&event["representation"]));
    let time = |event: &serde_json::Value| Timestamp::from_millisecond(event["time"].as_i64()?).ok();
    let mut times: Vec<Timestamp> = about.map(|event| time(event).expect("a time")).collect();
    times.sort();
    times
}
