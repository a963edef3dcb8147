//! Required actions: what the realm asks for, what a user has done, and asking a user for more.
//!
//! What Keycloak 26.7.3 does that shapes this module:
//! * A `PUT` with `requiredActions` replaces the set: what is not sent is lost, whoever put it there.
//! * Names that it does not know are dropped silently, with 204. A disabled action stays in the list and is never asked.
//! * A `PUT` with `attributes` replaces all of the user's attributes, first and last name and address included.
//! * A user whose stored profile breaks today's user profile cannot be written at all: 400.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{
    Client, Error, Kind, Write,
    http::{Endpoint, Request, Time},
    path::Path,
    targets::{CLIENTS, ClientRep},
    types::{Account, Credential},
    users::USER,
};

const ACTIONS: Endpoint = Endpoint { label: "required-actions", right: "view-realm" };
const CREDENTIALS: Endpoint = Endpoint { label: "credentials", right: "manage-users" };
const ASK: Endpoint = Endpoint { label: "ask-for-actions", right: "manage-users" };

#[derive(Deserialize)]
struct ActionRep {
    alias: String,
    #[serde(default)]
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FullUserRep {
    username: String,
    #[serde(default)]
    required_actions: BTreeSet<String>,
    #[serde(default)]
    email_verified: bool,
    #[serde(default)]
    attributes: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CredentialRep {
    #[serde(rename = "type")]
    type_: String,
    /// Milliseconds since 1970.
    #[serde(default)]
    created_date: Option<i64>,
}

#[derive(Deserialize)]
struct OnlyId {
    id: String,
}

/// All that is ever written of a user.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OnlyActions<'a> {
    required_actions: &'a BTreeSet<String>,
}

impl Client {
    /// The required actions that the realm asks for: registered and enabled.
    pub async fn required_actions(&self) -> Result<BTreeSet<String>, Error> {
        let path = Path::of(&["authentication", "required-actions"])?;
        let actions: Result<Vec<ActionRep>, Error> = self.0.read(ACTIONS, path, Time::PerRead).await;
        let actions = actions.map_err(|error| error.during(|| self.action("read the required actions of")))?;
        Ok(actions.into_iter().filter(|action| action.enabled).map(|action| action.alias).collect())
    }

    /// What a user still has to do, and what shows what was done. [`Kind::NotFound`] if there is no such user.
    pub async fn account(&self, user: &str) -> Result<Account, Error> {
        let read = async {
            let credentials = Path::of(&["users", user, "credentials"])?;
            let credentials: Vec<CredentialRep> = self.0.read(CREDENTIALS, credentials, Time::PerRead).await?;
            let FullUserRep { username, required_actions, email_verified, attributes } =
                self.full_user(user, Time::PerRead).await?;
            Ok(Account {
                pending: required_actions,
                credentials: credentials
                    .into_iter()
                    .map(|CredentialRep { type_, created_date }| Credential { type_, created: created_date })
                    .collect(),
                email_verified,
                attributes,
                is_service_account: self.is_service_account(user, &username).await?,
            })
        };
        read.await.map_err(|error: Error| error.during(|| format!("read what user {user:?} has done")))
    }

    /// Keycloak 26.7.3 does not say of a user that it is a client's service account. Its name does, and the client that the
    /// name leads to: a person can be called so, too.
    async fn is_service_account(&self, user: &str, username: &str) -> Result<bool, Error> {
        let Some(client_id) = username.strip_prefix("service-account-").filter(|id| !id.is_empty()) else {
            return Ok(false);
        };
        // The username is in lower case, the clientId need not be.
        let path = Path::of(&["clients"])?.query(&[("clientId", client_id), ("search", "true")]);
        let same = |client: ClientRep| client.client_id.eq_ignore_ascii_case(client_id).then_some(client.id);
        for client in self.0.list(CLIENTS, path, Time::PerRead).await?.into_iter().filter_map(same) {
            let path = Path::of(&["clients", &client, "service-account-user"])?;
            match self.0.read::<OnlyId>(CLIENTS, path, Time::PerRead).await {
                Ok(account) if account.id == user => return Ok(true),
                Ok(_) => {}
                // A client without a service account.
                Err(error) if matches!(error.kind(), Kind::Rejected | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn full_user(&self, user: &str, time: Time) -> Result<FullUserRep, Error> {
        self.0.read(USER, Path::of(&["users", user])?, time).await
    }

    /// Has Keycloak ask a user for these actions at the next interactive sign-in. What else is in the user's list stays;
    /// doing it twice is fine. `Ok` means that all of them are in the list now.
    ///
    /// [`Kind::Rejected`] if the user cannot be written: a stored profile that breaks the realm's user profile, or a
    /// user of a read-only storage. Keycloak has no call that adds one action: what somebody else puts into the list
    /// between the read and the write is lost.
    pub async fn ask_for_actions(&self, user: &str, actions: &BTreeSet<String>) -> Result<(), Error> {
        let done = self.ask_within(user, actions, self.0.write_deadline()).await;
        done.map_err(|error| error.during(|| format!("ask user {user:?} for required actions")))
    }

    async fn ask_within(&self, user: &str, actions: &BTreeSet<String>, time: Time) -> Result<(), Error> {
        let before = self.full_user(user, time).await?.required_actions;
        if actions.is_subset(&before) {
            return Ok(());
        }
        let all: BTreeSet<String> = before.union(actions).cloned().collect();
        let body = serde_json::to_vec(&OnlyActions { required_actions: &all });
        let body = body.map_err(|error| Error::new(Kind::InvalidInput, ASK.label, error.to_string()))?;
        let path = Path::of(&["users", user])?;
        let request = Request { method: Method::PUT, endpoint: ASK, path, body: Some(body), write: Some(Write::Give) };
        self.0.exchange(&request, time).await?;
        let after = self.full_user(user, time).await?.required_actions;
        let dropped: Vec<&str> = actions.difference(&after).map(String::as_str).collect();
        if dropped.is_empty() {
            return Ok(());
        }
        let words = format!("Keycloak answered 204 and dropped {}", dropped.join(", "));
        Err(Error::new(Kind::Rejected, ASK.label, words))
    }
}
