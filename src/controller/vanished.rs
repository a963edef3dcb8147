//! Live requests that disappeared although the finalizer had not run: it was taken off, or the object was removed from etcd.
//! What they gave is taken away by what is remembered of them. Their status has nowhere to be written but here.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use kube::{
    Resource, ResourceExt,
    runtime::{events::EventType, watcher},
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Context, index::hash_of, lenient::Lenient, next_look::Wait};
use crate::api::AccessRequest;

/// How long to wait where nothing says when to look again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Turns events of the watch into UIDs of requests that are gone. Objects that cannot be read are there all the same.
pub fn tell(context: Arc<Context>) -> impl FnMut(&watcher::Event<Lenient<AccessRequest>>) {
    // While all there is comes anew: what is live and was not seen yet, and what was seen.
    let (mut missing, mut seen) = (HashSet::new(), HashSet::new());
    move |event| match event {
        watcher::Event::Init => {
            missing = context.index.live();
            seen.clear();
        }
        watcher::Event::InitApply(object) => {
            let uid = object.meta().uid.as_deref().unwrap_or_default();
            missing.remove(uid);
            seen.insert(hash_of(uid));
        }
        watcher::Event::InitDone => {
            for uid in missing.drain() {
                context.index.is_gone(&uid);
            }
            context.index.keep_over(&std::mem::take(&mut seen));
        }
        watcher::Event::Delete(object) => drop(object.meta().uid.as_ref().map(|uid| context.index.is_gone(uid))),
        watcher::Event::Apply(_) => {}
    }
}

impl Context {
    /// Takes away what vanished requests gave, each until it is gone.
    pub async fn look_after_vanished(&self, mut gone: UnboundedReceiver<String>) {
        let mut revocations = FuturesUnordered::new();
        loop {
            tokio::select! {
                gone = gone.recv() => match gone {
                    Some(uid) => revocations.extend(self.index.vanish(&uid).map(|request| self.revoke_vanished(request))),
                    None => return,
                },
                Some(()) = revocations.next() => {}
            }
        }
    }

    /// Looks whether live requests are there that the watch does not show: one that came and went while it was broken is on no list.
    pub async fn look_for_what_is_not_shown(&self) {
        for request in self.index.not_shown() {
            // What cannot be read is there.
            if let Ok(false) = self.read_again(&request).await {
                self.index.is_gone(request.metadata.uid.as_deref().unwrap_or_default());
            }
        }
    }

    /// Says what is left of them when the process ends: nobody knows of it afterwards.
    pub fn tell_of_the_vanished(&self) {
        for request in self.index.left_of_the_vanished() {
            let name = format!("{}/{}", request.namespace().unwrap_or_default(), request.name_any());
            let subject = request.subject();
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
