//! Requests that somebody hands in for another person: from Git, or from a pipeline.
//!
//! The API server saw the submitter, not the requester. So the policy lists who may submit, the requester must be somebody
//! who may ask, and the submitter's person never votes. What can start without a fresh vote must lie in an absolute
//! window, and starts once in it: its manifest may lie in Git for ever.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Approval, Effect, Lookup, Observed, Person, Policy, Request, Submitter, hex};

/// Begins the key of the vote that a pre-approval gives. No annotation that is a signal begins so.
pub const PRE_APPROVED: &str = "preApproved/";

/// What is on record about requests that started without a fresh vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Since when there is a record. What started before is not known.
    pub since: Timestamp,
    /// UID of the request that has started for the same policy, subject and spec.
    pub by: Option<String>,
    /// Whether there is no room for another one.
    pub full: bool,
}

/// Whether a request that needs no fresh vote may start.
pub(super) enum Start {
    /// It may: that is on record.
    Recorded,
    /// It may, once this is on record.
    Record(Effect),
    /// It may not, for this reason.
    Refused(String),
    /// It cannot be said now, for this reason.
    Unknown(String),
}

/// The policy's entry for who submitted the request, if it is delegated and there is one.
fn submitter<'a>(request: &Request, policy: &'a Policy) -> Option<&'a Submitter> {
    let by = request.submitter()?;
    policy.submitters.iter().find(|submitter| submitter.username == by)
}

/// The stages for which the review in Git counts.
pub fn pre_approved<'a>(request: &Request, policy: &'a Policy) -> &'a [String] {
    let listed = submitter(request, policy).filter(|_| request.pre_approved);
    listed.map(|submitter| submitter.pre_approves.as_slice()).unwrap_or_default()
}

/// Whether nobody has to vote, from what request and policy say.
fn needs_no_vote(request: &Request, policy: &Policy) -> bool {
    let stages = pre_approved(request, policy);
    request.submitter().is_some()
        && match &policy.approval {
            Approval::Automatic => true,
            Approval::Stages(all) => all.iter().all(|stage| stages.contains(&stage.name)),
        }
}

/// What a policy has against who submitted a request, and how.
pub(super) fn broken(request: &Request, policy: &Policy) -> Vec<String> {
    let mut broken = Vec::new();
    let Some(by) = request.submitter() else {
        if request.pre_approved {
            broken.push("spec.preApproved: nobody pre-approves a request for themselves; leave it out".to_owned());
        }
        return broken;
    };
    let name = &policy.name;
    match submitter(request, policy) {
        None => {
            let list: Vec<&str> = policy.submitters.iter().map(|listed| listed.username.as_str()).collect();
            let list = if list.is_empty() { "nobody".into() } else { list.join(", ") };
            broken.push(format!(
                "spec.submittedBy {by:?} may not submit requests for others under policy {name}: its submitters are {list}"
            ));
        }
        Some(listed) if request.pre_approved && listed.pre_approves.is_empty() => {
            broken.push(format!(
                "spec.preApproved: {by} may not pre-approve under policy {name}: its entry in spec.submitters has no preApproves"
            ));
        }
        Some(_) => {}
    }
    let window = request.not_before.is_some() && request.not_after.is_some();
    if !window && (request.pre_approved || needs_no_vote(request, policy)) {
        broken.push(
            "spec.notBefore and spec.notAfter are needed: what is submitted for another person and needs no fresh vote must lie in an absolute window"
                .to_owned(),
        );
    }
    broken
}

/// What is against a pre-approval once it is known who submitted it; an inner error says why that is not known.
pub(super) fn own_pre_approval(
    request: &Request,
    subject: &Person,
    submitter: Option<&Lookup>,
) -> Result<bool, String> {
    match submitter {
        _ if !request.pre_approved => Ok(false),
        Some(Lookup::Person(person)) => Ok(person.id == subject.id),
        Some(Lookup::Nobody(_)) => Ok(false),
        Some(Lookup::Unknown(why)) => Err(why.clone()),
        None => Err("nobody asked Keycloak about the submitter".into()),
    }
}

/// What is remembered of a request that starts without a fresh vote: policy, subject and spec. Not where it lives, what it
/// is called, by which of her names the requester is named, who submitted it or where it came from: a manifest can be moved
/// and copied.
pub fn digest(request: &Request, realm_id: &str, user_id: &str) -> String {
    // What another version computes otherwise would start once more.
    let Request {
        policy,
        grants,
        duration,
        reason,
        not_before,
        not_after,
        pre_approved,
        submitted_by: _,
        requester: _,
        namespace: _,
        name: _,
        uid: _,
        generation: _,
        created: _,
        deleting: _,
        has_finalizer: _,
        broken: _,
        signals: _,
        forged: _,
        status: _,
        time_is_up: _,
    } = request;
    let duration = duration.map(|duration| duration.as_secs());
    let spec = (policy, grants, duration, reason, not_before, not_after, pre_approved);
    // These types serialize to JSON always.
    hex(&Sha256::digest(serde_json::to_vec(&(realm_id, user_id, spec)).unwrap_or_default()))
}

/// Whether a request that needs no fresh vote may start now.
pub(super) fn start(request: &Request, observed: &Observed) -> Start {
    let known = (&observed.realm_id, observed.people.get(&request.requester), request.not_before, request.not_after);
    let (Some(realm_id), Some(Lookup::Person(subject)), Some(not_before), Some(until)) = known else {
        return Start::Unknown("its subject and its window are not known".into());
    };
    let record = match &observed.record {
        None => return Start::Unknown("nobody asked which requests have started before".into()),
        Some(Err(why)) => return Start::Unknown(why.clone()),
        Some(Ok(record)) => record,
    };
    match &record.by {
        Some(uid) if *uid == request.uid => Start::Recorded,
        Some(uid) => Start::Refused(format!(
            "the same request (UID {uid}) was approved in this window before, and starts once: to ask again, submit one with another window"
        )),
        None if not_before < record.since => Start::Refused(format!(
            "whether this has started before is on record since {} only (Hallpass was installed then, or the record was lost), and its window begins at {not_before}: submit one with a later spec.notBefore",
            record.since
        )),
        None if record.full => Start::Unknown(
            "there are too many open windows of requests that need no fresh vote; it waits until one has closed".into(),
        ),
        None => Start::Record(Effect::Record { digest: digest(request, realm_id, &subject.id), until }),
    }
}
