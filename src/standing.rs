//! The report of standing access: who has directly what policies can lend, without a live request that lent it.
//!
//! Reads policies and requests as the caller, and Keycloak as the realms' clients. Changes nothing. What could not be seen is
//! said: a list that lacks something must not look like one that is complete.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::Arc,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::ListParams,
    core::{DeserializeGuard, ObjectList},
};
use serde::Serialize;

use crate::{
    api::{AccessPolicy, AccessRequest, TargetType},
    config::Config,
    controller::{Realm, chain, locate, words},
    domain::{Policy, duration::whole_seconds},
    keycloak::{Change, Kind, Target, User},
    leader::{Leadership, Times},
    metrics::Metrics,
};

/// How many people Keycloak is asked about at a time.
const AT_A_TIME: usize = 8;

/// The report.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Who has what.
    pub standing: Vec<Standing>,
    /// What could not be looked at, and why. The report is complete if there is nothing.
    pub missing: Vec<String>,
    /// What else has to be known to read it.
    pub notes: Vec<String>,
}

/// Somebody has something directly, and no live request lent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The realm's name in the configuration.
    pub realm: String,
    /// What it is.
    #[serde(rename = "type")]
    pub type_: TargetType,
    /// The name of the role, or the path of the group; of a client's role, the client's `clientId` before it.
    pub name: String,
    /// The user's name in Keycloak.
    pub username: String,
    /// The user's id.
    pub user_id: String,
    /// Whether the user can sign in.
    pub enabled: bool,
    /// Since when, if the realm's admin events say so.
    pub since: Option<Timestamp>,
    /// Who gave it, if they do.
    pub by: Option<String>,
    /// The policies that can lend it.
    pub policies: Vec<String>,
}

/// Something that policies can lend.
struct Lendable {
    target: Target,
    name: String,
    policies: BTreeSet<String>,
}

/// Makes the report.
pub async fn report(client: Client, config: Config) -> Result<Report, Box<dyn Error>> {
    let everything = ListParams::default();
    let policies: ObjectList<DeserializeGuard<AccessPolicy>> = Api::all(client.clone()).list(&everything).await?;
    let mut report = Report::default();
    let mut of_realm: BTreeMap<String, Vec<Policy>> = BTreeMap::new();
    for DeserializeGuard(policy) in policies.items {
        match policy {
            Ok(policy) => match Policy::parse(&policy) {
                Ok(policy) => of_realm.entry(policy.realm.clone()).or_default().push(policy),
                Err(problems) => {
                    let name = policy.metadata.name.unwrap_or_default();
                    report.missing.push(format!("policy {name}: {}", words(&problems)));
                }
            },
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                report.missing.push(format!("policy {name}: this version cannot read it: {}", invalid.error));
            }
        }
    }
    for realm in config.realms {
        let Some(policies) = of_realm.remove(&realm.name) else { continue };
        let name = realm.name.clone();
        // Who never leads never writes.
        let looked = match Realm::new(realm, Arc::new(Metrics::default()), &Leadership::new(Times::default())) {
            Ok(realm) => look(&client, &realm, &policies, &mut report).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = looked {
            report.missing.push(format!("realm {name}: {}", chain(error.as_ref())));
        }
    }
    for (realm, policies) in of_realm {
        let names: Vec<_> = policies.into_iter().map(|policy| policy.name).collect();
        report.missing.push(format!("realm {realm} is not in the configuration; policies {}", names.join(", ")));
    }
    report.standing.sort_by(|one, other| {
        (&one.realm, &one.name, &one.username).cmp(&(&other.realm, &other.name, &other.username))
    });
    Ok(report)
}

/// Looks at one realm.
async fn look(client: &Client, realm: &Realm, policies: &[Policy], report: &mut Report) -> Result<(), Box<dyn Error>> {
    let name = &realm.config.name;
    for right in realm.keycloak.self_test().await? {
        report.missing.push(format!("realm {name}: {right}; what cannot be seen without it is left out"));
    }
    let realm_id = realm.keycloak.realm().await?.id;
    let mut events = true;
    let mut before = live(client, report).await?;
    for lendable in lendable(realm, policies, report).await {
        let holders = match realm.keycloak.holders(&lendable.target).await {
            Ok(holders) => holders,
            Err(error) => {
                report.missing.push(format!("realm {name}: {}", chain(&error)));
                continue;
            }
        };
        // Somebody may have got it, or lost it, while Keycloak was asked.
        let after = live(client, report).await?;
        let mut lent = lent(&before, realm, &realm_id, lendable.target.id());
        lent.extend(self::lent(&after, realm, &realm_id, lendable.target.id()));
        let standing: Vec<_> = holders.into_iter().filter(|user| !lent.contains(user.id.as_str())).collect();
        before = after;
        let found: Vec<_> =
            stream::iter(standing).map(|user| stands(realm, &lendable, user)).buffered(AT_A_TIME).collect().await;
        for (standing, may_ask) in found {
            report.standing.push(standing);
            events &= may_ask;
        }
    }
    if !events {
        report.notes.push(format!(
            "realm {name}: since when and by whom is not known: the client's service account lacks the right view-events"
        ));
    }
    Ok(())
}

