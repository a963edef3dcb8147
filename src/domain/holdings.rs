//! Whose mapping it is: ownership and holders of a target.
//!
//! A target is held by the live requests of one subject that have it. What the subject had before Hallpass looked is
//! `preExisting` and never removed; what is ours is removed with its last holder.

use jiff::Timestamp;

use super::{Request, Resolved};
use crate::api::{Phase, TargetStatus};

/// What is to become of a target when its request ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Leave it: the subject had it before, or another holder has taken it over.
    Keep,
    /// Make another holder its owner first, then leave it.
    HandOver {
        /// UID of the holder.
        to: String,
    },
    /// Remove it from Keycloak.
    Remove,
}

/// Whether the subject had a target before Hallpass looked, for a request that is about to be activated.
/// What is there because of another request of ours is not the subject's own.
pub fn is_pre_existing(target: &Resolved, siblings: &[Request]) -> bool {
    let ours = |sibling: &Request| targets_of(sibling).any(|theirs| theirs.id == target.id && !theirs.pre_existing);
    target.mapped && !siblings.iter().any(ours)
}

/// A request that is giving back one of these targets: an activation waits for it. What is due is being taken away, whatever
/// its status says yet.
pub fn being_removed<'a>(targets: &[Resolved], siblings: &'a [Request], now: Timestamp) -> Option<&'a Request> {
    let gives_back = |sibling: &Request| sibling.phase() == Some(Phase::Revoking) || sibling.grant_is_due(now);
    siblings.iter().find(|sibling| {
        gives_back(sibling) && targets_of(sibling).any(|theirs| targets.iter().any(|target| target.id == theirs.id))
    })
}

/// What is to become of a target when its request ends.
pub fn fate(target: &TargetStatus, siblings: &[Request], now: Timestamp) -> Fate {
    if target.pre_existing {
        return Fate::Keep;
    }
    let holders: Vec<(&Request, &TargetStatus)> = siblings
        .iter()
        .filter(|sibling| is_holder(sibling, now))
        .flat_map(|sibling| targets_of(sibling).map(move |theirs| (sibling, theirs)))
        .filter(|(_, theirs)| theirs.id == target.id)
        .collect();
    match holders.first() {
        None => Fate::Remove,
        Some(_) if holders.iter().any(|(_, theirs)| !theirs.pre_existing) => Fate::Keep,
        Some((heir, _)) => Fate::HandOver { to: heir.uid.clone() },
    }
}

/// Whether a request keeps its targets in place: live, and neither due nor ended nor deleted.
fn is_holder(request: &Request, now: Timestamp) -> bool {
    let live = matches!(request.phase(), Some(Phase::Activating | Phase::Active));
    live && !request.is_due(now) && !request.deleting && !request.status.ends.iter().any(|end| end.counted)
}

fn targets_of(request: &Request) -> impl Iterator<Item = &TargetStatus> {
    request.status.grant.iter().flat_map(|grant| &grant.targets)
}
