//! Looks at the world around a request: as much as is needed to decide, and no more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::{Either, join_all, select};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::{
    Context,
    error::{Error, chain},
    people::RECENT,
    policies::{Depth, Seen},
    realm::{GroupIds, Realm, pinned},
};
use crate::{
    api::{AccessRequest, Phase},
    domain::{
        self, Account, Guard, Lookup, Needs, Observed, Outcome, People, Policy, PolicyView, ProblemReason, Request,
        Resolved, TargetsError, delegation,
    },
    guard::InForce,
    keycloak::Target,
};

/// What has to be known to give something.
struct Give {
    account: Option<Result<Account, String>>,
    targets: Option<Result<Vec<Resolved>, TargetsError>>,
    lifespan: Option<Result<Duration, String>>,
}

impl Context {
    /// Everything that has to be known to decide on a request now.
    pub async fn observe(
        &self,
        request: &Request,
        siblings: Vec<Request>,
        outcomes: Vec<Outcome>,
        now: Timestamp,
    ) -> Result<Observed, Error> {
        let needs = domain::needs(request, &outcomes, now, self.known_epoch().as_deref());
        // The request was seen before this. What else is asked does not wait for the answer.
        let guard = async { if needs.guard { self.ask_guard().await } else { Guard::NotAsked } };
        let rest = Box::pin(self.observe_the_rest(request, &needs, siblings, outcomes, now));
        let (guard, observed) = tokio::join!(guard, rest);
        Ok(Observed { guard, ..observed? })
    }

    async fn observe_the_rest(
        &self,
        request: &Request,
        needs: &Needs,
        siblings: Vec<Request>,
        outcomes: Vec<Outcome>,
        now: Timestamp,
    ) -> Result<Observed, Error> {
        let began = Instant::now();
        let recently = began.checked_sub(RECENT).unwrap_or(began);
        let shown = if needs.targets { self.shown_policy(&request.policy) } else { None };
        let is_shown = |seen: &Seen| match (&seen.view, &shown) {
            (PolicyView::Ready(policy), Some(shown)) => policy.pin() == shown.pin(),
            (_, _) => false,
        };
        let seen = Box::pin(self.policy_for(request, needs, now, began));
        let ahead = Box::pin(self.look_ahead(shown.as_ref(), request, needs, began));
        let (seen, ahead) = match select(seen, ahead).await {
            Either::Left((Ok(seen), ahead)) if is_shown(&seen) => (seen, ahead.await),
            Either::Left((seen, _)) => (seen?, None),
            Either::Right((ahead, seen)) => {
                let seen = seen.await?;
                let ahead = ahead.filter(|_| is_shown(&seen));
                (seen, ahead)
            }
        };
        let Seen { view, groups, rosters } = seen;
        let mut observed = Observed {
            guard: Guard::NotAsked,
            policy: view,
            people: People::new(),
            rosters,
            realm_id: None,
            url: None,
            targets: None,
            account: None,
            record: None,
            clocks: None,
            siblings,
            travelling: self
                .holder(request.subject())
                .map(|holder| self.settling.travelling(&holder))
                .unwrap_or_default(),
            missing: self.found.missing(&request.uid),
            released: self.release.reason(request),
            token_lifespan: None,
            outcomes,
            ballot: random_word()?,
        };
        if domain::is_over(request, &observed.outcomes, now) {
            observed.token_lifespan = self.lifespan_at_the_end(request).await;
        }
        let Some(policy) = observed.policy.known().cloned() else { return Ok(observed) };
        let Ok(realm) = self.realm_of(&policy) else { return Ok(observed) };
        observed.clocks = self.clock_problem(realm);
        let since = |name: &str| if known(name, request, &policy, needs) { recently } else { began };
        let ask = |names: &BTreeSet<String>| {
            let names = names.iter().map(|name| (name.clone(), since(name))).collect();
            async move { realm.people(&names, &groups).await }
        };
        if !matches!(observed.policy, PolicyView::Ready(_)) {
            observed.people = ask(&needs.enders).await;
            return Ok(observed);
        }
        let gives = request.phase().is_none_or(|phase| phase == Phase::Pending) || needs.targets;
        let id = async { if gives { Some(realm.id(since(&request.requester)).await) } else { None } };
        let give = async {
            match ahead {
                None => Box::pin(self.what_to_give(realm, &policy, request, needs, began)).await,
                give => give,
            }
        };
        let (give, people, id) = tokio::join!(give, ask(&needs.people), id);
        observed.people = people;
        (observed.account, observed.targets, observed.token_lifespan) = match give {
            Some(Give { account, targets, lifespan }) => (account, targets, lifespan),
            None => (None, None, observed.token_lifespan),
        };
        let subject = match observed.people.get(&request.requester) {
            Some(Lookup::Person(subject)) => Some(subject.id.clone()),
            _ => None,
        };
        if let (Some(subject), Some(id)) = (subject, id) {
            match id {
                Ok(id) => {
                    if needs.record {
                        let digest = delegation::digest(request, &id, &subject);
                        observed.record =
                            Some(self.record.look(&digest, &policy.name).await.map_err(|error| chain(&error)));
                    }
                    (observed.realm_id, observed.url) = (Some(id), Some(realm.config.url.clone()));
                }
                Err(error) => {
                    observed.people.insert(request.requester.clone(), Lookup::Unknown(error.to_string()));
                }
            }
        }
        Ok(observed)
    }

