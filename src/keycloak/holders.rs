//! Who has what directly: what a user holds, and who holds a role or group.
//!
//! What comes through groups, composites or default roles is not looked at. Keycloak leaves out of its lists what the
//! caller may not see, with 200: what is missing proves nothing.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{
    Client, Error, Kind,
    http::{Endpoint, Time},
    path::{Path, addressable},
    types::{Target, User},
    users::UserRep,
};

const HELD: Endpoint = Endpoint { label: "held", right: "manage-users (view-clients for a client's roles)" };
const HOLDERS: Endpoint =
    Endpoint { label: "holders", right: "manage-users and view-realm (view-clients for a client's roles)" };

#[derive(Deserialize)]
struct OnlyId {
    id: String,
}

impl Client {
    /// Ids of those of these targets that the user has directly. One read for all realm roles, one for all groups, one for
    /// each client. What belongs to a client or a user who is gone is not held.
    pub async fn held(&self, user: &str, targets: &[Target]) -> Result<BTreeSet<String>, Error> {
        self.held_within(user, targets)
            .await
            .map_err(|error| error.during(|| format!("look at what user {user:?} has")))
    }

    async fn held_within(&self, user: &str, targets: &[Target]) -> Result<BTreeSet<String>, Error> {
        let mut places: Vec<Path> = Vec::new();
        let mut seen = BTreeSet::new();
        for target in targets {
            let place = match target {
                Target::RealmRole { .. } => vec!["users", user, "role-mappings", "realm"],
                Target::ClientRole { client, .. } => vec!["users", user, "role-mappings", "clients", client.as_str()],
                Target::Group { .. } => vec!["users", user, "groups"],
            };
            if seen.insert(place.clone()) {
                places.push(Path::of(&place)?);
            }
        }
        let mut held = BTreeSet::new();
        for place in places {
            // The roles of a user come at once, groups in pages: of both all is read.
            let groups = place.as_str().ends_with("/groups");
            let all: Result<Vec<OnlyId>, Error> = if groups {
                self.0.list(HELD, place, Time::PerRead).await
            } else {
                self.0.read(HELD, place, Time::PerRead).await
            };
            match all {
                Ok(all) => held.extend(all.into_iter().map(|one| one.id)),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        held.retain(|id| targets.iter().any(|target| target.id() == id));
        Ok(held)
    }

    /// Everybody who has a target directly, service accounts and disabled users too. [`Kind::InvalidInput`] for a role whose
    /// name cannot be part of a URL (`.` and `..`): Keycloak lists the users of a role by its name only.
    pub async fn holders(&self, target: &Target) -> Result<Vec<User>, Error> {
        self.holders_within(target).await.map_err(|error| error.during(|| format!("list who has {target}")))
    }

    async fn holders_within(&self, target: &Target) -> Result<Vec<User>, Error> {
        let place = match target {
            Target::RealmRole { name, .. } => vec!["roles", name, "users"],
            Target::ClientRole { client, name, .. } => vec!["clients", client, "roles", name, "users"],
            Target::Group { id, .. } => vec!["groups", id, "members"],
        };
        if !place.iter().all(|part| addressable(part)) {
            let detail = "Keycloak lists the users of a role by its name, and this one cannot be part of a URL";
            return Err(Error::new(Kind::InvalidInput, HOLDERS.label, detail));
        }
        let path = Path::of(&place)?.query(&[("briefRepresentation", "true")]);
        let users: Vec<UserRep> = self.0.list(HOLDERS, path, Time::PerRead).await?;
        Ok(users.into_iter().map(User::from).collect())
    }
}
