//! What a policy's words mean in a realm: people, groups, grants.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tokio::{sync::Notify, time::Instant};

use super::{people::Answers, sessions::Lifespans};
use crate::{
    api::{AtEnd, PinnedSubject, TargetStatus, TargetType},
    config::{self, UserMatch},
    domain::{Grant, GrantKind, Lookup, People, Person, Policy, Problem, ProblemReason, Subject},
    keycloak::{self, ClientRole, Kind, Lendable, Reach, RealmInfo, Target, User},
    leader::Leadership,
};

/// How long a transaction of Keycloak lasts at most, unless its option says otherwise (26.7.3: a write that was held up for 240 s
/// landed, one for 320 s was rolled back).
const TRANSACTION_LIMIT: Duration = Duration::from_mins(5);

/// The policy's groups, as it names them, and their ids in Keycloak.
pub type GroupIds = BTreeMap<String, String>;

/// A realm of the configuration, and the way in.
pub struct Realm {
    /// Its configuration.
    pub config: config::Realm,
    /// Its client.
    pub keycloak: keycloak::Client,
    answers: Answers,
    /// How long access tokens live.
    pub lifespans: Arc<Lifespans>,
    state: Mutex<Result<(), String>>,
    /// How far the operator's rights reach, as it was last seen.
    reach: Mutex<Option<Reach>>,
    /// The realm's id, as it was last seen.
    seen: Mutex<Option<String>>,
    doubted: Notify,
}

/// A grant that was found in Keycloak.
#[derive(Clone, Debug)]
pub struct Found {
    /// The grant's name in the policy.
    pub grant: String,
    /// What it is in Keycloak.
    pub target: Target,
    /// Whether it leads to Keycloak's own administration, which the policy and the realm allow.
    pub administers: bool,
}

impl Realm {
    /// A realm; nothing is asked yet. What is written there is over before somebody else leads.
    pub fn new(
        config: config::Realm,
        observer: Arc<dyn keycloak::Observer>,
        leadership: &Leadership,
    ) -> Result<Self, keycloak::Error> {
        let limits = keycloak::Limits { write: leadership.times().write, ..keycloak::Limits::default() };
        let gate = Arc::new(leadership.clone());
        let options = keycloak::Options { limits, observer, gate, administrator: None };
        let keycloak = keycloak::Client::with(&config, options)?;
        Ok(Self {
            config,
            keycloak,
            answers: Answers::default(),
            lifespans: Arc::default(),
            state: Mutex::new(Err("not asked yet".into())),
            reach: Mutex::default(),
            seen: Mutex::default(),
            doubted: Notify::new(),
        })
    }

    /// How long a write can arrive after its answer was lost: as configured, or the life of the operator's token, after which
    /// it is refused, and Keycloak's limit of a transaction.
    pub fn settling_time(&self) -> Duration {
        self.config.settling_time().unwrap_or_else(|| self.keycloak.token_life() + TRANSACTION_LIMIT)
    }

    /// Whether the operator can work in this realm, as last seen; if not, why.
    pub fn state(&self) -> Result<(), String> {
        let tested = || self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.keycloak.outage().map_or_else(tested, Err)
    }

    /// Reads the realm; whether it is another one than before.
    pub async fn beat(&self) -> Result<bool, keycloak::Error> {
        let id = self.keycloak.realm().await?.id;
        let before = self.seen.lock().unwrap_or_else(PoisonError::into_inner).replace(id.clone());
        Ok(before.is_some_and(|before| before != id))
    }

