//! Before the access: Pending and Approved.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Decision, Draft, Next, ballot, earliest, ending, gate, sessions};
use crate::{
    api::{self, EndReason, GrantStatus, Phase, TargetState, TargetStatus},
    domain::{
        Approval, Guard, Lookup, Person, Policy, PolicyView, Resolved, TargetsError,
        conditions::{Reason, shortened},
        delegation::{self, PRE_APPROVED, Start},
        duration::{self, later, whole_seconds},
        holdings,
        rules::{self, Verdict},
        votes::{self, Tally},
    },
};

/// How long a request waits for its policy to appear.
const POLICY_WAIT: Duration = Duration::from_mins(1);
/// Times in Kubernetes are whole seconds: what was made in the second in which an epoch began may be older than it.
const ONE_SECOND: Duration = Duration::from_secs(1);

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
    draft.pin_policy();
    ballot::record_votes(&mut draft);
    ending::record_ends(&mut draft);
    let (mut draft, policy) = match before_the_access(draft) {
        Ok(found) => found,
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
        Approval::Automatic => match draft.starts_once(false) {
            Ok(draft) => draft.becomes_approved(policy, &format!("policy {} (automatic)", policy.name)),
            Err(decision) => *decision,
        },
        Approval::Stages(_) => {
            let tally = draft.count(policy, &subject.id);
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
    let (mut draft, policy) = match before_the_access(draft) {
        Ok(found) => found,
        Err(decision) => return *decision,
    };
    if draft.rules_changed(policy) {
        return draft.back_to_pending("the policy has changed");
    }
    if draft.epoch_changed() {
        return draft.back_to_pending("the admission policies were changed");
    }
    if let Some(start) = draft.request.not_before.filter(|start| *start > draft.now) {
        let reason = Reason::new("WaitingForStart", format!("approved; starts at {start}"));
        return draft.goes(Phase::Approved, &reason, Vec::new(), Next::At(start));
    }
    if let Some(reason) = draft.obstacle("nothing is granted") {
        return draft.waits(Phase::Approved, &reason);
    }
    if let Some(why) = &draft.observed.released {
        let why = format!("nothing is granted where access is given up, {why}: take the entry out first");
        return draft.waits(Phase::Approved, &Reason::new("Released", why));
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
    let tally = draft.count(policy, &subject.id);
    if let Some(why) = &tally.unknown {
        return draft.keycloak_unavailable(why);
    }
    if !tally.is_approved() {
        draft.status.approved_by = None;
        return draft.counted(policy, &tally);
    }
    let draft = match draft.starts_once(tally.has_fresh_vote()) {
        Ok(draft) => draft,
        Err(decision) => return *decision,
    };
    let draft = match gate::pass(draft, policy) {
        Ok(draft) => draft,
        Err(decision) => return *decision,
    };
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
    // The API server counts it up with each change of the spec (and with a deletion), whoever makes it.
    if draft.request.generation > 1 {
        let why = "spec was changed after the request was made, which its rules forbid; ask again".to_owned();
        return over(draft, Phase::Rejected, "SpecChanged", why);
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

impl<'a> Draft<'a> {
    /// Stays where it is, for a reason that will pass.
    fn waits(self, phase: Phase, reason: &Reason) -> Decision {
        let limit = self.time_limit().filter(|_| phase == Phase::Pending);
        if limit.is_some_and(|limit| limit <= self.now) {
            return self.times_out(&reason.message);
        }
        let until = earliest([limit, self.request.not_after]);
        self.goes(phase, reason, Vec::new(), Next::Retry { until })
    }

    pub(super) fn keycloak_unavailable(self, why: &str) -> Decision {
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
        match rules::judge(self.request, policy, &self.observed.people) {
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

    /// What the count says.
    fn counted(self, policy: &Policy, tally: &Tally) -> Decision {
        if let Some(denial) = &tally.denied {
            let message = format!("denied by {} in stage {}", denial.by, denial.stage);
            return self.ends(Phase::Denied, "Denied", message);
        }
        if tally.is_approved() {
            return match self.starts_once(tally.has_fresh_vote()) {
                Ok(draft) => draft.becomes_approved(policy, &tally.approved_by()),
                Err(decision) => *decision,
            };
        }
        let limit = later(self.request.created, policy.timeout);
        if limit <= self.now {
            return self.times_out(&ballot::missing(&tally.open));
        }
        let ballot = self.status.ballot.as_deref().unwrap_or_default();
        let voided = self.status.votes.iter().any(|vote| !votes::is_on(vote, ballot));
        let void = if voided {
            "the policy or the admission policies have changed, so earlier votes no longer count; "
        } else {
            ""
        };
        let hopeless = self.hopeless();
        let until = self.request.not_after.map_or(limit, |end| limit.min(end));
        let instructions = self.instructions(&tally.open, until);
        let reason = Reason::new("WaitingForVotes", format!("{hopeless}{void}{instructions}"));
        let next = match &tally.unknown {
            Some(_) => Next::Retry { until: Some(until) },
            None => Next::At(until),
        };
        self.goes(Phase::Pending, &reason, Vec::new(), next)
    }

    /// What somebody submitted for another person starts once in its window unless somebody has voted for it: that is on
    /// record before it goes on.
    fn starts_once(self, fresh_vote: bool) -> Result<Self, Box<Decision>> {
        if self.request.submitter().is_none() || fresh_vote {
            return Ok(self);
        }
        let phase = self.request.phase().unwrap_or(Phase::Pending);
        Err(Box::new(match delegation::start(self.request, self.observed) {
            Start::Recorded => return Ok(self),
            Start::Record(effect) => {
                let reason = Reason::new("Recording", "no vote is needed; putting on record that it starts");
                self.goes(phase, &reason, vec![effect], Next::Now)
            }
            Start::Refused(why) => self.ends(Phase::Rejected, "StartsOnce", why),
            Start::Unknown(why) => self.waits(phase, &Reason::new("RecordUnavailable", why)),
        }))
    }

    /// What keeps the stages from being satisfied whoever votes, if anything does. Neither the requester nor the submitter
    /// votes.
    fn hopeless(&self) -> String {
        let (Some(subject), Some(rosters)) = (&self.status.subject, &self.observed.rosters) else {
            return String::new();
        };
        let submitter = match self.request.submitter().and_then(|by| self.observed.people.get(by)) {
            Some(Lookup::Person(person)) if person.id != subject.user_id => Some(person.id.as_str()),
            Some(_) | None => None,
        };
        let without: Vec<&str> = [subject.user_id.as_str()].into_iter().chain(submitter).collect();
        let pre_approved = self.status.votes.iter().filter(|vote| vote.counted && vote.key.starts_with(PRE_APPROVED));
        let pre_approved: Vec<&str> = pre_approved.map(|vote| vote.stage.as_str()).collect();
        let shortage = rosters.open(&pre_approved).shortage(&without);
        shortage.map(|why| format!("cannot be approved as it is: {why}; ")).unwrap_or_default()
    }

    fn becomes_approved(mut self, policy: &Policy, by: &str) -> Decision {
        self.status.approved_by = Some(shortened(by, api::MAX_APPROVED_BY));
        self.status.policy = Some(policy.pin());
        if let Some(targets) = self.can_go_on(policy) {
            self.status.required_actions.clear();
            return self.activate(policy, targets);
        }
        let start = self.request.not_before.filter(|start| *start > self.now);
        let (reason, next) = match start {
            Some(start) => (Reason::new("WaitingForStart", format!("approved; starts at {start}")), Next::At(start)),
            None => (Reason::new("Approved", "approved; the access is being prepared"), Next::Now),
        };
        self.goes(Phase::Approved, &reason, Vec::new(), next)
    }

    /// What may be given in the same step as it is agreed: everything was just asked, of the subject that was pinned before. What
    /// stands in the way otherwise is found and said once it is Approved.
    fn can_go_on(&self, policy: &Policy) -> Option<&'a [Resolved]> {
        let Some(Ok(targets)) = &self.observed.targets else { return None };
        let free = self.request.phase() == Some(Phase::Pending)
            && self.request.forged.is_none()
            && self.request.status.subject == self.status.subject
            && self.request.not_before.is_none_or(|start| start <= self.now)
            && policy.required_actions.is_empty()
            && self.observed.released.is_none()
            && self.obstacle("").is_none();
        free.then_some(targets)
    }

    /// The rules changed under an approved request: what was agreed is void.
    fn back_to_pending(mut self, what: &str) -> Decision {
        self.status.approved_by = None;
        let message = format!("{what} since this was approved, so the approval no longer counts");
        self.goes(Phase::Pending, &Reason::new("RulesChanged", message), Vec::new(), Next::Now)
    }

    /// Everything was asked again: the deadline and the targets are recorded.
    fn activate(mut self, policy: &Policy, targets: &[Resolved]) -> Decision {
        if let Some(other) = holdings::being_removed(targets, &self.observed.siblings, self.now) {
            let message = format!("waiting until {}/{} has given the same access back", other.namespace, other.name);
            return self.waits(Phase::Approved, &Reason::new("WaitingForRevocation", message));
        }
        let starts_at = whole_seconds(self.now);
        let ends = later(starts_at, self.request.duration.unwrap_or(policy.default_duration));
        let deadline = earliest([Some(ends), self.request.not_after.map(whole_seconds)]).unwrap_or(ends);
        let sessions = sessions::at_end(policy, targets.iter().any(|target| target.administers));
        let targets: Vec<TargetStatus> = targets.iter().map(|target| self.intended(target)).collect();
        let mut effects = self.finalizer();
        effects.extend(super::live::effects_for(&targets));
        if let Some(subject) = &mut self.status.subject {
            subject.url.clone_from(&self.observed.url);
        }
        self.status.ends_at = Some(deadline.to_string());
        self.status.grant = Some(GrantStatus {
            starts_at: Time(starts_at),
            deadline: Time(deadline),
            end_reason: None,
            ended_at: None,
            powerless_at: None,
            sessions,
            token_lifespan: sessions::asked_lifespan(self.observed),
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
