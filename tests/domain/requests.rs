//! A request as a scenario names it.

use hallpass::{
    api::{
        self, AccessRequest, AtEnd, EndReason, GrantStatus, Phase, PolicyPin, TargetState, TargetStatus, TargetType,
        Vote, VoteDecision,
    },
    domain::{Forged, Instead, Request},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::world::{ALICE, BALLOT, PolicyBuilder, alice, at, key};

/// A request under construction.
#[derive(Clone, Debug)]
pub struct RequestBuilder(pub AccessRequest);

/// Alice's request for `admin` for an hour, made at noon and not seen yet. Its UID is its name.
pub fn request(name: &str) -> RequestBuilder {
    let mut request = AccessRequest::new(name, api::AccessRequestSpec::default());
    request.metadata.uid = Some(name.into());
    request.metadata.namespace = Some("team".into());
    request.metadata.generation = Some(1);
    request.metadata.creation_timestamp = Some(Time(at(0)));
    request.spec.policy_name = "oncall".into();
    RequestBuilder(request).by(ALICE).wants(&["admin"])
}

/// A target that is ours, not written yet.
pub fn ours(name: &str) -> TargetStatus {
    TargetStatus {
        name: name.into(),
        type_: TargetType::RealmRole,
        id: format!("id-of-{name}"),
        client: None,
        display: name.into(),
        pre_existing: false,
        state: TargetState::Intended,
    }
}

/// A target that the subject had before.
pub fn theirs(name: &str) -> TargetStatus {
    TargetStatus { pre_existing: true, ..ours(name) }
}

/// That target in Keycloak.
pub fn mapped(target: TargetStatus) -> TargetStatus {
    TargetStatus { state: TargetState::Mapped, ..target }
}

/// That target proved gone.
pub fn removed(target: TargetStatus) -> TargetStatus {
    TargetStatus { state: TargetState::Removed, ..target }
}

impl RequestBuilder {
    pub fn by(mut self, requester: &str) -> Self {
        self.0.spec.requester = Some(requester.into());
        self
    }
    pub fn wants(mut self, grants: &[&str]) -> Self {
        self.0.spec.grants = grants.iter().map(ToString::to_string).collect();
        self
    }
    pub fn lasting(mut self, duration: &str) -> Self {
        self.0.spec.duration = Some(duration.into());
        self
    }
    pub fn because(mut self, reason: &str) -> Self {
        self.0.spec.reason = Some(reason.into());
        self
    }
    pub fn not_before(mut self, seconds: i64) -> Self {
        self.0.spec.not_before = Some(Time(at(seconds)));
        self
    }
    pub fn not_after(mut self, seconds: i64) -> Self {
        self.0.spec.not_after = Some(Time(at(seconds)));
        self
    }
    pub fn submitted_by(mut self, submitter: &str) -> Self {
        self.0.spec.submitted_by = Some(submitter.into());
        self
    }
    pub fn pre_approved(mut self) -> Self {
        self.0.spec.pre_approved = true;
        self
    }
    pub fn deleted(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(at(0)));
        self
    }
    pub fn with_finalizer(mut self) -> Self {
        self.0.metadata.finalizers = Some(vec![api::FINALIZER.into()]);
        self
    }

    /// An annotation, as it is before the operator has seen it.
    pub fn annotated(mut self, key: &str, by: &str) -> Self {
        self.0.metadata.annotations.get_or_insert_default().insert(key.into(), by.into());
        self
    }
    fn signal(self, prefix: &str, ballot: &str, stage: &str, by: &str) -> Self {
        let number = self.0.metadata.annotations.as_ref().map_or(0, std::collections::BTreeMap::len);
        self.annotated(&key(prefix, ballot, stage, number), by)
    }
    pub fn voted(self, by: &str, stage: &str) -> Self {
        self.signal(api::APPROVE, BALLOT, stage, by)
    }
    pub fn voted_on(self, ballot: &str, by: &str, stage: &str) -> Self {
        self.signal(api::APPROVE, ballot, stage, by)
    }
    pub fn denied(self, by: &str, stage: &str) -> Self {
        self.signal(api::DENY, BALLOT, stage, by)
    }
    pub fn ended(self, by: &str) -> Self {
        self.signal(api::END, "", "", by)
    }

    /// The status, once somebody has looked.
    fn status(&mut self) -> &mut api::AccessRequestStatus {
        let status = self.0.status.get_or_insert_default();
        status.observed_generation = Some(1);
        status
    }

    /// Seen under this policy, and waiting for votes.
    pub fn pending(mut self, policy: &PolicyBuilder) -> Self {
        let policy = policy.read();
        let status = self.status();
        status.phase = Some(Phase::Pending);
        status.policy = Some(PolicyPin { uid: policy.uid, generation: policy.generation });
        status.rules = Some(policy.rules);
        status.subject = Some(alice());
        status.trust_epoch = Some("first".into());
        status.ballot = (!policy.approval.stages().is_empty()).then(|| BALLOT.into());
        self
    }
    /// Looked at last in this trust epoch.
    pub fn guarded_by(mut self, epoch: &str) -> Self {
        self.status().rules = Some("rules".into());
        self.status().trust_epoch = Some(epoch.into());
        self
    }
    /// A vote that is in status and counts.
    pub fn recorded(mut self, by: &str, stage: &str, decision: VoteDecision) -> Self {
        let prefix = if decision == VoteDecision::Approve { api::APPROVE } else { api::DENY };
        let key = key(prefix, BALLOT, stage, self.status().votes.len() + 100);
        let (stage, by, at) = (stage.into(), by.into(), Time(at(0)));
        let vote = Vote { stage, decision, by, user_id: None, at, key, counted: true, why: None };
        self.status().votes.push(vote);
        self
    }
    /// Agreed by this one in stage `lead`.
    pub fn approved_by(self, by: &str, policy: &PolicyBuilder) -> Self {
        let mut request = self.pending(policy).recorded(by, "lead", VoteDecision::Approve);
        request.status().phase = Some(Phase::Approved);
        request.status().approved_by = Some(by.into());
        request
    }
    /// Agreed by an automatic policy.
    pub fn approved_automatically(self, policy: &PolicyBuilder) -> Self {
        let mut request = self.pending(policy);
        request.status().phase = Some(Phase::Approved);
        request.status().approved_by = Some("policy oncall (automatic)".into());
        request
    }
    fn granted(mut self, phase: Phase, targets: &[TargetStatus]) -> Self {
        let status = self.status();
        status.trust_epoch = Some("first".into());
        status.phase = Some(phase);
        status.subject = Some(alice());
        status.policy.get_or_insert(PolicyPin { uid: "policy".into(), generation: 1 });
        status.grant = Some(GrantStatus {
            starts_at: Time(at(0)),
            deadline: Time(at(3600)),
            end_reason: None,
            ended_at: None,
            powerless_at: None,
            sessions: None,
            token_lifespan: None,
            targets: targets.to_vec(),
        });
        self.with_finalizer()
    }
    pub fn activating(self, targets: &[TargetStatus]) -> Self {
        self.granted(Phase::Activating, targets)
    }
    /// The access is in place until one o'clock.
    pub fn active(self, targets: &[TargetStatus]) -> Self {
        let targets: Vec<_> = targets.iter().cloned().map(mapped).collect();
        self.granted(Phase::Active, &targets)
    }
    pub fn revoking(self, cause: EndReason, targets: &[TargetStatus]) -> Self {
        let mut request = self.granted(Phase::Revoking, targets);
        if let Some(grant) = &mut request.status().grant {
            grant.end_reason = Some(cause);
        }
        request
    }
    /// What was recorded at activation: which sessions end, and how long tokens lived.
    pub fn recorded_at_activation(mut self, sessions: Option<AtEnd>, token_lifespan: Option<i64>) -> Self {
        if let Some(grant) = &mut self.status().grant {
            (grant.sessions, grant.token_lifespan) = (sessions, token_lifespan);
        }
        self
    }
    pub fn until(mut self, seconds: i64) -> Self {
        if let Some(grant) = &mut self.status().grant {
            grant.deadline = Time(at(seconds));
        }
        self
    }
    /// In this phase, with nothing else in status.
    pub fn in_phase(mut self, phase: Phase) -> Self {
        self.status().phase = Some(phase);
        self
    }
    pub fn read(&self) -> Request {
        Request::parse(&self.0)
    }
    /// Its time is up by the boot-time clock.
    pub fn time_is_up(&self) -> Request {
        Request { time_is_up: true, ..self.read() }
    }
    /// This is what counts, and the API server has something else.
    pub fn forged(&self, found: &Self, instead: Instead) -> Request {
        let found = found.0.status.clone().unwrap_or_default();
        Request { forged: Some(Forged { found, instead }), ..self.read() }
    }
}
