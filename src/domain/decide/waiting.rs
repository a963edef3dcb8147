//! Before the access: Pending and Approved.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Decision, Draft, Effect, Next, earliest, ending};
use crate::{
    api::{EndReason, GrantStatus, Phase, PinnedSubject, PolicyPin, TargetState, TargetStatus, Vote, VoteDecision},
    domain::{
        Approval, Guard, Person, Policy, PolicyView, Request, Resolved, Signal, SignalKind, TargetsError,
        conditions::Reason,
        duration::{self, later, whole_seconds},
        holdings,
        rules::{self, Verdict},
        votes::{self, Ballot, OpenStage, Tally},
    },
};

/// How long a request waits for its policy to appear.
const POLICY_WAIT: Duration = Duration::from_mins(1);
/// Times in Kubernetes are whole seconds: what was made in the second in which an epoch began may be older than it.
const ONE_SECOND: Duration = Duration::from_secs(1);
/// `maxItems` of `status.votes`.
const MAX_VOTES: usize = 64;
/// How many votes on earlier ballots are kept, for people to see.
const MAX_OLD_VOTES: usize = 16;

/// Everybody who has voted on the present ballot, recorded or not yet.
pub(super) fn voters(request: &Request) -> impl Iterator<Item = String> {
    let ballot = request.status.ballot.as_deref().unwrap_or_default();
    let recorded = request.status.votes.iter().filter(move |vote| votes::is_on(vote, ballot)).map(|vote| &vote.by);
    recorded.chain(unrecorded(request).map(|(signal, ..)| &signal.by)).cloned()
}

/// Votes on the present ballot that are not in status yet.
fn unrecorded(request: &Request) -> impl Iterator<Item = (&Signal, VoteDecision, &str)> {
    request.signals.iter().filter_map(|signal| match &signal.kind {
        SignalKind::Vote { decision, ballot, stage } if request.status.ballot.as_ref() == Some(ballot) => {
            let recorded = request.status.votes.iter().any(|vote| vote.key == signal.key);
            (!recorded).then_some((signal, *decision, stage.as_str()))
        }
        SignalKind::Vote { .. } | SignalKind::End => None,
    })
}

/// A request that nobody has looked at, or that waits for votes.
pub(super) fn pending(mut draft: Draft<'_>) -> Decision {
    if draft.request.deleting {
        return deleted(draft);
    }
    if let Some(decision) = first_look(&draft) {
        return match decision {
            FirstLook::Forged(why) => draft.ends(Phase::Rejected, "NotAuthenticated", why),
            FirstLook::NotNow => Decision { status: None, effects: Vec::new(), next: Next::Retry { until: None } },
        };
    }
    record_votes(&mut draft);
    ending::record_ends(&mut draft);
    let policy = match before_the_access(draft) {
        Ok((after, policy)) => {
            draft = after;
            policy
        }
        Err(decision) => return *decision,
    };
    if let Some(why) = draft.guard_problem() {
        let reason = Reason::new("AdmissionPoliciesNotInForce", format!("nothing is granted or counted: {why}"));
        return draft.waits(Phase::Pending, &reason);
    }
    let subject = match draft.judged(policy) {
        Ok(subject) => subject,
        Err(answer) => return draft.answered(answer),
    };
    if draft.rules_changed(policy) && policy.approval == Approval::Automatic {
        let why = format!("policy {} has changed since this was asked, and is automatic now; ask again", policy.name);
        return draft.ends(Phase::Rejected, "RulesChanged", why);
    }
    let Some(realm_id) = &draft.observed.realm_id else {
        return draft.keycloak_unavailable("nobody asked Keycloak about the realm");
    };
    draft.pin(policy, &subject, realm_id);
    match &policy.approval {
        Approval::Automatic => draft.becomes_approved(policy, format!("policy {} (automatic)", policy.name)),
        Approval::Stages(stages) => {
            let tally = draft.count(stages, &subject.id);
            match &tally.unknown {
                // It may be a deny, which is final.
                Some(why) if tally.is_approved() => draft.keycloak_unavailable(why),
                _ => draft.counted(policy, &tally),
            }
        }
    }
}

