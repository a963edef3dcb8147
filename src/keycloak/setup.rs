//! Preparing a realm, as an administrator: the operator's client, its rights, and, in the limited profile, what it may lend.
//! Each step looks first, changes only what differs, says whether it had to, and may be repeated.
//!
//! What Keycloak 26.7.3 does that shapes this module:
//! * Fine-grained permissions (FGAP v2) are policies and scope permissions of the client `admin-permissions`, which is there once
//!   the realm has them on. A permission of a type without resources is about *all* of that type.
//! * A user with `map-roles` on users and `map-role` on a role of a client maps that role. `map-roles` on the client would be all
//!   of its roles.
//! * Permissions do not add up: where two are about all users, each for somebody else, neither allows anything.
//! * `manage` on users is more than ending their sessions: it resets passwords, too.

use std::path::PathBuf;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Client, Error, Kind, Write,
    http::{Endpoint, Request, Time},
    path::Path,
    targets::RoleRep,
};

const SETUP: Endpoint = Endpoint { label: "setup", right: "of an administrator" };

/// The client that keeps a realm's fine-grained permissions.
const PERMISSIONS: &str = "admin-permissions";

/// Seconds for which a token of the operator lives: what it sent can land no later.
const TOKEN_LIFE: &str = "60";

/// Who prepares a realm. Signs in with a password, at `admin-cli`.
#[derive(Clone, Debug)]
pub struct Administrator {
    /// The name.
    pub username: String,
    /// The file with the password.
    pub password_file: PathBuf,
    /// The realm of this account.
    pub realm: String,
}

/// How the operator's client signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authenticator {
    /// With a secret, which Keycloak makes up.
    Secret,
    /// With something that it signs. Its public key is given to it by hand.
    SignedJwt,
    /// With a service account's token. Issuer and subject are given to it by hand.
    FederatedJwt,
}

impl Authenticator {
    const fn id(&self) -> &'static str {
        match self {
            Self::Secret => "client-secret",
            Self::SignedJwt => "client-jwt",
            Self::FederatedJwt => "federated-jwt",
        }
    }
}

/// What a scope permission is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subjects {
    /// Users.
    Users,
    /// Realm roles and clients' roles.
    Roles,
    /// Groups.
    Groups,
}

impl Subjects {
    /// As Keycloak calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "Users",
            Self::Roles => "Roles",
            Self::Groups => "Groups",
        }
    }
}

/// A policy or permission as far as steps look at it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    id: String,
    name: String,
    #[serde(default)]
    logic: String,
    #[serde(default)]
    decision_strategy: String,
    #[serde(default)]
    resource_type: String,
    /// Of a user policy: the ids of the users.
    #[serde(default)]
    users: Vec<String>,
}

impl Client {
    /// Makes sure that the operator's client is there: for nobody's sign-in but its own.
    pub async fn prepare_client(&self, client_id: &str, authenticator: &Authenticator) -> Result<bool, Error> {
        let wanted = json!({
            "clientId": client_id, "enabled": true, "publicClient": false, "serviceAccountsEnabled": true,
            "standardFlowEnabled": false, "implicitFlowEnabled": false, "directAccessGrantsEnabled": false,
            "fullScopeAllowed": true, "clientAuthenticatorType": authenticator.id(),
        });
        let wanted = wanted.as_object().cloned().unwrap_or_default();
        let prepared = async {
            let Some(client) = self.client(client_id).await? else {
                let mut new = wanted.clone();
                new.insert("attributes".into(), json!({"access.token.lifespan": TOKEN_LIFE}));
                self.write(Method::POST, &["clients"], &Value::Object(new)).await?;
                return Ok(true);
            };
            let path = ["clients", &client.id];
            let mut there: Map<String, Value> = self.0.read(SETUP, Path::of(&path)?, Time::PerRead).await?;
            let life = there.get("attributes").and_then(|attributes| attributes.get("access.token.lifespan"));
            if wanted.iter().all(|(key, value)| there.get(key) == Some(value)) && life == Some(&json!(TOKEN_LIFE)) {
                return Ok(false);
            }
            if there.get("standardFlowEnabled") == Some(&Value::Bool(true)) {
                let words = "people sign in at this client: is its name right? Turn \"Standard flow\" off if it is Hallpass' own";
                return Err(Error::new(Kind::Rejected, SETUP.label, words));
            }
            there.extend(wanted.clone());
            if let Some(attributes) = there.entry("attributes").or_insert_with(|| json!({})).as_object_mut() {
                attributes.insert("access.token.lifespan".into(), json!(TOKEN_LIFE));
            }
            self.write(Method::PUT, &path, &Value::Object(there)).await?;
            Ok(true)
        };
        prepared.await.map_err(|error: Error| error.during(|| format!("prepare client {client_id:?}")))
    }

