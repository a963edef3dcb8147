//! Who did it: the realm's admin events, where it keeps them. A hint for people, never evidence.

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Client, Error, Kind,
    http::{Endpoint, Time},
    path::Path,
    types::{Change, Deed, Target},
};

const EVENTS: Endpoint = Endpoint { label: "admin-events", right: "view-events" };

/// So many of the newest changes of one user's mappings are looked through.
const NEWEST: &str = "100";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventRep {
    /// Milliseconds since 1970.
    time: i64,
    #[serde(default)]
    realm_id: String,
    #[serde(default)]
    auth_details: AuthDetails,
    #[serde(default)]
    representation: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthDetails {
    #[serde(default)]
    realm_id: String,
    #[serde(default)]
    user_id: String,
}

#[derive(Deserialize)]
struct OnlyId {
    id: String,
}

impl Client {
    /// The newest change of a user's mapping since then, and who made it. `None` if the realm keeps no admin events, or
    /// without their details (for roles), or if nobody has made one. [`Kind::Forbidden`] without `view-events`.
    ///
    /// Keycloak 26.7.3 writes an event for a repetition that changed nothing, too.
    pub async fn last_change(
        &self,
        user: &str,
        target: &Target,
        change: Change,
        since: Timestamp,
    ) -> Result<Option<Deed>, Error> {
        let found = self.last_change_within(user, target, change, since).await;
        found.map_err(|error| error.during(|| format!("find out who changed {target} of user {user:?}")))
    }

    async fn last_change_within(
        &self,
        user: &str,
        target: &Target,
        change: Change,
        since: Timestamp,
    ) -> Result<Option<Deed>, Error> {
        let place = match target {
            Target::RealmRole { .. } => format!("users/{user}/role-mappings/realm"),
            Target::ClientRole { client, .. } => format!("users/{user}/role-mappings/clients/{client}"),
            Target::Group { id, .. } => format!("users/{user}/groups/{id}"),
        };
        let operation = match change {
            Change::Given => "CREATE",
            Change::Taken => "DELETE",
        };
        let since = since.as_millisecond().to_string();
        let query = [
            ("operationTypes", operation),
            ("resourcePath", place.as_str()),
            ("dateFrom", since.as_str()),
            ("direction", "desc"),
            ("max", NEWEST),
        ];
        let events: Vec<EventRep> =
            self.0.read(EVENTS, Path::of(&["admin-events"])?.query(&query), Time::PerRead).await?;
        let about = |event: &EventRep| match target {
            Target::Group { .. } => true,
            Target::RealmRole { id, .. } | Target::ClientRole { id, .. } => {
                let roles = event.representation.as_deref().map(serde_json::from_str::<Vec<OnlyId>>);
                roles.is_some_and(|roles| roles.is_ok_and(|roles| roles.iter().any(|role| role.id == *id)))
            }
        };
        let Some(event) = events.into_iter().filter(about).max_by_key(|event| event.time) else { return Ok(None) };
        let AuthDetails { realm_id, user_id } = event.auth_details;
        let by = if realm_id == event.realm_id && !user_id.is_empty() {
            let user = self.user_within(&user_id, Time::PerRead).await?;
            user.map_or(user_id, |user| user.username)
        } else {
            format!("{user_id} of the realm with the id {realm_id}")
        };
        let at = Timestamp::from_millisecond(event.time);
        let at = at.map_err(|error| Error::new(Kind::Malformed, EVENTS.label, error.to_string()))?;
        Ok(Some(Deed { by, at }))
    }
}
