//! Looks at what live requests hold, and for a while at what ended ones held: somebody else may have taken it away, or given
//! it again. Both are said, neither is repaired.
//!
//! A read is believed only of a realm in which the operator's self-test passed (Keycloak leaves out of its lists what the
//! caller may not see) and which has the pinned id.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{events::EventType, reflector::ObjectRef},
};
use tokio::time::Instant;

use super::{Context, Holder, Realm, index::KEPT, realm::unpinned};
use crate::{
    api::{AccessRequest, Phase, TargetState, TargetStatus},
    domain::{Missing, Request, duration::later},
    keycloak::{self, Change, Kind},
};

/// A mapping is not every node's truth at once: Keycloak's caches are per node.
const FRESH: Duration = Duration::from_secs(2);
/// A round lasts as long as the interval, and no longer than this: what is live is looked at in part of the rounds.
const ROUND: Duration = Duration::from_mins(1);
/// After how many rounds what has ended is looked at again; it is [kept] for longer.
///
/// [kept]: KEPT
const LOOKS: [u32; 2] = [1, 10];

/// What was found, until somebody looks again.
#[derive(Default)]
pub struct Found {
    /// What live requests lack, by UID; nothing for those that nobody has looked at.
    missing: Mutex<HashMap<String, Vec<Missing>>>,
    /// Targets of which it was told that they were given again, by UID and name.
    told: Mutex<HashSet<(String, String)>>,
}

impl Found {
    /// What a live request lacks, if somebody has looked.
    pub fn missing(&self, uid: &str) -> Option<Vec<Missing>> {
        self.all().get(uid).cloned()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Vec<Missing>>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was not told yet.
    fn is_news(&self, uid: &str, target: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert((uid.to_owned(), target.to_owned()))
    }

    /// Forgets what is over.
    fn retain(&self, live: &HashSet<String>, ended: &HashSet<String>) {
        self.all().retain(|uid, _| live.contains(uid));
        self.told.lock().unwrap_or_else(PoisonError::into_inner).retain(|(uid, _)| ended.contains(uid));
    }
}

/// Something to look at.
enum Look {
    /// What live requests of one subject hold.
    Live(Holder, Vec<Arc<AccessRequest>>),
    /// What an ended request held.
    Ended(Arc<AccessRequest>),
}

/// Live requests by their subjects, in an order that stays.
type Live = BTreeMap<String, (Holder, Vec<Arc<AccessRequest>>)>;

/// What there is to look at.
struct Looks {
    live: Live,
    looks: Vec<Look>,
}

/// Whose turn it is to be looked at.
#[derive(Default)]
struct Turn {
    /// Whose it was last.
    last: String,
    /// The part of one that could have been looked at besides.
    owed: f64,
}

impl Turn {
    /// The subjects that come next: such a share of all, so that it is each one's turn once in the interval.
    fn next(&mut self, mut live: Live, share: f64) -> Vec<Look> {
        #[expect(clippy::cast_precision_loss, reason = "there are not so many")]
        let all = live.len() as f64;
        self.owed = all.mul_add(share, self.owed).min(all);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from nothing to all")]
        let many = self.owed as usize;
        self.owed = self.owed.fract();
        let mut after = live.split_off(&self.last);
        let last = after.remove(&self.last).map(|last| (self.last.clone(), last));
        let mut looks = Vec::new();
        for (key, (holder, requests)) in after.into_iter().chain(live).chain(last).take(many) {
            self.last = key;
            looks.push(Look::Live(holder, requests));
        }
        looks
    }
}

impl Context {
    /// Looks at the holdings in each realm, again and again, at each once in its interval and evenly over it.
    pub async fn look_after_holdings(&self) {
        let realms = self.realms.iter().map(|(name, realm)| self.look_after_holdings_in(name, realm));
        futures::future::join_all(realms).await;
    }

    async fn look_after_holdings_in(&self, name: &str, realm: &Realm) {
        let interval = realm.config.checking_interval();
        let round = interval.min(ROUND);
        let (mut last, mut turn) = (Timestamp::now(), Turn::default());
        loop {
            let (began, now) = (Instant::now(), Timestamp::now());
            let Looks { live, mut looks } = self.looks(name, last, now, round);
            last = now;
            // Where nothing that is seen can be believed, nobody's turn is used up.
            if realm.state().is_ok() {
                looks.extend(turn.next(live, round.div_duration_f64(interval)));
            }
            let pace = round / u32::try_from(looks.len()).unwrap_or(u32::MAX).max(1);
            for (i, look) in looks.into_iter().enumerate() {
                // Without this nothing that is seen can be believed.
                if realm.state().is_ok() {
                    self.look(realm, look, began).await;
                }
                let next = pace * u32::try_from(i + 1).unwrap_or(u32::MAX);
                tokio::time::sleep_until(began + next.min(round)).await;
            }
            tokio::time::sleep_until(began + round).await;
        }
    }

