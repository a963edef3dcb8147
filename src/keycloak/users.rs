//! Users and the groups they are directly in.

use serde::Deserialize;

use super::{
    Client, Error, Kind,
    http::{Endpoint, Time},
    path::{Path, addressable},
    types::{Group, User},
};
use crate::config::UserMatch;

const USERS: Endpoint = Endpoint { label: "users", right: "manage-users" };
pub(super) const USER: Endpoint = Endpoint { label: "user", right: "manage-users" };
const USER_GROUPS: Endpoint = Endpoint { label: "user-groups", right: "manage-users" };
const MEMBERS: Endpoint = Endpoint { label: "group-members", right: "manage-users" };

/// Transient users: they live in a session only, so nothing can be mapped to them.
const TRANSIENT: &str = "lightweight-";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserRep {
    pub(super) id: String,
    pub(super) username: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    #[serde(default)]
    enabled: bool,
}

impl From<UserRep> for User {
    fn from(UserRep { id, username, email, email_verified, enabled }: UserRep) -> Self {
        Self { id, username, email, email_verified, enabled }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupRep {
    pub(super) id: String,
    pub(super) path: String,
    name: String,
    #[serde(default)]
    pub(super) parent_id: Option<String>,
}

impl From<GroupRep> for Group {
    fn from(GroupRep { id, path, name, parent_id: _ }: GroupRep) -> Self {
        Self { id, path, name }
    }
}

impl Client {
    /// The one user whose username, e-mail or id is `value`; service accounts are found like people.
    ///
    /// What Keycloak finds is compared again: ASCII letters in either case, because Keycloak stores usernames and
    /// addresses in lower case while an identity provider may not. An address that was not verified is nobody's.
    /// [`Kind::Ambiguous`] if there are several (a realm can allow duplicate addresses). [`Kind::InvalidInput`] for
    /// an empty value: with `exact=true` Keycloak 26.7.3 answers it with everybody.
    pub async fn find_user(&self, by: UserMatch, value: &str) -> Result<Option<User>, Error> {
        self.find_user_by(by, value).await.map_err(|error| error.during(|| format!("find user {value:?}")))
    }

    pub(super) async fn find_user_by(&self, by: UserMatch, value: &str) -> Result<Option<User>, Error> {
        if value.trim().is_empty() {
            return Err(Error::new(Kind::InvalidInput, USERS.label, "an empty name is nobody's"));
        }
        let key = match by {
            UserMatch::Id => return self.user_within(value, Time::PerRead).await,
            UserMatch::Username => "username",
            UserMatch::Email => "email",
        };
        let path = Path::of(&["users"])?.query(&[(key, value), ("exact", "true"), ("first", "0"), ("max", "2")]);
        let mut found: Vec<UserRep> = self.0.read(USERS, path, Time::PerRead).await?;
        if found.len() > 1 {
            return Err(Error::new(Kind::Ambiguous, USERS.label, format!("several users have the {key} {value:?}")));
        }
        let Some(user) = found.pop().map(User::from) else { return Ok(None) };
        let is_the_one = match by {
            UserMatch::Email => {
                user.email_verified && user.email.as_ref().is_some_and(|email| email.eq_ignore_ascii_case(value))
            }
            UserMatch::Username | UserMatch::Id => user.username.eq_ignore_ascii_case(value),
        };
        Ok((is_the_one && !user.id.starts_with(TRANSIENT)).then_some(user))
    }

    /// The user with this id. `None` is Keycloak's own answer, but no proof that the realm is the one you think of.
    pub async fn user(&self, id: &str) -> Result<Option<User>, Error> {
        self.user_within(id, Time::PerRead).await.map_err(|error| error.during(|| format!("read user {id:?}")))
    }

    pub(super) async fn user_within(&self, id: &str, time: Time) -> Result<Option<User>, Error> {
        if id.starts_with(TRANSIENT) || (!id.is_empty() && !addressable(id)) {
            return Ok(None);
        }
        let user: Option<UserRep> = self.0.read_if_there(USER, Path::of(&["users", id])?, time).await?;
        Ok(user.filter(|user| user.id == id).map(User::from))
    }

    /// The groups that the user is directly in. [`Kind::NotFound`] if there is no such user.
    pub async fn user_groups(&self, user: &str) -> Result<Vec<Group>, Error> {
        let groups = self.user_groups_within(user, Time::PerRead).await;
        groups.map_err(|error| error.during(|| format!("read the groups of user {user:?}")))
    }

    pub(super) async fn user_groups_within(&self, user: &str, time: Time) -> Result<Vec<Group>, Error> {
        let path = Path::of(&["users", user, "groups"])?.query(&[("briefRepresentation", "true")]);
        let groups: Vec<GroupRep> = self.0.list(USER_GROUPS, path, time).await?;
        Ok(groups.into_iter().map(Group::from).collect())
    }

    /// Users who are directly in the group, disabled ones too, but not more than `at_most`. [`Kind::NotFound`] if there is
    /// no such group.
    pub async fn group_members(&self, group: &str, at_most: usize) -> Result<Vec<User>, Error> {
        let members = self.group_members_read(group, at_most).await;
        members.map_err(|error| error.during(|| format!("read the members of group {group:?}")))
    }

    async fn group_members_read(&self, group: &str, at_most: usize) -> Result<Vec<User>, Error> {
        let max = at_most.to_string();
        let window = [("first", "0"), ("max", max.as_str()), ("briefRepresentation", "true")];
        let members: Vec<UserRep> =
            self.0.read(MEMBERS, Path::of(&["groups", group, "members"])?.query(&window), Time::PerRead).await?;
        Ok(members.into_iter().map(User::from).collect())
    }
}
