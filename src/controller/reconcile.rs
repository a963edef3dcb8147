//! One request, step by step: observe, decide, report, enact, until there is nothing to do now.

use std::{borrow::Cow, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Api, Resource, ResourceExt, runtime::controller::Action};
use tokio::time::Instant;

use super::{
    Context, Memory, Urgency,
    error::{ApiError, Error, limited},
    fence,
    lenient::Lenient,
    next_look::{Wait, until},
    report,
};
use crate::{
    api::{AccessRequest, FINALIZER, Phase, TargetStatus},
    clock::Going,
    domain::{self, Decision, Effect, Next, Outcome, OutcomeResult, Request},
};

/// The longest life in one go has some ten steps; more is a fault that must not become a hot loop.
const MAX_STEPS: usize = 32;

/// For so long, and no longer, a removal that is due waits for what somebody else writes all the time.
const HELD_UP: Duration = Duration::from_secs(2);

/// For so long, and no longer, a turn is waited for with what was given in hand, or what a process that stops has taken away.
const KEPT: Duration = Duration::from_secs(10);

/// How long a request leaves the way to another of the same person that falls due.
const GIVES_WAY: Duration = Duration::from_millis(500);

/// Brings one request as far as it gets now.
pub async fn reconcile(request: Arc<AccessRequest>, context: Arc<Context>) -> Result<Action, Error> {
    context.begin_with_what_is_due();
    let wait = Box::pin(context.bring_on(&request)).await;
    context.was_looked_at(request.metadata.uid.as_deref().unwrap_or_default());
    let Wait(wait) = wait?;
    Ok(wait.map_or_else(Action::await_change, Action::requeue))
}

/// What one step did.
struct Step {
    decision: Decision,
    /// The request as it was decided on, with what was written since.
    recorded: Arc<AccessRequest>,
    outcomes: Vec<Outcome>,
}

fn gives(effect: &Effect) -> bool {
    matches!(effect, Effect::Map(_) | Effect::Confirm(_))
}

/// Whether something was done, and all of it.
pub fn is_done(outcomes: &[Outcome]) -> bool {
    !outcomes.is_empty() && !outcomes.iter().any(Outcome::has_failed)
}

impl Context {
    /// Brings a request as far as it gets now.
    pub async fn bring_on(&self, request: &Arc<AccessRequest>) -> Result<Wait, Error> {
        let newest = self.index.newest(request);
        if let Some(wait) = self.nothing_new(&newest) {
            return Ok(wait);
        }
        let others = self.others(&newest.stored);
        let wait = Box::pin(self.take_steps(request)).await;
        if wait.is_err() {
            let uid = request.metadata.uid.clone().unwrap_or_default();
            self.memory().entry(uid).or_default().failed_at = Some(others);
        }
        wait
    }

    /// Step by step, until there is nothing to do now.
    async fn take_steps(&self, request: &Arc<AccessRequest>) -> Result<Wait, Error> {
        let (mut outcomes, mut done_at, mut refused) = (Vec::new(), None::<Instant>, None::<Instant>);
        let mut steps = 0;
        while steps < MAX_STEPS {
            steps += 1;
            let known = self.index.newest(request);
            self.tell_of_a_forged_status(&known);
            let waits = known.believed(None).and_then(|(request, _)| self.waits_for_what_is_due(&request));
            if waits.is_some() {
                return Ok(Wait(waits));
            }
            let named = Box::pin(self.named(&known)).await?;
            let subject = known.believed(named.as_ref()).and_then(|(request, _)| self.holder(request.subject()));
            // Whoever decides on a subject's holdings is alone: an intent is seen by the next one.
            let alone = self.locks.lock(subject.as_ref()).await;
            if self.index.is_done(request.metadata.uid.as_deref().unwrap_or_default()) {
                return Ok(Wait(None));
            }
            let Some((believed, object)) = self.index.newest(request).believed(named.as_ref()) else { continue };
            if self.holder(believed.subject()) != subject {
                continue;
            }
            // As it is before anything is asked: what changes while this step decides and writes is news afterwards.
            let (policy, woken) = (self.known_policy(&object), self.woken(&believed.uid));
            let held_up = steps == MAX_STEPS || refused.is_some_and(|since| since.elapsed() > HELD_UP);
            let own_end = || believed.deadline().map(|deadline| self.until(&object, deadline));
            let step = match Box::pin(self.step(&believed, &object, outcomes.clone(), held_up)).await {
                // What is done is not lost for want of a turn: all who wait would do it once more. What failed is tried again.
                Err(error) if error.is_for_want_of_a_turn() && self.waits_for_a_turn(&believed, done_at) => {
                    let trusted = self.index.newest(request).trusted;
                    if trusted.and_then(|trusted| trusted.phase()).is_some_and(Phase::is_final) {
                        // All is said by now, and only the finalizer is left.
                        outcomes.clear();
                    } else if !is_done(&outcomes) {
                        return Err(error);
                    }
                    // It has waited long enough to be no hot loop.
                    steps -= 1;
                    continue;
                }
                // Its own end is decided on at once; another's needs what is locked here.
                Err(Error::FallsDue) if own_end().is_some_and(|left| left.is_zero()) => {
                    outcomes.clear();
                    continue;
                }
                Err(Error::FallsDue) => return Ok(Wait(Some(GIVES_WAY))),
                // What is there now under its name is looked at by itself.
                Err(Error::Gone) => {
                    self.index.is_gone(&believed.uid);
                    return Ok(Wait(None));
                }
                step => step?,
            };
            let Some(step) = step else {
                outcomes.clear();
                refused.get_or_insert_with(Instant::now);
                continue;
            };
            let Step { decision, recorded, outcomes: came_out } = step;
            outcomes = came_out;
            drop(alone);
            outcomes.extend(Box::pin(self.end_sessions(&recorded, &decision.effects)).await);
            done_at = Some(Instant::now());
            if outcomes.is_empty() && decision.next != Next::Now {
                return Ok(self.wait(&recorded, policy, woken, decision.next));
            }
        }
        Err(Error::Unsettled(MAX_STEPS))
    }