    /// A policy as the watch has shown it, if it could stand.
    fn shown_policy(&self, name: &str) -> Option<Policy> {
        Policy::parse(self.policies.get(&ObjectRef::new(name))?.as_ref()).ok()
    }

    /// What the policy, as the watch has shown it, wants to be known of Keycloak: it is asked while the API server is asked for the
    /// policy, and counts if it is still the same. Who waits for access waits for the longer of the two.
    async fn look_ahead(
        &self,
        shown: Option<&Policy>,
        request: &Request,
        needs: &Needs,
        began: Instant,
    ) -> Option<Give> {
        let policy = shown?;
        let realm = self.realm_of(policy).ok()?;
        let names = needs.people.iter().map(|name| (name.clone(), began)).collect();
        // Their answers are found where they are asked for.
        let people = async {
            if let Ok(groups) = realm.groups(policy, began).await {
                realm.people(&names, &groups).await;
            }
        };
        let give = self.what_to_give(realm, policy, request, needs, began);
        // What asks latest comes first: the others use its answers.
        let (give, (), _) = tokio::join!(give, people, realm.id(began));
        give
    }

    /// What somebody who is to get something has done, what it is, and how long it could be used; nothing if that is not to be
    /// known.
    async fn what_to_give(
        &self,
        realm: &Realm,
        policy: &Policy,
        request: &Request,
        needs: &Needs,
        began: Instant,
    ) -> Option<Give> {
        if !needs.targets {
            return None;
        }
        let mut give = Give { account: None, targets: None, lifespan: None };
        if !policy.required_actions.is_empty() {
            let user = request.subject().map(|subject| subject.user_id.as_str()).unwrap_or_default();
            give.account = Some(realm.account_of(user).await.map_err(|error| error.to_string()));
        }
        let passes = |account| domain::actions_are_done(request, policy, account);
        if give.account.as_ref().is_none_or(|account| account.as_ref().is_ok_and(passes)) {
            let (targets, lifespan) =
                tokio::join!(self.targets(realm, policy, request, began), realm.lifespan_at_activation());
            (give.targets, give.lifespan) = (Some(targets), Some(lifespan));
        }
        Some(give)
    }

    /// How long access tokens live in the realm in which something was taken away.
    async fn lifespan_at_the_end(&self, request: &Request) -> Option<Result<Duration, String>> {
        let realm = self.realms.get(&request.subject()?.realm)?;
        Some(realm.lifespan_at_the_end().await)
    }