/// The requests that are live now.
async fn live(client: &Client, report: &mut Report) -> Result<Vec<AccessRequest>, kube::Error> {
    let everything = ListParams::default();
    let all: ObjectList<DeserializeGuard<AccessRequest>> = Api::all(client.clone()).list(&everything).await?;
    let mut live = Vec::new();
    for DeserializeGuard(request) in all.items {
        match request {
            Ok(request) if request.is_live() => live.push(request),
            Ok(_) => {}
            // What it lent would be taken for standing.
            Err(invalid) => {
                let (namespace, name) =
                    (invalid.metadata.namespace.unwrap_or_default(), invalid.metadata.name.unwrap_or_default());
                let why = format!("request {namespace}/{name}: this version cannot read it: {}", invalid.error);
                if !report.missing.contains(&why) {
                    report.missing.push(why);
                }
            }
        }
    }
    Ok(live)
}

/// What policies of a realm can lend, each once.
async fn lendable(realm: &Realm, policies: &[Policy], report: &mut Report) -> Vec<Lendable> {
    let mut all: Vec<Lendable> = Vec::new();
    for policy in policies {
        for grant in &policy.grants {
            let of = format!("realm {}: policy {}, grant {}", realm.config.name, policy.name, grant.name);
            let target = match locate(&realm.keycloak, &grant.kind).await {
                Ok(Some(target)) => target,
                Ok(None) => {
                    report.missing.push(format!("{of}: there is no {}", grant.kind));
                    continue;
                }
                Err(error) => {
                    report.missing.push(format!("{of}: {}", chain(&error)));
                    continue;
                }
            };
            if let Some(known) = all.iter_mut().find(|known| known.target.id() == target.id()) {
                known.policies.insert(policy.name.clone());
                continue;
            }
            let name = match &grant.kind {
                crate::domain::GrantKind::RealmRole(name) | crate::domain::GrantKind::Group(name) => name.clone(),
                crate::domain::GrantKind::ClientRole { client, role } => format!("{client} {role}"),
            };
            all.push(Lendable { target, name, policies: BTreeSet::from([policy.name.clone()]) });
        }
    }
    all
}

/// Ids of those to whom a live request lent this. Who had it before has it still afterwards.
fn lent<'a>(live: &'a [AccessRequest], realm: &Realm, realm_id: &str, target: &str) -> BTreeSet<&'a str> {
    let holder = |request: &'a AccessRequest| {
        let status = request.status.as_ref()?;
        let here = |url: &String| realm.config.is_of_server(url);
        let subject = status.subject.as_ref().filter(|subject| subject.realm_id == realm_id)?;
        subject.url.as_ref().is_none_or(here).then_some(())?;
        let mut targets = status.grant.iter().flat_map(|grant| &grant.targets);
        targets.any(|ours| ours.id == target && !ours.pre_existing).then_some(subject.user_id.as_str())
    };
    live.iter().filter_map(holder).collect()
}

/// What is known about somebody's standing access, and whether admin events may be read.
async fn stands(realm: &Realm, lendable: &Lendable, user: User) -> (Standing, bool) {
    let deed = realm.keycloak.last_change(&user.id, &lendable.target, Change::Given, Timestamp::UNIX_EPOCH).await;
    let may_ask = !deed.as_ref().is_err_and(|error| error.kind() == Kind::Forbidden);
    let deed = deed.ok().flatten();
    let standing = Standing {
        realm: realm.config.name.clone(),
        type_: match lendable.target {
            Target::RealmRole { .. } => TargetType::RealmRole,
            Target::ClientRole { .. } => TargetType::ClientRole,
            Target::Group { .. } => TargetType::Group,
        },
        name: lendable.name.clone(),
        username: user.username,
        user_id: user.id,
        enabled: user.enabled,
        since: deed.as_ref().map(|deed| whole_seconds(deed.at)),
        by: deed.map(|deed| deed.by),
        policies: lendable.policies.iter().cloned().collect(),
    };
    (standing, may_ask)
}