    /// Whether there is time to wait for a turn with what was done then: where many end, as long as they take.
    fn waits_for_a_turn(&self, request: &Request, done_at: Option<Instant>) -> bool {
        let ends = domain::is_ending(request, Timestamp::now()) && !*self.stop.borrow();
        ends || done_at.is_some_and(|done| done.elapsed() < KEPT)
    }

    /// One step. `None` if somebody else wrote in between: look and decide again.
    async fn step(
        &self,
        request: &Request,
        object: &Arc<AccessRequest>,
        outcomes: Vec<Outcome>,
        held_up: bool,
    ) -> Result<Option<Step>, Error> {
        let (now, mut clocks) = (Timestamp::now(), Going::now());
        let not_removed = outcomes.iter().any(Outcome::has_failed);
        let siblings = self.siblings(request);
        let due = self.next_due(request, object, &siblings, now);
        let observed = Box::pin(self.observe(request, siblings, outcomes, now));
        // However long a server takes to answer: what falls due meanwhile does not wait for it.
        let mut observed = tokio::time::timeout(due, observed).await.map_err(|_| Error::FallsDue)??;
        // A clock that was set meanwhile: it may agree with the others by now, and this is not its time.
        if clocks.broke().is_some() {
            return Ok(None);
        }
        let mut decision = domain::decide(request, &observed, now);
        self.forget_what_is_given(&request.uid, &decision.effects);
        let decided = decision.status.as_ref().map_or(request.phase(), |status| status.phase);
        if matches!(decided, Some(Phase::Activating | Phase::Active)) {
            self.forget_what_is_gone(&request.uid);
        }
        let removals = self.removals(object, &decision.effects);
        let removes = !removals.is_empty();
        let ends = [request.phase(), decided].contains(&Some(Phase::Revoking)) || request.grant_is_due(now);
        let urgency = if removes {
            Urgency::Removal
        } else if ends {
            Urgency::End
        } else {
            Urgency::Other
        };
        // What ends goes by who else holds what it gave, also where nothing is left to do in Keycloak.
        let about_others = decision.effects.iter().any(Effect::is_about_keycloak)
            || request.phase() == Some(Phase::Revoking)
            || (request.grant_is_due(now) && decided.is_some_and(Phase::is_final));
        // Others are written by somebody all the time: that keeps nothing from going that is due. What is known now counts.
        let waits_for_others = about_others && !(held_up && removes);
        if waits_for_others && !Box::pin(self.is_fenced(request, urgency)).await? {
            return Ok(None);
        }
        if let Some(status) = self.goes_at_once(request, &decision, &removals, &observed.outcomes, now) {
            let gone = Box::pin(self.remove_at_once(object, status, &decision.effects)).await?;
            return Ok(gone.map(|(recorded, outcomes)| Step { decision, recorded, outcomes }));
        }
        let decided_on = object;
        let with_finalizer = Box::pin(self.put_finalizer_on(object, &decision.effects)).await?;
        let Some((object, mut not_on)) = with_finalizer else { return Ok(None) };
        // Nothing is given without it. That it is agreed is put on record all the same, and so is what else there is to say.
        if let Some(error) = not_on.take_if(|_| decision.effects.iter().any(gives)) {
            if !error.is_refused() || request.phase() != Some(Phase::Pending) {
                return Err(Error::WriteFinalizer(error));
            }
            observed.targets = None;
            decision = domain::decide(request, &observed, now);
        }
        let mut recorded = object.clone();
        // It is fenced itself by what is written anyhow, or else by a write that says nothing new. What is proved gone is not
        // taken once more by whoever cannot write that: somebody else may lead, and may have given it.
        let unmaps = decision.effects.iter().filter(|effect| matches!(effect, Effect::Unmap(_))).count();
        let ours_to_write = request.forged.is_none() && !self.index.is_vanished(&request.uid);
        let needs_fence = about_others
            && decision.status.is_none()
            && request.forged.is_none()
            && (!self.index.is_fenced(&request.uid) || ours_to_write && unmaps > removals.len());
        let fenced = needs_fence.then(|| fence::fenced(&request.status)).transpose()?;
        if let Some(status) = decision.status.as_deref().or(fenced.as_ref()) {
            // What could not be removed is tried again once that is said: it does not wait behind what is gone.
            let urgency = if ends && not_removed && !removes { Urgency::Failure } else { urgency };
            match report::status(self, &object, status, urgency).await {
                Ok(written) => {
                    report::announce(self, decided_on, &written);
                    recorded = written;
                    if status.phase.is_some_and(Phase::is_final) {
                        self.wake(&observed.siblings);
                    }
                }
                Err(error) if error.is_conflict() => {
                    // What cannot be read, is gone, or is written by others all the time keeps nothing from going that is due.
                    let there = self.read_again(&object).await;
                    if held_up || !matches!(there, Ok(true)) {
                        let _ = Box::pin(self.remove_all_the_same(&object, removals)).await;
                    }
                    return if there? { Ok(None) } else { Err(Error::Gone) };
                }
                Err(error) => {
                    let gone = Box::pin(self.remove_all_the_same(&object, removals)).await;
                    return Err(if gone { Error::WriteStatus(error) } else { Error::NotRemoved(error) });
                }
            }
        }
        if let Some(error) = not_on {
            return Err(Error::WriteFinalizer(error));
        }
        let effects = self.in_time(&recorded, &decision.effects);
        let outcomes = match Box::pin(self.enact(&recorded, &effects)).await {
            Err(Error::WriteFinalizer(error)) if error.is_conflict() => {
                return if self.read_again(&object).await? { Ok(None) } else { Err(Error::Gone) };
            }
            // It is gone: nothing is left to write.
            Err(Error::WriteFinalizer(error)) if error.is_not_found() => Vec::new(),
            outcomes => outcomes?,
        };
        self.remember_what_is_gone(&request.uid, &outcomes);
        // What is in status meanwhile is somebody else's: it says nothing of this.
        let failed = outcomes.iter().filter(|outcome| outcome.has_failed() && request.forged.is_some());
        for Outcome { target, result, travelling: _ } in failed {
            let request = format!("{}/{}", request.namespace, request.name);
            tracing::error!(request, target, ?result, "what a forged status gave cannot be taken away yet");
        }
        Ok(Some(Step { decision, recorded, outcomes }))
    }