    /// Why nothing may be touched in the realm that is there now, if it is not the one in which access was given: a copy
    /// can have the same users and roles, and even the same ids.
    pub async fn is_another_than(&self, subject: &PinnedSubject) -> Option<String> {
        let config::Realm { name, url, realm, .. } = &self.config;
        if let Some(pinned) = subject.url.as_ref().filter(|pinned| !self.config.is_of_server(pinned)) {
            return Some(format!(
                "the access was given on {pinned}, and realm {name} of the operator's configuration leads to {url} now: nothing \
                 is touched there (if it is the same server, add {pinned} to the realm's formerUrls)"
            ));
        }
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            // What cannot be asked refuses the write itself.
            let _ = self.beat().await;
        }
        let id = &subject.realm_id;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|seen| seen != id)?;
        Some(format!("realm {realm:?} of {url} has the id {seen:?} now, not {id:?}: nothing is touched in it"))
    }

    /// Somebody met this; whether the operator can work here is tested soon if it may say otherwise.
    pub fn met(&self, error: &keycloak::Error) {
        if matches!(error.kind(), Kind::Forbidden | Kind::Unauthorized | Kind::OtherRealm | Kind::NotFound) {
            self.doubted.notify_one();
        }
    }

    /// Waits until somebody has met what speaks against the last test.
    pub async fn doubts(&self) {
        self.doubted.notified().await;
    }

    /// Signs in and looks whether the rights suffice. Says what has changed since the last time.
    pub async fn test(&self) -> Option<Result<(), String>> {
        let state = match self.keycloak.self_test().await {
            Ok(missing) if missing.is_empty() => self.looks_around().await.map_err(|error| error.to_string()),
            Ok(missing) => Err(missing.iter().map(|right| right.message.as_str()).collect::<Vec<_>>().join("; ")),
            Err(error) => Err(error.to_string()),
        };
        let mut last = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *last != state;
        last.clone_from(&state);
        news.then_some(state)
    }

    async fn looks_around(&self) -> Result<(), keycloak::Error> {
        self.beat().await?;
        let reach = self.keycloak.reach().await?;
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner) = Some(reach);
        Ok(())
    }

    /// How far the operator's rights reach, as it was last seen.
    pub fn reach(&self) -> Option<Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a policy wants besides lending, and fine-grained permissions do not allow.
    pub fn may_not_manage(&self, policy: &Policy) -> Option<Problem> {
        let Some(Reach::Limited { manages: false, .. }) = self.reach() else { return None };
        let what = match (policy.at_end, policy.required_actions.is_empty()) {
            (AtEnd::Keep, true) => return None,
            (AtEnd::EndClientSessions | AtEnd::EndAll, _) => "spec.sessions.atEnd: ending sessions",
            (AtEnd::Keep, false) => "spec.requiredActions: asking for required actions",
        };
        Some(self.not_permitted(&format!("{what} needs the permission to manage users")))
    }

    /// What fine-grained permissions do not allow. That is looked at again soon: somebody may be giving it.
    fn not_permitted(&self, what: &str) -> Problem {
        self.doubted.notify_one();
        let message = format!(
            "{what}, which the service account of client {:?} lacks in the Keycloak realm {}: prepare it anew (hallpass \
             keycloak-setup)",
            self.config.auth.client_id, self.config.realm
        );
        Problem::new(ProblemReason::NotPermitted, message)
    }

    /// Who these usernames are, and which of the groups they are directly in. `not_before` says for each since when
    /// Keycloak must have been asked.
    pub async fn people(&self, names: &BTreeMap<String, Instant>, groups: &GroupIds) -> People {
        let lookups = names
            .iter()
            .map(|(name, not_before)| async move { (name.clone(), self.person(name, groups, *not_before).await) });
        join_all(lookups).await.into_iter().collect()
    }

    /// Who this username is, and which of the groups that person is directly in.
    pub async fn person(&self, name: &str, groups: &GroupIds, not_before: Instant) -> Lookup {
        match self.answers.users.get(name, not_before, || self.user(name)).await {
            Ok(Ok(user)) => self.member(user, groups, not_before).await,
            Ok(Err(why)) => Lookup::Nobody(why),
            Err(error) if error.kind() == Kind::Ambiguous => Lookup::Nobody(error.to_string()),
            Err(error) => Lookup::Unknown(error.to_string()),
        }
    }

    /// The realm's own id.
    pub async fn id(&self, not_before: Instant) -> Result<String, keycloak::Error> {
        Ok(self.info(not_before).await?.id)
    }

    async fn info(&self, not_before: Instant) -> Result<RealmInfo, keycloak::Error> {
        self.answers.realm.get(not_before, || self.keycloak.realm()).await
    }

    /// The user that a Kubernetes username leads to; the inner error says why it leads to nobody.
    async fn user(&self, name: &str) -> Result<Result<User, String>, keycloak::Error> {
        let (by, value) = match self.keycloak_name(name) {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        };
        let realm = &self.config.realm;
        Ok(match self.keycloak.find_user(by, value).await? {
            None => Err(format!("{name} leads to no user of the Keycloak realm {realm}")),
            Some(user) if !user.enabled => {
                Err(format!("{name} leads to a disabled user of the Keycloak realm {realm}"))
            }
            Some(user) => Ok(user),
        })
    }

    /// The account that a Kubernetes username leads to, also if it is disabled.
    pub async fn account(&self, name: &str) -> Result<Option<User>, keycloak::Error> {
        match self.keycloak_name(name) {
            Ok((by, value)) => self.keycloak.find_user(by, value).await,
            Err(_) => Ok(None),
        }
    }

    /// How to look a Kubernetes username up in Keycloak.
    fn keycloak_name<'a>(&'a self, name: &'a str) -> Result<(UserMatch, &'a str), String> {
        if let Some(account) = name.strip_prefix("system:serviceaccount:") {
            let account = account.replacen(':', "/", 1);
            let known = self.config.service_accounts.iter().find(|known| known.service_account == account);
            return match known {
                Some(known) => Ok((UserMatch::Username, &known.username)),
                None => Err(format!("{name} stands for no Keycloak user in the operator's configuration")),
            };
        }
        let config::Identity { username_prefix, matches, group_prefix: _ } = &self.config.identity;
        match name.strip_prefix(username_prefix.as_str()) {
            Some(rest) if !rest.is_empty() && !name.starts_with("system:") => Ok((*matches, rest)),
            _ => Err(format!("{name} leads to no Keycloak user: usernames of people begin with {username_prefix:?}")),
        }
    }

    async fn member(&self, user: User, groups: &GroupIds, not_before: Instant) -> Lookup {
        let mut person = Person { id: user.id, username: user.username, groups: BTreeSet::new() };
        if !groups.is_empty() {
            let ask = || async {
                let of = self.keycloak.user_groups(&person.id).await?;
                Ok(of.into_iter().map(|group| group.id).collect())
            };
            let of = match self.answers.groups.get(&person.id, not_before, ask).await {
                Ok(of) => of,
                Err(error) => return Lookup::Unknown(error.to_string()),
            };
            let direct = groups.iter().filter(|(_, id)| of.contains(id));
            person.groups = direct.map(|(name, _)| name.clone()).collect();
        }
        Lookup::Person(person)
    }

    /// Finds the groups that a policy names; `not_before` says since when Keycloak must have been asked.
    pub async fn groups(&self, policy: &Policy, not_before: Instant) -> Result<GroupIds, Vec<Problem>> {
        let lookups = policy.groups().into_iter().map(async |name| {
            (name.to_owned(), self.answers.group_ids.get(name, not_before, || self.group(name)).await)
        });
        let mut problems = Vec::new();
        let mut ids = GroupIds::new();
        for (name, found) in join_all(lookups).await {
            match found {
                Ok(id) => {
                    ids.insert(name, id);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(ids) } else { Err(problems) }
    }

    async fn group(&self, name: &str) -> Result<String, Problem> {
        let prefix = &self.config.identity.group_prefix;
        let not_found = |why: String| Problem::new(ProblemReason::GroupNotFound, why);
        let Some(path) = name.strip_prefix(prefix.as_str()).filter(|path| path.starts_with('/')) else {
            let example = format!("{prefix}/payments");
            return Err(not_found(format!("Group {name:?} must be {prefix:?} and a full path, as {example:?}")));
        };
        match self.keycloak.group(path).await {
            Ok(Some(group)) => Ok(group.id),
            Ok(None) => Err(not_found(format!(
                "Group {name:?}: there is no group {path:?} in the Keycloak realm {}",
                self.config.realm
            ))),
            Err(error) if matches!(error.kind(), Kind::Ambiguous | Kind::InvalidInput) => {
                Err(not_found(format!("Group {name:?}: {error}")))
            }
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Finds grants of a policy, asked since then, and makes sure that none reaches Keycloak's administration unless both the policy and the
    /// realm's configuration allow it.
    pub async fn targets(
        &self,
        policy: &Policy,
        grants: impl IntoIterator<Item = &Grant>,
        not_before: Instant,
    ) -> Result<Vec<Found>, Vec<Problem>> {
        let lookups = join_all(grants.into_iter().map(async |grant| {
            // What is found is as old as the oldest answer in it: none may be older than the question that finds it.
            let find = || self.target(policy, grant, Instant::now());
            self.answers.targets.get(&key(policy, grant), not_before, find).await
        }))
        .await;
        let mut problems = Vec::new();
        let mut all: Vec<Found> = Vec::new();
        for lookup in lookups {
            match lookup {
                Err(problem) => problems.push(problem),
                Ok(found) => {
                    if let Some(other) = all.iter().find(|other| other.target.id() == found.target.id()) {
                        let message = format!("grants {:?} and {:?} lead to one target", other.grant, found.grant);
                        problems.push(Problem::new(ProblemReason::DuplicateTarget, message));
                    }
                    all.push(found);
                }
            }
        }
        if problems.is_empty() { Ok(all) } else { Err(problems) }
    }

    /// What a grant is in Keycloak, wherever it leads.
    pub async fn place(&self, policy: &Policy, grant: &Grant, not_before: Instant) -> Result<Lendable, Problem> {
        let Grant { name, kind } = grant;
        let not_found = |why: String| Problem::new(ProblemReason::GrantNotFound, format!("grant {name:?}: {why}"));
        let find = async || match find(&self.keycloak, kind).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(not_found(format!("there is no {kind} in the Keycloak realm {}", self.config.realm))),
            Err(error) if matches!(error.kind(), Kind::Ambiguous | Kind::InvalidInput) => {
                Err(not_found(error.to_string()))
            }
            Err(error) => Err(unavailable(&error)),
        };
        self.answers.places.get(&key(policy, grant), not_before, find).await
    }

    async fn target(&self, policy: &Policy, grant: &Grant, not_before: Instant) -> Result<Found, Problem> {
        let Grant { name, kind } = grant;
        let refused = |reason, message: String| Err(Problem::new(reason, format!("grant {name:?}: {message}")));
        let (found, realm) = tokio::join!(self.place(policy, grant, not_before), self.info(not_before));
        let (found, realm) = (found?, realm.map_err(|error| unavailable(&error))?);
        let target = Target::from(&found);
        match self.keycloak.leads_to_admin(&found, &realm).await {
            Ok(_) if !self.may_lend(&target).await? => {
                Err(self.not_permitted(&format!("grant {name:?} needs the permission to lend {kind}")))
            }
            Ok(None) => Ok(Found { grant: name.clone(), target, administers: false }),
            Ok(Some(words)) => match self.why_no_admin_role(policy, &target).await? {
                None => Ok(Found { grant: name.clone(), target, administers: true }),
                Some(why) => {
                    let message = format!("{words} leads to Keycloak's administration; {why}");
                    refused(ProblemReason::ReachesAdministration, message)
                }
            },
            Err(error) => Err(unavailable(&error)),
        }
    }
}

impl Realm {
    /// Whether the operator's rights let it lend this. With `manage-users` that is not asked.
    async fn may_lend(&self, target: &Target) -> Result<bool, Problem> {
        match self.reach() {
            Some(Reach::ManageUsers) => Ok(true),
            Some(Reach::Limited { .. }) | None => {
                self.keycloak.may_lend(target).await.map_err(|error| unavailable(&error))
            }
        }
    }

    /// Why a grant of this policy must not lead to Keycloak's administration, if so. It takes two: who writes policies, and
    /// who installs. What Keycloak would not let the operator take away again is not given.
    async fn why_no_admin_role(&self, policy: &Policy, target: &Target) -> Result<Option<String>, Problem> {
        let name = &self.config.name;
        Ok(match (policy.allow_admin_roles, self.config.allow_admin_roles) {
            (true, true) => self.keycloak.lacks_itself(target).await.map_err(|error| unavailable(&error))?.map(|role| {
                let own = &self.config.auth.client_id;
                format!(
                    "Keycloak lets an account map {role}, and take it away, only if it has it itself: give {role} to the \
                     service account of client {own:?} too, or lend a role that contains it"
                )
            }),
            (true, false) => Some(format!(
                "spec.allowAdminRoles allows that, and the operator's configuration does not: it needs allowAdminRoles at \
                 realm {name}"
            )),
            (false, true) => Some(format!(
                "the operator's configuration allows that at realm {name}, and the policy does not: set \
                 spec.allowAdminRoles, or lend another role"
            )),
            (false, false) => Some(format!(
                "lend another role (otherwise spec.allowAdminRoles and allowAdminRoles at realm {name} of the operator's \
                 configuration would both have to be true)"
            )),
        })
    }
}

/// Many requests want the same.
fn key(policy: &Policy, grant: &Grant) -> String {
    format!("{}/{}/{}", policy.uid, policy.generation, grant.name)
}

/// What a grant is in Keycloak, if it is there, wherever it leads.
pub async fn locate(keycloak: &keycloak::Client, kind: &GrantKind) -> Result<Option<Target>, keycloak::Error> {
    Ok(find(keycloak, kind).await?.as_ref().map(Target::from))
}

async fn find(keycloak: &keycloak::Client, kind: &GrantKind) -> Result<Option<Lendable>, keycloak::Error> {
    Ok(match kind {
        GrantKind::RealmRole(role) => keycloak.realm_role(role).await?.map(Lendable::Role),
        GrantKind::ClientRole { client, role } => match keycloak.client_role(client, role).await? {
            ClientRole::Found(role) => Some(Lendable::Role(role)),
            ClientRole::NoClient | ClientRole::NoRole => None,
        },
        GrantKind::Group(path) => keycloak.group(path).await?.map(Lendable::Group),
    })
}

/// Keycloak could not be asked.
pub fn unavailable(error: &keycloak::Error) -> Problem {
    Problem::new(ProblemReason::KeycloakUnavailable, error.to_string())
}

/// Grants of a policy whose holder would be an approver of one of these: all of the same realm of Keycloak, each with the prefix
/// of its groups.
pub fn make_approvers(policy: &Policy, all: &[(String, Policy)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for grant in &policy.grants {
        let GrantKind::Group(path) = &grant.kind else { continue };
        let approves = |(prefix, other): &&(String, Policy)| {
            let group = Subject::Group(format!("{prefix}{path}"));
            other.approval.stages().iter().any(|stage| stage.approvers.contains(&group))
        };
        if let Some((_, other)) = all.iter().find(approves) {
            let message = format!("grant {:?}: who is in {path:?} is an approver of policy {}", grant.name, other.name);
            problems.push(Problem::new(ProblemReason::GrantMakesApprover, message));
        }
    }
    problems
}

/// A target as it is pinned in status.
pub fn pinned(target: &Target) -> (TargetType, Option<String>) {
    match target {
        Target::RealmRole { .. } => (TargetType::RealmRole, None),
        Target::ClientRole { client, .. } => (TargetType::ClientRole, Some(client.clone())),
        Target::Group { .. } => (TargetType::Group, None),
    }
}

/// A pinned target as Keycloak's client takes it. The name is a hint: the client finds the present one by the id.
pub fn unpinned(target: &TargetStatus) -> Target {
    let (id, name) = (target.id.clone(), target.display.clone());
    match target.type_ {
        TargetType::RealmRole => Target::RealmRole { id, name },
        TargetType::ClientRole => Target::ClientRole { client: target.client.clone().unwrap_or_default(), id, name },
        TargetType::Group => Target::Group { id, name },
    }
}
