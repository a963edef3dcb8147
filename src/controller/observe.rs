//! Looks at the world around a request: as much as is needed to decide, and no more.

use jiff::Timestamp;

use super::{
    Context,
    error::Error,
    policies::{Depth, Seen},
    realm::{GroupIds, Realm, pinned},
};
use crate::{
    api::{AccessRequest, Phase},
    domain::{
        self, Guard, Lookup, Needs, Observed, Outcome, People, Policy, PolicyView, ProblemReason, Request, Resolved,
        TargetsError,
    },
    guard::InForce,
};

impl Context {
    /// Everything that has to be known to decide on a request now.
    pub async fn observe(&self, request: &Request, outcomes: Vec<Outcome>, now: Timestamp) -> Result<Observed, Error> {
        let needs = domain::needs(request, now);
        let guard = if needs.guard { self.ask_guard().await } else { Guard::NotAsked };
        let Seen { view, groups } = self.policy_for(request, &needs, now).await?;
        let mut observed = Observed {
            guard,
            policy: view,
            people: People::new(),
            realm_id: None,
            targets: None,
            siblings: self.siblings(request),
            outcomes,
            ballot: ballot()?,
        };
        let Some(policy) = observed.policy.known() else { return Ok(observed) };
        let Ok(realm) = self.realm_of(policy) else { return Ok(observed) };
        let ready = matches!(observed.policy, PolicyView::Ready(_));
        let people = if ready { &needs.people } else { &needs.enders };
        if !people.is_empty() {
            observed.people = realm.people(people, &groups).await;
        }
        if !ready {
            return Ok(observed);
        }
        let gives = request.phase().is_none_or(|phase| phase == Phase::Pending) || needs.targets;
        if gives && matches!(observed.people.get(&request.requester), Some(Lookup::Person(_))) {
            match realm.keycloak.realm().await {
                Ok(info) => observed.realm_id = Some(info.id),
                Err(error) => {
                    observed.people.insert(request.requester.clone(), Lookup::Unknown(error.to_string()));
                }
            }
        }
        if needs.targets {
            observed.targets = Some(self.targets(realm, policy, request).await);
        }
        Ok(observed)
    }

    async fn ask_guard(&self) -> Guard {
        let answer = self.guard.check().await;
        self.remember_guard(&answer);
        match answer {
            Ok(InForce { epoch, since, stamp }) => Guard::InForce { epoch, since, stamp },
            Err(error) if error.is_unknown() => Guard::Unknown(super::error::chain(&error)),
            Err(error) => Guard::NotInForce(super::error::chain(&error)),
        }
    }

    async fn policy_for(&self, request: &Request, needs: &Needs, now: Timestamp) -> Result<Seen, Error> {
        // What ends anyhow does not wait for a policy that cannot be read.
        if domain::is_ending(request, now) {
            return Ok(Seen { view: PolicyView::Absent, groups: GroupIds::new() });
        }
        let depth = if needs.targets {
            Depth::Everything
        } else if needs.people.is_empty() {
            Depth::Existence
        } else {
            Depth::Membership
        };
        self.see_policy(&request.policy, depth).await
    }

    /// The other requests for the same Keycloak user that are not final.
    fn siblings(&self, request: &Request) -> Vec<Request> {
        let Some(subject) = self.holder(request) else { return Vec::new() };
        let candidate = |other: &AccessRequest| {
            let theirs = other.status.as_ref().and_then(|status| status.subject.as_ref());
            theirs.is_some_and(|theirs| theirs.user_id == subject.user_id)
                && !other.phase().is_some_and(Phase::is_final)
        };
        let others = self.index.all().into_iter().filter(|other| candidate(other));
        others
            .map(|other| Request::parse(&other))
            .filter(|other| other.uid != request.uid && self.holder(other).as_ref() == Some(&subject))
            .collect()
    }

    /// The grants that a request wants, as they are in Keycloak now.
    async fn targets(&self, realm: &Realm, policy: &Policy, request: &Request) -> Result<Vec<Resolved>, TargetsError> {
        let mut problems = self.make_approvers(policy, realm);
        let found = match realm.targets(policy.wanted(&request.grants)).await {
            Ok(found) => found,
            Err(more) => {
                problems.extend(more);
                Vec::new()
            }
        };
        if let Some(problem) = problems.iter().find(|problem| problem.reason == ProblemReason::KeycloakUnavailable) {
            return Err(TargetsError::Unknown(problem.message.clone()));
        }
        if !problems.is_empty() {
            return Err(TargetsError::Refused(problems.into_iter().map(|problem| problem.message).collect()));
        }
        let user = request.status.subject.as_ref().map(|subject| subject.user_id.as_str()).unwrap_or_default();
        let mut resolved = Vec::new();
        for found in found {
            let mapped = realm.keycloak.has(user, &found.target).await;
            let mapped = mapped.map_err(|error| TargetsError::Unknown(error.to_string()))?;
            let (type_, client) = pinned(&found.target);
            let (id, display) = (found.target.id().to_owned(), found.target.name().to_owned());
            resolved.push(Resolved { grant: found.grant, type_, id, client, display, mapped });
        }
        Ok(resolved)
    }
}

/// A fresh random word of 48 bits.
fn ballot() -> Result<String, Error> {
    Ok(format!("{:012x}", getrandom::u64().map_err(Error::Random)? >> 16))
}
