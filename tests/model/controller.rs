//! What the controller does around `decide`, as `controller/reconcile.rs` and `enact.rs` do it: one step at a time for one
//! person, the status first (but for what is due), then the effects one after another, and what came of them goes into the next step.

use hallpass::api::Phase;

use super::{
    protocol::Protocol,
    real::Question,
    servers::{Answer, Reply, goes_on_without_the_lease},
    state::{Came, Do, Known, Late, Message, Object, Of, Process, REQUESTS, State, Status, TARGETS, Todo, Work},
};

impl Protocol {
    /// A step for a request: look, decide, and send what is written first. `None` if there is nothing to do.
    pub fn step(&self, state: &State, request: usize) -> Option<State> {
        let known = state.process.known[request];
        if state.process.work.is_some() || !known.object.there {
            return None;
        }
        let mut next = *state;
        let outcomes = std::mem::take(&mut next.process.outcomes[request]);
        next.process.unsettled_then[request] = [false; TARGETS];
        let decided = self.real.decide(&Self::question(state, request, outcomes));
        if decided.status.is_none() && decided.effects == Todo::default() {
            return (next != *state).then_some(next);
        }
        let in_keycloak = decided.effects.iter().flatten().any(|effect| effect.is_about_keycloak());
        let live = matches!(known.object.status.phase, Phase::Activating | Phase::Active);
        let due = live && known.object.status.is_due(state.now);
        let over = decided.status.is_some_and(|status| status.phase.is_final());
        let ends = known.object.status.phase == Phase::Revoking || (due && over);
        let fences = self.rules.fence && (in_keycloak || ends);
        let fence = fences && !known.fenced && !known.vanished && known.found.is_none();
        let fence = fence.then_some((known.object.status, true));
        let mut work = Work {
            request: number(request),
            current: known.current,
            sent: None,
            write: decided.status.map(|status| (status, false)).or(fence),
            todo: decided.effects,
            came: [None; TARGETS],
            unsettled: [false; TARGETS],
            told: true,
        };
        let other = state.process.known[1 - request];
        let open = other.object.there && !other.object.is_over() && other.found.is_none();
        if fences && open && other.vanished && !self.rules.fences_no_vanished {
            // There is nothing that could ever be fenced, and it is decided anew, again and again.
            return (next != *state).then_some(next);
        }
        let unmaps_only = decided.effects.iter().flatten().all(|effect| matches!(effect, Do::Unmap(_)));
        let begins = decided.status.is_some_and(|status| status.phase == Phase::Revoking);
        let at_once = self.rules.due_at_once
            && (known.fenced || !self.rules.due_once_fenced)
            && !known.vanished
            && known.found.is_none()
            && due
            && begins
            && !outcomes.contains(&Some(Came::Removed))
            && decided.effects != Todo::default()
            && unmaps_only;
        if fences && open && !other.vanished && !other.fenced {
            let (request, status, current) = (number(1 - request), other.object.status, other.current);
            work.sent = Some(Message::Status { request, status, current, fence: true, of: Of::Other });
        } else if at_once {
            // As if it took no time. What is written beside a removal that takes long is as if it were written after it or, if
            // that has no answer, as on the way below.
            work.write = None;
        } else {
            self.writes_first(&mut work);
        }
        next.process.work = Some(work);
        if known.vanished {
            self.inherits(&mut next, request);
            keeps(&mut next, request);
        }
        Some(next)
    }

    /// The finalizer is put on before the status is sent, and that before the other effects, unless the wrong order is planted.
    fn writes_first(&self, work: &mut Work) {
        let (request, current) = (work.request, work.current);
        if work.todo[0] == Some(Do::AddFinalizer) {
            next_of(&mut work.todo);
            work.sent = Some(Message::Finalizer { request, on: true, current });
            return;
        }
        let acts_first = |effect: &Do| match effect {
            Do::Map(_) | Do::Confirm(_) => !self.rules.intent_first,
            Do::Unmap(_) => !self.rules.revoking_first,
            Do::AddFinalizer | Do::RemoveFinalizer | Do::HandOver { .. } => false,
        };
        if work.todo.iter().flatten().any(acts_first) {
            return;
        }
        let message = |(status, fence)| Message::Status { request, status, current, fence, of: Of::Itself };
        work.sent = work.write.take().map(message);
    }

