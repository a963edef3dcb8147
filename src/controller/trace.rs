//! Who decided what, on which evidence: one line of the log for each vote and each end, when it is recorded and whenever it
//! counts otherwise than before. `why` names the entry of the policy under which it counts, or what is against it; `epoch`
//! the time in which the admission policies vouch for who wrote it.

use kube::ResourceExt;

use crate::api::{AccessRequest, AccessRequestStatus, End, Vote, VoteDecision};

/// Tells what is new between two statuses of a request.
pub fn decisions(request: &AccessRequest, before: &AccessRequestStatus, after: &AccessRequestStatus) {
    let name = format!("{}/{}", request.namespace().unwrap_or_default(), request.name_any());
    for vote in after.votes.iter().filter(|vote| !before.votes.contains(vote)) {
        let Vote { stage, decision, by, user_id, at: _, key, counted, why } = vote;
        tracing::info!(
            request = name,
            uid = request.metadata.uid,
            by,
            user = user_id,
            stage,
            decision = match decision {
                VoteDecision::Approve => "Approve",
                VoteDecision::Deny => "Deny",
            },
            counted,
            why,
            key,
            epoch = after.trust_epoch,
            "vote"
        );
    }
    for end in after.ends.iter().filter(|end| !before.ends.contains(end)) {
        let End { by, user_id, at: _, key, counted, why } = end;
        tracing::info!(
            request = name,
            uid = request.metadata.uid,
            by,
            user = user_id,
            counted,
            why,
            key,
            epoch = after.trust_epoch,
            "end"
        );
    }
}
