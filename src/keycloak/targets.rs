//! From the names in a policy to ids: realm roles, client roles, groups.

use serde::Deserialize;

use super::{
    Client, Error, Kind,
    http::{Endpoint, Time},
    path::{Path, addressable},
    types::{ClientRole, Container, Group, Role},
    users::GroupRep,
};

const ROLES: Endpoint = Endpoint { label: "roles", right: "view-realm" };
const ROLE_BY_ID: Endpoint = Endpoint { label: "role-by-id", right: "view-realm (view-clients for a client's role)" };
pub(super) const CLIENTS: Endpoint = Endpoint { label: "clients", right: "view-clients" };
const CLIENT_ROLES: Endpoint = Endpoint { label: "client-roles", right: "view-clients" };
const GROUPS: Endpoint = Endpoint { label: "groups", right: "manage-users" };
pub(super) const GROUP: Endpoint = Endpoint { label: "group", right: "manage-users" };

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoleRep {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) composite: bool,
    #[serde(default)]
    pub(super) client_role: bool,
    /// Id of the realm or client.
    #[serde(default)]
    pub(super) container_id: Option<String>,
}

impl RoleRep {
    pub(super) fn into_role(self, container: Container) -> Role {
        Role { id: self.id, name: self.name, composite: self.composite, container }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientRep {
    pub(super) id: String,
    pub(super) client_id: String,
}

impl Client {
    /// The realm role with exactly this name, whatever characters it has.
    pub async fn realm_role(&self, name: &str) -> Result<Option<Role>, Error> {
        let found = self.role_in(ROLES, &["roles"], name).await;
        let role = found.map_err(|error| error.during(|| format!("find realm role {name:?}")))?;
        Ok(role.map(|role| role.into_role(Container::Realm)))
    }

    /// The role with exactly this name of the client with exactly this `clientId`.
    pub async fn client_role(&self, client_id: &str, role: &str) -> Result<ClientRole, Error> {
        let found = self.client_role_within(client_id, role).await;
        found.map_err(|error| error.during(|| format!("find role {role:?} of client {client_id:?}")))
    }

    async fn client_role_within(&self, client_id: &str, role: &str) -> Result<ClientRole, Error> {
        let Some(client) = self.client(client_id).await? else { return Ok(ClientRole::NoClient) };
        let found = self.role_in(CLIENT_ROLES, &["clients", &client.id, "roles"], role).await?;
        Ok(found.map_or(ClientRole::NoRole, |role| {
            ClientRole::Found(role.into_role(Container::Client { id: client.id, client_id: client.client_id }))
        }))
    }

    /// The client with exactly this `clientId`. Without `view-clients` Keycloak can answer with an empty list.
    pub(super) async fn client(&self, client_id: &str) -> Result<Option<ClientRep>, Error> {
        self.client_within(client_id, Time::PerRead).await
    }

    pub(super) async fn client_within(&self, client_id: &str, time: Time) -> Result<Option<ClientRep>, Error> {
        if client_id.is_empty() {
            return Err(Error::new(Kind::InvalidInput, CLIENTS.label, "an empty clientId names no client"));
        }
        let path = Path::of(&["clients"])?.query(&[("clientId", client_id)]);
        let clients: Vec<ClientRep> = self.0.read(CLIENTS, path, time).await?;
        Ok(clients.into_iter().find(|client| client.client_id == client_id))
    }

    /// Searches and compares, because some names cannot be addressed by path (`.` and `..`, and behind some proxies
    /// those with `/`). The search works on lower-cased text with the database's own wildcards, so what it does not
    /// find is asked for by path as well.
    async fn role_in(&self, endpoint: Endpoint, place: &[&str], name: &str) -> Result<Option<RoleRep>, Error> {
        if name.is_empty() {
            return Err(Error::new(Kind::InvalidInput, endpoint.label, "an empty name names no role"));
        }
        let path = Path::of(place)?.query(&[("search", name)]);
        let same = |role: RoleRep| (role.name == name).then_some(role);
        let found = self.0.search(endpoint, path, Time::PerRead, same).await?;
        if found.is_some() || !addressable(name) {
            return Ok(found);
        }
        let path = Path::of(&[place, &[name]].concat())?;
        Ok(self.0.read_if_there(endpoint, path, Time::PerRead).await?.and_then(same))
    }

    pub(super) async fn role_by_id(&self, id: &str, time: Time) -> Result<Option<RoleRep>, Error> {
        self.0.read_if_there(ROLE_BY_ID, Path::of(&["roles-by-id", id])?, time).await
    }

    /// The group with exactly this path. [`Kind::Ambiguous`] if two have it.
    ///
    /// By default Keycloak 26.7.3 joins names with `/` and escapes nothing, so the group `a/b` at the top and the
    /// group `b` in `a` are both `/a/b`, and `group-by-path` picks one. Hence this searches for each name that the
    /// last group could have and compares whole paths.
    pub async fn group(&self, path: &str) -> Result<Option<Group>, Error> {
        self.group_within(path).await.map_err(|error| error.during(|| format!("find group {path:?}")))
    }

    async fn group_within(&self, path: &str) -> Result<Option<Group>, Error> {
        if !path.starts_with('/') || path.len() < 2 {
            return Err(Error::new(
                Kind::InvalidInput,
                GROUPS.label,
                "a group's full path begins with / and has a name",
            ));
        }
        let mut found: Vec<GroupRep> = Vec::new();
        for name in last_names(path) {
            // As a flat list: a page of the tree has up to 100 groups but may have one entry, their common parent.
            let query = [("search", name.as_str()), ("exact", "true"), ("populateHierarchy", "false")];
            let groups: Vec<GroupRep> =
                self.0.list(GROUPS, Path::of(&["groups"])?.query(&query), Time::PerRead).await?;
            for group in groups {
                if group.path == path && !found.iter().any(|known| known.id == group.id) {
                    found.push(group);
                }
            }
        }
        match found.len() {
            0 | 1 => Ok(found.pop().map(Group::from)),
            several => {
                let detail = format!("{several} groups have this path, because the name of one contains /");
                Err(Error::new(Kind::Ambiguous, GROUPS.label, detail))
            }
        }
    }

    pub(super) async fn group_by_id(&self, id: &str, time: Time) -> Result<Option<GroupRep>, Error> {
        self.0.read_if_there(GROUP, Path::of(&["groups", id])?, time).await
    }
}

/// Every name that the last group of the path can have: `c`, `b/c` and `a/b/c` for `/a/b/c`; where the server escapes
/// (`--spi-group--jpa--escape-slashes-in-group-path=true`), `~/` in a path is `/` in a name.
fn last_names(path: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (slash, _) in path.match_indices('/') {
        let rest = &path[slash + 1..];
        for name in [rest.to_owned(), rest.replace("~/", "/")] {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tail_of_a_path_may_be_the_name() {
        assert_eq!(last_names("/a/b/c"), ["a/b/c", "b/c", "c"]);
        assert_eq!(last_names("/a~/b"), ["a~/b", "a/b", "b"]);
        assert_eq!(last_names("//"), ["/"]);
    }
}
