//! From what an `AccessPolicy` says to a policy that stands, or to every problem that keeps it from standing.

use std::{collections::BTreeMap, time::Duration};

use regex::Regex;
use sha2::{Digest, Sha256};

use super::{
    super::{duration, hex, votes},
    Approval, Grant, GrantKind, Policy, Problem, ProblemReason, ReasonRule, RequiredAction, Stage, Subject, Submitter,
};
use crate::api::{self, AtEnd};

/// Default of `spec.approval.timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_hours(24);
/// Default of `spec.duration.default`, unless the maximum is smaller.
const DEFAULT_DURATION: Duration = Duration::from_hours(1);

/// Collects every problem, so that a policy is mended in one go.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, reason: ProblemReason, message: impl Into<String>) {
        self.0.push(Problem::new(reason, message));
    }

    fn duration(&mut self, field: &str, text: &str) -> Duration {
        duration::parse(text).unwrap_or_else(|| {
            self.add(ProblemReason::Invalid, format!("{field} {text:?} must be a duration, as 30s or 1h30m"));
            Duration::ZERO
        })
    }
}

impl Policy {
    /// Checks what can be checked without Keycloak; on failure names every problem.
    pub fn parse(policy: &api::AccessPolicy) -> Result<Self, Vec<Problem>> {
        // A new field that nobody reads here must not compile: it would be ignored silently.
        let api::AccessPolicySpec {
            description: _,
            realm,
            suspended,
            grants,
            requesters,
            submitters,
            namespaces,
            duration: durations,
            reason,
            approval,
            required_actions,
            sessions,
            allow_admin_roles,
        } = &policy.spec;
        let mut problems = Problems::default();
        let at_end = sessions.as_ref().map(|api::Sessions { at_end }| *at_end).unwrap_or_default();
        let max_duration = problems.duration("spec.duration.max", &durations.max);
        let default_duration = match &durations.default {
            None => DEFAULT_DURATION.min(max_duration),
            Some(text) => problems.duration("spec.duration.default", text),
        };
        if default_duration > max_duration {
            problems.add(ProblemReason::Invalid, "spec.duration.default must not be longer than spec.duration.max");
        }
        let approval = approval.clone().unwrap_or_default();
        let timeout = approval
            .timeout
            .as_deref()
            .map_or(DEFAULT_TIMEOUT, |text| problems.duration("spec.approval.timeout", text));
        let parsed = Self {
            name: policy.metadata.name.clone().unwrap_or_default(),
            uid: policy.metadata.uid.clone().unwrap_or_default(),
            generation: policy.metadata.generation.unwrap_or_default(),
            realm: realm.clone(),
            suspended: *suspended,
            grants: parse_grants(grants, at_end, &mut problems),
            requesters: requesters.iter().map(requester).collect(),
            submitters: parse_submitters(submitters, &approval, &mut problems),
            namespaces: namespaces.iter().cloned().collect(),
            default_duration,
            max_duration,
            reason: parse_reason(reason.as_ref(), &mut problems),
            approval: parse_approval(&approval, &mut problems),
            timeout,
            at_end,
            allow_admin_roles: *allow_admin_roles,
            required_actions: parse_actions(required_actions, &mut problems),
            rules: digest(&policy.spec),
        };
        if problems.0.is_empty() { Ok(parsed) } else { Err(problems.0) }
    }
}

