//! Does the operator's service account have the rights that it needs, and how far do they reach? Asked with real calls, not
//! read from the token: Keycloak looks rights up live, and a token can leave them out.
//!
//! Instead of `manage-users`, fine-grained permissions may name what can be lent (Keycloak 26.7.3: of what an account may map,
//! and does not have, it shows that account a list; a group says whether its membership may be changed).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    Client, Error, Kind,
    http::{Endpoint, Time},
    path::Path,
    targets::{CLIENTS, GROUP, RoleRep},
    types::{MissingRight, Target},
    users::USER,
};
use crate::config::UserMatch;

const SELF_TEST: Endpoint = Endpoint { label: "self-test", right: "view-realm" };

/// A role of the management client that contains others of its roles. Master's management client has no
/// `realm-admin`; there every `view-clients` contains `query-clients`, as it does elsewhere.
const COMPOSITE: &str = "view-clients";

/// The right to do anything with users.
const MANAGE_USERS: &str = "manage-users";

/// How far the operator's rights reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// `manage-users`: it could lend any role that is not of Keycloak's administration.
    ManageUsers,
    /// Fine-grained permissions.
    Limited {
        /// Whether it may end sessions, and ask for required actions.
        manages: bool,
        /// The realm roles that it could lend.
        realm_roles: BTreeSet<String>,
    },
}

/// What Keycloak says of a user or group: what the caller may do with it. In full only where that is read by id.
#[derive(Deserialize)]
struct WithAccess {
    #[serde(default)]
    access: BTreeMap<String, bool>,
}

impl WithAccess {
    fn may(&self, what: &str) -> bool {
        self.access.get(what).copied().unwrap_or(false)
    }
}

impl Client {
    /// Signs in anew and says which of the rights `manage-users`, `view-realm` and `view-clients` are missing. Changes
    /// nothing. Fails if it cannot sign in or the server does not answer.
    pub async fn self_test(&self) -> Result<Vec<MissingRight>, Error> {
        let missing =
            self.missing_rights().await.map_err(|error| error.during(|| self.action("check the rights in")))?;
        Ok(missing.into_iter().map(|right| self.describe(right)).collect())
    }