    fn question(state: &State, request: usize, outcomes: [Option<Came>; TARGETS]) -> Question {
        let Known { object, found, .. } = state.process.known[request];
        let other = state.process.known[1 - request].object;
        let looks = object.status.phase == Phase::Approved;
        let seen = |target: usize| {
            let mapping = state.keycloak[target];
            (mapping.there, !mapping.renamed && !mapping.deleted)
        };
        Question {
            request: number(request),
            now: state.now,
            object,
            found,
            other: other.there.then_some(other),
            has: looks.then(|| std::array::from_fn(seen)),
            unsettled: state.process.unsettled,
            outcomes,
            unsettled_then: state.process.unsettled_then[request],
        }
    }

    /// Sends the next effect of the step under way, or sees at once what comes of it.
    pub fn carry_out(&self, state: &State) -> Option<State> {
        let work = state.process.work.filter(|work| work.sent.is_none())?;
        let effect = work.todo[0]?;
        let mut next = *state;
        let mut doing = work;
        next_of(&mut doing.todo);
        for target in (0..TARGETS).filter(|_| self.rules.judges_as_sent) {
            doing.unsettled[target] |= state.process.unsettled[target];
        }
        let finalizer = |on| Some(Message::Finalizer { request: work.request, on, current: work.current });
        match effect {
            Do::AddFinalizer => doing.sent = finalizer(true),
            Do::RemoveFinalizer => doing.sent = finalizer(false),
            Do::Map(target) => doing.sent = Some(Message::Map { target, renamed: false, again: false }),
            Do::Unmap(target) => doing.sent = Some(Message::Unmap { target, renamed: false, again: false }),
            Do::Confirm(target) => {
                let there = state.keycloak[usize::from(target)].there;
                doing.came[usize::from(target)] = Some(if there { Came::Mapped } else { Came::Missing });
            }
            Do::HandOver { target, to } => {
                let heir = state.process.known[usize::from(to)];
                if heir.object.there {
                    let status = self.real.handed_over(heir.object.status, target);
                    let (request, current) = (to, heir.current);
                    let of = Of::Heir(target);
                    doing.sent = Some(Message::Status { request, status, current, fence: false, of });
                } else {
                    doing.came[usize::from(target)] = Some(Came::Failed);
                }
            }
        }
        next.process.work = Some(doing);
        finish(&mut next);
        Some(next)
    }

    /// What was sent arrives or does not, and the process hears of it or does not.
    pub fn answered(&self, state: &State, answer: Answer) -> Option<State> {
        let work = state.process.work?;
        let message = work.sent?;
        let mut next = *state;
        if answer != Answer::Given {
            next.budget.faults = next.budget.faults.checked_sub(1)?;
        }
        let reply = if answer == Answer::Late {
            let place = next.late.iter_mut().find(|late| late.is_none())?;
            *place = Some(Late { message, then: None });
            None
        } else {
            Some(self.arrives(&mut next, message))
        };
        let heard = reply.filter(|_| answer != Answer::Lost);
        if answer == Answer::Unread && heard != Some(Reply::Conflict) {
            return None;
        }
        if let Some(work) = &mut next.process.work {
            work.sent = None;
        }
        match message {
            Message::Status { request, status, of, .. } => {
                let request = usize::from(request);
                if heard.is_none() {
                    left_open(&mut next.process.known[request], status);
                }
                // Whether what it conflicts with can be read.
                let heard = heard.filter(|_| answer != Answer::Unread);
                match of {
                    Of::Itself => self.status_answered(&mut next, request, heard),
                    Of::Other => self.fence_answered(&mut next, request, heard),
                    Of::Heir(target) => self.heir_answered(&mut next, request, target.into(), heard),
                }
            }
            Message::Finalizer { request, .. } => self.finalizer_answered(&mut next, usize::from(request), heard),
            Message::Map { target, again, .. } | Message::Unmap { target, again, .. } => {
                let maps = matches!(message, Message::Map { .. });
                self.keycloak_answered(&mut next, usize::from(target), maps, again, heard);
            }
        }
        finish(&mut next);
        Some(next)
    }

    fn status_answered(&self, next: &mut State, request: usize, heard: Option<Reply>) {
        match heard {
            Some(Reply::Done) => {
                self.wrote(next, request);
                if let Some(work) = &mut next.process.work {
                    work.current = true;
                }
            }
            Some(Reply::Conflict | Reply::NotFound) => {
                self.learns(next, request);
                if next.api[request].there {
                    next.process.work = None;
                } else {
                    removes_all_the_same(next);
                }
            }
            Some(Reply::Refused) | None => removes_all_the_same(next),
        }
    }

