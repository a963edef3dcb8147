//! Tells what was found, for people: a counterexample as a list of steps, and how much was looked at.

use std::{fmt::Write, time::Duration};

use stateright::{Checker, Model, Path};

use super::{
    protocol::{Action, Protocol},
    real::{GRANTS, NAMES, words},
    servers::{Answer, Event},
    state::{Do, Known, Message, Object, Of, State},
};

/// What a checker has looked at, in one line.
pub fn looked_at(model: &Protocol, checker: &impl Checker<Protocol>, took: Duration) -> String {
    let states = checker.unique_state_count();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for people"
    )]
    let speed = (states as f64 / took.as_secs_f64()) as u64;
    format!(
        "{states} states, depth {}, {} questions to the real code, {:.1} s, {speed} states/s",
        checker.max_depth(),
        model.real.questions(),
        took.as_secs_f32(),
    )
}

/// The steps that lead to a violation, and the way that does not lead to rest if that is what is violated.
pub fn steps(model: &Protocol, path: Path<State, Action>) -> String {
    let mut text = String::new();
    let mut last = None;
    for (number, (state, action)) in path.into_vec().into_iter().enumerate() {
        let Some(action) = action else {
            last = Some(state);
            break;
        };
        if number == 0 {
            let _ = writeln!(text, "      at first{}", how_it_is(model, &state));
        }
        step(&mut text, model, number + 1, &state, action);
    }
    let Some(last) = last else { return text };
    for arrives in [false, true] {
        if let Err(way) = model.way_to_rest(&last, arrives) {
            let _ = writeln!(text, "      and from there, without further faults, it does not come to rest:");
            let mut state = last;
            for (number, (action, next)) in way.into_iter().enumerate().take(40) {
                step(&mut text, model, number + 1, &state, action);
                state = next;
            }
            break;
        }
    }
    text
}

fn step(text: &mut String, model: &Protocol, number: usize, state: &State, action: Action) {
    let Some(next) = model.next_state(state, action) else { return };
    let _ = write!(text, "{number:>5} {}", what_happens(model, state, action));
    let (before, after) = (how_it_is(model, state), how_it_is(model, &next));
    let _ = writeln!(text, "{}", if before == after { "" } else { &after });
}

/// What the API server and Keycloak have, and what is on its way.
fn how_it_is(model: &Protocol, state: &State) -> String {
    let mut text = String::new();
    for (name, object) in NAMES.iter().zip(&state.api) {
        let _ = write!(text, "\n            {name}: {}", request(model, object));
    }
    let mut keycloak = Vec::new();
    for (target, mapping) in state.keycloak.iter().enumerate() {
        let named = model.config.wants.iter().any(|wants| wants.contains(&target));
        let whose = match (mapping.there, mapping.ours, mapping.protected) {
            (false, ..) => "absent",
            (true, true, _) => "there, ours",
            (true, _, true) => "there, theirs",
            (true, _, false) => "there, added while it was ours",
        };
        if named {
            keycloak.push(format!("{} {whose}", GRANTS[target]));
        }
    }
    let _ = write!(text, "\n            Keycloak: {}", keycloak.join("; "));
    for late in state.late.iter().flatten() {
        let _ = write!(text, "\n            late: {}", message(model, late.message));
    }
    text
}

fn request(model: &Protocol, object: &Object) -> String {
    if !object.there {
        return "gone".into();
    }
    let mut text = words(&model.real, object.status);
    for (so, word) in [(!object.finalizer, "no finalizer"), (object.deleting, "deleting"), (object.ends, "to be ended")]
    {
        if so {
            let _ = write!(text, ", {word}");
        }
    }
    text
}

