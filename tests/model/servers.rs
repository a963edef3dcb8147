//! The API server and Keycloak: what a write does when it arrives, and what people do there.

use super::{
    protocol::Protocol,
    real::Refusal,
    state::{Broken, Budget, Do, Late, Mapping, Message, Object, State},
};

/// How a write ends for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It arrives, and its answer too.
    Given,
    /// It arrives, and its answer is lost.
    Lost,
    /// Nobody waits for it any more, and it is still on its way.
    Late,
    /// It conflicts, and what is there now cannot be read.
    Unread,
}

/// What a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// Of another version.
    Conflict,
    NotFound,
    /// Against the CRD's rules.
    Refused,
}

/// What an administrator, a user or chance does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Maps(u8),
    Unmaps(u8),
    Renames(u8),
    DeletesRole(u8),
    Ends(u8),
    Deletes(u8),
    /// The request goes without its finalizer having run.
    Vanishes(u8),
    /// Somebody takes the finalizer off.
    Bares(u8),
}

impl Protocol {
    /// A write arrives.
    pub fn arrives(&self, next: &mut State, message: Message) -> Reply {
        match message {
            Message::Status { request, status, current, fence, of: _ } => {
                let request = usize::from(request);
                let object = next.api[request];
                if !object.there {
                    return Reply::NotFound;
                }
                if self.rules.resource_version && !current {
                    return Reply::Conflict;
                }
                if let Err(refusal) = self.real.may_follow(object.status, status) {
                    if self.rules.crd {
                        return Reply::Refused;
                    }
                    match refusal {
                        Refusal::Final => next.breaks(Broken::Revived),
                        Refusal::Deadline => next.breaks(Broken::Prolonged),
                        Refusal::Targets => {}
                    }
                }
                // What says the same makes no new version.
                if fence || object.status != status {
                    next.api[request].status = status;
                    next.touched(request);
                }
                Reply::Done
            }
            Message::Finalizer { request, on, current } => {
                let request = usize::from(request);
                let object = next.api[request];
                if !object.there {
                    return Reply::NotFound;
                }
                if !current {
                    return Reply::Conflict;
                }
                if on && object.deleting {
                    return Reply::Refused;
                }
                next.api[request].finalizer = on;
                if object.deleting && !on {
                    next.api[request] = Object::default();
                }
                next.touched(request);
                Reply::Done
            }
            Message::Map { target, renamed, .. } => {
                let mapping = &mut next.keycloak[usize::from(target)];
                if mapping.deleted || mapping.renamed != renamed {
                    return Reply::NotFound;
                }
                if !mapping.there {
                    (mapping.there, mapping.ours, mapping.meddled) = (true, true, false);
                }
                Reply::Done
            }
            Message::Unmap { target, renamed, .. } => {
                let mapping = &mut next.keycloak[usize::from(target)];
                if mapping.deleted || mapping.renamed != renamed {
                    return Reply::NotFound;
                }
                let protected = mapping.there && mapping.protected;
                *mapping = mapping.absent();
                if protected {
                    next.breaks(Broken::TookAway);
                }
                Reply::Done
            }
        }
    }

    /// A write that nobody waits for arrives.
    pub fn lands(&self, state: &State, place: usize) -> Option<State> {
        let late = state.late[place]?;
        let mut next = *state;
        next.late[place] = None;
        let reply = self.arrives(&mut next, late.message);
        if let (Reply::Done, Some(effect)) = (reply, late.then) {
            goes_on_without_the_lease(&mut next, effect);
        }
        next.sort_late();
        Some(next)
    }
}

/// A replica that leads no longer sends one more write to Keycloak.
pub fn goes_on_without_the_lease(next: &mut State, effect: Do) {
    let message = match effect {
        Do::Map(target) => Message::Map { target, renamed: false, again: false },
        Do::Unmap(target) => Message::Unmap { target, renamed: false, again: false },
        Do::AddFinalizer | Do::RemoveFinalizer | Do::Confirm(_) | Do::HandOver { .. } => return,
    };
    next.breaks(Broken::TwoWriters);
    if let Some(place) = next.late.iter_mut().find(|late| late.is_none()) {
        *place = Some(Late { message, then: None });
    }
}

/// Something happens that the operator has no part in.
pub fn happens(state: &State, event: Event) -> Option<State> {
    let mut next = *state;
    let Budget { admin, user, role, vanish, .. } = &mut next.budget;
    let budget = match event {
        Event::Maps(_) | Event::Unmaps(_) => admin,
        Event::Renames(_) | Event::DeletesRole(_) => role,
        Event::Ends(_) | Event::Deletes(_) => user,
        Event::Vanishes(_) | Event::Bares(_) => vanish,
    };
    *budget = budget.checked_sub(1)?;
    match event {
        Event::Maps(target) => {
            let claimed = state.is_claimed(usize::from(target));
            let mapping = &mut next.keycloak[usize::from(target)];
            if mapping.deleted || (mapping.there && mapping.admins) {
                return None;
            }
            mapping.protected = !claimed && !mapping.ours && !mapping.forgotten;
            (mapping.there, mapping.admins) = (true, true);
        }
        Event::Unmaps(target) => {
            let mapping = &mut next.keycloak[usize::from(target)];
            if !mapping.there {
                return None;
            }
            *mapping = Mapping { meddled: true, ..mapping.absent() };
        }
        Event::Renames(target) => {
            let mapping = &mut next.keycloak[usize::from(target)];
            if mapping.deleted || mapping.renamed {
                return None;
            }
            mapping.renamed = true;
        }
        Event::DeletesRole(target) => {
            let mapping = &mut next.keycloak[usize::from(target)];
            if mapping.deleted {
                return None;
            }
            *mapping = Mapping { meddled: true, deleted: true, ..Mapping::default() };
        }
        Event::Ends(request) | Event::Deletes(request) | Event::Vanishes(request) | Event::Bares(request) => {
            let object = &mut next.api[usize::from(request)];
            if !object.there {
                return None;
            }
            let final_or_ending = object.is_over() || object.status.phase == hallpass::api::Phase::Revoking;
            match event {
                Event::Ends(_) if !object.ends && !final_or_ending => object.ends = true,
                Event::Deletes(_) if object.finalizer && !object.deleting => object.deleting = true,
                Event::Deletes(_) if !object.finalizer => *object = Object::default(),
                Event::Vanishes(_) if object.finalizer => *object = Object::default(),
                Event::Bares(_) if object.finalizer && object.deleting => *object = Object::default(),
                Event::Bares(_) if object.finalizer => object.finalizer = false,
                _ => return None,
            }
            next.touched(usize::from(request));
        }
    }
    Some(next)
}

impl Mapping {
    /// The same role, and the person does not have it.
    fn absent(self) -> Self {
        let Self { renamed, deleted, meddled, forgotten, .. } = self;
        Self { meddled, forgotten, renamed, deleted, ..Self::default() }
    }
}