    /// What is still to be done: nothing is given any more whose time was up before it could be recorded.
    fn in_time<'a>(&self, recorded: &AccessRequest, effects: &'a [Effect]) -> Cow<'a, [Effect]> {
        let deadline = recorded.grant().map(|grant| grant.deadline.0);
        let is_late = effects.iter().any(gives) && deadline.is_some_and(|due| self.until(recorded, due).is_zero());
        if is_late { effects.iter().filter(|effect| !gives(effect)).cloned().collect() } else { effects.into() }
    }

    /// Puts our finalizer on, if that is among the effects: the request as it is stored then, otherwise as it was decided on, and
    /// why it is not on, if so. `None` if somebody else wrote in between: look and decide again.
    async fn put_finalizer_on(
        &self,
        object: &Arc<AccessRequest>,
        effects: &[Effect],
    ) -> Result<Option<(Arc<AccessRequest>, Option<ApiError>)>, Error> {
        if !effects.contains(&Effect::AddFinalizer) {
            return Ok(Some((object.clone(), None)));
        }
        match report::finalizer(self, object, true).await {
            Ok(written) => {
                let written = self.index.put(written);
                let is_on = written.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
                Ok(Some((written, (!is_on).then_some(ApiError::NotAsSent))))
            }
            Err(Error::WriteFinalizer(error)) if error.is_conflict() || error.is_not_found() => {
                if self.read_again(object).await? { Ok(None) } else { Err(Error::Gone) }
            }
            Err(Error::WriteFinalizer(error)) => Ok(Some((object.clone(), Some(error)))),
            Err(error) => Err(error),
        }
    }

    /// Whether nothing that was sent before can change what was decided on for the subject. What is taken away does not wait
    /// for that if the API server cannot be reached.
    async fn is_fenced(&self, request: &Request, urgency: Urgency) -> Result<bool, Error> {
        match self.fence_others(request, urgency).await {
            Err(error) if urgency == Urgency::Removal => {
                let request = format!("{}/{}", request.namespace, request.name);
                tracing::warn!(
                    request,
                    error = error.chain(),
                    "taking away although others of the subject are not fenced"
                );
                Ok(true)
            }
            fenced => fenced,
        }
    }

    /// How long until this request, or another one of the same person, falls due.
    fn next_due(&self, request: &Request, object: &AccessRequest, siblings: &[Request], now: Timestamp) -> Duration {
        let live = |request: &&Request| matches!(request.phase(), Some(Phase::Activating | Phase::Active));
        let others = siblings.iter().filter(live).filter_map(Request::deadline).map(until);
        let own = Some(request).filter(live).and_then(Request::deadline).map(|deadline| self.until(object, deadline));
        let later = others.chain(own.filter(|_| !domain::is_ending(request, now))).filter(|due| !due.is_zero());
        later.min().unwrap_or(Duration::MAX)
    }

    /// What is due goes even if Kubernetes cannot be written: removing never waits, giving always does. The status follows
    /// when it can, after the removal was repeated. Until then what is proved gone is left alone: somebody else may lead, and
    /// whoever has it then may have it from them. Says whether all of it went.
    async fn remove_all_the_same(&self, object: &AccessRequest, removals: Vec<Effect>) -> bool {
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        if removals.is_empty() {
            return true;
        }
        match self.enact(object, &removals).await {
            Ok(outcomes) => {
                self.remember_what_is_gone(uid, &outcomes);
                tracing::warn!(
                    request = object.name_any(),
                    ?outcomes,
                    "taking away although the status cannot be written"
                );
                is_done(&outcomes)
            }
            Err(error) => {
                tracing::warn!(request = object.name_any(), error = error.chain(), "cannot remove");
                false
            }
        }
    }

    /// Remembers what is proved gone, until the status says so.
    pub fn remember_what_is_gone(&self, uid: &str, outcomes: &[Outcome]) {
        let proved = |outcome: &&Outcome| outcome.result == OutcomeResult::Removed && outcome.travelling.is_none();
        let mut names = outcomes.iter().filter(proved).map(|outcome| outcome.target.clone()).peekable();
        if names.peek().is_some() {
            self.memory().entry(uid.to_owned()).or_default().gone.extend(names);
        }
    }

    /// Whether all that a request gave is proved gone, and only its status does not say so yet.
    pub fn is_proved_gone(&self, request: &Request) -> bool {
        let memory = self.memory();
        let Some(Memory { gone, .. }) = memory.get(&request.uid) else { return false };
        request
            .status
            .grant
            .as_ref()
            .is_some_and(|grant| grant.targets.iter().all(|target| gone.contains(&target.name)))
    }

    /// What is given from now on is not gone any more.
    fn forget_what_is_given(&self, uid: &str, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Map(target) = effect
                && let Some(memory) = self.memory().get_mut(uid)
            {
                memory.gone.remove(&target.name);
            }
        }
    }

    /// What lives again, because a clock was set back, is not gone for good.
    fn forget_what_is_gone(&self, uid: &str) {
        if let Some(memory) = self.memory().get_mut(uid) {
            memory.gone.clear();
        }
    }

    /// What is to be taken away of what is not proved gone already.
    fn removals(&self, object: &AccessRequest, effects: &[Effect]) -> Vec<Effect> {
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let memory = self.memory();
        let gone = |target: &TargetStatus| memory.get(uid).is_some_and(|memory| memory.gone.contains(&target.name));
        effects.iter().filter(|effect| matches!(effect, Effect::Unmap(target) if !gone(target))).cloned().collect()
    }

    /// Brings the index up to date with what somebody else wrote. Says whether the object is still there.
    pub async fn read_again(&self, object: &AccessRequest) -> Result<bool, Error> {
        let namespace = object.namespace().unwrap_or_default();
        let api: Api<Lenient<AccessRequest>> = Api::namespaced(self.client.clone(), &namespace);
        let read = limited(api.get_opt(&object.name_any())).await.map_err(Error::ReadRequest)?;
        let Some(read) = read.filter(|read| read.meta().uid == object.metadata.uid) else { return Ok(false) };
        self.index.put(read.read().map_err(Error::Unreadable)?);
        Ok(true)
    }
}
