//! One request, step by step: observe, decide, report, enact, until there is nothing to do now.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Api, ResourceExt, runtime::controller::Action};

use super::{
    Context,
    error::{Error, limited},
    report,
};
use crate::{
    api::AccessRequest,
    domain::{self, Decision, Effect, Next, Outcome, Request},
};

/// The longest life in one go has some ten steps; more is a fault that must not become a hot loop.
const MAX_STEPS: usize = 32;
/// The first wait after a failure; it doubles with each in a row.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Brings one request as far as it gets now.
pub async fn reconcile(request: Arc<AccessRequest>, context: Arc<Context>) -> Result<Action, Error> {
    let mut outcomes = Vec::new();
    for _ in 0..MAX_STEPS {
        let subject = context.holder(&Request::parse(&context.index.newest(&request)));
        // Whoever decides on a subject's holdings is alone: an intent is seen by the next one.
        let _alone = context.locks.lock(subject.as_ref()).await;
        let object = context.index.newest(&request);
        let (decision, step) = match context.step(&object, std::mem::take(&mut outcomes)).await? {
            Some(done) => done,
            None => continue,
        };
        outcomes = step;
        if outcomes.is_empty() && !changes_metadata(&decision.effects) && decision.next != Next::Now {
            return Ok(context.wait(&object, decision.next));
        }
    }
    Err(Error::Unsettled(MAX_STEPS))
}

fn changes_metadata(effects: &[Effect]) -> bool {
    effects.contains(&Effect::AddFinalizer)
}

impl Context {
    /// One step. `None` if somebody else wrote in between: look and decide again.
    async fn step(
        &self,
        object: &AccessRequest,
        outcomes: Vec<Outcome>,
    ) -> Result<Option<(Decision, Vec<Outcome>)>, Error> {
        let request = Request::parse(object);
        let now = Timestamp::now();
        let observed = self.observe(&request, outcomes, now).await?;
        let decision = domain::decide(&request, &observed, now);
        let mut recorded = object.clone();
        if let Some(status) = &decision.status {
            match report::status(self, object, status).await {
                Ok(written) => {
                    report::announce(self, object, &written);
                    self.index.put(written.clone());
                    recorded = written;
                }
                Err(error) if error.is_conflict() => {
                    self.read_again(object).await?;
                    return Ok(None);
                }
                Err(error) => {
                    self.remove_all_the_same(object, &decision.effects).await;
                    return Err(Error::WriteStatus(error));
                }
            }
        }
        let outcomes = match self.enact(&recorded, &decision.effects).await {
            Err(Error::WriteFinalizer(error)) if error.is_conflict() => {
                self.read_again(object).await?;
                return Ok(None);
            }
            // It is gone: nothing is left to write.
            Err(Error::WriteFinalizer(error)) if error.is_not_found() => Vec::new(),
            outcomes => outcomes?,
        };
        Ok(Some((decision, outcomes)))
    }

    /// What is due goes even if Kubernetes cannot be written: removing never waits, giving always does. The status follows
    /// when it can, after the removal was repeated.
    async fn remove_all_the_same(&self, object: &AccessRequest, effects: &[Effect]) {
        let removals: Vec<Effect> =
            effects.iter().filter(|effect| matches!(effect, Effect::Unmap(_))).cloned().collect();
        if removals.is_empty() {
            return;
        }
        match self.enact(object, &removals).await {
            Ok(outcomes) => {
                tracing::warn!(request = object.name_any(), ?outcomes, "removed although the status cannot be written");
            }
            Err(error) => tracing::warn!(request = object.name_any(), error = error.chain(), "cannot remove"),
        }
    }

    async fn read_again(&self, object: &AccessRequest) -> Result<(), Error> {
        let api: Api<AccessRequest> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let read = limited(api.get_opt(&object.name_any())).await.map_err(Error::ReadRequest)?;
        if let Some(read) = read.filter(|read| read.metadata.uid == object.metadata.uid) {
            self.index.put(read);
        }
        Ok(())
    }

    /// When to look at a request again.
    fn wait(&self, object: &AccessRequest, next: Next) -> Action {
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let until = |time: Timestamp| Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default();
        if let Next::Retry { until: limit } = next {
            let wait = self.retry_after(uid);
            return Action::requeue(limit.map_or(wait, |limit| wait.min(until(limit))));
        }
        self.attempts().remove(uid);
        match next {
            Next::At(time) => Action::requeue(until(time)),
            Next::OnChange | Next::Now | Next::Retry { .. } => Action::await_change(),
        }
    }

    /// How long to wait after one more failure in a row.
    pub fn retry_after(&self, uid: &str) -> Duration {
        let mut attempts = self.attempts();
        let attempt = attempts.entry(uid.to_owned()).or_insert(0_u32);
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(*attempt)).min(LONGEST_WAIT);
        *attempt = attempt.saturating_add(1);
        wait
    }
}