/// A request that is agreed: waits for its start, then everything is asked again.
pub(super) fn approved(mut draft: Draft<'_>) -> Decision {
    ending::record_ends(&mut draft);
    let policy = match before_the_access(draft) {
        Ok((after, policy)) => {
            draft = after;
            policy
        }
        Err(decision) => return *decision,
    };
    if draft.rules_changed(policy) {
        return draft.back_to_pending("the policy has changed");
    }
    if let Some(start) = draft.request.not_before.filter(|start| *start > draft.now) {
        let reason = Reason::new("WaitingForStart", format!("approved; starts at {start}"));
        return draft.goes(Phase::Approved, &reason, Vec::new(), Next::At(start));
    }
    if let Some(why) = draft.guard_problem() {
        let reason = Reason::new("AdmissionPoliciesNotInForce", format!("nothing is granted: {why}"));
        return draft.waits(Phase::Approved, &reason);
    }
    if draft.epoch_changed() {
        return draft.back_to_pending("the admission policies were changed");
    }
    let subject = match draft.judged(policy) {
        Ok(subject) => subject,
        Err(answer) => return draft.answered(answer),
    };
    let Some(realm_id) = &draft.observed.realm_id else {
        return draft.keycloak_unavailable("nobody asked Keycloak about the realm");
    };
    // Without the realm's own id no removal could be proved later.
    let pinned = draft.status.subject.as_ref();
    if pinned.is_none_or(|pinned| pinned.user_id != subject.id || pinned.realm_id != *realm_id) {
        let why =
            format!("{} leads to another Keycloak user than when this was asked; ask again", draft.request.requester);
        return draft.ends(Phase::Rejected, "SubjectChanged", why);
    }
    let tally = draft.count(policy.approval.stages(), &subject.id);
    if let Some(why) = &tally.unknown {
        return draft.keycloak_unavailable(why);
    }
    if !tally.is_approved() {
        draft.status.approved_by = None;
        return draft.counted(policy, &tally);
    }
    match &draft.observed.targets {
        None => draft.keycloak_unavailable("nobody asked about the grants"),
        Some(Err(TargetsError::Unknown(why))) => draft.keycloak_unavailable(why),
        Some(Err(TargetsError::Refused(why))) => draft.ends(Phase::Rejected, "Rejected", why.join("; ")),
        Some(Ok(targets)) => draft.activate(policy, targets),
    }
}

enum FirstLook {
    /// Nobody vouches for who made it.
    Forged(String),
    /// The API server cannot be asked now: nobody has looked, so that a later look can still reject it.
    NotNow,
}

/// Whether a request that nobody has looked at can be believed.
fn first_look(draft: &Draft<'_>) -> Option<FirstLook> {
    if draft.request.phase().is_some() {
        return None;
    }
    let again = "create it again once they are";
    match &draft.observed.guard {
        Guard::InForce { since, .. } if draft.request.created >= later(*since, ONE_SECOND) => None,
        Guard::InForce { since, .. } => Some(FirstLook::Forged(format!(
            "created before the admission policies were in force (they are since {since}); create it again"
        ))),
        Guard::NotInForce(why) => {
            Some(FirstLook::Forged(format!("created while the admission policies were not in force: {why}; {again}")))
        }
        Guard::Unknown(_) | Guard::NotAsked => Some(FirstLook::NotNow),
    }
}

/// Copies votes on the present ballot to status, as long as the API server vouches for them.
fn record_votes(draft: &mut Draft<'_>) {
    if !matches!(draft.observed.guard, Guard::InForce { .. }) {
        return;
    }
    let news = new_votes(draft);
    let room = MAX_VOTES.saturating_sub(draft.status.votes.len());
    draft.status.votes.extend(news.into_iter().take(room));
}

/// Votes that are not in status yet, as they would be there. A deny is final: it comes before what it may end.
fn new_votes(draft: &Draft<'_>) -> Vec<Vote> {
    let vote = |(signal, decision, stage): (&Signal, _, &str)| Vote {
        stage: stage.to_owned(),
        decision,
        by: signal.by.clone(),
        user_id: None,
        at: draft.time(),
        key: signal.key.clone(),
        counted: false,
        why: None,
    };
    let mut votes: Vec<Vote> = unrecorded(draft.request).map(vote).collect();
    votes.sort_by_key(|vote| vote.decision == VoteDecision::Approve);
    votes
}

/// Deleted before the access: whoever made it, and whatever is known about it, it is let go.
fn deleted(draft: Draft<'_>) -> Decision {
    draft.ends(Phase::Revoked, EndReason::Deleted.as_str(), "the request was deleted")
}

