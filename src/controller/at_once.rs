//! What is due goes at once: its deadline was put on record before anything was given, so no write has to come before the
//! removal. What ends for another reason is recorded first, see `step` in `reconcile.rs`.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::future::join;
use jiff::Timestamp;

use super::{
    Context, Urgency,
    error::{ApiError, Error},
    reconcile::is_done,
    report,
};
use crate::{
    api::{AccessRequest, AccessRequestStatus, Phase},
    domain::{Decision, Effect, Outcome, OutcomeResult, Request},
};

/// What is due goes before its status says Revoking. If that takes longer than this, the status says so meanwhile: not earlier, since
/// what ends together would wait for each other's statuses.
const SHOWN_AFTER: Duration = Duration::from_secs(10);

impl Context {
    /// The status that need not be written before what a request lent goes: its time is up, which is on record since the
    /// beginning, and says all that Revoking would. Nothing that was sent before can change it or another one of the same
    /// person, and nothing of it is gone already: that is put on record first.
    pub fn goes_at_once<'a>(
        &self,
        request: &Request,
        decision: &'a Decision,
        removals: &[Effect],
        outcomes: &[Outcome],
        now: Timestamp,
    ) -> Option<&'a AccessRequestStatus> {
        let status = decision.status.as_deref().filter(|status| status.phase == Some(Phase::Revoking))?;
        let at_once = request.grant_is_due(now)
            && request.forged.is_none()
            && !removals.is_empty()
            && removals.len() == decision.effects.len()
            && !outcomes.iter().any(|outcome| outcome.result == OutcomeResult::Removed)
            && self.index.is_fenced(&request.uid)
            && !self.index.is_vanished(&request.uid)
            && self.unfenced_others(request).is_empty();
        at_once.then_some(status)
    }

    /// Takes away what is due. Its status is written meanwhile if that takes long; if not, it says next that it is gone.
    /// Nothing comes of it if somebody else wrote in between.
    pub async fn remove_at_once(
        &self,
        object: &Arc<AccessRequest>,
        status: &AccessRequestStatus,
        effects: &[Effect],
    ) -> Result<Option<(Arc<AccessRequest>, Vec<Outcome>)>, Error> {
        let mut removal = pin!(self.enact(object, effects));
        let early = tokio::time::timeout(SHOWN_AFTER, &mut removal).await;
        let (written, outcomes) = if let Ok(outcomes) = early {
            (None, outcomes?)
        } else {
            let write = report::status(self, object, status, Urgency::Removal);
            let (written, outcomes) = join(write, removal).await;
            (Some(written), outcomes?)
        };
        self.remember_what_is_gone(object.metadata.uid.as_deref().unwrap_or_default(), &outcomes);
        let recorded = match written {
            None => object.clone(),
            Some(Ok(written)) => {
                report::announce(self, object, &written);
                written
            }
            // What is done is not lost for want of a turn: what is written next says that it is gone.
            Some(Err(ApiError::NoTurn)) if is_done(&outcomes) => object.clone(),
            Some(Err(error)) if error.is_conflict() => {
                return if self.read_again(object).await? { Ok(None) } else { Err(Error::Gone) };
            }
            Some(Err(error)) => {
                return Err(if is_done(&outcomes) { Error::WriteStatus(error) } else { Error::NotRemoved(error) });
            }
        };
        Ok(Some((recorded, outcomes)))
    }
}
