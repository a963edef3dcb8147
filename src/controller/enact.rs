//! Carries out what was decided. Every effect may be repeated.

use std::collections::BTreeSet;

use futures::future::{join, join_all};

use super::{
    Context, Holder, Urgency,
    error::{Error, chain},
    realm::unpinned,
    report,
};
use crate::{
    api::{AccessRequest, PinnedSubject, TargetStatus},
    domain::{Effect, Outcome, OutcomeResult, REQUIRED_ACTIONS, Request},
    keycloak::{self, Kind},
};

impl Context {
    /// Carries out effects, and says what became of those whose outcome matters.
    pub async fn enact(&self, object: &AccessRequest, effects: &[Effect]) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::new();
        let (mut hand_overs, mut in_keycloak) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::RemoveFinalizer => drop(self.index.put(report::finalizer(self, object, false).await?)),
                Effect::HandOver { target, to } => hand_overs.push((target, to)),
                Effect::Record { digest, until } => {
                    self.leadership.may_give().map_err(|error| Error::WriteRecord(error.into()))?;
                    self.record.put(digest, &Request::parse(object), *until).await.map_err(Error::WriteRecord)?;
                }
                // The finalizer is on by now. Sessions may take long: whoever is alone with the subject does not wait for them.
                Effect::AddFinalizer | Effect::EndSessions { .. } => {}
                Effect::AskForActions(actions) => outcomes.push(self.ask_for_actions(object.subject(), actions).await),
                Effect::Map(target) | Effect::Confirm(target) | Effect::Unmap(target) => {
                    in_keycloak.push(self.in_keycloak(object.subject(), effect, target));
                }
            }
        }
        // What goes in Keycloak does not wait for Kubernetes. Hand-overs are one after the other: they may be to one request.
        let hand_over = async {
            let mut handed_over = Vec::new();
            for (target, to) in hand_overs {
                handed_over.extend(Box::pin(self.hand_over(target, to)).await?);
            }
            Ok::<_, Error>(handed_over)
        };
        let (handed_over, in_keycloak) = join(hand_over, join_all(in_keycloak)).await;
        outcomes.extend(in_keycloak);
        outcomes.extend(handed_over?);
        Ok(outcomes)
    }

    async fn in_keycloak(&self, subject: Option<&PinnedSubject>, effect: &Effect, target: &TargetStatus) -> Outcome {
        let holder = self.holder(subject);
        // As it is before anything is sent: what arrives after this may come to nothing before anybody looks at it.
        let travelling = holder.as_ref().and_then(|holder| self.settling.travelling(holder).remove(&target.id));
        let done = match (subject, holder) {
            (Some(subject), Some(holder)) => Box::pin(self.write(subject, &holder, effect, target)).await,
            (_, _) => Err("the request has no subject".into()),
        };
        Outcome { target: target.name.clone(), result: done.unwrap_or_else(OutcomeResult::Failed), travelling }
    }

    async fn write(
        &self,
        subject: &PinnedSubject,
        holder: &Holder,
        effect: &Effect,
        target: &TargetStatus,
    ) -> Result<OutcomeResult, String> {
        let PinnedSubject { realm, realm_id, user_id, username, url: _ } = subject;
        let Some(realm) = self.realms.get(realm) else {
            return Err(format!("realm {realm:?} is not in the operator's configuration any more"));
        };
        if let Some(why) = realm.is_another_than(subject).await {
            return Err(why);
        }
        let (id, target) = (&target.id, unpinned(target));
        let words = |error: keycloak::Error| {
            realm.met(&error);
            if error.outcome_unknown() {
                self.settling.sent(holder.clone(), id, realm.settling_time());
            }
            // For people: Keycloak is asked by the id.
            error.to_string().replace(&format!("{user_id:?}"), &format!("{username:?}"))
        };
        match effect {
            Effect::Map(_) => {
                let call = realm.keycloak.map(user_id, &target);
                let mapped = self.settling.until_answered(holder, id, || realm.settling_time(), call).await;
                mapped.map(|()| OutcomeResult::Mapped).map_err(words)
            }
            Effect::Confirm(_) => {
                let there = realm.keycloak.has(user_id, &target).await.map_err(words)?;
                Ok(if there { OutcomeResult::Mapped } else { OutcomeResult::Missing })
            }
            Effect::Unmap(_) => {
                let call = realm.keycloak.unmap(user_id, &target, realm_id);
                let removal = self.settling.until_answered(holder, id, || realm.settling_time(), call).await;
                let removal = removal.map_err(words)?;
                tracing::debug!(user = user_id, target = %target, ?removal, "removed");
                Ok(OutcomeResult::Removed)
            }
            Effect::AddFinalizer
            | Effect::RemoveFinalizer
            | Effect::HandOver { .. }
            | Effect::EndSessions { .. }
            | Effect::AskForActions(_)
            | Effect::Record { .. } => Err("about no target".into()),
        }
    }

    /// Has Keycloak ask the subject for required actions.
    async fn ask_for_actions(&self, subject: Option<&PinnedSubject>, actions: &BTreeSet<String>) -> Outcome {
        let realm = subject.and_then(|subject| Some((self.realms.get(&subject.realm)?, &subject.user_id)));
        let result = match realm {
            None => OutcomeResult::Failed("the subject's realm is not in the operator's configuration".into()),
            Some((realm, user)) => match realm.keycloak.ask_for_actions(user, actions).await {
                Ok(()) => OutcomeResult::Asked,
                Err(error) if matches!(error.kind(), Kind::Rejected | Kind::Forbidden | Kind::NotFound) => {
                    OutcomeResult::Refused(error.to_string())
                }
                Err(error) => OutcomeResult::Failed(error.to_string()),
            },
        };
        Outcome { target: REQUIRED_ACTIONS.into(), result, travelling: None }
    }

    /// Records in another request of the same subject that a target is its own now. Nothing came out if somebody else wrote
    /// to that one meanwhile: look and decide again.
    async fn hand_over(&self, target: &TargetStatus, to: &str) -> Result<Option<Outcome>, Error> {
        let outcome = |result| Ok(Some(Outcome { target: target.name.clone(), result, travelling: None }));
        let heir = self.index.all().into_iter().find(|other| other.metadata.uid.as_deref() == Some(to));
        let Some(heir) = heir else {
            return outcome(OutcomeResult::Failed("the request that was to take over is gone".into()));
        };
        let mut status = heir.status.clone().unwrap_or_default();
        let targets = status.grant.iter_mut().flat_map(|grant| &mut grant.targets);
        targets.filter(|theirs| theirs.id == target.id).for_each(|theirs| theirs.pre_existing = false);
        match report::status(self, &heir, &status, Urgency::Removal).await {
            Ok(_) => outcome(OutcomeResult::HandedOver),
            Err(error) if error.is_conflict() => self.read_again(&heir).await.map(|_| None),
            Err(error) => outcome(OutcomeResult::Failed(format!("cannot hand over: {}", chain(&error)))),
        }
    }
}
