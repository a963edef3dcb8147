//! Says what was decided: status, finalizer, Events, one log line for each change of phase.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;

use super::{
    Context, Privilege, Urgency,
    error::{ApiError, Error, chain, limited},
    trace,
};
use crate::{
    api::{
        AccessPolicy, AccessPolicyStatus, AccessRequest, AccessRequestStatus, EndReason, FIELD_MANAGER, FINALIZER,
        Phase,
    },
    domain::{
        TAKEN_AWAY,
        conditions::{self, Reason},
    },
    guard::{self, InForce},
};

/// Largest note of an Event, in bytes (Kubernetes, events.k8s.io/v1).
const MAX_NOTE: usize = 1024;

/// Writes a request's status as a whole, sealed: nothing stays in it that somebody else wrote. Carries UID and
/// resourceVersion, so that it never overwrites what it did not see. Only while this process leads for sure: what is due to go
/// does not wait for it.
pub async fn status(
    context: &Context,
    request: &AccessRequest,
    status: &AccessRequestStatus,
    urgency: Urgency,
) -> Result<Arc<AccessRequest>, ApiError> {
    let uid = request.metadata.uid.as_deref().unwrap_or_default();
    // What is known here only is not sent anywhere.
    let turn = if context.index.is_vanished(uid) { None } else { Some(context.writes.turn(urgency).await?) };
    context.leadership.may_give()?;
    let mut object = request.clone();
    let seal = context.keyring.keys().seal(uid, status);
    object.status = Some(AccessRequestStatus { seal, ..status.clone() });
    let (false, Some(turn)) = (context.index.keep(&object), turn) else {
        // Nothing can change it, but what was sent to Keycloak for it may still be on its way.
        context.acknowledged(request, status);
        return Ok(Arc::new(object));
    };
    context.index.sends(&object);
    let api: Api<AccessRequest> = Api::namespaced(context.client.clone(), &request.namespace().unwrap_or_default());
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let written = match turn.send(api.replace_status(&request.name_any(), &params, &object)).await {
        Ok(written) => written,
        Err(error) => {
            if error.is_unknown() {
                context.index.unfence(uid);
            }
            return Err(error);
        }
    };
    let written = context.index.put(written);
    context.acknowledged(request, status);
    let sealed = written.status.as_ref().is_some_and(|status| context.keyring.verify(uid, status));
    if sealed { Ok(written) } else { Err(ApiError::NotAsSent) }
}

/// Puts our finalizer on, or takes it off; answers with what is stored then.
pub async fn finalizer(context: &Context, request: &AccessRequest, on: bool) -> Result<AccessRequest, Error> {
    let turn =
        context.writes.turn(if on { Urgency::Other } else { Urgency::End }).await.map_err(Error::WriteFinalizer)?;
    context.leadership.may_give().map_err(|error| Error::WriteFinalizer(error.into()))?;
    let mut finalizers = request.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if on {
        finalizers.push(FINALIZER.into());
    }
    let patch = json!({ "metadata": {
        "uid": request.metadata.uid,
        "resourceVersion": request.metadata.resource_version,
        "finalizers": finalizers,
    } });
    let api: Api<AccessRequest> = Api::namespaced(context.client.clone(), &request.namespace().unwrap_or_default());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    turn.send(api.patch(&request.name_any(), &params, &Patch::Merge(patch))).await.map_err(Error::WriteFinalizer)
}

/// Writes a policy's Ready condition, and how far the operator's rights reach in its realm, if that says something new.
pub async fn policy(
    context: &Context,
    policy: &AccessPolicy,
    (ready, reason): (bool, &Reason),
    least: Option<&Privilege>,
    now: Timestamp,
) -> Result<(), Error> {
    let old = policy.status.clone().unwrap_or_default();
    let generation = policy.metadata.generation.unwrap_or_default();
    let mut status = AccessPolicyStatus { observed_generation: Some(generation), conditions: old.conditions.clone() };
    conditions::put(&mut status.conditions, "Ready", ready, reason, generation, now);
    if let Some(Privilege { least, reason }) = least {
        conditions::put(&mut status.conditions, "LeastPrivilege", *least, reason, generation, now);
    }
    if status == old {
        return Ok(());
    }
    context.leadership.may_give().map_err(|error| Error::WriteStatus(error.into()))?;
    let patch = json!({
        "apiVersion": AccessPolicy::api_version(&()),
        "kind": AccessPolicy::kind(&()),
        "metadata": { "uid": policy.metadata.uid, "resourceVersion": policy.metadata.resource_version },
        "status": &status,
    });
    let api: Api<AccessPolicy> = Api::all(context.client.clone());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match limited(api.patch_status(&policy.name_any(), &params, &Patch::Apply(patch))).await {
        Ok(_) => {}
        // It changed or went meanwhile: the watch will say so, and it is looked at again.
        Err(error) if error.is_conflict() || error.is_not_found() => return Ok(()),
        Err(error) => return Err(Error::WriteStatus(error)),
    }
    let said = |status: &AccessPolicyStatus| status.conditions.iter().find(|one| one.type_ == "Ready").cloned();
    if said(&status) == said(&old) {
        return Ok(());
    }
    tracing::info!(policy = policy.name_any(), ready, reason = reason.word, detail = reason.message, "policy");
    let type_ = if ready { EventType::Normal } else { EventType::Warning };
    context.publish(policy.object_ref(&()), type_, reason.word, "Examine", &reason.message);
    Ok(())
}

