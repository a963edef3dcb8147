//! A status that the operator did not write.

use hallpass::{
    api::{
        EndReason::{Ended, StatusForged},
        Phase::{self, Approved, Denied, Expired, Pending, Revoked, Revoking},
        TargetState,
    },
    domain::{
        Instead::{Named, Nothing, Remembered},
        Next,
        OutcomeResult::Removed,
        Request, needs,
    },
};

use super::world::*;

fn active() -> RequestBuilder {
    request("fix").active(&[ours("admin"), theirs("debug")])
}

/// What spec and policy name, when nothing is remembered.
fn named() -> RequestBuilder {
    let mut named = request("fix").active(&[ours("admin"), ours("debug")]);
    if let Some(status) = &mut named.0.status {
        status.phase = None;
    }
    named
}

/// The access goes, and the status says so in this phase.
#[track_caller]
fn is_over(request: &Request, unmaps: &[&str], phase: Phase, words: &str) -> Answer {
    let world = world(&policy()).at(10).without_policy().unguarded();
    assert_eq!(needs(request, &[], world.now, None), hallpass::domain::Needs::default(), "it waits for nobody");
    let first = world.decide_on(request);
    let mut done = world.clone();
    if !unmaps.is_empty() {
        let effects: Vec<_> = unmaps.iter().map(|name| format!("unmap {name}")).collect();
        first.writes_nothing().does(&effects.iter().map(String::as_str).collect::<Vec<_>>()).next(Next::Now);
        for name in unmaps {
            done = done.outcome(name, Removed);
        }
    }
    let last = done.decide_on(request);
    let finalizer: &[&str] = if request.has_finalizer { &["remove finalizer"] } else { &[] };
    last.is_for(phase, "StatusForged").says(words).does(finalizer).next(Next::OnChange);
    fits(last.status());
    // Tried again without end, and nothing is written as long as it does not work.
    if let [name, ..] = unmaps {
        let failing = unmaps.iter().fold(world.clone(), |world, name| world.fails(name)).decide_on(request);
        failing.writes_nothing().does(&[]);
        assert!(matches!(failing.decision.next, Next::Retry { .. }), "{name}");
    }
    last
}

#[test]
fn what_is_remembered_counts_and_is_written_back() {
    let world = world(&policy()).at(10);
    let waiting = request("fix").pending(&policy());
    let expired = request("fix").revoking(Ended, &[removed(ours("admin"))]).in_phase(Revoked);
    let counts = |remembered: &RequestBuilder, found: &RequestBuilder| {
        let answer = world.decide_on(&remembered.forged(found, Remembered));
        let (before, after) = (remembered.read(), answer.status());
        assert!(answer.decision.status.is_some(), "written back");
        assert_eq!((after.phase, &after.grant), (before.phase(), &before.status.grant));
        assert_eq!(after.votes, before.status.votes);
        assert!(!answer.decision.effects.iter().any(|effect| words(effect).starts_with("unmap")));
    };
    counts(&active(), &active().until(9999));
    counts(&active(), &active().in_phase(Approved));
    counts(&active(), &request("fix").pending(&policy()));
    counts(&active(), &request("fix"));
    counts(&active(), &request("fix").active(&[ours("admin")]));
    counts(&active(), &request("fix").active(&[theirs("admin"), theirs("debug")]));
    counts(&waiting, &request("fix").approved_by(BOB, &policy()));
    counts(&expired, &request("fix").active(&[ours("admin")]));
    // It is decided on as usual.
    let due = active().forged(&active().until(9999), Remembered);
    self::world(&policy()).at(3600).decide_on(&due).is(Revoking).does(&["unmap admin"]);
    let voted = waiting.voted(BOB, "lead");
    world.decide_on(&voted.forged(&request("fix").pending(&policy()).guarded_by("x"), Remembered)).is(Approved);
}

#[test]
fn what_the_api_server_does_not_take_back_is_over() {
    let admin = "taken away from alice: admin";
    for (found, phase) in [
        (active().in_phase(Expired), Expired),
        (active().in_phase(Denied), Denied),
        (active().until(20), Revoked),
        (request("fix").active(&[ours("admin"), theirs("debug"), ours("more")]), Revoked),
        (request("fix").active(&[ours("admin"), ours("debug"), theirs("more")]), Revoked),
    ] {
        let last = is_over(&active().forged(&found, Remembered), &["admin"], phase, admin);
        let grant = last.status().grant.as_ref().expect("a grant");
        let found = found.read().status.grant.expect("a grant");
        assert!(grant.deadline <= found.deadline && grant.end_reason == Some(StatusForged));
        for old in &found.targets {
            let new = grant.targets.iter().find(|new| (&new.name, &new.id) == (&old.name, &old.id)).expect("it stays");
            assert!(old.pre_existing || !new.pre_existing);
            let state = if old.name == "admin" { TargetState::Removed } else { TargetState::Kept };
            assert_eq!(new.state, state, "{}", new.name);
        }
    }
    // Another target under the name of one that is remembered.
    let mut elsewhere = ours("admin");
    elsewhere.id = "another".into();
    let found = request("fix").active(&[elsewhere, theirs("debug")]);
    let last = is_over(&active().forged(&found, Remembered), &["admin"], Revoked, admin);
    assert_eq!(last.targets()[0].id, "another");
    // Nothing was given, and it never is.
    let waiting = request("fix").pending(&policy()).forged(&active(), Remembered);
    let last = is_over(&waiting, &[], Revoked, "nothing had to be taken away");
    assert_eq!(last.targets().len(), 2);
    is_over(&request("fix").forged(&request("fix").in_phase(Denied), Remembered), &[], Denied, "nothing had");
}

#[test]
fn without_memory_what_spec_and_policy_name_is_taken_away() {
    let words = "what spec and policy name counts; taken away from alice: admin, debug";
    let both = &["admin", "debug"];
    for (found, phase) in [
        (request("fix").with_finalizer(), Revoked),
        (request("fix").in_phase(Pending), Revoked),
        (active().until(99_999), Revoked),
        (request("fix").active(&[theirs("admin"), theirs("debug")]), Revoked),
        (active().in_phase(Expired), Expired),
        (request("fix").in_phase(Denied), Denied),
    ] {
        is_over(&named().forged(&found, Named), both, phase, words);
    }
    let gone = Nothing("policy oncall is gone".into());
    let words = "nothing was taken away: policy oncall is gone";
    is_over(&request("fix").forged(&active(), gone), &[], Revoked, words);
}

#[test]
fn what_another_request_holds_stays() {
    let world = world(&policy()).at(10);
    let other = request("other").active(&[ours("admin")]);
    let lost = named().forged(&active(), Named);
    world.clone().beside(&other).decide_on(&lost).does(&["unmap debug"]);
    let done = world.clone().beside(&other).outcome("debug", Removed).decide_on(&lost);
    done.is_for(Revoked, "StatusForged").says("taken away from alice: debug");
    // The other one takes it over.
    let heir = request("other").active(&[theirs("admin")]);
    world.beside(&heir).decide_on(&lost).does(&["hand admin over to other", "unmap debug"]);
}
