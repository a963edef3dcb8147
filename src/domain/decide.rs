//! The life of a request: from what was seen to what is written and done.
//!
//! The finalizer goes on first. Status is written before the other effects are carried out: an intent is recorded before
//! Keycloak is touched, and what is found after a crash says what may have happened. Of what is due that is the deadline, so it
//! is removed at once, and Revoking is written only if that does not do.

mod ballot;
mod drift;
mod ending;
mod forged;
mod gate;
mod live;
mod sessions;
mod waiting;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use drift::TAKEN_AWAY;
pub use gate::actions_are_done;

use super::{
    Guard, Observed, Outcome, OutcomeResult, PolicyView, Request, Sessions,
    conditions::{self, Reason},
    duration::whole_seconds,
};
use crate::api::{AccessRequestStatus, Phase, TargetState, TargetStatus};

pub use sessions::{at_end as sessions_at_end, is_over};

/// What is to be written, done, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The status to write once the finalizer is on, and before anything else, unless what is due is gone first; `None` if it
    /// says already what is so.
    pub status: Option<Box<AccessRequestStatus>>,
    /// What to do once the status is acknowledged, or, with what is due, at once. The finalizer goes on before.
    pub effects: Vec<Effect>,
    /// When to look again, if nothing happens before.
    pub next: Next,
}

/// The name of the outcome of [`Effect::AskForActions`], which is about no target.
pub const REQUIRED_ACTIONS: &str = "requiredActions";

/// Something to do outside of the request's status. Every one may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put our finalizer on the request, and read it back, before the status is written: nothing is given without it.
    AddFinalizer,
    /// Take our finalizer off the request.
    RemoveFinalizer,
    /// Map a target that is recorded as ours.
    Map(TargetStatus),
    /// See whether a target that the subject had before is still there.
    Confirm(TargetStatus),
    /// Remove a target, with proof.
    Unmap(TargetStatus),
    /// Record in another request that it owns this target now.
    HandOver {
        /// The target of the request that ends.
        target: TargetStatus,
        /// UID of the request that takes over.
        to: String,
    },
    /// End sessions of the subject, now that the access is gone. It may take long, and keeps nobody waiting.
    EndSessions {
        /// Which.
        which: Sessions,
        /// Names of the targets that are gone: its outcome says so again, in case that it cannot be read in the status.
        removed: Vec<String>,
    },
    /// Have Keycloak ask the subject for these required actions; the outcome is named [`REQUIRED_ACTIONS`].
    AskForActions(BTreeSet<String>),
    /// Put on record that a request starts without a fresh vote, so that the same does not start twice.
    Record {
        /// What is remembered of it.
        digest: String,
        /// Until when: its window closes then.
        until: Timestamp,
    },
}

impl Effect {
    /// Whether something is done about who holds what in Keycloak.
    pub const fn is_about_keycloak(&self) -> bool {
        match self {
            Self::Map(_) | Self::Confirm(_) | Self::Unmap(_) | Self::HandOver { .. } => true,
            Self::AddFinalizer
            | Self::RemoveFinalizer
            | Self::AskForActions(_)
            | Self::EndSessions { .. }
            | Self::Record { .. } => false,
        }
    }
}

/// When to look at a request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    OnChange,
    /// At this time, or when something changes.
    At(Timestamp),
    /// At once.
    Now,
    /// After a while that grows with every attempt in a row, but not after this time.
    Retry {
        /// Something falls due then.
        until: Option<Timestamp>,
    },
}

/// What has to be known to decide on a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Whether the admission policies are in force.
    pub guard: bool,
    /// Kubernetes usernames to ask Keycloak about.
    pub people: BTreeSet<String>,
    /// Those of them who want to end the access: they are asked about even if the policy is not ready.
    pub enders: BTreeSet<String>,
    /// The grants as they are in Keycloak, the policy as it is in the API server, not in a cache, and what the subject has
    /// done of what the policy wants: the grants are needed only if that is everything ([`actions_are_done`]). Also where a
    /// vote may decide: what is agreed is given in the same step.
    pub targets: bool,
    /// Whether the same has started before without a fresh vote.
    pub record: bool,
}