    /// All that is live, and what has ended and is to be looked at in this round.
    fn looks(&self, realm: &str, last: Timestamp, now: Timestamp, round: Duration) -> Looks {
        let all = self.index.all();
        let here = |request: &&Arc<AccessRequest>| {
            let subject = request.subject();
            subject.is_some_and(|subject| subject.realm == realm)
        };
        let mut live = Live::new();
        let mut looks = Vec::new();
        let (mut uids, mut recent) = (HashSet::new(), HashSet::new());
        for request in &all {
            let uid = request.metadata.uid.clone().unwrap_or_default();
            let ended = request.grant().and_then(|grant| grant.ended_at.as_ref());
            match (request.phase(), ended) {
                (Some(Phase::Active), _) => drop(uids.insert(uid)),
                (Some(phase), Some(ended)) if phase.is_final() && later(ended.0, KEPT) > now => {
                    recent.insert(uid);
                }
                _ => {}
            }
        }
        self.found.retain(&uids, &recent);
        for request in all.iter().filter(here) {
            let Some(grant) = request.grant() else { continue };
            if request.phase() == Some(Phase::Active)
                && later(grant.starts_at.0, FRESH) < now
                && let Some(holder) = self.holder(request.subject())
            {
                let key = format!("{} {}", holder.realm_id, holder.user_id);
                live.entry(key).or_insert_with(|| (holder, Vec::new())).1.push(request.clone());
            }
            let falls = |times: &u32| grant.ended_at.as_ref().map(|ended| later(ended.0, round * *times));
            let due = LOOKS.iter().filter_map(falls).any(|due| last < due && due <= now);
            if due && request.phase().is_some_and(Phase::is_final) {
                looks.push(Look::Ended(request.clone()));
            }
        }
        Looks { live, looks }
    }

    async fn look(&self, realm: &Realm, look: Look, began: Instant) {
        let looked = match look {
            Look::Live(holder, requests) => self.look_at_live(realm, &holder, &requests, began).await,
            Look::Ended(request) => self.look_at_ended(realm, &request, began).await,
        };
        if let Err(error) = looked {
            tracing::debug!(realm = realm.config.name, error = super::chain(&error), "cannot look at what is held");
        }
    }

    /// Says of live requests what they lack. What was decided meanwhile is left for the next look.
    async fn look_at_live(
        &self,
        realm: &Realm,
        holder: &Holder,
        requests: &[Arc<AccessRequest>],
        began: Instant,
    ) -> Result<(), keycloak::Error> {
        if !realm.is_the_one_of(holder, began).await? {
            return Ok(());
        }
        let mapped = |target: &&TargetStatus| target.state == TargetState::Mapped;
        let targets: Vec<_> =
            requests.iter().flat_map(|request| targets_of(request)).filter(mapped).map(unpinned).collect();
        let held = realm.keycloak.held(&holder.user_id, &targets).await?;
        let concerned = |request: &Arc<AccessRequest>| {
            self.is_unchanged(request) && !Request::parse(request).is_due(Timestamp::now())
        };
        for request in requests.iter().filter(|request| concerned(request)) {
            let mut missing = Vec::new();
            let starts_at = request.grant().map(|grant| grant.starts_at.0);
            let uid = request.metadata.uid.clone().unwrap_or_default();
            let known = self.found.missing(&uid).unwrap_or_default();
            for target in targets_of(request).filter(mapped).filter(|target| !held.contains(&target.id)) {
                // Who did it is asked once.
                let before = known.iter().find(|before| before.target == target.name).cloned();
                missing.push(match before {
                    Some(before) => before,
                    None => Missing {
                        target: target.name.clone(),
                        by: who(realm, &holder.user_id, target, Change::Taken, starts_at.unwrap_or_default()).await,
                    },
                });
            }
            if !concerned(request) {
                continue;
            }
            let news = self.found.all().insert(uid.clone(), missing.clone()) != Some(missing);
            if news {
                self.look_again(&uid, ObjectRef::from_obj(request.as_ref()));
            }
        }
        Ok(())
    }

    /// Whether a request is what it was.
    fn is_unchanged(&self, request: &Arc<AccessRequest>) -> bool {
        let known = self.index.newest(request);
        known.trusted.is_some_and(|now| {
            now.phase() == Some(Phase::Active) && now.resource_version() == request.resource_version()
        })
    }

