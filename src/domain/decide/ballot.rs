//! What is voted on, and who has voted: ballots, and votes on their way from annotations to status.

use jiff::Timestamp;

use super::Draft;
use crate::{
    api::{self, PinnedSubject, Vote, VoteDecision},
    domain::{
        Approval, Guard, Person, Policy, Request, Signal, SignalKind,
        delegation::{self, PRE_APPROVED},
        votes::{self, Ballot, OpenStage, Tally},
    },
};

/// How many votes on earlier ballots are kept, for people to see.
const MAX_OLD_VOTES: usize = 16;

/// Everybody who has voted on the present ballot, recorded or not yet, and who submitted the request.
pub(super) fn voters(request: &Request) -> impl Iterator<Item = String> {
    let ballot = request.status.ballot.as_deref().unwrap_or_default();
    let recorded = request.status.votes.iter().filter(move |vote| votes::is_on(vote, ballot)).map(|vote| &vote.by);
    let unrecorded = unrecorded(request).map(|(signal, ..)| &signal.by);
    recorded.chain(unrecorded).map(String::as_str).chain(request.submitter()).map(str::to_owned)
}

/// Whether there is a vote that may have been the last one that was missing. Before the subject is pinned nobody is alone with it,
/// and nothing can be given.
pub(super) fn may_decide(request: &Request) -> bool {
    request.status.subject.is_some() && unrecorded(request).any(|(_, decision, _)| decision == VoteDecision::Approve)
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

/// Copies votes on the present ballot to status, as long as the API server vouches for them.
pub(super) fn record_votes(draft: &mut Draft<'_>) {
    if !matches!(draft.observed.guard, Guard::InForce { .. }) {
        return;
    }
    let news = new_votes(draft);
    let room = api::MAX_VOTES.saturating_sub(draft.status.votes.len());
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

impl Draft<'_> {
    /// Whether what is voted on has changed since this request was first seen.
    pub(super) fn rules_changed(&self, policy: &Policy) -> bool {
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

    /// Pins the policy when it is seen first, also if it is not ready: what it says by the time it is may be something else.
    pub(super) fn pin_policy(&mut self) {
        let Some(policy) = self.observed.policy.known().filter(|_| self.status.rules.is_none()) else { return };
        self.take_on(policy);
    }

    /// What is voted on from now on, as long as the API server vouches for the votes.
    fn take_on(&mut self, policy: &Policy) {
        if let Guard::InForce { epoch, .. } = &self.observed.guard {
            self.status.policy = Some(policy.pin());
            self.status.rules = Some(policy.rules.clone());
            self.status.trust_epoch = Some(epoch.clone());
        }
    }

    /// Pins policy and subject. A new ballot voids votes that were cast.
    pub(super) fn pin(&mut self, policy: &Policy, subject: &Person, realm_id: &str) {
        let changed = self.rules_changed(policy) || self.epoch_changed();
        if changed {
            self.take_on(policy);
        }
        if changed || (self.status.ballot.is_none() && policy.approval != Approval::Automatic) {
            self.status.ballot = Some(self.observed.ballot.clone());
            let old = self.status.votes.len().saturating_sub(MAX_OLD_VOTES);
            self.status.votes.drain(..old);
            // Like a vote, a pre-approval is for the rules and the trust epoch in which it was seen first.
            if !changed {
                self.record_pre_approvals(policy);
            }
        }
        let names: Vec<&str> = policy.wanted(&self.request.grants).map(|grant| grant.name.as_str()).collect();
        self.status.grants = Some(names.join(", "));
        self.status.subject = Some(PinnedSubject {
            realm: policy.realm.clone(),
            url: None,
            realm_id: realm_id.to_owned(),
            user_id: subject.id.clone(),
            username: subject.username.clone(),
        });
    }

    /// The review in Git, as a vote of the submitter's for each stage that the policy says.
    fn record_pre_approvals(&mut self, policy: &Policy) {
        let ballot = self.status.ballot.clone().unwrap_or_default();
        let vote = |stage: &String| Vote {
            stage: stage.clone(),
            decision: VoteDecision::Approve,
            by: self.request.submitter().unwrap_or_default().to_owned(),
            user_id: None,
            at: self.time(),
            key: format!("{PRE_APPROVED}{ballot}.{stage}"),
            counted: false,
            why: None,
        };
        let votes: Vec<Vote> = delegation::pre_approved(self.request, policy).iter().map(vote).collect();
        self.status.votes.extend(votes);
    }

    /// Counts the recorded votes again.
    pub(super) fn count(&mut self, policy: &Policy, subject: &str) -> Tally {
        let word = self.status.ballot.clone().unwrap_or_default();
        let stages = policy.approval.stages();
        let ballot = Ballot {
            word: &word,
            subject,
            submitter: self.request.submitter(),
            pre_approved: delegation::pre_approved(self.request, policy),
        };
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

    /// What is missing, with the command that an approver runs.
    pub(super) fn instructions(&self, open: &[OpenStage], until: Timestamp) -> String {
        let stamp = matches!(self.observed.guard, Guard::InForce { stamp: true, .. });
        let (request, ballot) = (self.request, self.status.ballot.as_deref().unwrap_or_default());
        let number = self.status.votes.len() + 1;
        let commands = open.iter().map(|stage| {
            format!(
                "kubectl annotate accessrequest {} -n {} {}{ballot}.{}.{number}={}",
                request.name,
                request.namespace,
                api::APPROVE,
                stage.name,
                if stamp { "yes" } else { "YOUR-USERNAME" }
            )
        });
        format!(
            "{}. To approve: {} (to deny, {} in place of {}). Undecided, it times out at {until}",
            missing(open),
            commands.collect::<Vec<_>>().join(" ; or: "),
            api::DENY,
            api::APPROVE
        )
    }
}

/// What the open stages want, for people.
pub(super) fn missing(open: &[OpenStage]) -> String {
    let stages = open.iter().map(|OpenStage { name, missing, approvers }| {
        let approvals = if *missing == 1 { "approval" } else { "approvals" };
        format!("{missing} {approvals} in stage {name} by {approvers}")
    });
    format!("waiting for {}", stages.collect::<Vec<_>>().join(" and "))
}
