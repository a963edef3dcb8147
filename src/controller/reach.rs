//! Keeps what is known of a realm up to date: whether its server answers, whether the operator's rights suffice, whether
//! it is still the same realm. When it can be worked in again, those are looked at at once who wait for that.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::{Context, Realm};
use crate::{
    api::AccessRequest,
    domain::{self, Request},
};

/// How often a realm is read in which the operator can work: a server that is away is noticed, also when nobody needs it.
const LOOK: Duration = Duration::from_secs(15);
/// How long after a read that got no answer the next follows.
const LOOK_CLOSER: Duration = Duration::from_millis(500);
/// How often a realm is tested in which the operator cannot work, or in which somebody met a refusal.
const TRY: Duration = Duration::from_secs(5);
/// How often a realm is tested in which it can: somebody may have changed its rights.
const TEST: Duration = Duration::from_mins(1);

/// Tests realms without end, for a process that does not lead.
pub async fn test_realms(realms: &BTreeMap<String, Realm>) {
    futures::future::join_all(realms.iter().map(|(name, realm)| async move {
        loop {
            test(name, realm).await;
            tokio::time::sleep(if realm.state().is_ok() { TEST } else { TRY }).await;
        }
    }))
    .await;
}

/// Tests a realm, and says what has changed.
async fn test(name: &str, realm: &Realm) {
    match realm.test().await {
        Some(Ok(())) => tracing::info!(realm = name, "the operator can work in this realm"),
        Some(Err(why)) => tracing::error!(realm = name, why, "the operator cannot work in this realm"),
        None => {}
    }
}

/// Looks after one realm, without end.
pub async fn look_after(context: &Context, name: &str, realm: &Realm) {
    let mut asked = realm.keycloak.is_asked();
    let mut tested: Option<Instant> = None;
    let (mut works, mut away, mut flipped, mut doubted) = (false, false, false, false);
    loop {
        flipped |= asked.has_changed().unwrap_or_default();
        asked.mark_unchanged();
        if let Some(why) = realm.keycloak.outage() {
            if !std::mem::replace(&mut away, true) {
                tracing::error!(realm = name, why, "Keycloak does not answer");
            }
            realm.keycloak.try_again().await;
            continue;
        }
        if std::mem::take(&mut away) {
            tracing::info!(realm = name, "Keycloak answers again");
        }
        let worked = std::mem::replace(&mut works, realm.state().is_ok());
        let life = if works && !doubted { TEST } else { TRY };
        let due = tested.is_none_or(|tested| tested.elapsed() >= life) || (flipped && !works);
        let changed = if due { Ok(false) } else { realm.beat().await };
        if due || (changed.is_err() && !realm.keycloak.is_in_doubt()) {
            tested = Some(Instant::now());
            doubted = false;
            test(name, realm).await;
        }
        works = realm.state().is_ok();
        if works && (!worked || flipped || changed.is_ok_and(|changed| changed)) {
            context.wake_who_waits_for(name);
        }
        let pause = match (realm.keycloak.is_in_doubt(), works && !doubted) {
            (true, _) => LOOK_CLOSER,
            (false, true) => LOOK,
            (false, false) => TRY,
        };
        flipped = tokio::select! {
            () = tokio::time::sleep(pause) => false,
            changed = asked.changed() => changed.is_ok(),
            () = realm.doubts() => {
                doubted = true;
                false
            }
        };
    }
}

impl Context {
    /// Has requests looked at again whose last attempt failed and that wait for this realm. What ends comes first.
    fn wake_who_waits_for(&self, realm: &str) {
        self.forget_what_could_not_be_asked();
        let now = Timestamp::now();
        let failed = self.failed_last();
        let waits = |request: &AccessRequest| {
            let subject = request.subject();
            let pinned = subject.map(|subject| subject.realm.as_str());
            let failed = request.metadata.uid.as_ref().is_some_and(|uid| failed.contains(uid));
            failed && (pinned == Some(realm) || self.is_in_realm(&request.spec.policy_name, realm))
        };
        let stored = self.index.known().into_iter().map(|known| known.stored);
        let waiting: Vec<_> = stored.filter(|request| waits(request)).collect();
        let (ending, others): (Vec<_>, Vec<_>) =
            waiting.iter().partition(|request| domain::is_ending(&Request::parse(request), now));
        for request in ending.into_iter().chain(others) {
            let uid = request.metadata.uid.as_deref().unwrap_or_default();
            self.look_again(uid, ObjectRef::from_obj(request.as_ref()));
        }
    }

    fn is_in_realm(&self, policy: &str, realm: &str) -> bool {
        self.policies.get(&ObjectRef::new(policy)).is_some_and(|policy| policy.spec.realm == realm)
    }
}
