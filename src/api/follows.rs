//! What may follow on a status.

use super::{AccessRequestStatus, GrantStatus, Phase, TargetStatus};

impl AccessRequestStatus {
    /// Whether the API server takes this status after another: what the CRD's rules say about the two, at the head of
    /// `request.rs`. Final is final, a deadline never moves later, no target is dropped, and none becomes the subject's own.
    pub fn may_follow(&self, before: &Self) -> bool {
        let over = before.phase.is_some_and(Phase::is_final);
        let grant = match (&before.grant, &self.grant) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(old), Some(new)) => new.deadline <= old.deadline && keeps_targets(old, new),
        };
        grant && (!over || self.phase == before.phase)
    }

    /// Whether this may be what comes next in a life: what the API server takes, and not back to before something was lent.
    pub fn goes_on_from(&self, before: &Self) -> bool {
        let lent = !matches!(before.phase, None | Some(Phase::Pending | Phase::Approved));
        self.may_follow(before) && (!lent || self.phase >= before.phase)
    }
}

fn keeps_targets(old: &GrantStatus, new: &GrantStatus) -> bool {
    let stays = |target: &TargetStatus| {
        let mut same = new.targets.iter().filter(|other| target.is_same_as(other));
        same.any(|other| target.pre_existing || !other.pre_existing)
    };
    old.targets.iter().all(stays)
}

impl TargetStatus {
    /// Whether both are about the same thing under the same grant.
    pub fn is_same_as(&self, other: &Self) -> bool {
        (&self.name, &self.id, self.type_) == (&other.name, &other.id, other.type_)
    }
}
