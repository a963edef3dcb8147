//! Before Hallpass is uninstalled: nothing is lent any more, and nobody waits for anything.
//!
//! Suspends every policy, which ends what is live and refuses what is asked, and waits until no request is open. Taking away is
//! the operator's work: it has to run. May be repeated.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
    core::DeserializeGuard,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    api::{AccessPolicy, AccessRequest, AccessRequestStatus, Phase},
    controller::chain,
    domain::duration,
};

/// A request, whether or not this version can read it.
type Open = DeserializeGuard<AccessRequest>;

/// How often it is looked whether requests are still open.
const GLANCE: Duration = Duration::from_secs(1);
/// How many of them are listed.
const LISTED: usize = 20;

/// Suspends all policies and waits until no request is open. Says what it does as it goes.
///
/// # Errors
/// What is still open when the patience is over, or what the API server did not do.
pub async fn drain(client: &Client, patience: Duration) -> Result<(), String> {
    let until = Instant::now() + patience;
    let mut said = BTreeSet::new();
    let mut say = |line: String| {
        if said.insert(line.clone()) {
            println!("{line}");
        }
    };
    loop {
        let problem = match look(client, &mut say).await {
            Ok(None) => {
                say("nothing to drain: there are no AccessRequests in this cluster".into());
                return Ok(());
            }
            Ok(Some(open)) if open.is_empty() => {
                say("no request is open".into());
                return Ok(());
            }
            Ok(Some(open)) => {
                say(format!("waiting: {} still open", in_words(open.len())));
                still_open(&open, patience)
            }
            // It may be over in a moment; what is not is told in the end.
            Err(error) => {
                say(format!("trying again: {error}"));
                format!("after {}: {error}", duration::format(patience))
            }
        };
        if Instant::now() >= until {
            return Err(problem);
        }
        sleep(GLANCE).await;
    }
}

/// The open requests, after every policy was suspended; nothing if there is no such kind. Each time: with a policy that is written
/// meanwhile people could go on.
async fn look(client: &Client, say: &mut impl FnMut(String)) -> Result<Option<Vec<Open>>, String> {
    suspend_all(client, say).await?;
    let requests: Api<Open> = Api::all(client.clone());
    let found = present(requests.list(&ListParams::default().fields(&open())).await);
    let found = found.map_err(|error| format!("cannot list AccessRequests: {}", chain(&error)))?;
    Ok(found.map(|found| found.items))
}

/// Which requests the API server selects: those that are not over.
fn open() -> String {
    let over = Phase::ALL.into_iter().filter(|phase| phase.is_final());
    over.map(|phase| format!("status.phase!={}", phase.as_str())).collect::<Vec<_>>().join(",")
}

/// Suspends every policy, also when one of them cannot be: the first reason why not.
async fn suspend_all(client: &Client, say: &mut impl FnMut(String)) -> Result<(), String> {
    let policies: Api<DeserializeGuard<AccessPolicy>> = Api::all(client.clone());
    let found = present(policies.list(&ListParams::default()).await);
    let found = found.map_err(|error| format!("cannot list AccessPolicies: {}", chain(&error)))?;
    let mut failed = Ok(());
    for DeserializeGuard(policy) in found.into_iter().flat_map(|found| found.items) {
        let name = match policy {
            Ok(policy) if policy.spec.suspended => continue,
            Ok(policy) => policy.metadata.name,
            Err(unreadable) => unreadable.metadata.name,
        };
        let name = name.unwrap_or_default();
        let suspended = Patch::Merge(json!({"spec": {"suspended": true}}));
        match present(policies.patch(&name, &PatchParams::default(), &suspended).await) {
            Ok(Some(_)) => say(format!("policy {name} is suspended")),
            Ok(None) => {}
            Err(error) => {
                failed = failed.and(Err(format!("policy {name} cannot be suspended: {}", chain(&error))));
            }
        }
    }
    failed
}

/// What the API server answered, or `None` if there is no such thing: also where the CRD is gone, and with it all of its objects.
fn present<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        // Where the CRD is gone the answer is a text, without a reason.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        answer => answer.map(Some),
    }
}

fn in_words(requests: usize) -> String {
    format!("{requests} {}", if requests == 1 { "request is" } else { "requests are" })
}

fn still_open(found: &[Open], patience: Duration) -> String {
    let mut text = format!("after {}, {} still open:", duration::format(patience), in_words(found.len()));
    for DeserializeGuard(request) in found.iter().take(LISTED) {
        let (metadata, said) = match request {
            Ok(request) => (&request.metadata, said(request.status.as_ref())),
            Err(unreadable) => (&unreadable.metadata, "cannot be read by this version".into()),
        };
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        let _ = write!(text, "\n  {}/{}: {said}", namespace.unwrap_or_default(), name.unwrap_or_default());
    }
    if found.len() > LISTED {
        let _ = write!(text, "\n  and {} more", found.len() - LISTED);
    }
    text
}

/// The phase of a request, and why it is not over.
fn said(status: Option<&AccessRequestStatus>) -> String {
    let Some(phase) = status.and_then(|status| status.phase) else {
        return "the operator has not looked at it. Does it run?".into();
    };
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    format!("{}: {}", phase.as_str(), ready.map(|ready| ready.message.as_str()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_what_is_in_no_final_phase() {
        let selector = open();
        for phase in Phase::ALL {
            assert_eq!(selector.contains(&format!("status.phase!={}", phase.as_str())), phase.is_final(), "{selector}");
        }
    }
}
