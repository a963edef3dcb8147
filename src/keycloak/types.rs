//! What the client takes and gives. Ids are identities; names are for people, and a hint.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::Timestamp;

/// The realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealmInfo {
    /// The realm's own id: a realm that is made anew under the same name has another one.
    pub id: String,
    /// How long an access token lives, unless its client says otherwise.
    pub access_token_lifespan: Duration,
    /// The same for the implicit flow.
    pub implicit_token_lifespan: Duration,
    /// How long a session lasts at most; offline sessions may last longer.
    pub longest_session: Duration,
}

impl RealmInfo {
    /// A token's lifespan as it is configured: -1 means until the session's longest life is over.
    pub(super) fn lifespan(&self, seconds: i64) -> Duration {
        u64::try_from(seconds).map_or(self.longest_session, Duration::from_secs)
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Identity. A user who is made anew under the same name has another one.
    pub id: String,
    /// In lower case, as Keycloak stores it.
    pub username: String,
    /// Present e-mail address.
    pub email: Option<String>,
    /// Whether the address was verified.
    pub email_verified: bool,
    /// A disabled user cannot sign in.
    pub enabled: bool,
}

/// What a user still has to do, and what shows what was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Required actions in the user's list.
    pub pending: BTreeSet<String>,
    /// What the user signs in with.
    pub credentials: Vec<Credential>,
    /// Whether the address was verified.
    pub email_verified: bool,
    /// Attributes, as far as the realm's user profile shows them to administrators.
    pub attributes: BTreeMap<String, Vec<String>>,
    /// Whether it is a client's service account.
    pub is_service_account: bool,
}

/// Something with which a user signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What it is, as `otp`.
    pub type_: String,
    /// When it was made, in milliseconds since 1970.
    pub created: Option<i64>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Identity.
    pub id: String,
    /// Full path, as `/payments/leads`. Two groups can share one: see [`super::Client::group`].
    pub path: String,
    /// Last part of the path, which may contain `/` itself.
    pub name: String,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Identity. Stays when the role is renamed.
    pub id: String,
    /// Present name.
    pub name: String,
    /// Whether other roles come with it.
    pub composite: bool,
    /// Where it belongs.
    pub container: Container,
}

/// Where a role belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// A realm role.
    Realm,
    /// A client's role.
    Client {
        /// Identity of the client.
        id: String,
        /// The client's `clientId`.
        client_id: String,
    },
}

/// What looking for a client's role gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRole {
    /// It is there.
    Found(Role),
    /// There is no client with this `clientId`.
    NoClient,
    /// The client has no such role.
    NoRole,
}

/// A role or group that was just found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lendable {
    /// A role of the realm or of a client.
    Role(Role),
    /// A group.
    Group(Group),
}

/// What is mapped to a user. The id is what counts; the name is a hint that may be out of date.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A role of the realm.
    RealmRole {
        /// Role id.
        id: String,
        /// Name, when it was last seen.
        name: String,
    },
    /// A role of a client.
    ClientRole {
        /// Id (not `clientId`) of the client.
        client: String,
        /// Role id.
        id: String,
        /// Name, when it was last seen.
        name: String,
    },
    /// Membership of a group.
    Group {
        /// Group id.
        id: String,
        /// Path, when it was last seen.
        name: String,
    },
}

impl Target {
    /// Identity of the role or group.
    pub fn id(&self) -> &str {
        match self {
            Self::RealmRole { id, .. } | Self::ClientRole { id, .. } | Self::Group { id, .. } => id,
        }
    }

    /// Name, when it was last seen.
    pub fn name(&self) -> &str {
        match self {
            Self::RealmRole { name, .. } | Self::ClientRole { name, .. } | Self::Group { name, .. } => name,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::RealmRole { .. } => "realm role",
            Self::ClientRole { .. } => "client role",
            Self::Group { .. } => "group",
        };
        write!(f, "{word} {:?}", self.name())
    }
}

impl From<&Role> for Target {
    fn from(role: &Role) -> Self {
        let (id, name) = (role.id.clone(), role.name.clone());
        match &role.container {
            Container::Realm => Self::RealmRole { id, name },
            Container::Client { id: client, .. } => Self::ClientRole { client: client.clone(), id, name },
        }
    }
}

impl From<&Lendable> for Target {
    fn from(found: &Lendable) -> Self {
        match found {
            Lendable::Role(role) => Self::from(role),
            Lendable::Group(group) => Self::from(group),
        }
    }
}

impl From<&Group> for Target {
    fn from(group: &Group) -> Self {
        Self::Group { id: group.id.clone(), name: group.path.clone() }
    }
}

/// Why a mapping is proved to be gone. There is no value for "probably".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Keycloak answered 204 to a removal with the present id and name.
    Removed,
    /// The role or group itself is gone, and the pinned realm answers. Its mappings went with it.
    TargetGone,
    /// The user is gone, and the pinned realm answers.
    UserGone,
}

/// What somebody did to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was made.
    Given,
    /// It was removed.
    Taken,
}

/// Who changed something, and when, by Keycloak's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// The username, or what is known of somebody of another realm.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A right that the operator's service account lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRight {
    /// Role of the realm's management client, as `view-realm`.
    pub right: &'static str,
    /// What is missing and how to give it.
    pub message: String,
}

impl fmt::Display for MissingRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
