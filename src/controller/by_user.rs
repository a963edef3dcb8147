//! Which requests may be about a Keycloak user: those whose subject it is, or was since they were first seen. Some more may be among
//! them, none is missing. Without it each look would go through all requests for those of the same person.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
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
    /// A list is under way. What it has shown comes into the store at its end.
    listing: bool,
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
        self.state().known.extend(entry(request));
    }

    /// Follows a watch, whose store has each event already.
    pub fn follow(&self, event: &Event<AccessRequest>) {
        match event {
            Event::Init => self.state().listing = true,
            Event::InitApply(request) | Event::Apply(request) => self.add(request),
            Event::InitDone => self.state().listing = false,
            Event::Delete(request) => {
                let state = &mut *self.state();
                // What was listed comes into the store all the same.
                if let Some(entry) = entry(request).filter(|_| !state.listing) {
                    state.known.remove(&entry);
                }
            }
        }
    }

    /// Forgets what is neither stored nor remembered, unless a list is under way.
    pub fn forget_all_but<'a>(
        &self,
        is_stored: impl Fn(&ObjectRef<AccessRequest>) -> bool,
        remembered: impl Iterator<Item = &'a AccessRequest>,
    ) {
        let remembered: BTreeSet<Entry> = remembered.filter_map(entry).collect();
        let state = &mut *self.state();
        if !state.listing {
            state.known.retain(|entry| is_stored(&reference(entry)) || remembered.contains(entry));
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
