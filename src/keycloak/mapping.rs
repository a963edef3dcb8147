//! Putting a role mapping or membership in place and taking it away, with proof.
//!
//! What Keycloak 26.7.3 does that shapes this module:
//! * Both id and name of a role are needed and must agree. After a rename the old name gives 404 and the mapping
//!   stays, so a 404 alone says nothing.
//! * A DELETE without a body removes **all** direct roles of the user, with 204. The body here has exactly one role.
//! * Concurrent writes of one mapping: some get 400 although it is there afterwards.
//! * A DELETE of a group whose *child* the user is in answers 204, writes an event and changes nothing.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    Client, Error, Kind, Write,
    http::{Endpoint, Request, Time},
    path::Path,
    targets::RoleRep,
    types::{Removal, Target},
};

/// So long a removal waits for its place, before its time begins. If the wait were part of that, most of a thousand that are due
/// at once would have none left, and would have to queue again and again.
const LONGEST_QUEUE: Duration = Duration::from_secs(30);

const MAP: Endpoint = Endpoint { label: "map", right: "manage-users (or may not map this role)" };
const UNMAP: Endpoint = Endpoint { label: "unmap", right: "manage-users (or may not map this role)" };
const MAPPINGS: Endpoint = Endpoint { label: "mappings", right: "manage-users (view-clients for a client's roles)" };

/// The one role of a write. There is no way to make a body without one.
#[derive(Serialize)]
struct OneRole<'a> {
    id: &'a str,
    name: &'a str,
}

impl OneRole<'_> {
    fn body(&self) -> Result<Vec<u8>, Error> {
        let problem = |words: String| Error::new(Kind::InvalidInput, "none", words);
        if self.id.is_empty() || self.name.is_empty() {
            return Err(problem("a role needs both its id and its name".into()));
        }
        serde_json::to_vec(&[self]).map_err(|error| problem(error.to_string()))
    }
}

/// One mapping and the time there is for it.
struct Mapping<'a> {
    client: &'a Client,
    user: &'a str,
    target: &'a Target,
    time: Time,
}

impl Client {
    /// Whether the user has the target *directly*, compared by id. What comes through groups, composites or default
    /// roles is not looked at. [`Kind::NotFound`] if the user or the role's client is gone. A `false` is no proof of
    /// a removal: lists are filtered by what the caller may see.
    pub async fn has(&self, user: &str, target: &Target) -> Result<bool, Error> {
        let mapping = Mapping { client: self, user, target, time: Time::PerRead };
        mapping.is_there().await.map_err(|error| error.during(|| format!("look for {target} of user {user:?}")))
    }

    /// Maps the target to the user; doing it twice is fine. A role that was renamed is found by its id.
    ///
    /// [`Kind::NotFound`] if the user or the target is gone. After a refusal (400, 409, 500) it looks, because
    /// Keycloak refuses some of the writes that meet another one of the same mapping. With
    /// [`Error::outcome_unknown`] the mapping may be there, or may yet come.
    pub async fn map(&self, user: &str, target: &Target) -> Result<(), Error> {
        let mapping = Mapping { client: self, user, target, time: self.0.write_deadline() };
        mapping.put_in_place().await.map_err(|error| error.during(|| format!("map {target} to user {user:?}")))
    }

    /// Whether a role or group with the target's id is still there, by whatever name.
    pub async fn is_still_there(&self, target: &Target) -> Result<bool, Error> {
        let mapping = Mapping { client: self, user: "", target, time: self.0.write_deadline() };
        let name = mapping.present_name().await;
        name.map(|name| name.is_some()).map_err(|error| error.during(|| format!("look for {target}")))
    }

    /// Takes the target away from the user. `Ok` is a proof that the direct mapping is gone; anything less is an
    /// error, to be tried again. `realm_id` is the id of the realm in which the mapping was made: something that is
    /// missing proves nothing unless that very realm answers.
    pub async fn unmap(&self, user: &str, target: &Target, realm_id: &str) -> Result<Removal, Error> {
        let removed = async {
            let busy = || Error::new(Kind::NotSent, UNMAP.label, "every place for a removal was busy");
            let _place = timeout(LONGEST_QUEUE, self.0.place_in(&self.0.removals)).await.map_err(|_| busy())?;
            let mapping = Mapping { client: self, user, target, time: self.0.removal_deadline() };
            mapping.take_away(realm_id).await
        };
        removed.await.map_err(|error| error.during(|| format!("take {target} from user {user:?}")))
    }
}

