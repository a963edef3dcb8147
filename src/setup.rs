//! Prepares a Keycloak realm: the smallest client and rights with which the operator can work. Says what will be there, and makes
//! it so where an administrator signs in.
//!
//! There are two profiles. With `manage-users` the operator could lend any role that is not of Keycloak's administration. In the
//! limited profile fine-grained permissions name what it can lend: what policies name, what is lent now, and nothing else.

use std::{collections::BTreeSet, error::Error, fmt};

use kube::{Api, Client, Resource, ResourceExt, api::ListParams, core::DeserializeGuard};
use serde::de::DeserializeOwned;

use crate::{
    api::{AccessPolicy, AccessRequest, AccessRequestStatus, AtEnd, Phase},
    config::{self, Credential},
    controller::{chain, locate, unpinned, words},
    domain::{GrantKind, Policy},
    keycloak::{self, Administrator, Authenticator, Subjects, Target},
};

/// What the operator reads in both profiles.
const READS: [&str; 3] = ["view-realm", "view-clients", "view-events"];
/// The right of the plain profile.
const MANAGE_USERS: &str = "manage-users";

/// Something that the operator is to be able to lend, or to take away again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lendable {
    /// What a policy names.
    Named(GrantKind),
    /// What a request has now, whatever its policy names by now, and whatever it is called.
    Lent(Target),
}

impl fmt::Display for Lendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(kind) => write!(f, "{kind}"),
            Self::Lent(target) => write!(f, "{target} (lent now)"),
        }
    }
}

/// What is lent in a realm, and what else that needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lent {
    roles: BTreeSet<Lendable>,
    groups: BTreeSet<Lendable>,
    /// Sessions are ended, or required actions asked for.
    manages: bool,
}

impl Lent {
    /// By the policies and the open requests of a cluster. Fails if one of them cannot be read: what it lends would be missing;
    /// and if there is no policy for the realm: then it is another cluster, or too early.
    pub async fn in_cluster(
        client: Client,
        realm: &config::Realm,
        config: &[config::Realm],
    ) -> Result<Self, Box<dyn Error>> {
        // One realm of Keycloak can be configured under several names.
        let same = |one: &&config::Realm| one.place() == realm.place() && one.auth.client_id == realm.auth.client_id;
        let names: Vec<&str> = config.iter().filter(same).map(|one| &*one.name).collect();
        let mut lent = Self::default();
        let policies: Vec<AccessPolicy> = all(client.clone()).await?;
        let mut policies = policies.iter().filter(|policy| names.contains(&&*policy.spec.realm)).peekable();
        if policies.peek().is_none() {
            return Err(format!("there is no policy for realm {}: apply the policies first", names.join(", ")).into());
        }
        for policy in policies {
            let parsed = Policy::parse(policy);
            lent.add_policy(&parsed.map_err(|problems| format!("policy {}: {}", policy.name_any(), words(&problems)))?);
        }
        let requests: Vec<AccessRequest> = all(client).await?;
        for request in requests.iter().filter(|request| !request.phase().is_some_and(Phase::is_final)) {
            lent.add_request(request, &names);
        }
        Ok(lent)
    }

    fn add_policy(&mut self, policy: &Policy) {
        for grant in &policy.grants {
            let list = if matches!(grant.kind, GrantKind::Group(_)) { &mut self.groups } else { &mut self.roles };
            list.insert(Lendable::Named(grant.kind.clone()));
        }
        self.manages |= policy.at_end != AtEnd::Keep || !policy.required_actions.is_empty();
    }

    fn add_request(&mut self, request: &AccessRequest, realms: &[&str]) {
        let Some(AccessRequestStatus { subject: Some(subject), grant: Some(grant), .. }) = &request.status else {
            return;
        };
        if !realms.contains(&&*subject.realm) {
            return;
        }
        for target in grant.targets.iter().map(unpinned) {
            let list = if matches!(target, Target::Group { .. }) { &mut self.groups } else { &mut self.roles };
            list.insert(Lendable::Lent(target));
        }
        self.manages |= grant.sessions.is_some_and(|sessions| sessions != AtEnd::Keep);
    }
}

/// All objects of a kind. Fails if one cannot be read.
async fn all<K>(client: Client) -> Result<Vec<K>, Box<dyn Error>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug,
{
    let all = Api::<DeserializeGuard<K>>::all(client).list(&ListParams::default()).await?;
    let read = |DeserializeGuard(one): DeserializeGuard<K>| {
        one.map_err(|invalid| {
            let name = invalid.metadata.name.unwrap_or_default();
            format!("{} {name}: this version cannot read it: {}", K::kind(&()), invalid.error).into()
        })
    };
    all.items.into_iter().map(read).collect()
}