fn parse_grants(grants: &[api::Grant], at_end: AtEnd, problems: &mut Problems) -> Vec<Grant> {
    let mut parsed: Vec<Grant> = Vec::new();
    for (i, grant) in grants.iter().enumerate() {
        let api::Grant { name, realm_role, client_role, group } = grant;
        let kind = match (realm_role, client_role, group) {
            (Some(role), None, None) => GrantKind::RealmRole(role.clone()),
            (None, Some(api::ClientRole { client, role }), None) => {
                GrantKind::ClientRole { client: client.clone(), role: role.clone() }
            }
            (None, None, Some(path)) => GrantKind::Group(path.clone()),
            _ => {
                let message = format!("spec.grants[{i}] must name exactly one of realmRole, clientRole and group");
                problems.add(ProblemReason::Invalid, message);
                continue;
            }
        };
        if let Some(other) = parsed.iter().find(|other| other.kind == kind || other.name == *name) {
            let message = format!("spec.grants: {name:?} and {:?} are the same", other.name);
            problems.add(ProblemReason::DuplicateTarget, message);
        }
        if at_end == AtEnd::EndClientSessions && client_role.is_none() {
            let message = format!(
                "spec.sessions.atEnd EndClientSessions ends the sessions of the clients whose roles are lent, and grant \
                 {name:?} is no client's role; say EndAll or Keep, or put it into a policy of its own"
            );
            problems.add(ProblemReason::Invalid, message);
        }
        parsed.push(Grant { name: name.clone(), kind });
    }
    if grants.is_empty() {
        problems.add(ProblemReason::Invalid, "spec.grants must name at least one grant");
    }
    parsed
}

fn requester(subject: &api::Subject) -> Subject {
    let api::Subject { kind, name, namespace } = subject;
    match kind {
        api::SubjectKind::User => Subject::User(name.clone()),
        api::SubjectKind::Group => Subject::Group(name.clone()),
        api::SubjectKind::ServiceAccount => Subject::User(service_account(namespace.as_deref(), name)),
    }
}

/// The Kubernetes username of a service account.
fn service_account(namespace: Option<&str>, name: &str) -> String {
    format!("system:serviceaccount:{}:{name}", namespace.unwrap_or_default())
}

fn parse_submitters(
    submitters: &[api::Submitter],
    approval: &api::Approval,
    problems: &mut Problems,
) -> Vec<Submitter> {
    let mut parsed: Vec<Submitter> = Vec::new();
    for (i, submitter) in submitters.iter().enumerate() {
        let api::Submitter { kind, name, namespace, pre_approves } = submitter;
        let username = match kind {
            api::SubmitterKind::User => name.clone(),
            api::SubmitterKind::ServiceAccount => service_account(namespace.as_deref(), name),
        };
        if parsed.iter().any(|other| other.username == username) {
            problems.add(ProblemReason::Invalid, format!("spec.submitters[{i}]: {username} is there twice"));
        }
        let stages: Vec<&str> = approval.stages.iter().map(|stage| stage.name.as_str()).collect();
        for unknown in pre_approves.iter().filter(|name| !stages.contains(&name.as_str())) {
            let has = if stages.is_empty() { "none".into() } else { stages.join(", ") };
            let message =
                format!("spec.submitters[{i}].preApproves: there is no stage {unknown:?}; the policy has {has}");
            problems.add(ProblemReason::Invalid, message);
        }
        parsed.push(Submitter { username, pre_approves: pre_approves.clone() });
    }
    parsed
}

/// Only what leaves something behind that can be looked at: that an action is not in the list any more proves nothing.
fn parse_actions(names: &[String], problems: &mut Problems) -> Vec<RequiredAction> {
    let mut actions = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let Some(action) = RequiredAction::parse(name) else {
            let all = RequiredAction::ALL.map(RequiredAction::as_str).join(", ");
            let message = format!(
                "spec.requiredActions[{i}]: {name:?} leaves no evidence that can be checked; allowed are {all}, in these very letters"
            );
            problems.add(ProblemReason::Invalid, message);
            continue;
        };
        if !actions.contains(&action) {
            actions.push(action);
        }
    }
    actions
}

fn parse_reason(reason: Option<&api::ReasonRule>, problems: &mut Problems) -> ReasonRule {
    let Some(api::ReasonRule { required, pattern, hint }) = reason else { return ReasonRule::default() };
    let pattern = pattern.as_deref().and_then(|pattern| match Regex::new(pattern) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let message = format!("spec.reason.pattern {pattern:?} is not a regular expression: {error}");
            problems.add(ProblemReason::Invalid, message);
            None
        }
    });
    ReasonRule { required: *required, pattern, hint: hint.clone() }
}