impl Mapping<'_> {
    fn path(&self) -> Result<Path, Error> {
        match self.target {
            Target::RealmRole { .. } => Path::of(&["users", self.user, "role-mappings", "realm"]),
            Target::ClientRole { client, .. } => Path::of(&["users", self.user, "role-mappings", "clients", client]),
            Target::Group { id, .. } => Path::of(&["users", self.user, "groups", id]),
        }
    }

    async fn write(&self, remove: bool, name: &str) -> Result<(), Error> {
        let (endpoint, method, body) = match (self.target, remove) {
            (Target::Group { .. }, false) => (MAP, Method::PUT, None),
            (Target::Group { .. }, true) => (UNMAP, Method::DELETE, None),
            (Target::RealmRole { id, .. } | Target::ClientRole { id, .. }, _) => {
                let (endpoint, method) = if remove { (UNMAP, Method::DELETE) } else { (MAP, Method::POST) };
                (endpoint, method, Some(OneRole { id, name }.body()?))
            }
        };
        let write = Some(if remove { Write::Take } else { Write::Give });
        let request = Request { method, endpoint, path: self.path()?, body, write };
        self.client.0.exchange(&request, self.time).await.map(drop)
    }

    async fn is_there(&self) -> Result<bool, Error> {
        if let Target::Group { id, .. } = self.target {
            let groups = self.client.user_groups_within(self.user, self.time).await?;
            return Ok(groups.iter().any(|group| group.id == *id));
        }
        let roles: Vec<RoleRep> = self.client.0.read(MAPPINGS, self.path()?, self.time).await?;
        Ok(roles.iter().any(|role| role.id == self.target.id()))
    }

    /// The target's present name, if it is still there.
    async fn present_name(&self) -> Result<Option<String>, Error> {
        let id = self.target.id();
        Ok(match self.target {
            Target::Group { .. } => self.client.group_by_id(id, self.time).await?.map(|group| group.path),
            Target::RealmRole { .. } | Target::ClientRole { .. } => {
                self.client.role_by_id(id, self.time).await?.map(|role| role.name)
            }
        })
    }

    async fn put_in_place(&self) -> Result<(), Error> {
        let error = match self.put(self.target.name()).await {
            Err(error) if error.kind() == Kind::NotFound => error,
            Err(error) => return Err(self.explained(error).await),
            Ok(()) => return Ok(()),
        };
        match self.present_name().await? {
            None => Err(error.add(&format!(" ({} is gone)", self.target))),
            Some(name) if name == self.target.name() => Err(error),
            Some(name) => self.put(&name).await,
        }
    }

    /// Says why a role of Keycloak's administration is refused. `manage-users` is enough to map a composite that contains
    /// `realm-admin`, but not `realm-admin` itself, nor to take it away (26.7.3).
    async fn explained(&self, error: Error) -> Error {
        let Target::ClientRole { client, name, .. } = self.target else { return error };
        if error.kind() != Kind::Forbidden {
            return error;
        }
        let admin_clients = self.client.admin_clients(self.time).await.unwrap_or_default();
        let Some(of) = admin_clients.get(client) else { return error };
        let own = &self.client.0.tokens.client_id;
        error.add(&format!(
            "; Keycloak lets an account map and unmap {of}/{name} only if it has the rights of that role itself: give \
             {of}/{name} to the service account of client {own:?} too, or lend a role that contains it"
        ))
    }

    async fn put(&self, name: &str) -> Result<(), Error> {
        match self.write(false, name).await {
            Err(error) if matches!(error.kind(), Kind::Rejected | Kind::ServerError) => {
                if self.is_there().await.unwrap_or(false) { Ok(()) } else { Err(error) }
            }
            outcome => outcome,
        }
    }

    async fn take_away(&self, realm_id: &str) -> Result<Removal, Error> {
        match self.remove(self.target.name()).await {
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(self.explained(error).await),
            Ok(removal) => return Ok(removal),
        }
        let Some(name) = self.present_name().await? else {
            return self.if_the_realm_answers(realm_id, Removal::TargetGone).await;
        };
        match self.remove(&name).await {
            Err(error) if error.kind() == Kind::NotFound => {
                match self.client.user_within(self.user, self.time).await? {
                    None => self.if_the_realm_answers(realm_id, Removal::UserGone).await,
                    Some(_) => Err(error.add(" (although the user and the role or group are there)")),
                }
            }
            outcome => outcome,
        }
    }

    async fn remove(&self, name: &str) -> Result<Removal, Error> {
        self.write(true, name).await?;
        // A group's 204 says nothing about what happened.
        if matches!(self.target, Target::Group { .. }) && self.is_there().await? {
            let detail = "Keycloak answered 204 and the user is still in the group";
            return Err(Error::new(Kind::ServerError, UNMAP.label, detail));
        }
        Ok(Removal::Removed)
    }

    async fn if_the_realm_answers(&self, realm_id: &str, proof: Removal) -> Result<Removal, Error> {
        let realm = self.client.realm_within(self.time).await?;
        if realm.id == realm_id {
            return Ok(proof);
        }
        let detail =
            format!("the realm has the id {:?} now, not {realm_id:?}: what is missing in it proves nothing", realm.id);
        Err(Error::new(Kind::OtherRealm, UNMAP.label, detail))
    }
}