/// What holds for every request that has no access yet: withdrawn, too late, no policy.
fn before_the_access<'a>(draft: Draft<'a>) -> Result<(Draft<'a>, &'a Policy), Box<Decision>> {
    let over = |draft: Draft<'a>, phase, word, message: String| Err(Box::new(draft.ends(phase, word, message)));
    if draft.request.deleting {
        return Err(Box::new(deleted(draft)));
    }
    if let Some(end) = draft.status.ends.iter().find(|end| end.counted) {
        let message = format!("withdrawn by {}", end.by);
        return over(draft, Phase::Revoked, EndReason::Ended.as_str(), message);
    }
    if let Some(end) = draft.request.not_after.filter(|end| *end <= draft.now) {
        return over(draft, Phase::TimedOut, "TimedOut", format!("not approved and activated before notAfter {end}"));
    }
    if let Some(why) = draft.policy_gone() {
        return over(draft, Phase::Rejected, "PolicyDeleted", format!("{why}; ask again"));
    }
    if draft.policy_suspended() {
        let every_rule = match &draft.observed.policy {
            PolicyView::Ready(policy) => draft.judged(policy).err().and_then(Answer::broken),
            PolicyView::Absent | PolicyView::NotReady { .. } => None,
        };
        let message = every_rule.unwrap_or_else(|| format!("policy {} is suspended", draft.request.policy));
        return over(draft, Phase::Rejected, "Rejected", message);
    }
    let name = &draft.request.policy;
    let phase = draft.request.phase().unwrap_or(Phase::Pending);
    match &draft.observed.policy {
        PolicyView::Ready(policy) => Ok((draft, policy)),
        PolicyView::NotReady { why, .. } => {
            let reason = Reason::new("PolicyNotReady", format!("policy {name} is not ready: {why}"));
            Err(Box::new(draft.waits(phase, &reason)))
        }
        PolicyView::Absent => {
            let limit = later(draft.request.created, POLICY_WAIT);
            if limit <= draft.now {
                let message = format!("spec.policyName: there is no policy {name:?}");
                return over(draft, Phase::Rejected, "PolicyNotFound", message);
            }
            let message = format!("there is no policy {name:?}; waiting for it until {}", whole_seconds(limit));
            let reason = Reason::new("PolicyNotFound", message);
            Err(Box::new(draft.goes(Phase::Pending, &reason, Vec::new(), Next::At(limit))))
        }
    }
}

/// Why a request has no subject under its policy.
enum Answer {
    Broken(Vec<String>),
    Unknown(String),
}

impl Answer {
    /// The broken rules, in one sentence.
    fn broken(self) -> Option<String> {
        match self {
            Self::Broken(broken) => Some(broken.join("; ")),
            Self::Unknown(_) => None,
        }
    }
}