    async fn ask_guard(&self) -> Guard {
        let answer = self.guard.check().await;
        self.remember_guard(&answer);
        match answer {
            Ok(InForce { epoch, since, stamp }) => Guard::InForce { epoch, since, stamp },
            Err(error) if error.is_unknown() => Guard::Unknown(chain(&error)),
            Err(error) => Guard::NotInForce(chain(&error)),
        }
    }

    async fn policy_for(
        &self,
        request: &Request,
        needs: &Needs,
        now: Timestamp,
        began: Instant,
    ) -> Result<Seen, Error> {
        // What ends anyhow does not wait for a policy that cannot be read.
        if domain::is_ending(request, now) {
            return Ok(Seen { view: PolicyView::Absent, groups: GroupIds::new(), rosters: None });
        }
        let waits = request.phase() == Some(Phase::Pending);
        let depth = if needs.targets && waits {
            Depth::MembershipNow
        } else if needs.targets {
            Depth::Everything
        } else if needs.people.is_empty() {
            Depth::Existence
        } else {
            Depth::Membership
        };
        self.see_policy(&request.policy, depth, began).await
    }

    /// The other requests for the same Keycloak user that are not final.
    pub fn siblings(&self, request: &Request) -> Vec<Request> {
        let Some(subject) = self.holder(request.subject()) else { return Vec::new() };
        let open = |other: &Arc<AccessRequest>| !other.phase().is_some_and(Phase::is_final);
        let known = self.index.known_of(&subject.user_id).into_iter();
        known
            .filter(|known| known.trusted.as_ref().is_some_and(open))
            .filter_map(|known| known.as_trusted())
            .filter(|other| other.uid != request.uid && self.holder(other.subject()).as_ref() == Some(&subject))
            .collect()
    }