    async fn missing_rights(&self) -> Result<Vec<&'static str>, Error> {
        self.0.tokens.forget().await;
        let mut missing = Vec::new();
        for (right, given) in [
            (MANAGE_USERS, given(self.may_lend_at_all().await)?),
            ("view-realm", given(self.may_view_realm().await)?),
            ("view-clients", given(self.may_view_clients().await)?),
        ] {
            if !given {
                missing.push(right);
            }
        }
        Ok(missing)
    }

    fn describe(&self, right: &'static str) -> MissingRight {
        let (client, of) = (&self.0.tokens.client_id, self.0.admin_client);
        let message = format!(
            "the service account of client {client:?} lacks the right {right}: in Keycloak's console open Clients, \
             {client}, Service accounts roles, Assign role, Client roles and choose {of} {right} (and on the \
             client's dedicated scope leave \"Full scope allowed\" on)"
        );
        MissingRight { right, message }
    }

    /// Which role of Keycloak's administration the target is, if it is one that the operator's own account does not have.
    /// Keycloak 26.7.3 lets an account map a role of its administration, and take it away, only if it has that role's rights
    /// itself; a composite that contains the same role it maps all the same.
    pub async fn lacks_itself(&self, target: &Target) -> Result<Option<String>, Error> {
        let Target::ClientRole { client, id, name } = target else { return Ok(None) };
        let lacks = async {
            let Some(of) = self.admin_clients(Time::PerRead).await?.remove(client) else { return Ok(None) };
            let own = self.own_account().await?;
            let path = Path::of(&["users", &own, "role-mappings", "clients", client, "composite"])?;
            let roles: Vec<RoleRep> = self.0.read(SELF_TEST, path, Time::PerRead).await?;
            Ok((!roles.iter().any(|role| role.id == *id)).then(|| format!("{of}/{name}")))
        };
        lacks.await.map_err(|error: Error| error.during(|| self.action("check the operator's own roles in")))
    }

    /// How far the operator's rights reach, if they suffice.
    pub async fn reach(&self) -> Result<Reach, Error> {
        let reach = async {
            let own = self.own_account().await?;
            let of = self.client(self.0.admin_client).await?.ok_or_else(|| self.forbidden(CLIENTS))?.id;
            let path = Path::of(&["users", &own, "role-mappings", "clients", &of, "composite"])?;
            let rights: Vec<RoleRep> = self.0.read(SELF_TEST, path, Time::PerRead).await?;
            if rights.iter().any(|right| right.name == MANAGE_USERS) {
                return Ok(Reach::ManageUsers);
            }
            let account: WithAccess = self.0.read(USER, Path::of(&["users", &own])?, Time::PerRead).await?;
            let roles = self.lendable(&own, &["realm"]).await?;
            let realm_roles = roles.into_iter().map(|role| role.name).collect();
            Ok(Reach::Limited { manages: account.may("manage"), realm_roles })
        };
        reach.await.map_err(|error: Error| error.during(|| self.action("look how far the rights reach in")))
    }

    /// Whether the operator's rights let it map this. Not if its own account has it: Keycloak does not say then.
    pub async fn may_lend(&self, target: &Target) -> Result<bool, Error> {
        let may = async {
            let place = match target {
                Target::Group { id, .. } => {
                    let group: WithAccess = self.0.read(GROUP, Path::of(&["groups", id])?, Time::PerRead).await?;
                    return Ok(group.may("manageMembership"));
                }
                Target::RealmRole { .. } => vec!["realm"],
                Target::ClientRole { client, .. } => vec!["clients", client],
            };
            let own = self.own_account().await?;
            Ok(self.lendable(&own, &place).await?.iter().any(|role| role.id == target.id()))
        };
        may.await
            .map_err(|error: Error| error.during(|| format!("look whether {target} may be lent in {}", self.0.base)))
    }

    /// The roles that the operator may map and its account does not have.
    async fn lendable(&self, own: &str, place: &[&str]) -> Result<Vec<RoleRep>, Error> {
        let path = Path::of(&[&["users", own, "role-mappings"], place, &["available"]].concat())?;
        self.0.read(SELF_TEST, path, Time::PerRead).await
    }

    /// Id of the operator's service account.
    async fn own_account(&self) -> Result<String, Error> {
        let own = format!("service-account-{}", self.0.tokens.client_id);
        let found = self.find_user_by(UserMatch::Username, &own).await?;
        found.map(|own| own.id).ok_or_else(|| self.forbidden(USER))
    }

    /// With `manage-users`, or with permissions that let it map roles and change memberships.
    async fn may_lend_at_all(&self) -> Result<bool, Error> {
        let own = self.own_account().await?;
        let own: WithAccess = self.0.read(USER, Path::of(&["users", &own])?, Time::PerRead).await?;
        Ok(own.may("mapRoles") && own.may("manageGroupMembership"))
    }

    async fn may_view_realm(&self) -> Result<bool, Error> {
        self.realm_within(Time::PerRead).await?;
        let path = Path::of(&["roles"])?.query(&[("first", "0"), ("max", "1")]);
        let roles: Vec<RoleRep> = self.0.read(SELF_TEST, path, Time::PerRead).await?;
        Ok(!roles.is_empty())
    }

    /// Clients, their roles, and clients' roles inside of composites: without the last, a role that contains
    /// `realm-admin` looks as if it contained nothing.
    async fn may_view_clients(&self) -> Result<bool, Error> {
        let Some(client) = self.client(self.0.admin_client).await? else { return Ok(false) };
        let path =
            Path::of(&["clients", &client.id, "roles"])?.query(&[("search", COMPOSITE), ("first", "0"), ("max", "10")]);
        let roles: Vec<RoleRep> = self.0.read(CLIENTS, path, Time::PerRead).await?;
        let Some(composite) = roles.iter().find(|role| role.name == COMPOSITE) else { return Ok(false) };
        let path = Path::of(&["roles-by-id", &composite.id, "composites"])?;
        let parts: Vec<RoleRep> = self.0.read(SELF_TEST, path, Time::PerRead).await?;
        Ok(!parts.is_empty())
    }
}

/// A 403 is an answer here.
fn given(outcome: Result<bool, Error>) -> Result<bool, Error> {
    match outcome {
        Err(error) if error.kind() == Kind::Forbidden => Ok(false),
        outcome => outcome,
    }
}
