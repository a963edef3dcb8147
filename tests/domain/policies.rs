//! A policy as a scenario names it.

use std::sync::Arc;

use hallpass::{
    api::{self, AccessPolicy, ApproverKind, SubjectKind},
    domain::{Policy, PolicyView},
};

use super::world::{LEADS, PAYMENTS};

/// A policy under construction.
#[derive(Clone, Debug)]
pub struct PolicyBuilder(pub AccessPolicy);

/// Lends `admin` and `debug` for up to two hours to people of payments, if one lead agrees within an hour.
pub fn policy() -> PolicyBuilder {
    let mut policy = AccessPolicy::new("oncall", api::AccessPolicySpec::default());
    policy.metadata.uid = Some("policy".into());
    policy.metadata.generation = Some(1);
    policy.spec.realm = "prod".into();
    policy.spec.requesters = vec![api::Subject { kind: SubjectKind::Group, name: PAYMENTS.into(), namespace: None }];
    policy.spec.duration = api::DurationRule { default: None, max: "2h".into() };
    policy.spec.approval = Some(api::Approval { timeout: Some("1h".into()), ..api::Approval::default() });
    PolicyBuilder(policy).grant("admin").grant("debug").stage("lead", 1, &[LEADS])
}

impl PolicyBuilder {
    fn approval(&mut self) -> &mut api::Approval {
        self.0.spec.approval.get_or_insert_default()
    }
    pub fn grant(mut self, name: &str) -> Self {
        let grant = api::Grant { name: name.into(), realm_role: Some(name.into()), ..api::Grant::default() };
        self.0.spec.grants.push(grant);
        self
    }
    /// One more stage. A name with a slash is a group.
    pub fn stage(mut self, name: &str, required: u8, approvers: &[&str]) -> Self {
        let approver = |name: &&str| api::Approver {
            kind: if name.contains('/') { ApproverKind::Group } else { ApproverKind::User },
            name: (*name).into(),
        };
        let approvers = approvers.iter().map(approver).collect();
        self.approval().stages.push(api::Stage { name: name.into(), required: Some(required), approvers });
        self
    }
    pub fn no_stages(mut self) -> Self {
        self.approval().stages.clear();
        self
    }
    pub fn automatic(mut self) -> Self {
        self = self.no_stages();
        self.approval().automatic = true;
        self
    }
    pub fn serves(mut self, name: &str) -> Self {
        let kind = SubjectKind::User;
        self.0.spec.requesters = vec![api::Subject { kind, name: name.into(), namespace: None }];
        self
    }
    /// This service account of the namespace `flux` may submit for others, and pre-approve these stages.
    pub fn submitter(mut self, name: &str, pre_approves: &[&str]) -> Self {
        self.0.spec.submitters.push(api::Submitter {
            kind: api::SubmitterKind::ServiceAccount,
            name: name.into(),
            namespace: Some("flux".into()),
            pre_approves: pre_approves.iter().map(ToString::to_string).collect(),
        });
        self
    }
    pub fn suspended(mut self) -> Self {
        self.0.spec.suspended = true;
        self
    }
    pub fn only_in(mut self, namespace: &str) -> Self {
        self.0.spec.namespaces = vec![namespace.into()];
        self
    }
    pub fn at_most(mut self, duration: &str) -> Self {
        self.0.spec.duration.max = duration.into();
        self
    }
    /// What the subject must have done in Keycloak.
    pub fn wants_done(mut self, actions: &[&str]) -> Self {
        self.0.spec.required_actions = actions.iter().map(ToString::to_string).collect();
        self
    }
    pub fn wants_reason(mut self, pattern: &str, hint: &str) -> Self {
        let (pattern, hint) = (Some(pattern.to_owned()), Some(hint.to_owned()));
        self.0.spec.reason = Some(api::ReasonRule { required: true, pattern, hint });
        self
    }
    /// Lends roles of clients in the place of its grants: a grant's name, and the client's.
    pub fn client_roles(mut self, grants: &[(&str, &str)]) -> Self {
        let role = |(name, client): &(&str, &str)| api::Grant {
            name: (*name).into(),
            client_role: Some(api::ClientRole { client: (*client).into(), role: (*name).into() }),
            ..api::Grant::default()
        };
        self.0.spec.grants = grants.iter().map(role).collect();
        self
    }
    pub fn at_end(mut self, at_end: api::AtEnd) -> Self {
        self.0.spec.sessions = Some(api::Sessions { at_end });
        self
    }
    /// Deleted and made anew.
    pub fn made_anew(mut self) -> Self {
        self.0.metadata.uid = Some("another policy".into());
        self
    }
    pub fn read(&self) -> Policy {
        Policy::parse(&self.0).expect("a policy that stands")
    }
    pub fn ready(&self) -> PolicyView {
        PolicyView::Ready(Arc::new(self.read()))
    }
}
