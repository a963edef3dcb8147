//! Which requests may be about a Keycloak user: those whose subject it is, or was since they were first seen. Some more may be among
//! them, none is missing. Without it each look would go through all requests for those of the same person.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{
    ResourceExt,
    runtime::{reflector::ObjectRef, watcher::Event},
};

use super::index::hash_of;
use crate::api::AccessRequest;

/// A hash of a user's id, and namespace and name of a request about it.
type Entry = (u64, Box<str>, Box<str>);

/// The requests of each Keycloak user.
#[derive(Default)]
pub struct ByUser(Mutex<State>);

#[derive(Default)]
struct State {
    known: BTreeSet<Entry>,
    /// Those of a list that is under way: it takes the place of what is known.
    listed: Option<BTreeSet<Entry>>,
}

impl ByUser {
    /// References of the requests that may be about a user.
    pub fn of(&self, user: &str) -> Vec<ObjectRef<AccessRequest>> {
        let user = hash_of(user);
        let state = self.state();
        let from_the_first = state.known.range((user, Box::default(), Box::default())..);
        from_the_first.take_while(|(other, ..)| *other == user).map(reference).collect()
    }

    /// A request may be shown with this subject.
    pub fn add(&self, request: &AccessRequest) {
        let Some(entry) = entry(request) else { return };
        let State { known, listed } = &mut *self.state();
        if let Some(listed) = listed {
            listed.insert(entry.clone());
        }
        known.insert(entry);
    }

    /// Follows a watch, whose store has each event already. `remembered` is what may have another subject than a list says.
    pub fn follow(&self, event: &Event<AccessRequest>, remembered: impl Fn() -> Vec<Arc<AccessRequest>>) {
        let add_remembered = || {
            for request in remembered() {
                self.add(&request);
            }
        };
        match event {
            Event::Init => self.state().listed = Some(BTreeSet::new()),
            Event::InitApply(request) | Event::Apply(request) => self.add(request),
            Event::InitDone => {
                add_remembered();
                {
                    let state = &mut *self.state();
                    if let Some(listed) = state.listed.take() {
                        state.known = listed;
                    }
                }
                // Some may have been seen for the first time in between.
                add_remembered();
            }
            // What is listed meanwhile comes into the store all the same.
            Event::Delete(request) => drop(entry(request).map(|entry| self.state().known.remove(&entry))),
        }
    }

    /// Forgets what is not stored, unless a list is under way, which comes into the store at its end.
    pub fn forget_all_but(&self, is_stored: impl Fn(&ObjectRef<AccessRequest>) -> bool) {
        let state = &mut *self.state();
        if state.listed.is_none() {
            state.known.retain(|entry| is_stored(&reference(entry)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(request: &AccessRequest) -> Option<Entry> {
    let subject = request.status.as_ref()?.subject.as_ref()?;
    Some((hash_of(&subject.user_id), request.namespace()?.into(), request.name_any().into()))
}

fn reference((_, namespace, name): &Entry) -> ObjectRef<AccessRequest> {
    ObjectRef::new(name).within(namespace)
}