/// Whether a request ends now or has ended, whatever anybody says: that waits for nobody.
pub fn is_ending(request: &Request, now: Timestamp) -> bool {
    let ending = |phase: Phase| phase.is_final() || phase == Phase::Revoking;
    let lost = request.forged.as_ref().is_some_and(|forged| !forged.is_put_right_by(&request.status));
    lost || request.phase().is_some_and(ending) || request.is_due(now) || request.deleting
}

/// What has to be known to decide on a request now, after `outcomes`. `epoch` is the present trust epoch, as it was last seen; whoever
/// learns of another one has the live requests looked at again that have not taken it on.
pub fn needs(request: &Request, outcomes: &[Outcome], now: Timestamp, epoch: Option<&str>) -> Needs {
    let mut needs = Needs::default();
    let phase = request.phase();
    if is_ending(request, now) {
        return needs;
    }
    let ends = ending::unrecorded(request).map(|end| &end.by);
    let open = request.status.ends.iter().filter(|end| ending::is_undecided(end)).map(|end| &end.by);
    let ends: Vec<&String> = open.chain(ends).collect();
    // Only what was looked at in a trust epoch can tell what comes later from what was before it. What is in place, is not to end
    // and took on the one that is known is given nothing, and nothing of it counts.
    let took_on = |epoch: &str| request.status.trust_epoch.as_deref() == Some(epoch);
    needs.guard = !is_in_place(request, outcomes) || !ends.is_empty() || !epoch.is_none_or(took_on);
    needs.enders = ends.into_iter().filter(|by| !by.is_empty()).cloned().collect();
    needs.people.clone_from(&needs.enders);
    let starts = request.not_before.is_none_or(|start| start <= now);
    if phase.is_none() || phase == Some(Phase::Pending) || (phase == Some(Phase::Approved) && starts) {
        needs.targets = phase == Some(Phase::Approved) || (starts && ballot::may_decide(request));
        needs.people.insert(request.requester.clone());
        needs.people.extend(ballot::voters(request));
        needs.record = request.submitter().is_some() && request.not_before.is_some() && request.not_after.is_some();
    }
    needs.people.remove("");
    needs
}

/// Whether all that a live request lends is in place.
fn is_in_place(request: &Request, outcomes: &[Outcome]) -> bool {
    let mapped = |target: &TargetStatus| {
        let mut mapped = outcomes.iter().filter(|outcome| outcome.result == OutcomeResult::Mapped);
        target.state == TargetState::Mapped || mapped.any(|outcome| outcome.target == target.name)
    };
    match request.phase() {
        Some(Phase::Active) => true,
        Some(Phase::Activating) => request.status.grant.iter().flat_map(|grant| &grant.targets).all(mapped),
        Some(_) | None => false,
    }
}

/// Decides what happens to a request.
pub fn decide(request: &Request, observed: &Observed, now: Timestamp) -> Decision {
    let draft = Draft { request, observed, now, status: request.status.clone() };
    match &request.forged {
        Some(forged) => forged::decide(draft, forged),
        None => by_phase(draft),
    }
}

/// Decides by what the request's status says.
fn by_phase(draft: Draft<'_>) -> Decision {
    match draft.request.phase() {
        None | Some(Phase::Pending) => waiting::pending(draft),
        Some(Phase::Approved) => waiting::approved(draft),
        Some(Phase::Activating) => live::activating(draft),
        Some(Phase::Active) => live::active(draft),
        Some(Phase::Revoking) => ending::revoking(draft),
        Some(Phase::Expired | Phase::Revoked | Phase::Denied | Phase::TimedOut | Phase::Rejected) => draft.settled(),
    }
}

/// A decision under way: the status as it will be.
struct Draft<'a> {
    request: &'a Request,
    observed: &'a Observed,
    now: Timestamp,
    status: AccessRequestStatus,
}

