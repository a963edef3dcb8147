//! Statuses that are not ours: who hears of them, and what counts when nothing is remembered. And the change of keys.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Resource, ResourceExt, api::ListParams, core::ObjectList, runtime::events::EventType};
use tokio::time::Instant;

use super::{
    Context, Urgency,
    error::{Error, chain},
    index::{Known, Named},
    lenient::Lenient,
    policies::{Depth, words},
    realm::{locate, pinned},
    report,
    run::PAGE,
};
use crate::{
    api::{
        AccessPolicy, AccessRequest, AccessRequestStatus, GrantStatus, Phase, PinnedSubject, TargetState, TargetStatus,
    },
    domain::{self, Lookup, Policy, Request, duration::whole_seconds},
    guard::seal,
};

/// How often the keys are read again.
const LOOK_AT_KEYS: Duration = Duration::from_secs(15);
/// The pause between two requests that get a seal of the newest key: what people wait for comes first.
const PACE: Duration = Duration::from_millis(20);

impl Context {
    /// Tells once that a request's status is not ours.
    pub fn tell_of_a_forged_status(&self, known: &Known) {
        let stored = &known.stored;
        if known.is_ours() || !self.index.is_news(stored) {
            return;
        }
        let remembered = known.trusted.is_some();
        let request = format!("{}/{}", stored.namespace().unwrap_or_default(), stored.name_any());
        let phase = stored.phase().map(Phase::as_str).unwrap_or_default();
        let seal = stored.status.as_ref().and_then(|status| status.seal.as_deref()).unwrap_or_default();
        tracing::error!(request, phase, seal, remembered, "somebody else has written the status of a request");
        self.metrics.forged();
        let then = if remembered {
            "the operator goes by what it remembers"
        } else {
            "it counts for nothing, and what spec and policy name is taken away"
        };
        let missing = seal::key_id(seal).filter(|id| !self.keyring.keys().ids().contains(id));
        let key =
            missing.map(|id| format!(" (or the key {id} is missing in Secret hallpass-seal)")).unwrap_or_default();
        let message = format!("somebody else has written the status of this request{key}; {then}");
        self.publish(stored.object_ref(&()), EventType::Warning, "StatusForged", "Verify", &message);
    }

    /// Whom and what a request's spec and policy name now, if its status is not ours and nothing is remembered of it.
    /// An error means that it has to be asked again.
    pub async fn named(&self, known: &Known) -> Result<Option<Named>, Error> {
        if known.trusted.is_some() {
            return Ok(None);
        }
        let nothing = |why: String| Ok(Some(Named { nothing: Some(why), ..Named::default() }));
        let request = Request::parse(&known.stored);
        // It is put on before anything is given, and taken off when all of it is gone.
        if !request.has_finalizer {
            return nothing("it does not carry the operator's finalizer, so it holds nothing".into());
        }
        let Some(policy) = self.policy_of(&request).await? else {
            return nothing(format!("what it gave cannot be told, for policy {} is gone", request.policy));
        };
        let realm = self.realm_of(&policy).map_err(|problem| Error::Named(problem.message))?;
        let words = |error: crate::keycloak::Error| Error::Named(error.to_string());
        let Some(user) = realm.account(&request.requester).await.map_err(words)? else {
            return nothing(format!(
                "what it gave cannot be told, for {} leads to no Keycloak user",
                request.requester
            ));
        };
        // Whoever made it while nobody watched may have meant to take from somebody what no request could give.
        if seal::is_blank(&request.status) && !self.serves(&policy, &request).await? {
            return nothing(format!("policy {} does not serve {}", policy.name, request.requester));
        }
        let realm_id = realm.keycloak.realm().await.map_err(words)?.id;
        let mut targets = Vec::new();
        for grant in policy.wanted(&request.grants) {
            // What is not in Keycloak any more has gone from its holders with it, unless it has another name now.
            let Some(target) = locate(&realm.keycloak, &grant.kind).await.map_err(words)? else {
                let (request, grant) = (format!("{}/{}", request.namespace, request.name), &grant.kind);
                tracing::error!(request, %grant, "a forged status may have given this, and there is none of this name");
                continue;
            };
            let (type_, client) = pinned(&target);
            targets.push(TargetStatus {
                name: grant.name.clone(),
                type_,
                id: target.id().to_owned(),
                client,
                display: target.name().to_owned(),
                pre_existing: false,
                state: TargetState::Mapped,
            });
        }
        let now = Time(whole_seconds(Timestamp::now()));
        let grant = GrantStatus {
            starts_at: now.clone(),
            deadline: now,
            end_reason: None,
            ended_at: None,
            powerless_at: None,
            // What the grants lead to is not looked at now.
            sessions: domain::sessions_at_end(&policy, policy.allow_admin_roles),
            token_lifespan: None,
            targets,
        };
        let subject = PinnedSubject {
            realm: policy.realm.clone(),
            url: Some(realm.config.url.clone()),
            realm_id,
            user_id: user.id,
            username: user.username,
        };
        let status =
            AccessRequestStatus { subject: Some(subject), grant: Some(grant), ..AccessRequestStatus::default() };
        Ok(Some(Named { status, nothing: None }))
    }