    /// Gives the service account of a client these rights, and takes those from it.
    pub async fn prepare_rights(&self, client_id: &str, give: &[&str], take: &[&str]) -> Result<bool, Error> {
        let prepared = async {
            let (account, of) = (self.account_of(client_id).await?, self.id_of(self.0.admin_client).await?);
            let path = ["users", &account, "role-mappings", "clients", &of];
            let has: Vec<RoleRep> = self.0.read(SETUP, Path::of(&path)?, Time::PerRead).await?;
            let mut changed = false;
            for right in give.iter().filter(|right| !has.iter().any(|role| role.name == **right)) {
                let role: Value =
                    self.0.read(SETUP, Path::of(&["clients", &of, "roles", right])?, Time::PerRead).await?;
                self.write(Method::POST, &path, &json!([role])).await?;
                changed = true;
            }
            for role in has.iter().filter(|role| take.contains(&role.name.as_str())) {
                self.write(Method::DELETE, &path, &json!([{"id": role.id, "name": role.name}])).await?;
                changed = true;
            }
            // What it has through another role, or a group, is not its own to lose.
            let all = Path::of(&[&path[..], &["composite"]].concat())?;
            let all: Vec<RoleRep> = self.0.read(SETUP, all, Time::PerRead).await?;
            if let Some(role) = all.iter().find(|role| take.contains(&role.name.as_str())) {
                let words = format!("it has {} through another role or a group: take that from it by hand", role.name);
                return Err(Error::new(Kind::Rejected, SETUP.label, words));
            }
            Ok(changed)
        };
        prepared.await.map_err(|error: Error| error.during(|| format!("give rights to client {client_id:?}")))
    }

    /// Turns fine-grained permissions on in this realm. Fails if there are others' already: with ours beside them neither would
    /// allow anything.
    pub async fn prepare_permissions(&self, client_id: &str) -> Result<bool, Error> {
        let on = async {
            let realm: Value = self.0.read(SETUP, Path::default(), Time::PerRead).await?;
            if realm["adminPermissionsEnabled"] == true {
                let server = self.id_of(PERMISSIONS).await?;
                let all = Path::of(&["clients", &server, "authz", "resource-server", "permission", "scope"])?;
                let all: Vec<Named> = self.0.list(SETUP, all, Time::PerRead).await?;
                let ours = |there: &Named| there.name.starts_with(&format!("{client_id}: "));
                let types = [Subjects::Users, Subjects::Roles, Subjects::Groups].map(Subjects::as_str);
                let other = |there: &&Named| !ours(there) && types.contains(&there.resource_type.as_str());
                return match all.iter().find(other) {
                    None => Ok(false),
                    Some(Named { name, resource_type, .. }) => {
                        let words = format!(
                            "there is the permission {name:?} about {resource_type}: permissions of Keycloak do not add up, and \
                             beside ours neither would allow anything. Stay with manage-users, or take it away"
                        );
                        Err(Error::new(Kind::Rejected, SETUP.label, words))
                    }
                };
            }
            self.write(Method::PUT, &[], &json!({"adminPermissionsEnabled": true})).await?;
            Ok(true)
        };
        on.await.map_err(|error: Error| error.during(|| self.action("turn fine-grained permissions on in")))
    }