impl Draft<'_> {
    /// A final request: nothing remains but to let it go.
    fn settled(self) -> Decision {
        let effects = if self.request.has_finalizer { vec![Effect::RemoveFinalizer] } else { Vec::new() };
        Decision { status: None, effects, next: Next::OnChange }
    }

    /// The request moves to this phase, or stays in it, for this reason.
    fn goes(mut self, phase: Phase, reason: &Reason, effects: Vec<Effect>, next: Next) -> Decision {
        self.status.phase = Some(phase);
        self.status.observed_generation = Some(self.request.generation);
        conditions::set(&mut self.status, phase, reason, self.request.generation, self.now);
        let next = match next {
            Next::At(until) if self.has_open_ends(phase) => Next::Retry { until: Some(until) },
            next => next,
        };
        let changed = self.status != self.request.status;
        Decision { status: changed.then(|| Box::new(self.status)), effects, next }
    }

    /// Whether somebody wants an end to what is not over, and it could not be said yet whether that counts: an end waits
    /// neither for a vote nor for a start nor for the deadline.
    fn has_open_ends(&self, phase: Phase) -> bool {
        let unheard = || self.guard_problem().is_some() && ending::unrecorded(self.request).next().is_some();
        let over = phase.is_final() || phase == Phase::Revoking;
        !over && (self.status.ends.iter().any(ending::is_undecided) || unheard())
    }

    /// Goes on with what it is doing. What was said about it stands as long as there is nothing new to say.
    fn goes_on(mut self, phase: Phase, reason: &Reason, effects: Vec<Effect>) -> Decision {
        if self.request.phase() != Some(phase) || !self.observed.outcomes.is_empty() {
            return self.goes(phase, reason, effects, Next::Now);
        }
        self.status.observed_generation = Some(self.request.generation);
        let changed = self.status != self.request.status;
        Decision { status: changed.then(|| Box::new(self.status)), effects, next: Next::Now }
    }

    /// The request is over. The finalizer goes last, once the final phase is recorded.
    fn ends(self, phase: Phase, word: &'static str, message: impl Into<String>) -> Decision {
        let effects = if self.request.has_finalizer { vec![Effect::RemoveFinalizer] } else { Vec::new() };
        self.goes(phase, &Reason::new(word, message), effects, Next::OnChange)
    }

    /// Until when a write to a target may still arrive, if one may: what Keycloak says about the target until then can change
    /// once more.
    fn travelling(&self, target: &TargetStatus) -> Option<Timestamp> {
        self.observed.travelling.get(&target.id).copied()
    }

    /// Time as it is written in status.
    fn time(&self) -> Time {
        Time(whole_seconds(self.now))
    }

    /// Why the policy that was pinned is not there any more, if so.
    fn policy_gone(&self) -> Option<String> {
        let name = &self.request.policy;
        let pinned = &self.status.policy.as_ref()?.uid;
        let uid = match &self.observed.policy {
            PolicyView::Absent => return Some(format!("policy {name} was deleted")),
            PolicyView::NotReady { uid, .. } => uid,
            PolicyView::Ready(policy) => &policy.uid,
        };
        (uid != pinned)
            .then(|| format!("policy {name} was deleted and made anew; a re-created policy is another policy"))
    }

    /// Whether the policy is suspended.
    fn policy_suspended(&self) -> bool {
        match &self.observed.policy {
            PolicyView::Absent => false,
            PolicyView::NotReady { suspended, .. } => *suspended,
            PolicyView::Ready(policy) => policy.suspended,
        }
    }

    /// What keeps anything from being given now, if something does.
    fn obstacle(&self, nothing: &str) -> Option<Reason> {
        let guard = self.guard_problem().map(|why| ("AdmissionPoliciesNotInForce", why));
        let clocks = || self.observed.clocks.clone().map(|why| ("ClocksDiffer", why));
        guard.or_else(clocks).map(|(word, why)| Reason::new(word, format!("{nothing}: {why}")))
    }

    /// Why nothing can be given or counted now, if the admission policies are not in force.
    fn guard_problem(&self) -> Option<String> {
        match &self.observed.guard {
            Guard::InForce { .. } => None,
            Guard::NotAsked => Some("the admission policies were not checked".into()),
            Guard::NotInForce(why) | Guard::Unknown(why) => Some(why.clone()),
        }
    }
}

/// The earlier of two times, where there are any.
fn earliest(times: impl IntoIterator<Item = Option<Timestamp>>) -> Option<Timestamp> {
    times.into_iter().flatten().min()
}