    /// Tells of what an ended request held and its subject has again, unless another request of ours holds it.
    async fn look_at_ended(
        &self,
        realm: &Realm,
        request: &Arc<AccessRequest>,
        began: Instant,
    ) -> Result<(), keycloak::Error> {
        let parsed = Request::parse(request);
        let (Some(holder), Some(ended)) = (self.holder(parsed.subject()), ended_at(request)) else {
            return Ok(());
        };
        if !realm.is_the_one_of(&holder, began).await? {
            return Ok(());
        }
        let removed: Vec<&TargetStatus> =
            targets_of(request).filter(|target| target.state == TargetState::Removed).collect();
        let targets: Vec<_> = removed.iter().map(|target| unpinned(target)).collect();
        let held = realm.keycloak.held(&holder.user_id, &targets).await?;
        // After the read: what is mapped was put on record before.
        let siblings = self.siblings(&parsed);
        for target in removed.into_iter().filter(|target| held.contains(&target.id)) {
            let holds = |sibling: &Request| {
                sibling.status.grant.iter().flat_map(|grant| &grant.targets).any(|theirs| theirs.id == target.id)
            };
            if siblings.iter().any(holds) || !self.found.is_news(&parsed.uid, &target.name) {
                continue;
            }
            let by = who(realm, &holder.user_id, target, Change::Given, ended).await;
            let name = format!("{}/{}", parsed.namespace, parsed.name);
            let subject = parsed.subject().map(|subject| subject.username.as_str()).unwrap_or_default();
            tracing::warn!(request = name, subject, target = target.display, by, "given again after the end");
            self.metrics.given_again();
            let message = format!(
                "{subject} has {} ({:?}) again since this ended, given by {by}; it is not taken away",
                target.name, target.display
            );
            self.publish(request.object_ref(&()), EventType::Warning, "GivenAgain", "Look", &message);
        }
        Ok(())
    }
}

fn targets_of(request: &AccessRequest) -> impl Iterator<Item = &TargetStatus> {
    request.grant().into_iter().flat_map(|grant| &grant.targets)
}

fn ended_at(request: &AccessRequest) -> Option<Timestamp> {
    request.grant()?.ended_at.as_ref().map(|ended| ended.0)
}

impl Realm {
    /// Whether the realm that is there now is the one in which access was given.
    async fn is_the_one_of(&self, holder: &Holder, began: Instant) -> Result<bool, keycloak::Error> {
        Ok(self.config.url == holder.url && self.id(began).await? == holder.realm_id)
    }
}

/// Who changed a mapping, and when, as far as the realm's admin events say so.
async fn who(realm: &Realm, user: &str, target: &TargetStatus, change: Change, since: Timestamp) -> String {
    match realm.keycloak.last_change(user, &unpinned(target), change, since).await {
        Ok(Some(deed)) => format!("{} at {}", deed.by, crate::domain::duration::whole_seconds(deed.at)),
        Ok(None) => "somebody".into(),
        Err(error) => {
            if error.kind() != Kind::Forbidden {
                tracing::debug!(realm = realm.config.name, error = super::chain(&error), "cannot find out who it was");
            }
            "somebody".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(keys: &[&str]) -> Live {
        let holder = |key: &str| Holder { url: String::new(), realm_id: String::new(), user_id: key.to_owned() };
        keys.iter().map(|key| ((*key).to_owned(), (holder(key), Vec::new()))).collect()
    }

    fn next(turn: &mut Turn, keys: &[&str], share: f64) -> Vec<String> {
        let looks = turn.next(live(keys), share).into_iter();
        looks.filter_map(|look| if let Look::Live(holder, _) = look { Some(holder.user_id) } else { None }).collect()
    }

    #[test]
    fn it_is_everybodys_turn_once_in_the_interval() {
        let mut turn = Turn::default();
        let all = ["a", "b", "c", "d", "e"];
        assert_eq!(next(&mut turn, &all, 0.5), ["a", "b"]);
        assert_eq!(next(&mut turn, &all, 0.5), ["c", "d", "e"], "half of one was left");
        assert_eq!(next(&mut turn, &all, 0.5), ["a", "b"], "it goes round");
        assert_eq!(next(&mut turn, &["a", "c", "e"], 0.5), ["c", "e"], "whose turn it was last is gone");
        assert_eq!(next(&mut turn, &all, 1.0), all, "all, whoever was last");
        assert_eq!(next(&mut turn, &["c", "d"], 1.0), ["c", "d"], "there were more before");
    }

    #[test]
    fn one_alone_is_looked_at_once_in_the_interval() {
        let mut turn = Turn::default();
        let looks: Vec<usize> = (0..32).map(|_| next(&mut turn, &["x"], 0.125).len()).collect();
        assert_eq!(looks.iter().sum::<usize>(), 4, "{looks:?}");
        assert!(next(&mut turn, &[], 0.125).is_empty());
    }
}
