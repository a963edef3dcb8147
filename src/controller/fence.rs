//! The fence: before the first write to Keycloak for a subject, every request of that subject that is not final gets an
//! acknowledged write of its status. What an earlier leader, or a write of ours without an answer, still has on its way to
//! the API server fails from then on by its resourceVersion: what was decided on cannot change underneath.

use super::{Context, Urgency, error::Error, index::Known, report};
use crate::{
    api::{AccessRequestStatus, Phase},
    domain::Request,
};

impl Context {
    /// Fences the other requests of a request's subject. Says whether all were fenced before: if not, it has to be decided
    /// anew.
    pub async fn fence_others(&self, request: &Request, urgency: Urgency) -> Result<bool, Error> {
        let others = self.unfenced_others(request);
        for known in &others {
            let status = fenced(&Request::parse(&known.stored).status)?;
            match report::status(self, &known.stored, &status, urgency).await {
                Ok(_) => {}
                Err(error) if error.is_conflict() || error.is_not_found() => {
                    self.read_again(&known.stored).await?;
                }
                Err(error) => return Err(Error::WriteStatus(error)),
            }
        }
        Ok(others.is_empty())
    }

    /// The other requests of a request's subject that have to be fenced before anything is done.
    pub fn unfenced_others(&self, request: &Request) -> Vec<Known> {
        let Some(holder) = self.holder(request.subject()) else { return Vec::new() };
        let unfenced = |known: &Known| {
            let uid = known.stored.metadata.uid.as_deref().filter(|uid| *uid != request.uid);
            // What is known here only has nothing that could be written, and would be waited for in vain.
            uid.is_some_and(|uid| {
                can_change(known)
                    && !self.index.is_fenced(uid)
                    && !self.index.is_vanished(uid)
                    && self.holder(known.stored.subject()).as_ref() == Some(&holder)
            })
        };
        self.index.known_of(&holder.user_id).into_iter().filter(unfenced).collect()
    }
}

/// Whether a request can still change: what somebody else has written over has another version already.
fn can_change(known: &Known) -> bool {
    known.is_ours() && known.stored.phase().is_some_and(|phase: Phase| !phase.is_final())
}

/// The same status, told apart from the one before: a write that changes nothing would not be one.
pub fn fenced(status: &AccessRequestStatus) -> Result<AccessRequestStatus, Error> {
    Ok(AccessRequestStatus { fence: Some(super::observe::random_word()?), ..status.clone() })
}