    /// Makes sure of a permission of this name: the service account of the client, and nobody else by it, may do this to all of
    /// a kind, or to these. To none of them: there is no such permission.
    pub async fn prepare_permission(
        &self,
        client_id: &str,
        name: &str,
        (of, scopes): (Subjects, &[&str]),
        only: Option<&[String]>,
    ) -> Result<bool, Error> {
        let prepared = async {
            let server = self.id_of(PERMISSIONS).await?;
            let base = ["clients", &server, "authz", "resource-server"];
            let all = [&base[..], &["permission", "scope"]].concat();
            let there = self.named(&all, name).await?;
            if only.is_some_and(<[String]>::is_empty) {
                let Some(there) = there else { return Ok(false) };
                self.write(Method::DELETE, &[&all[..], &[&there.id]].concat(), &Value::Null).await?;
                return Ok(true);
            }
            let policy = self.policy_for(&base, client_id).await?;
            let mut wanted = json!({
                "name": name, "resourceType": of.as_str(), "scopes": scopes, "policies": [policy],
                "decisionStrategy": "UNANIMOUS", "logic": "POSITIVE",
            });
            if let Some(only) = only {
                wanted["resources"] = json!(only);
            }
            let Some(there) = there else {
                self.write(Method::POST, &all, &wanted).await?;
                return Ok(true);
            };
            let of_it = [&base[..], &["policy", &there.id]].concat();
            let names = async |what: &str, field: &str| {
                let path = Path::of(&[&of_it[..], &[what]].concat())?;
                let parts: Vec<Value> = self.0.read(SETUP, path, Time::PerRead).await?;
                let mut names: Vec<String> =
                    parts.iter().filter_map(|part| Some(part[field].as_str()?.into())).collect();
                names.sort();
                Ok::<_, Error>(names)
            };
            let sorted = |mut names: Vec<String>| {
                names.sort();
                names
            };
            let wanted_scopes = sorted(scopes.iter().map(ToString::to_string).collect());
            // A permission about all of a type has the type itself as its one resource.
            let wanted_resources = sorted(only.map_or_else(|| vec![of.as_str().to_owned()], <[String]>::to_vec));
            if (&*there.logic, &*there.decision_strategy, &*there.resource_type)
                == ("POSITIVE", "UNANIMOUS", of.as_str())
                && names("scopes", "name").await? == wanted_scopes
                && names("resources", "name").await? == wanted_resources
                && names("associatedPolicies", "id").await? == [policy]
            {
                return Ok(false);
            }
            wanted["id"] = json!(there.id);
            self.write(Method::PUT, &[&all[..], &[&there.id]].concat(), &wanted).await?;
            Ok(true)
        };
        prepared.await.map_err(|error: Error| error.during(|| format!("prepare permission {name:?}")))
    }

    /// Id of the policy that stands for a client's service account.
    async fn policy_for(&self, base: &[&str], client_id: &str) -> Result<String, Error> {
        let (all, name) = ([base, &["policy", "user"]].concat(), format!("{client_id}: service account"));
        let account = self.account_of(client_id).await?;
        if let Some(there) = self.named(&all, &name).await? {
            if there.users == [account] && there.logic == "POSITIVE" {
                return Ok(there.id);
            }
            let words = format!("policy {name:?} is about somebody else than this service account: take it away");
            return Err(Error::new(Kind::Rejected, SETUP.label, words));
        }
        self.write(Method::POST, &all, &json!({"name": name, "users": [account], "logic": "POSITIVE"})).await?;
        let missing = || Error::new(Kind::ServerError, SETUP.label, "the policy that was made is not there");
        Ok(self.named(&all, &name).await?.ok_or_else(missing)?.id)
    }

    async fn named(&self, place: &[&str], name: &str) -> Result<Option<Named>, Error> {
        let path = Path::of(place)?.query(&[("name", name), ("first", "0"), ("max", "1000")]);
        let found: Vec<Named> = self.0.read(SETUP, path, Time::PerRead).await?;
        Ok(found.into_iter().find(|found| found.name == name))
    }

    async fn id_of(&self, client_id: &str) -> Result<String, Error> {
        let missing = || Error::new(Kind::NotFound, SETUP.label, format!("there is no client {client_id:?}"));
        Ok(self.client(client_id).await?.ok_or_else(missing)?.id)
    }

    async fn account_of(&self, client_id: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Account {
            id: String,
        }
        let id = self.id_of(client_id).await?;
        let path = Path::of(&["clients", &id, "service-account-user"])?;
        let account: Account = self.0.read(SETUP, path, Time::PerRead).await?;
        Ok(account.id)
    }

    async fn write(&self, method: Method, place: &[&str], body: &Value) -> Result<(), Error> {
        let path = if place.is_empty() { Path::default() } else { Path::of(place)? };
        let body = (!body.is_null()).then(|| body.to_string().into_bytes());
        let request = Request { method, endpoint: SETUP, path, body, write: Some(Write::Prepare) };
        self.0.exchange(&request, self.0.write_deadline()).await.map(drop)
    }
}
