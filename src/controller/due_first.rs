//! Due first: what fell due while nobody led goes before anything is given. Until each request that is ending when this
//! process begins to lead has been looked at once, no other request of the same realm goes on to get something; after a while
//! it does all the same. A realm whose Keycloak is dead holds up nobody else's.
//!
//! Requests that are live and not ending are not held up: what they may need is to end.

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;

use super::{Context, index::Known, next_look::until};
use crate::{
    api::{AccessRequest, Phase},
    clock::Boot,
    domain::{self, Request},
};

/// How long the others wait at most. Some thousand revocations take a healthy Keycloak less.
const LONGEST: Duration = Duration::from_secs(10);

/// What falls due first.
#[derive(Default)]
pub struct DueFirst(OnceLock<Begun>);

struct Begun {
    at: Boot,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Requests that were ending at the beginning and were not looked at yet, by UID, with their realms.
    due: HashMap<String, String>,
    /// Requests that wait for them, by UID, with their realms.
    held_up: HashMap<String, (String, ObjectRef<AccessRequest>)>,
}

impl Open {
    /// A request was looked at; whom that sets free.
    fn passed(&mut self, uid: &str) -> Vec<(String, ObjectRef<AccessRequest>)> {
        let Some(realm) = self.due.remove(uid) else { return Vec::new() };
        if self.due.values().any(|other| *other == realm) {
            return Vec::new();
        }
        let free = self.held_up.extract_if(|_, (other, _)| *other == realm);
        free.map(|(uid, (_, request))| (uid, request)).collect()
    }
}

impl Context {
    /// Notes what is ending now. To be called before anything is looked at; later calls change nothing.
    pub fn begin_with_what_is_due(&self) {
        self.due_first.0.get_or_init(|| {
            let now = Timestamp::now();
            let ending = |known: Known| {
                let (request, _) = known.believed(None)?;
                let over = request.phase().is_none_or(Phase::is_final);
                let realm = request.subject()?.realm.clone();
                (!over && domain::is_ending(&request, now)).then_some((request.uid, realm))
            };
            let due: HashMap<_, _> = self.index.known().into_iter().filter_map(ending).collect();
            if !due.is_empty() {
                tracing::info!(requests = due.len(), "what is due goes first");
            }
            Begun { at: Boot::now(), open: Mutex::new(Open { due, held_up: HashMap::new() }) }
        });
    }

    /// How long a request waits at most for what is due in its realm; nothing if it does not.
    pub fn waits_for_what_is_due(&self, request: &Request) -> Option<Duration> {
        let begun = self.due_first.0.get()?;
        let left = LONGEST.saturating_sub(Boot::now().since(begun.at));
        let gets = match request.phase() {
            None | Some(Phase::Pending | Phase::Approved | Phase::Activating) => true,
            Some(
                Phase::Active
                | Phase::Revoking
                | Phase::Expired
                | Phase::Revoked
                | Phase::Denied
                | Phase::TimedOut
                | Phase::Rejected,
            ) => false,
        };
        if left.is_zero() || !gets || domain::is_ending(request, Timestamp::now()) {
            return None;
        }
        let realm = match &request.status.subject {
            Some(subject) => subject.realm.clone(),
            None => self.policies.get(&ObjectRef::new(&request.policy))?.spec.realm.clone(),
        };
        let mut open = begun.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.due.values().any(|other| *other == realm) {
            return None;
        }
        let reference = ObjectRef::new(&request.name).within(&request.namespace);
        open.held_up.insert(request.uid.clone(), (realm, reference));
        Some(request.deadline().map_or(left, |deadline| left.min(until(deadline))))
    }

    /// A request was looked at, and what is due there was tried.
    pub fn was_looked_at(&self, uid: &str) {
        let Some(begun) = self.due_first.0.get() else { return };
        let free = begun.open.lock().unwrap_or_else(PoisonError::into_inner).passed(uid);
        for (uid, request) in free {
            self.look_again(&uid, request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_is_due_in_a_realm_sets_those_free_who_wait_there() {
        let due = [("a", "prod"), ("b", "prod"), ("c", "dead")].map(|(uid, realm)| (uid.to_owned(), realm.to_owned()));
        let held_up = [("x", "prod"), ("y", "dead")]
            .map(|(uid, realm)| (uid.to_owned(), (realm.to_owned(), ObjectRef::new(uid).within("team"))));
        let mut open = Open { due: due.into(), held_up: held_up.into() };
        let mut free = |uid: &str| open.passed(uid).into_iter().map(|(uid, _)| uid).collect::<Vec<_>>();
        assert!(free("x").is_empty(), "it was not due");
        assert!(free("a").is_empty(), "b is still due");
        assert_eq!(free("b"), ["x"]);
        assert!(free("b").is_empty(), "once");
        assert_eq!(free("c"), ["y"]);
    }
}