impl Draft<'_> {
    /// Stays where it is, for a reason that will pass.
    fn waits(self, phase: Phase, reason: &Reason) -> Decision {
        let limit = self.time_limit().filter(|_| phase == Phase::Pending);
        if limit.is_some_and(|limit| limit <= self.now) {
            return self.times_out(&reason.message);
        }
        let until = earliest([limit, self.request.not_after]);
        self.goes(phase, reason, Vec::new(), Next::Retry { until })
    }

    fn keycloak_unavailable(self, why: &str) -> Decision {
        let phase = self.request.phase().unwrap_or(Phase::Pending);
        self.waits(phase, &Reason::new("KeycloakUnavailable", why))
    }

    /// Until when somebody has to decide, as far as the policy says so.
    fn time_limit(&self) -> Option<Timestamp> {
        self.observed.policy.known().map(|policy| later(self.request.created, policy.timeout))
    }

    fn times_out(self, waiting: &str) -> Decision {
        let timeout = self.observed.policy.known().map(|policy| duration::format(policy.timeout)).unwrap_or_default();
        self.ends(Phase::TimedOut, "TimedOut", format!("nobody decided within {timeout}: {waiting}"))
    }

    /// The subject, if the request keeps the policy's rules.
    fn judged(&self, policy: &Policy) -> Result<Person, Answer> {
        let requester = self.observed.people.get(&self.request.requester);
        match rules::judge(self.request, policy, requester) {
            Verdict::Kept(person) => Ok(person),
            Verdict::Broken(broken) => Err(Answer::Broken(broken)),
            Verdict::Unknown(why) => Err(Answer::Unknown(why)),
        }
    }

    fn answered(self, answer: Answer) -> Decision {
        match answer {
            Answer::Broken(broken) => self.ends(Phase::Rejected, "Rejected", broken.join("; ")),
            Answer::Unknown(why) => self.keycloak_unavailable(&why),
        }
    }

    /// Whether what is voted on has changed since this request was first seen.
    fn rules_changed(&self, policy: &Policy) -> bool {
        self.status.rules.as_ref().is_some_and(|rules| *rules != policy.rules)
    }

    /// Whether the admission policies were changed since the ballot was drawn: what was written meanwhile may be forged.
    pub(super) fn epoch_changed(&self) -> bool {
        match &self.observed.guard {
            Guard::InForce { epoch, .. } => {
                self.status.rules.is_some() && self.status.trust_epoch.as_ref() != Some(epoch)
            }
            Guard::NotAsked | Guard::NotInForce(_) | Guard::Unknown(_) => false,
        }
    }

    /// Pins policy and subject. A new ballot voids votes that were cast.
    fn pin(&mut self, policy: &Policy, subject: &Person, realm_id: &str) {
        let changed = self.rules_changed(policy) || self.epoch_changed();
        if let Guard::InForce { epoch, .. } = &self.observed.guard {
            self.status.trust_epoch = Some(epoch.clone());
        }
        if changed || (self.status.ballot.is_none() && policy.approval != Approval::Automatic) {
            self.status.ballot = Some(self.observed.ballot.clone());
            let old = self.status.votes.len().saturating_sub(MAX_OLD_VOTES);
            self.status.votes.drain(..old);
        }
        if self.status.rules.is_none() || changed {
            self.status.rules = Some(policy.rules.clone());
            self.status.policy = Some(PolicyPin { uid: policy.uid.clone(), generation: policy.generation });
        }
        let names: Vec<&str> = policy.wanted(&self.request.grants).map(|grant| grant.name.as_str()).collect();
        self.status.grants = Some(names.join(", "));
        self.status.subject = Some(PinnedSubject {
            realm: policy.realm.clone(),
            realm_id: realm_id.to_owned(),
            user_id: subject.id.clone(),
            username: subject.username.clone(),
        });
    }

    /// Counts the recorded votes again.
    fn count(&mut self, stages: &[crate::domain::Stage], subject: &str) -> Tally {
        let word = self.status.ballot.clone().unwrap_or_default();
        let ballot = Ballot { word: &word, subject };
        if matches!(self.observed.guard, Guard::InForce { .. }) {
            // Nobody keeps others from voting by filling the list: what counts takes the place of what does not.
            let counts = |vote: &Vote| votes::counts(vote, ballot, stages, &self.observed.people);
            let waiting =
                new_votes(self).into_iter().filter(|new| !self.status.votes.iter().any(|old| old.key == new.key));
            let waiting: Vec<Vote> = waiting.filter(counts).collect();
            for new in waiting {
                if let Some(place) = self.status.votes.iter_mut().rfind(|old| !counts(old)) {
                    *place = new;
                }
            }
        }
        let tally = votes::tally(&self.status.votes, ballot, stages, &self.observed.people);
        self.status.votes.clone_from(&tally.votes);
        tally
    }

    /// What the count says.
    fn counted(self, policy: &Policy, tally: &Tally) -> Decision {
        if let Some(denial) = &tally.denied {
            let message = format!("denied by {} in stage {}", denial.by, denial.stage);
            return self.ends(Phase::Denied, "Denied", message);
        }
        if tally.is_approved() {
            let by = tally.approved_by();
            return self.becomes_approved(policy, by);
        }
        let limit = later(self.request.created, policy.timeout);
        if limit <= self.now {
            return self.times_out(&missing(&tally.open));
        }
        let ballot = self.status.ballot.as_deref().unwrap_or_default();
        let voided = self.status.votes.iter().any(|vote| !votes::is_on(vote, ballot));
        let void = if voided {
            "the policy or the admission policies have changed, so earlier votes no longer count; "
        } else {
            ""
        };
        let reason = Reason::new("WaitingForVotes", format!("{void}{}", self.instructions(&tally.open)));
        let until = earliest([Some(limit), self.request.not_after]);
        let next = match (&tally.unknown, until) {
            (Some(_), until) => Next::Retry { until },
            (None, Some(until)) => Next::At(until),
            (None, None) => Next::OnChange,
        };
        self.goes(Phase::Pending, &reason, Vec::new(), next)
    }

    /// What is missing, with the command that an approver runs.
    fn instructions(&self, open: &[OpenStage]) -> String {
        let stamp = matches!(self.observed.guard, Guard::InForce { stamp: true, .. });
        let (request, ballot) = (self.request, self.status.ballot.as_deref().unwrap_or_default());
        let number = self.status.votes.len() + 1;
        let commands = open.iter().map(|stage| {
            format!(
                "kubectl annotate accessrequest {} -n {} {}{ballot}.{}.{number}={}",
                request.name,
                request.namespace,
                crate::api::APPROVE,
                stage.name,
                if stamp { "yes" } else { "YOUR-USERNAME" }
            )
        });
        format!(
            "{}. To approve: {} (to deny, {} in place of {})",
            missing(open),
            commands.collect::<Vec<_>>().join(" ; or: "),
            crate::api::DENY,
            crate::api::APPROVE
        )
    }

    fn becomes_approved(mut self, policy: &Policy, by: String) -> Decision {
        self.status.approved_by = Some(by);
        self.status.policy = Some(PolicyPin { uid: policy.uid.clone(), generation: policy.generation });
        let start = self.request.not_before.filter(|start| *start > self.now);
        let (reason, next) = match start {
            Some(start) => (Reason::new("WaitingForStart", format!("approved; starts at {start}")), Next::At(start)),
            None => (Reason::new("Approved", "approved; the access is being prepared"), Next::Now),
        };
        let effects = if self.request.has_finalizer { Vec::new() } else { vec![Effect::AddFinalizer] };
        self.goes(Phase::Approved, &reason, effects, next)
    }

    /// The rules changed under an approved request: what was agreed is void.
    fn back_to_pending(mut self, what: &str) -> Decision {
        self.status.approved_by = None;
        let message = format!("{what} since this was approved, so the approval no longer counts");
        self.goes(Phase::Pending, &Reason::new("RulesChanged", message), Vec::new(), Next::Now)
    }

    /// Everything was asked again: the finalizer first, then the deadline and the targets are recorded.
    fn activate(mut self, policy: &Policy, targets: &[Resolved]) -> Decision {
        if let Some(other) = holdings::being_removed(targets, &self.observed.siblings) {
            let message = format!("waiting until {}/{} has given the same access back", other.namespace, other.name);
            return self.waits(Phase::Approved, &Reason::new("WaitingForRevocation", message));
        }
        if !self.request.has_finalizer {
            let reason = Reason::new("Approved", "approved; the access is being prepared");
            return self.goes(Phase::Approved, &reason, vec![Effect::AddFinalizer], Next::Now);
        }
        let starts_at = whole_seconds(self.now);
        let ends = later(starts_at, self.request.duration.unwrap_or(policy.default_duration));
        let deadline = earliest([Some(ends), self.request.not_after.map(whole_seconds)]).unwrap_or(ends);
        let targets: Vec<TargetStatus> = targets.iter().map(|target| self.intended(target)).collect();
        let effects = super::live::effects_for(&targets);
        self.status.ends_at = Some(deadline.to_string());
        self.status.grant = Some(GrantStatus {
            starts_at: Time(starts_at),
            deadline: Time(deadline),
            end_reason: None,
            ended_at: None,
            powerless_at: None,
            targets,
        });
        self.goes(Phase::Activating, &Reason::new("Activating", "the access is being put in place"), effects, Next::Now)
    }

    fn intended(&self, target: &Resolved) -> TargetStatus {
        TargetStatus {
            name: target.grant.clone(),
            type_: target.type_,
            id: target.id.clone(),
            client: target.client.clone(),
            display: target.display.clone(),
            pre_existing: holdings::is_pre_existing(target, &self.observed.siblings),
            state: TargetState::Intended,
        }
    }
}

/// What the open stages want, for people.
fn missing(open: &[OpenStage]) -> String {
    let stages = open.iter().map(|OpenStage { name, missing, approvers }| {
        let approvals = if *missing == 1 { "approval" } else { "approvals" };
        format!("{missing} {approvals} in stage {name} by {approvers}")
    });
    format!("waiting for {}", stages.collect::<Vec<_>>().join(" and "))
}