    /// After a fence it is decided anew. What is taken away does not wait for a fence that fails.
    fn fence_answered(&self, next: &mut State, other: usize, heard: Option<Reply>) {
        match heard {
            Some(Reply::Done) => self.wrote(next, other),
            Some(Reply::Conflict) => self.learns(next, other),
            // The watch will tell.
            Some(Reply::NotFound) => {}
            Some(Reply::Refused) | None => {
                if let Some(work) = &mut next.process.work
                    && work.todo.iter().flatten().any(|effect| matches!(effect, Do::Unmap(_)))
                {
                    return self.writes_first(work);
                }
            }
        }
        next.process.work = None;
    }

    fn heir_answered(&self, next: &mut State, heir: usize, target: usize, heard: Option<Reply>) {
        let came = match heard {
            Some(Reply::Done) => {
                self.wrote(next, heir);
                Some(Came::HandedOver)
            }
            Some(Reply::Conflict) => {
                self.learns(next, heir);
                None
            }
            Some(Reply::NotFound | Reply::Refused) | None => Some(Came::Failed),
        };
        came_out(next, target, came);
    }

    fn finalizer_answered(&self, next: &mut State, request: usize, heard: Option<Reply>) {
        match heard {
            Some(Reply::Done) => {
                self.answers(next, request);
                if let Some(work) = &mut next.process.work {
                    work.current = true;
                    self.writes_first(work);
                }
            }
            Some(Reply::Conflict) => {
                self.learns(next, request);
                next.process.work = None;
            }
            // Without an answer the step fails, and the watch will tell.
            Some(Reply::NotFound | Reply::Refused) | None => next.process.work = None,
        }
    }

    fn keycloak_answered(&self, next: &mut State, target: usize, maps: bool, again: bool, heard: Option<Reply>) {
        let mapping = next.keycloak[target];
        let came = match heard {
            Some(Reply::Done) => Came::from(maps),
            Some(Reply::NotFound) if !maps && !self.rules.not_found_is_no_proof => Came::Removed,
            Some(Reply::NotFound) if mapping.deleted => {
                if maps {
                    Came::Failed
                } else {
                    Came::Removed
                }
            }
            Some(Reply::NotFound) if !again && mapping.renamed => {
                let (target, renamed, again) = (number(target), true, true);
                let message = if maps {
                    Message::Map { target, renamed, again }
                } else {
                    Message::Unmap { target, renamed, again }
                };
                if let Some(work) = &mut next.process.work {
                    work.sent = Some(message);
                }
                return;
            }
            Some(Reply::NotFound | Reply::Conflict | Reply::Refused) => Came::Failed,
            None => {
                next.process.unsettled[target] = true;
                Came::Failed
            }
        };
        came_out(next, target, Some(came));
    }

    /// An answer says what is stored now, and that nothing that was sent before can arrive any more. The first one since this
    /// process leads: what the leader before has sent to Keycloak may still.
    fn wrote(&self, next: &mut State, request: usize) {
        self.inherits(next, request);
        self.answers(next, request);
    }

    /// The first time that something is written for a request since this process leads.
    fn inherits(&self, next: &mut State, request: usize) {
        let Known { object, fenced, .. } = next.process.known[request];
        if !fenced && self.rules.inherits_unsettled && object.may_be_written(next.now) {
            for target in (0..TARGETS).filter(|target| object.status.claims(*target)) {
                next.process.unsettled[target] = true;
            }
        }
        next.process.known[request].fenced = true;
    }

    /// An answer says what is stored now.
    fn answers(&self, next: &mut State, request: usize) {
        let (object, known) = (next.api[request], &mut next.process.known[request]);
        if self.rules.own_writes {
            *known = Known { object, current: true, fenced: known.fenced, ..Known::default() };
        } else {
            sent(known, object.status);
        }
    }

    /// The process sees a request as it is now, by the watch or because it read it again: see `controller/index.rs`.
    pub fn learns(&self, next: &mut State, request: usize) {
        let stored = next.api[request];
        let known = &mut next.process.known[request];
        let ours = stored.status == known.object.status || known.sent.contains(&Some(stored.status));
        let goes_on = || self.real.goes_on_from(stored.status, known.object.status);
        let ours = ours || (self.rules.knows_late_statuses && !known.fenced && goes_on());
        let fenced = known.fenced;
        let live = known.object.there && known.object.status.is_live() && self.rules.tombstones;
        *known = match (stored.there, ours) {
            (false, _) if live => {
                let object = Object { finalizer: false, deleting: true, ..known.object };
                Known { object, current: true, vanished: true, ..Known::default() }
            }
            (false, _) => Known { current: true, ..Known::default() },
            (true, true) => Known { object: stored, current: true, fenced, ..Known::default() },
            (true, false) => {
                let object = Object { status: known.object.status, ..stored };
                Known { object, current: true, fenced, found: Some(stored.status), ..Known::default() }
            }
        };
    }