/// One thing that will be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The operator's client.
    Client(Authenticator),
    /// Roles of its service account.
    Rights {
        /// It has these.
        give: Vec<&'static str>,
        /// It has these no more.
        take: Vec<&'static str>,
    },
    /// Fine-grained permissions are on in the realm.
    FineGrained,
    /// A permission.
    Permission {
        /// What comes behind the client's name in its name.
        name: &'static str,
        /// What it is about.
        of: Subjects,
        /// What it allows.
        scopes: Vec<&'static str>,
        /// Only for these; for none there is no such permission. Otherwise for all.
        only: Option<Vec<Lendable>>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(authenticator) => {
                let how = match authenticator {
                    Authenticator::Secret => "with a secret",
                    Authenticator::SignedJwt => "with a private key (give it the public one)",
                    Authenticator::FederatedJwt => "with a service account's token (give it issuer and subject)",
                };
                write!(f, "there is a client for nobody's sign-in but its own, {how}, its tokens live for a minute")
            }
            Self::Rights { give, take } => {
                write!(f, "its service account has {}", give.join(", "))?;
                if take.is_empty() { Ok(()) } else { write!(f, ", and not {}", take.join(", ")) }
            }
            Self::FineGrained => f.write_str("the realm has fine-grained admin permissions on"),
            Self::Permission { of, scopes, only, name: _ } => {
                let scopes = scopes.join(", ");
                match only {
                    None => write!(f, "its service account may {scopes} all {}", of.as_str().to_lowercase()),
                    Some(only) if only.is_empty() => {
                        write!(f, "its service account may {scopes} no {}", of.as_str().to_lowercase())
                    }
                    Some(only) => {
                        let only: Vec<_> = only.iter().map(ToString::to_string).collect();
                        write!(f, "its service account may {scopes} {}", only.join(", "))
                    }
                }
            }
        }
    }
}

/// What will be there, in the order in which it is made: the right to everything goes last. With what is lent it is limited to
/// that.
pub fn plan(realm: &config::Realm, limited: Option<&Lent>) -> Vec<Step> {
    let authenticator = match realm.auth.credential() {
        Some(Credential::ServiceAccountToken(_)) => Authenticator::FederatedJwt,
        Some(Credential::Key(_)) => Authenticator::SignedJwt,
        Some(Credential::Secret(_) | Credential::Password { .. }) | None => Authenticator::Secret,
    };
    let client = Step::Client(authenticator);
    let Some(Lent { roles, groups, manages }) = limited else {
        return vec![client, Step::Rights { give: [&[MANAGE_USERS], &READS[..]].concat(), take: Vec::new() }];
    };
    let permission = |name, of, scopes, only: Option<&BTreeSet<Lendable>>| {
        let only = only.map(|only| only.iter().cloned().collect());
        Step::Permission { name, of, scopes, only }
    };
    let mut of_users = vec!["view", "map-roles", "manage-group-membership"];
    of_users.extend(manages.then_some("manage"));
    vec![
        client,
        Step::FineGrained,
        permission("users", Subjects::Users, of_users, None),
        permission("groups", Subjects::Groups, vec!["view", "view-members"], None),
        permission("lent roles", Subjects::Roles, vec!["map-role"], Some(roles)),
        permission("lent groups", Subjects::Groups, vec!["manage-membership"], Some(groups)),
        Step::Rights { give: READS.to_vec(), take: vec![MANAGE_USERS] },
    ]
}

/// Makes a realm so, step by step, and says how each came out. Ends with the first that fails.
pub async fn apply(
    realm: &config::Realm,
    administrator: Administrator,
    plan: &[Step],
) -> Result<Vec<(String, Result<String, String>)>, keycloak::Error> {
    let options = keycloak::Options { administrator: Some(administrator), ..keycloak::Options::default() };
    let keycloak = keycloak::Client::with(realm, options)?;
    let mut lines = Vec::new();
    for step in plan {
        let state = match take(&keycloak, &realm.auth.client_id, step).await {
            Ok((changed, left_out)) => {
                let words = if changed { "made so" } else { "was so" };
                let without = left_out.iter().map(|what| format!(", without {what}"));
                Ok(words.to_owned() + &without.collect::<String>())
            }
            Err(error) => Err(chain(&*error)),
        };
        let failed = state.is_err();
        lines.push((step.to_string(), state));
        if failed {
            break;
        }
    }
    Ok(lines)
}

