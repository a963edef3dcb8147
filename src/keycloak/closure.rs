//! Does a role or group lead to Keycloak's own administration? `manage-users` alone is as good as `realm-admin`: its
//! holder may map a composite that contains the latter, or join a group that has it, and Keycloak 26.7.3 allows it.

use std::collections::{HashMap, HashSet, VecDeque};

use futures::future::join;
use serde::Deserialize;

use super::{
    Client, Error, Kind, MASTER,
    http::{Endpoint, Time},
    path::Path,
    targets::{CLIENTS, ClientRep, RoleRep},
    types::{Container, Group, Lendable, RealmInfo, Role, Target},
};

const COMPOSITES: Endpoint = Endpoint { label: "composites", right: "view-realm (view-clients for a client's role)" };
const GROUP_MAPPINGS: Endpoint = Endpoint { label: "group-mappings", right: "manage-users and view-realm" };

/// Roles after which a closure is not looked at further but refused.
const MAX_ROLES: usize = 2000;

/// Groups are nested at most this deep; more means a cycle.
const MAX_PARENTS: usize = 100;

/// Realm roles of master that need no client to be powerful.
const MASTER_ROLES: [&str; 2] = ["admin", "create-realm"];

/// A role that is still to be looked at, and how it was reached.
struct Step {
    role: RoleRep,
    via: String,
}

/// What is known while walking.
struct Walk<'a> {
    client: &'a Client,
    /// `clientId` by id of the clients whose roles administer Keycloak.
    admin_clients: HashMap<String, String>,
    seen: HashSet<String>,
    queue: VecDeque<Step>,
}

impl Client {
    /// How the target leads to Keycloak's administration, if it does: the role itself, a role in it at any depth, or
    /// one that the group or a parent of it has. In words, as `role realm-management/manage-users through composite
    /// "x"`.
    ///
    /// Keycloak 26.7.3 leaves out of a composite, and of a group's roles, what the caller may not see, with 200: without
    /// `view-clients` a role that contains `realm-admin` seems empty, or seems to contain only its harmless part.
    /// Hence this fails with [`Kind::Forbidden`] unless the realm and its management client can be seen, and a
    /// composite in which nothing can be seen counts as well. [`Kind::NotFound`] if the target is gone.
    pub async fn reaches_admin(&self, target: &Target) -> Result<Option<String>, Error> {
        let (seen, found) = join(self.realm_within(Time::PerRead), self.find_again(target)).await;
        let found = seen.and_then(|seen| Ok((seen, found?)));
        let (seen, found) = found.map_err(|error| error.during(|| format!("see what {target} contains")))?;
        self.leads_to_admin(&found, &seen).await
    }

    /// The same for what was just found in a realm that was just read: neither is read once more.
    pub async fn leads_to_admin(&self, found: &Lendable, _seen: &RealmInfo) -> Result<Option<String>, Error> {
        let reached = self.walk(found).await;
        reached.map_err(|error| error.during(|| format!("see what {} contains", Target::from(found))))
    }

    async fn find_again(&self, target: &Target) -> Result<Lendable, Error> {
        let (Target::RealmRole { id, .. } | Target::ClientRole { id, .. }) = target else {
            let (id, path) = (target.id().to_owned(), target.name().to_owned());
            return Ok(Lendable::Group(Group { id, name: path.clone(), path }));
        };
        let role = self.role_by_id(id, Time::PerRead).await?;
        let role = role.ok_or_else(|| Error::new(Kind::NotFound, COMPOSITES.label, "the role is gone"))?;
        let container = if role.client_role {
            Container::Client { id: role.container_id.clone().unwrap_or_default(), client_id: String::new() }
        } else {
            Container::Realm
        };
        Ok(Lendable::Role(role.into_role(container)))
    }

    async fn walk(&self, found: &Lendable) -> Result<Option<String>, Error> {
        let first = async {
            match found {
                Lendable::Group(group) => self.roles_of_group(&group.id).await,
                Lendable::Role(role) => Ok(vec![Step { role: RoleRep::from(role), via: String::new() }]),
            }
        };
        let (admin_clients, first) = join(self.admin_clients(Time::PerRead), first).await;
        let (queue, seen) = (VecDeque::new(), HashSet::new());
        let mut walk = Walk { client: self, admin_clients: admin_clients?, seen, queue };
        for Step { role, via } in first? {
            walk.add(role, via);
        }
        walk.finish().await
    }