/// Tells about a change of phase, or of the reason why it lasts.
pub fn announce(context: &Context, before: &AccessRequest, after: &AccessRequest) {
    let old = before.status.clone().unwrap_or_default();
    let new = after.status.clone().unwrap_or_default();
    let Some(phase) = new.phase else { return };
    trace::decisions(after, &old, &new);
    let ready = new.conditions.iter().find(|condition| condition.type_ == "Ready");
    let (word, message) = ready.map_or(("", ""), |ready| (ready.reason.as_str(), ready.message.as_str()));
    let said = old.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.reason == word);
    if old.phase != Some(phase) {
        tracing::info!(
            request = format!("{}/{}", after.namespace().unwrap_or_default(), after.name_any()),
            policy = after.spec.policy_name,
            requester = after.spec.requester.as_deref().unwrap_or_default(),
            subject = new.subject.as_ref().map(|subject| subject.username.as_str()).unwrap_or_default(),
            approved_by = new.approved_by.as_deref().unwrap_or_default(),
            deadline = new.ends_at.as_deref().unwrap_or_default(),
            from = old.phase.map(Phase::as_str).unwrap_or_default(),
            to = phase.as_str(),
            reason = word,
            detail = message,
            "phase"
        );
        measure(context, &new);
    } else if said && old.ballot == new.ballot {
        return;
    }
    // In passing: the next one says how it came out, and what does not pass has a reason of its own.
    if word == phase.as_str() && matches!(phase, Phase::Approved | Phase::Activating | Phase::Revoking) {
        return;
    }
    let bad = matches!(phase, Phase::Denied | Phase::TimedOut | Phase::Rejected)
        || matches!(
            word,
            "Overdue"
                | "RevocationFailed"
                | "SessionsFailed"
                | "MappingFailed"
                | "KeycloakUnavailable"
                | "AdmissionPoliciesNotInForce"
                | "ClocksDiffer"
                | "StatusForged"
                | TAKEN_AWAY
                | "Released"
        );
    let type_ = if bad { EventType::Warning } else { EventType::Normal };
    context.publish(after.object_ref(&()), type_, word, phase.as_str(), message);
}

/// How long after its deadline access was gone.
fn measure(context: &Context, status: &AccessRequestStatus) {
    if let Some(grant) = status.grant.as_ref().filter(|grant| grant.end_reason == Some(EndReason::Expired))
        && status.phase == Some(Phase::Expired)
    {
        let lag = Timestamp::now().duration_since(grant.deadline.0);
        context.metrics.expired(Duration::try_from(lag).unwrap_or_default());
    }
}

/// Tells about the admission policies beside the object that keeps their trust epoch: for the owners of the operator, also
/// when no request waits.
pub fn guard(context: &Context, state: &Result<InForce, String>) {
    let (type_, word, message) = match state {
        Ok(InForce { epoch, since, stamp: _ }) => (
            EventType::Normal,
            "AdmissionPoliciesInForce",
            format!("the admission policies are in force, in the trust epoch {epoch} since {since}"),
        ),
        Err(why) => {
            let message = format!("nothing is granted and no vote is counted; taking away goes on: {why}");
            (EventType::Warning, "AdmissionPoliciesNotInForce", message)
        }
    };
    let about = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("ConfigMap".into()),
        namespace: Some(context.guard.namespace().to_owned()),
        name: Some(guard::STORED_IN.into()),
        ..ObjectReference::default()
    };
    context.publish(about, type_, word, "Guard", &message);
}

impl Context {
    /// Publishes an Event, beside the work: Events are a help for people, and no evidence.
    pub fn publish(&self, about: ObjectReference, type_: EventType, reason: &str, action: &str, message: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shortened(message)),
            action: action.to_owned(),
            secondary: None,
        };
        // One that remembers would count up an Event of the same reason, and leave what it said then (kube-runtime 5.0).
        let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: None };
        let (recorder, leadership) = (Recorder::new(self.client.clone(), reporter), self.leadership.clone());
        let writes = self.writes.clone();
        tokio::spawn(async move {
            let Some(_turn) = writes.event().await else { return };
            // Whoever was paused and leads no more says nothing, either.
            if leadership.may_take().is_err() {
                return;
            }
            if let Err(error) = limited(recorder.publish(&event, &about)).await {
                tracing::debug!(error = chain(&error), "cannot publish an Event");
            }
        });
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= MAX_NOTE {
        return message.to_owned();
    }
    let end = (0..=MAX_NOTE - 3).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &message[..end])
}
