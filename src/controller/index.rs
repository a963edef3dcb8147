//! The requests as they are known: the watch's cache, and our own writes until the watch shows them.
//!
//! A decision for a subject has to see what was just written for another request of the same subject.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::AccessRequest;

/// All requests, by UID.
pub struct Index {
    store: Store<AccessRequest>,
    own: Mutex<HashMap<String, Arc<AccessRequest>>>,
}

impl Index {
    /// An index over the watch's cache.
    pub fn new(store: Store<AccessRequest>) -> Self {
        Self { store, own: Mutex::default() }
    }

    /// Remembers what a write of ours answered, or a read that was newer than the watch.
    pub fn put(&self, request: AccessRequest) {
        let Some(uid) = request.metadata.uid.clone() else { return };
        let mut own = self.own();
        if own.get(&uid).is_none_or(|known| version(known) < version(&request)) {
            own.insert(uid, Arc::new(request));
        }
    }

    /// Forgets what the watch does not show any more.
    pub fn forget_the_gone(&self) {
        let there: HashSet<_> = self.store.state().iter().filter_map(|stored| stored.metadata.uid.clone()).collect();
        self.own().retain(|uid, _| there.contains(uid));
    }

    /// The newest known version.
    pub fn newest(&self, seen: &Arc<AccessRequest>) -> Arc<AccessRequest> {
        let stored = self.store.get(&ObjectRef::from_obj(seen.as_ref()));
        let stored = stored.filter(|stored| stored.metadata.uid == seen.metadata.uid);
        self.newer(stored.unwrap_or_else(|| seen.clone()))
    }

    /// All requests, each in its newest known version.
    pub fn all(&self) -> Vec<Arc<AccessRequest>> {
        self.store.state().into_iter().map(|stored| self.newer(stored)).collect()
    }

    fn newer(&self, stored: Arc<AccessRequest>) -> Arc<AccessRequest> {
        let uid = stored.metadata.uid.as_deref().unwrap_or_default();
        let mut own = self.own();
        match own.get(uid) {
            Some(written) if version(written) > version(&stored) => written.clone(),
            Some(_) => {
                own.remove(uid);
                stored
            }
            None => stored,
        }
    }

    fn own(&self) -> MutexGuard<'_, HashMap<String, Arc<AccessRequest>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resource versions of one resource can be compared as numbers (Kubernetes 1.35, KEP-5504; etcd's before).
fn version(request: &AccessRequest) -> u64 {
    request.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}