fn what_happens(model: &Protocol, state: &State, action: Action) -> String {
    let name = |request: u8| NAMES[usize::from(request)];
    match action {
        Action::Tick => format!("it is {} o'clock", state.now + 1),
        Action::Happens(event) => match event {
            Event::Maps(target) => format!("an administrator maps {}", GRANTS[usize::from(target)]),
            Event::Unmaps(target) => format!("an administrator unmaps {}", GRANTS[usize::from(target)]),
            Event::Renames(target) => format!("the role {} gets another name", GRANTS[usize::from(target)]),
            Event::DeletesRole(target) => format!("the role {} is deleted", GRANTS[usize::from(target)]),
            Event::Ends(request) => format!("the requester ends {}", name(request)),
            Event::Deletes(request) => format!("somebody deletes {}", name(request)),
            Event::Vanishes(request) => format!("{} is removed without its finalizer", name(request)),
            Event::Bares(request) => format!("somebody takes the finalizer off {}", name(request)),
        },
        Action::Shows(request) => format!("the watch shows {}", name(request)),
        Action::ShowsStandby(request) => format!("the watch of the other replica shows {}", name(request)),
        Action::Step(request) => decides(model, state, request),
        Action::CarriesOut => carries_out(state),
        Action::Answered(answer) => answered(model, state, answer),
        Action::Lands(place) => match state.late[usize::from(place)] {
            Some(late) => format!("late arrival: {}", message(model, late.message)),
            None => String::new(),
        },
        Action::Dies(place) => match state.late[usize::from(place)] {
            Some(late) => format!("never arrives: {}", message(model, late.message)),
            None => String::new(),
        },
        Action::TakesOver => {
            let on_its_way = state.process.work.and_then(|work| work.sent).map(|sent| message(model, sent));
            let on_its_way = on_its_way.map_or_else(String::new, |sent| format!("; on its way is: {sent}"));
            format!("the leader dies and another replica takes over{on_its_way}")
        }
        Action::Settles => "so much time has passed that nothing can be on its way to Keycloak".into(),
    }
}

fn decides(model: &Protocol, state: &State, request: u8) -> String {
    let name = NAMES[usize::from(request)];
    let Known { object, current, found, .. } = state.process.known[usize::from(request)];
    let version = if current { "" } else { ", which is not the newest" };
    let forged = found.map_or_else(String::new, |_| ", while what is there is taken for forged".into());
    let seen = format!("the operator knows {name} as {}{version}{forged}", words(&model.real, object.status));
    let Some(work) = model.step(state, request.into()).and_then(|next| next.process.work) else {
        return format!("{seen}: nothing to do");
    };
    let writes = work.sent.map(|sent| message(model, sent));
    let effects: Vec<String> = work.todo.iter().flatten().map(|effect| does(*effect)).collect();
    let then = if effects.is_empty() { String::new() } else { format!(", then: {}", effects.join(", ")) };
    format!("{seen}; it {}{then}", writes.map_or_else(|| "writes nothing".into(), |writes| format!("sends {writes}")))
}

fn carries_out(state: &State) -> String {
    let Some(work) = state.process.work else { return String::new() };
    work.todo[0].map_or_else(String::new, |effect| {
        format!("for {} it goes on: {}", NAMES[usize::from(work.request)], does(effect))
    })
}

fn answered(model: &Protocol, state: &State, answer: Answer) -> String {
    let Some(sent) = state.process.work.and_then(|work| work.sent) else { return String::new() };
    let mut after = *state;
    let reply = model.arrives(&mut after, sent);
    let sent = message(model, sent);
    match answer {
        Answer::Given => format!("{sent}: {reply:?}"),
        Answer::Lost => format!("{sent}: {reply:?}, and the answer is lost"),
        Answer::Late => format!("{sent}: no answer, and it is still on its way"),
        Answer::Unread => format!("{sent}: {reply:?}, and it cannot be read again"),
    }
}

fn does(effect: Do) -> String {
    let target = |target: u8| GRANTS[usize::from(target)];
    match effect {
        Do::AddFinalizer => "put the finalizer on".into(),
        Do::RemoveFinalizer => "take the finalizer off".into(),
        Do::Map(of) => format!("map {}", target(of)),
        Do::Confirm(of) => format!("see whether {} is there", target(of)),
        Do::Unmap(of) => format!("unmap {}", target(of)),
        Do::HandOver { target: of, to } => format!("hand {} over to {}", target(of), NAMES[usize::from(to)]),
    }
}

fn message(model: &Protocol, message: Message) -> String {
    let old = |current: bool| if current { "" } else { " (of an old version)" };
    match message {
        Message::Status { request, status, current, fence, of } => {
            let name = NAMES[usize::from(request)];
            let what = match (of, fence) {
                (Of::Heir(_), _) => format!("status of {name}, the heir"),
                (_, true) => format!("fence of {name}"),
                (_, false) => format!("status of {name}"),
            };
            format!("{what}: {}{}", words(&model.real, status), old(current))
        }
        Message::Finalizer { request, on, current } => {
            let on = if on { "on" } else { "off" };
            format!("finalizer of {} {on}{}", NAMES[usize::from(request)], old(current))
        }
        Message::Map { target, renamed, .. } => format!("POST {}{}", GRANTS[usize::from(target)], by(renamed)),
        Message::Unmap { target, renamed, .. } => format!("DELETE {}{}", GRANTS[usize::from(target)], by(renamed)),
    }
}

const fn by(renamed: bool) -> &'static str {
    if renamed { " by its new name" } else { "" }
}