    /// A group gives its own roles and those of all its parents. (The composite view of a child group's client roles
    /// leaves out the parent's, so each group is asked for what it has itself.)
    async fn roles_of_group(&self, id: &str) -> Result<Vec<Step>, Error> {
        let mut roles = Vec::new();
        let mut next = Some(id.to_owned());
        let mut depth = 0;
        while let Some(id) = next {
            depth += 1;
            let path = Path::of(&["groups", &id, "role-mappings"])?;
            let mappings = self.0.read(GROUP_MAPPINGS, path, Time::PerRead);
            let (group, mappings) = join(self.group_by_id(&id, Time::PerRead), mappings).await;
            let group = group?.filter(|_| depth <= MAX_PARENTS);
            let group = group.ok_or_else(|| Error::new(Kind::NotFound, GROUP_MAPPINGS.label, "the group is gone"))?;
            let mappings: GroupMappings = mappings?;
            let clients = mappings.client_mappings.into_values().flat_map(|client| client.mappings);
            for role in mappings.realm_mappings.into_iter().chain(clients) {
                roles.push(Step { role, via: format!(" through group {:?}", group.path) });
            }
            next = group.parent_id;
        }
        Ok(roles)
    }

    /// `realm-management`; in master the `…-realm` clients, one for each realm of the server.
    pub(super) async fn admin_clients(&self, time: Time) -> Result<HashMap<String, String>, Error> {
        let clients = if self.is_master() {
            let query = [("clientId", "-realm"), ("search", "true")];
            let clients: Vec<ClientRep> = self.0.list(CLIENTS, Path::of(&["clients"])?.query(&query), time).await?;
            clients.into_iter().filter(|client| client.client_id.ends_with("-realm")).collect()
        } else {
            self.client_within(self.0.admin_client, time).await?.into_iter().collect::<Vec<_>>()
        };
        if clients.is_empty() {
            return Err(self.forbidden(CLIENTS));
        }
        Ok(clients.into_iter().map(|client| (client.id, client.client_id)).collect())
    }

    fn is_master(&self) -> bool {
        self.0.realm == MASTER
    }
}

impl From<&Role> for RoleRep {
    fn from(role: &Role) -> Self {
        let Role { id, name, composite, container } = role;
        let (client_role, container_id) = match container {
            Container::Realm => (false, None),
            Container::Client { id, .. } => (true, Some(id.clone()).filter(|id| !id.is_empty())),
        };
        Self { id: id.clone(), name: name.clone(), composite: *composite, client_role, container_id }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupMappings {
    #[serde(default)]
    realm_mappings: Vec<RoleRep>,
    #[serde(default)]
    client_mappings: HashMap<String, ClientMappings>,
}

#[derive(Deserialize)]
struct ClientMappings {
    #[serde(default)]
    mappings: Vec<RoleRep>,
}

impl Walk<'_> {
    fn add(&mut self, role: RoleRep, via: String) {
        if self.seen.insert(role.id.clone()) {
            self.queue.push_back(Step { role, via });
        }
    }

    async fn finish(&mut self) -> Result<Option<String>, Error> {
        while let Some(Step { role, via }) = self.queue.pop_front() {
            if let Some(name) = self.admin_role(&role) {
                return Ok(Some(format!("role {name}{via}")));
            }
            if !role.composite {
                continue;
            }
            if self.seen.len() > MAX_ROLES {
                return Ok(Some(format!("more than {MAX_ROLES} roles, too many to look through")));
            }
            let path = Path::of(&["roles-by-id", &role.id, "composites"])?;
            let parts: Vec<RoleRep> = self.client.0.read(COMPOSITES, path, Time::PerRead).await?;
            if parts.is_empty() {
                return Ok(Some(format!("composite {:?}{via}, whose roles cannot be seen", role.name)));
            }
            for part in parts {
                self.add(part, format!(" through composite {:?}{via}", role.name));
            }
        }
        Ok(None)
    }

    /// The role's name if it administers Keycloak. A client's role that does not say whose it is counts.
    fn admin_role(&self, role: &RoleRep) -> Option<String> {
        if !role.client_role {
            let powerful = self.client.is_master() && MASTER_ROLES.contains(&role.name.as_str());
            return powerful.then(|| format!("master/{}", role.name));
        }
        let Some(container) = &role.container_id else { return Some(format!("(unknown client)/{}", role.name)) };
        self.admin_clients.get(container).map(|client| format!("{client}/{}", role.name))
    }
}