    /// Whether a policy serves the requester, where the request lives.
    async fn serves(&self, policy: &Policy, request: &Request) -> Result<bool, Error> {
        let realm = self.realm_of(policy).map_err(|problem| Error::Named(problem.message))?;
        let groups = realm.groups(policy, Instant::now()).await.map_err(|problems| Error::Named(words(&problems)))?;
        let asked = std::iter::once((request.requester.clone(), Instant::now())).collect();
        let here = policy.namespaces.is_empty() || policy.namespaces.contains(&request.namespace);
        match realm.people(&asked, &groups).await.get(&request.requester) {
            Some(Lookup::Person(person)) => {
                Ok(here && policy.requesters.iter().any(|subject| subject.includes(&request.requester, person)))
            }
            Some(Lookup::Nobody(_)) => Ok(false),
            Some(Lookup::Unknown(why)) => Err(Error::Named(why.clone())),
            None => Err(Error::Named("nobody asked Keycloak about the requester".into())),
        }
    }

    /// The policy that a request names, if it is there. One that cannot be read may be mended: that is waited for.
    async fn policy_of(&self, request: &Request) -> Result<Option<Policy>, Error> {
        let unreadable = |why: String| Error::Named(format!("policy {} is not usable: {why}", request.policy));
        let read: Option<Arc<AccessPolicy>> = match self.read_policy(&request.policy, Depth::Existence).await? {
            None => None,
            Some(Ok(policy)) => Some(policy),
            Some(Err(_)) => return Err(unreadable("this version cannot read it".into())),
        };
        read.map(|policy| Policy::parse(&policy).map_err(|problems| unreadable(words(&problems)))).transpose()
    }

    /// Keeps the keys as the Secret has them, and the seals by the newest of them.
    pub async fn keep_seals(&self) {
        // The key of which it was said that all seals are made with it.
        let mut settled = None;
        loop {
            if self.leadership.may_give().is_err() {
                tokio::time::sleep(LOOK_AT_KEYS).await;
                continue;
            }
            if let Err(error) = self.keyring.keep().await {
                tracing::error!(error = chain(&error), "cannot look after the keys of the seals");
            }
            let keys = self.keyring.keys();
            let newest = keys.newest().unwrap_or_default();
            let older: Vec<_> = keys.ids().into_iter().filter(|id| *id != newest).collect();
            if older.is_empty() {
                self.older_key.store(0, Ordering::Relaxed);
            } else if settled.as_deref() != Some(newest) {
                match Box::pin(self.seal_with(newest)).await {
                    Ok(true) => {
                        tracing::info!(
                            key = newest,
                            ?older,
                            "no status carries an older key any more; older keys can be removed"
                        );
                        settled = Some(newest.to_owned());
                    }
                    Ok(false) => {}
                    Err(error) => tracing::warn!(error = chain(&error), "cannot list what is sealed with older keys"),
                }
            }
            tokio::time::sleep(LOOK_AT_KEYS).await;
        }
    }

    /// Seals with this key what is sealed with another, of all requests in the API server: what is over is not in memory. Whether
    /// nothing was left to do.
    async fn seal_with(&self, key: &str) -> Result<bool, kube::Error> {
        let requests: Api<Lenient<AccessRequest>> = Api::all(self.client.clone());
        let (mut found, left) = (0, self.index.coming_with_another_key(key));
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let ObjectList { items, metadata, .. } = requests.list(&page).await?;
            let otherwise =
                |read: &Lenient<AccessRequest>| read.seal().is_some_and(|seal| seal::key_id(seal) != Some(key));
            for request in items.into_iter().filter(otherwise) {
                found += 1;
                let (name, namespace) = (request.name_any(), request.namespace());
                let sealed = match request.read() {
                    Ok(request) => self.seal_again(&Arc::new(request), key).await,
                    Err(error) => Err(Error::Unreadable(error)),
                };
                if let Err(error) = sealed {
                    tracing::warn!(name, namespace, error = error.chain(), "cannot seal with the new key");
                }
                tokio::time::sleep(PACE).await;
            }
            let Some(next) = metadata.continue_.filter(|next| !next.is_empty()) else { break };
            page = page.continue_token(&next);
        }
        // What was just sealed is looked at once more, and counts until then: somebody else may have written meanwhile.
        self.older_key.store(found + left, Ordering::Relaxed);
        Ok(found + left == 0)
    }

    async fn seal_again(&self, request: &Arc<AccessRequest>, key: &str) -> Result<(), Error> {
        let holder = |known: &Known| known.believed(None).and_then(|(request, _)| self.holder(request.subject()));
        let _alone = self.locks.lock(holder(&self.index.newest(request)).as_ref()).await;
        let known = self.index.newest(request);
        let Some(status) = known.stored.status.as_ref().filter(|_| is_sealed_otherwise(&known, key)) else {
            return Ok(());
        };
        match report::status(self, &known.stored, status, Urgency::Other).await {
            Ok(_) => Ok(()),
            // It is looked at again.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            Err(error) => Err(Error::WriteStatus(error)),
        }
    }
}

/// Whether a status of ours carries the seal of another key. One that is not ours is the reconcile's matter.
fn is_sealed_otherwise(known: &Known, key: &str) -> bool {
    let seal = known.stored.status.as_ref().and_then(|status| status.seal.as_deref());
    known.is_ours() && seal.is_some_and(|seal| seal::key_id(seal) != Some(key))
}