/// Takes a step: whether something was changed, and what was left out.
async fn take(keycloak: &keycloak::Client, client: &str, step: &Step) -> Result<(bool, Vec<String>), Box<dyn Error>> {
    let changed = match step {
        Step::Client(authenticator) => keycloak.prepare_client(client, authenticator).await?,
        Step::Rights { give, take } => keycloak.prepare_rights(client, give, take).await?,
        Step::FineGrained => keycloak.prepare_permissions(client).await?,
        Step::Permission { name, of, scopes, only } => {
            let (mut ids, mut left_out) = (Vec::new(), Vec::new());
            for lendable in only.iter().flatten() {
                let found = match lendable {
                    Lendable::Lent(target) => keycloak.is_still_there(target).await?.then(|| target.clone()),
                    Lendable::Named(kind) => locate(keycloak, kind).await?,
                };
                match found {
                    // The operator lends it only where two allow it, and then with manage-users.
                    Some(target) if keycloak.reaches_admin(&target).await?.is_some() => match lendable {
                        Lendable::Named(_) => left_out.push(format!("{lendable} (it leads to Keycloak's administration)")),
                        // Without a permission it could not be taken away any more. And if somebody else has written that
                        // status, a permission is what he was after.
                        Lendable::Lent(_) => return Err(format!("{lendable} leads to Keycloak's administration, and no permission is made for that: see who has it, and wait until it has ended").into()),
                    },
                    Some(target) if ids.iter().all(|id| id != target.id()) => ids.push(target.id().to_owned()),
                    Some(_) => {}
                    None => left_out.push(format!("{lendable} (it is not there)")),
                }
            }
            let only = only.is_some().then_some(ids.as_slice());
            let name = format!("{client}: {name}");
            return Ok((keycloak.prepare_permission(client, &name, (*of, scopes), only).await?, left_out));
        }
    };
    Ok((changed, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm() -> config::Realm {
        let file = "realms: [{name: prod, url: https://sso.example.com, realm: acme, auth: {clientId: hallpass, clientKeyFile: /key}}]";
        let config: config::Config = serde_saphyr::from_str(file).expect("a configuration");
        config.realm(None).expect("the only one").clone()
    }

    #[test]
    fn the_right_to_everything_goes_when_there_are_permissions_instead() {
        let role = Lendable::Named(GrantKind::RealmRole("admin".into()));
        let lent = Lent { roles: [role.clone()].into(), groups: BTreeSet::new(), manages: false };
        let plan = plan(&realm(), Some(&lent));
        assert_eq!(plan.first(), Some(&Step::Client(Authenticator::SignedJwt)));
        assert_eq!(plan.last(), Some(&Step::Rights { give: READS.to_vec(), take: vec![MANAGE_USERS] }));
        let only = |of_step: &str| {
            plan.iter().find_map(|step| match step {
                Step::Permission { name, only, .. } if *name == of_step => Some(only.clone()),
                _ => None,
            })
        };
        // None of them is not all of them.
        assert_eq!(only("lent groups"), Some(Some(Vec::new())));
        assert_eq!(only("lent roles"), Some(Some(vec![role])));
        assert_eq!(only("users"), Some(None));
    }

    #[test]
    fn users_are_managed_only_where_a_policy_needs_it() {
        for (manages, scopes) in
            [(false, "view, map-roles, manage-group-membership all users"), (true, "manage all users")]
        {
            let plan = plan(&realm(), Some(&Lent { manages, ..Lent::default() }));
            let words: Vec<String> = plan.iter().map(ToString::to_string).collect();
            assert!(words.iter().any(|words| words.ends_with(scopes)), "{words:?}");
        }
        assert_eq!(plan(&realm(), None).len(), 2, "a client and its rights");
    }

    #[test]
    fn what_is_lent_counts_whatever_its_policy_names_by_now() {
        let request = |phase: &str, realm: &str| -> AccessRequest {
            let target = serde_json::json!({"name": "admin", "type": "RealmRole", "id": "r1", "display": "old-name",
                "preExisting": false, "state": "Mapped"});
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "fix"},
                "spec": {"policyName": "oncall"},
                "status": {
                    "phase": phase,
                    "subject": {"realm": realm, "realmId": "a", "userId": "u", "username": "alice"},
                    "grant": {"startsAt": "2026-11-22T10:00:00Z", "deadline": "2026-11-22T11:00:00Z", "targets": [target],
                        "sessions": "EndAll"},
                },
            }))
            .expect("a request")
        };
        let mut lent = Lent::default();
        lent.add_request(&request("Active", "elsewhere"), &["prod"]);
        assert_eq!(lent, Lent::default());
        lent.add_request(&request("Active", "prod"), &["prod"]);
        let target = Target::RealmRole { id: "r1".into(), name: "old-name".into() };
        assert_eq!(lent, Lent { roles: [Lendable::Lent(target)].into(), groups: BTreeSet::new(), manages: true });
    }
}