    /// The watch shows a request as it is now.
    pub fn shows(&self, state: &State, request: usize) -> Option<State> {
        if state.process.known[request].current {
            return None;
        }
        let mut next = *state;
        self.learns(&mut next, request);
        Some(next)
    }

    /// The time has passed after which nothing that was sent to Keycloak can still arrive.
    pub fn settles(state: &State) -> State {
        let mut next = *state;
        for target in 0..TARGETS {
            next.process.unsettled[target] &= state.travels_to_keycloak(target);
        }
        next
    }

    /// Another replica leads from now on. What the last one has on its way is still on its way.
    pub fn takes_over(&self, state: &State) -> Option<State> {
        let mut next = *state;
        next.budget.faults = next.budget.faults.checked_sub(1)?;
        if let Some(work) = state.process.work {
            let keycloak = |effect: &Do| matches!(effect, Do::Map(_) | Do::Unmap(_));
            let then = work.todo[0].filter(keycloak).filter(|_| !self.rules.lease);
            if let Some(message) = work.sent {
                *next.late.iter_mut().find(|late| late.is_none())? = Some(Late { message, then });
            } else if let Some(effect) = then {
                goes_on_without_the_lease(&mut next, effect);
            }
        }
        let destroyed = self.config.budget.vanish > state.budget.vanish;
        for request in (0..REQUESTS).filter(|request| destroyed && state.has_vanished(*request)) {
            let status = state.process.known[request].object.status;
            for target in (0..TARGETS).filter(|target| status.claims(*target)) {
                next.keycloak[target].forgotten = true;
                next.keycloak[target].protected = false;
            }
        }
        next.process = Process::default();
        for request in 0..REQUESTS {
            let stored = if self.rules.fresh_list { state.api[request] } else { state.standby[request] };
            let current = stored == state.api[request];
            next.process.known[request] = Known { object: stored, current, ..Known::default() };
        }
        next.sort_late();
        Some(next)
    }
}

/// A number of something that there are few of.
pub fn number(of: usize) -> u8 {
    u8::try_from(of).expect("few")
}

impl From<bool> for Came {
    fn from(maps: bool) -> Self {
        if maps { Self::Mapped } else { Self::Removed }
    }
}

/// The status of a request that is known here only is kept here, until it is over.
fn keeps(next: &mut State, request: usize) {
    let Some(work) = &mut next.process.work else { return };
    if let Some(Message::Status { status, of: Of::Itself, .. }) = work.sent {
        work.sent = None;
        let known = &mut next.process.known[request];
        known.object.status = status;
        if status.phase.is_final() {
            *known = Known { current: true, ..Known::default() };
        }
    }
    finish(next);
}

/// A write of a status without an answer may have arrived, and may yet.
fn left_open(known: &mut Known, status: Status) {
    known.fenced = false;
    sent(known, status);
}

/// A status that was sent is known to be ours when it is seen.
fn sent(known: &mut Known, status: Status) {
    if !known.sent.contains(&Some(status)) {
        known.sent = [Some(status), known.sent[0]];
        known.sent.sort_by_key(|sent| sent.map(|status| status.number));
    }
}

fn came_out(next: &mut State, target: usize, came: Option<Came>) {
    if let Some(work) = &mut next.process.work {
        work.came[target] = came;
    }
}

/// What is due goes even if the status cannot be written, and nobody hears what came of it.
fn removes_all_the_same(next: &mut State) {
    let Some(work) = &mut next.process.work else { return };
    let mut todo = Todo::default();
    let removals = work.todo.iter().flatten().filter(|effect| matches!(effect, Do::Unmap(_)));
    todo.iter_mut().zip(removals).for_each(|(place, effect)| *place = Some(*effect));
    (work.todo, work.write, work.told) = (todo, None, false);
}

/// What is first is being done.
fn next_of(todo: &mut Todo) {
    todo.rotate_left(1);
    if let Some(last) = todo.last_mut() {
        *last = None;
    }
}

/// A step is over when nothing is left to do.
fn finish(next: &mut State) {
    let Some(work) = &mut next.process.work else { return };
    if work.sent.is_some() || work.todo[0].is_some() {
        return;
    }
    // Only where the wrong order is planted.
    if let Some((status, fence)) = work.write.take() {
        let (request, current) = (work.request, work.current);
        work.sent = Some(Message::Status { request, status, current, fence, of: Of::Itself });
        return;
    }
    if work.told {
        next.process.outcomes[usize::from(work.request)] = work.came;
        next.process.unsettled_then[usize::from(work.request)] = work.unsettled;
    }
    next.process.work = None;
}