    /// The grants that a request wants, as they are in Keycloak now.
    async fn targets(
        &self,
        realm: &Realm,
        policy: &Policy,
        request: &Request,
        not_before: Instant,
    ) -> Result<Vec<Resolved>, TargetsError> {
        let mut problems = self.make_approvers(policy, realm);
        let user = request.subject().map(|subject| subject.user_id.as_str()).unwrap_or_default();
        let wanted = || policy.wanted(&request.grants);
        // Whether they may be lent is asked beside whether the person has them.
        let held = join_all(wanted().map(async |grant| {
            let target =
                Target::from(&realm.place(policy, grant, not_before).await.map_err(|problem| problem.message)?);
            let mapped = realm.keycloak.has(user, &target).await.map_err(|error| error.to_string())?;
            Ok((target, mapped))
        }));
        let (found, held) = tokio::join!(realm.targets(policy, wanted(), not_before), held);
        let found = match found {
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
        let mut resolved = Vec::new();
        for (found, held) in found.into_iter().zip(held) {
            let (target, mapped) = held.map_err(TargetsError::Unknown)?;
            if target.id() != found.target.id() {
                let why = format!("grant {:?} became another one while it was looked at", found.grant);
                return Err(TargetsError::Unknown(why));
            }
            let (type_, client) = pinned(&found.target);
            let (id, display, administers) =
                (found.target.id().to_owned(), found.target.name().to_owned(), found.administers);
            resolved.push(Resolved { grant: found.grant, type_, id, client, display, mapped, administers });
        }
        Ok(resolved)
    }
}

/// Whether a recent answer about this person is good enough: the request only waits, and went by an answer about them
/// before, under these rules. So no answer from before the request or the vote is used, and who was not yet who they had
/// to be is asked about anew. Where something may be given everybody is.
fn known(name: &str, request: &Request, policy: &Policy, needs: &Needs) -> bool {
    let status = &request.status;
    let pending = request.phase() == Some(Phase::Pending) && !needs.targets;
    let waits = pending && status.rules.as_ref() == Some(&policy.rules);
    let mut votes = status.votes.iter().filter(|vote| vote.by == name).peekable();
    let judged = votes.peek().is_some() || (name == request.requester && status.subject.is_some());
    let recorded = |key: &String| status.votes.iter().any(|vote| vote.key == *key);
    let mut signals = request.signals.iter().filter(|signal| signal.by == name);
    waits && judged && votes.all(|vote| vote.counted) && signals.all(|signal| recorded(&signal.key))
}

/// A fresh random word of 48 bits.
pub fn random_word() -> Result<String, Error> {
    Ok(format!("{:012x}", getrandom::u64().map_err(Error::Random)? >> 16))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::AccessPolicy;

    fn policy() -> Policy {
        let spec = json!({
            "realm": "prod",
            "grants": [{"name": "admin", "realmRole": "admin"}],
            "requesters": [{"kind": "User", "name": "alice"}],
            "duration": {"max": "1h"},
            "approval": {"stages": [{"name": "lead", "approvers": [{"kind": "User", "name": "bob"}]}]},
        });
        let spec = serde_json::from_value(spec).expect("a spec");
        Policy::parse(&AccessPolicy::new("oncall", spec)).expect("a policy that stands")
    }

    /// Alice's request with these votes in status, as voter and whether it counts, and these in annotations.
    fn request(phase: &str, pinned: bool, votes: &[(&str, bool)], annotations: &[&str]) -> Request {
        let key = |by: &str, number: usize| format!("approve.hallpass.dev/ballot.lead.{by}{number}");
        let vote = |(number, (by, counted)): (usize, &(&str, bool))| {
            json!({"stage": "lead", "decision": "Approve", "by": by, "at": "2026-11-24T12:00:00Z", "key": key(by, number),
                   "counted": counted})
        };
        let recorded = votes.iter().enumerate().map(|(number, (by, _))| (key(by, number), json!(by)));
        let news = annotations.iter().map(|by| (key(by, 9), json!(by)));
        let subject = json!({"realm": "prod", "realmId": "r", "userId": "a", "username": "alice"});
        let object = json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest",
            "metadata": {"name": "fix", "annotations": recorded.chain(news).collect::<serde_json::Map<_, _>>()},
            "spec": {"policyName": "oncall", "requester": "alice"},
            "status": {
                "phase": phase, "rules": policy().rules, "ballot": "ballot",
                "subject": if pinned { subject } else { Value::Null },
                "votes": votes.iter().enumerate().map(vote).collect::<Vec<_>>(),
            },
        });
        Request::parse(&serde_json::from_value(object).expect("a request"))
    }

    #[test]
    #[expect(clippy::large_stack_arrays, reason = "a table is read best in one piece")]
    fn a_recent_answer_is_good_enough_only_about_who_counted_before() {
        let yes = ("bob", true);
        for (what, name, request, good) in [
            ("the requester, looked at before", "alice", request("Pending", true, &[], &[]), true),
            ("the requester, at the first look", "alice", request("Pending", false, &[], &[]), false),
            ("who counts", "bob", request("Pending", true, &[yes], &[]), true),
            ("who did not count", "bob", request("Pending", true, &[("bob", false)], &[]), false),
            ("who votes", "bob", request("Pending", true, &[], &["bob"]), false),
            ("who counts and votes once more", "bob", request("Pending", true, &[yes], &["bob"]), false),
            ("who counts, once of twice", "bob", request("Pending", true, &[yes, ("bob", false)], &[]), false),
            ("while somebody else's vote may decide", "bob", request("Pending", true, &[yes], &["carol"]), false),
            ("the requester, while a vote may decide", "alice", request("Pending", true, &[yes], &["carol"]), false),
            ("who counts, at activation", "bob", request("Approved", true, &[yes], &[]), false),
            ("the requester, at activation", "alice", request("Approved", true, &[yes], &[]), false),
        ] {
            let needs = domain::needs(&request, &[], Timestamp::UNIX_EPOCH, None);
            assert_eq!(known(name, &request, &policy(), &needs), good, "{what}");
        }
        let changed = Policy { rules: "others".into(), ..policy() };
        let waits = request("Pending", true, &[yes], &[]);
        assert!(!known("bob", &waits, &changed, &Needs::default()), "the rules have changed");
    }
}
