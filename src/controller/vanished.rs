//! Live requests that disappeared although the finalizer had not run: it was taken off, or the object was removed from etcd.
//! What they gave is taken away by what is remembered of them. Their status has nowhere to be written but here.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use kube::{
    Resource, ResourceExt,
    core::DynamicObject,
    runtime::{events::EventType, watcher},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::{Context, reconcile::Wait};
use crate::api::AccessRequest;

/// How long to wait where nothing says when to look again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the watch says about requests that are gone.
#[derive(Debug)]
pub enum Gone {
    /// The one with this UID.
    One(String),
    /// All but those with these UIDs: the watch was broken, and this is what there is now.
    AllBut(HashSet<String>),
}

/// Turns events of the watch into what is gone. Objects that cannot be read are there all the same.
pub fn tell(gone: UnboundedSender<Gone>) -> impl FnMut(&watcher::Event<DynamicObject>) {
    let mut there = HashSet::new();
    move |event| {
        // Nobody listens while the process stops.
        match event {
            watcher::Event::Init => there.clear(),
            watcher::Event::InitApply(object) => there.extend(object.uid()),
            watcher::Event::InitDone => drop(gone.send(Gone::AllBut(std::mem::take(&mut there)))),
            watcher::Event::Delete(object) => drop(object.uid().map(|uid| gone.send(Gone::One(uid)))),
            watcher::Event::Apply(_) => {}
        }
    }
}

impl Context {
    /// Takes away what vanished requests gave, each until it is gone.
    pub async fn look_after_vanished(&self, mut gone: UnboundedReceiver<Gone>) {
        let mut revocations = FuturesUnordered::new();
        loop {
            tokio::select! {
                news = gone.recv() => match news {
                    Some(news) => revocations.extend(self.index.vanish(&news).into_iter().map(|request| self.revoke_vanished(request))),
                    None => return,
                },
                Some(()) = revocations.next() => {}
            }
        }
    }

    /// Says what is left of them when the process ends: nobody knows of it afterwards.
    pub fn tell_of_the_vanished(&self) {
        for request in self.index.left_of_the_vanished() {
            let name = format!("{}/{}", request.namespace().unwrap_or_default(), request.name_any());
            let subject = request.status.as_ref().and_then(|status| status.subject.as_ref());
            let subject = subject.map(|subject| subject.username.as_str()).unwrap_or_default();
            let targets = request.grant().map(|grant| grant.targets.as_slice()).unwrap_or_default();
            let targets: Vec<_> = targets.iter().map(|target| target.display.as_str()).collect();
            tracing::error!(
                request = name,
                subject,
                ?targets,
                "stopping before what a vanished request gave was taken away: take it away by hand"
            );
        }
    }

    async fn revoke_vanished(&self, request: Arc<AccessRequest>) {
        let name = format!("{}/{}", request.namespace().unwrap_or_default(), request.name_any());
        tracing::error!(
            request = name,
            "a live request disappeared before its access was taken away; taking it away by what is remembered"
        );
        self.metrics.vanished();
        let words = "this request disappeared before its access was taken away; taking it away by what is remembered";
        self.publish(request.object_ref(&()), EventType::Warning, "Vanished", "Revoke", words);
        let uid = request.uid().unwrap_or_default();
        // Until now there was nothing to do for it.
        self.memory().remove(&uid);
        while self.index.is_vanished(&uid) {
            let wait = match Box::pin(self.bring_on(&request)).await {
                Ok(Wait(wait)) => wait.unwrap_or(LOOK_AGAIN),
                Err(error) => {
                    let wait = self.retry_after(&uid);
                    tracing::warn!(request = name, error = error.chain(), ?wait, "trying again");
                    wait
                }
            };
            if self.index.is_vanished(&uid) {
                tokio::time::sleep(wait).await;
            }
        }
        self.memory().remove(&uid);
        tracing::info!(request = name, "what a vanished request gave is gone");
    }
}