fn parse_approval(approval: &api::Approval, problems: &mut Problems) -> Approval {
    let api::Approval { automatic, timeout: _, stages } = approval;
    match (automatic, stages.is_empty()) {
        (true, true) => return Approval::Automatic,
        (true, false) => {
            problems.add(ProblemReason::Invalid, "spec.approval: automatic: true and stages exclude each other");
        }
        (false, true) => {
            problems.add(ProblemReason::Invalid, "spec.approval: name at least one stage, or say automatic: true");
        }
        (false, false) => {}
    }
    let stages: Vec<Stage> = stages
        .iter()
        .map(|api::Stage { name, required, approvers }| Stage {
            name: name.clone(),
            required: required.unwrap_or(1).into(),
            approvers: approvers
                .iter()
                .map(|api::Approver { kind, name }| match kind {
                    api::ApproverKind::User => Subject::User(name.clone()),
                    api::ApproverKind::Group => Subject::Group(name.clone()),
                })
                .collect(),
        })
        .collect();
    let wanted: usize = stages.iter().map(|stage| stage.required).sum();
    if wanted > api::MAX_VOTES {
        let message = format!("spec.approval.stages want {wanted} approvals; a request holds {}", api::MAX_VOTES);
        problems.add(ProblemReason::StageUnsatisfiable, message);
    }
    if let Some(names) = unsatisfiable(&stages) {
        let message = format!(
            "spec.approval.stages: {names} can never be satisfied: too few approvers (one person counts in one stage only)"
        );
        problems.add(ProblemReason::StageUnsatisfiable, message);
    }
    Approval::Stages(stages)
}

/// Stages whose approvers are all named by username, if those are too few for them. A group may have any number.
fn unsatisfiable(stages: &[Stage]) -> Option<String> {
    let named = |stage: &&Stage| stage.approvers.iter().all(|approver| matches!(approver, Subject::User(_)));
    let stages: Vec<&Stage> = stages.iter().filter(named).collect();
    let mut voters: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, stage) in stages.iter().enumerate() {
        for approver in &stage.approvers {
            voters.entry(approver.to_string()).or_default().push(i);
        }
    }
    let required: Vec<usize> = stages.iter().map(|stage| stage.required).collect();
    let voters: Vec<Vec<usize>> = voters.into_values().collect();
    let placed = votes::place(&voters, &required).into_iter().flatten().count();
    (placed < required.iter().sum())
        .then(|| stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(", "))
}

/// Digest of what is voted on. Votes count only for the rules under which they were cast.
fn digest(spec: &api::AccessPolicySpec) -> String {
    let api::AccessPolicySpec {
        realm,
        grants,
        requesters,
        submitters,
        approval,
        required_actions,
        description: _,
        suspended: _,
        namespaces: _,
        duration: _,
        reason: _,
        sessions: _,
        allow_admin_roles,
    } = spec;
    let mut hash = Sha256::new();
    for part in [
        serde_json::to_vec(realm),
        serde_json::to_vec(grants),
        serde_json::to_vec(requesters),
        serde_json::to_vec(submitters),
        serde_json::to_vec(approval),
    ] {
        // These types serialize to JSON always: they have no maps with other keys than strings.
        hash.update(part.unwrap_or_default());
        hash.update([0]);
    }
    // Left out where it is not said, so that other policies keep their digest.
    if *allow_admin_roles {
        hash.update("allowAdminRoles");
    }
    // Policies without any keep the digest that they had before there were some.
    if !required_actions.is_empty() {
        hash.update(serde_json::to_vec(required_actions).unwrap_or_default());
    }
    hex(&hash.finalize())
}
