//! A write to Keycloak whose answer was lost can still arrive: nothing is final before it cannot.

use hallpass::{
    api::{
        EndReason::{self, Ended, Expired},
        Phase::{self, Activating, Active, Revoking},
        TargetState,
    },
    domain::{
        Next,
        OutcomeResult::{HandedOver, Mapped, Removed},
    },
};

use super::world::*;

fn revoking(cause: EndReason) -> RequestBuilder {
    request("fix").revoking(cause, &[ours("admin")])
}

#[test]
fn what_is_gone_is_taken_away_once_more_when_nothing_can_arrive_any_more() {
    let world = world(&policy()).at(3600).travels("admin", 3700);
    let before = world.decide(&request("fix").active(&[ours("admin")]));
    before.is_for(Revoking, "Revoking").does(&["unmap admin"]);
    let gone = world.clone().outcome("admin", Removed).decide_on(&before.after());
    gone.is_for(Revoking, "Settling").says("at 2026-11-23T13:01:40Z").does(&[]).next(Next::At(at(3700)));
    assert_eq!(gone.targets()[0].state, TargetState::Mapped);
    // Whoever looks in between takes it away in between.
    world.clone().at(3650).decide_on(&gone.after()).writes_nothing().does(&["unmap admin"]);
    let once_more = world.settled().at(3700);
    once_more.decide_on(&gone.after()).is(Revoking).does(&["unmap admin"]);
    once_more.outcome("admin", Removed).decide_on(&gone.after()).is_for(Phase::Expired, "Expired");
}

#[test]
fn what_another_holds_is_left_only_when_nothing_of_this_one_can_arrive() {
    let holder = request("other").active(&[ours("admin")]);
    let world = world(&policy()).at(10).beside(&holder).travels("admin", 100);
    world.decide(&revoking(Ended)).is_for(Revoking, "Settling").does(&[]).next(Next::At(at(100)));
    // The holder ends meanwhile: it goes with this one.
    let alone = self::world(&policy()).at(50).travels("admin", 100);
    alone.decide(&revoking(Ended)).does(&["unmap admin"]);
    world.settled().at(100).decide(&revoking(Ended)).is_for(Phase::Revoked, "Ended");
}

#[test]
fn a_hand_over_does_not_wait_but_the_end_after_it_does() {
    let heir = request("other").active(&[theirs("admin")]);
    let world = world(&policy()).at(10).travels("admin", 100);
    world.clone().beside(&heir).decide(&revoking(Ended)).does(&["hand admin over to other"]);
    let handed_over = request("other").active(&[ours("admin")]);
    let after = world.beside(&handed_over).outcome("admin", HandedOver);
    after.decide(&revoking(Ended)).is_for(Revoking, "Settling").does(&[]);
}

#[test]
fn what_the_subject_had_before_waits_for_nobody() {
    let world = world(&policy()).at(3600).travels("admin", 3700);
    world.decide(&request("fix").revoking(Expired, &[theirs("admin")])).is(Phase::Expired);
}

#[test]
fn access_is_in_place_for_sure_only_when_nothing_can_arrive_any_more() {
    let activating = request("fix").activating(&[ours("admin"), ours("debug")]);
    let world = world(&policy()).at(10).travels("admin", 100);
    let mapped = world.clone().outcome("admin", Mapped).outcome("debug", Mapped).decide(&activating);
    mapped.is_for(Activating, "Settling").says("is in place").does(&[]).next(Next::At(at(100)));
    let states: Vec<_> = mapped.targets().iter().map(|target| target.state).collect();
    assert_eq!(states, [TargetState::Intended, TargetState::Mapped]);
    let settled = world.clone().settled().at(100);
    settled.decide_on(&mapped.after()).is(Activating).does(&["map admin"]);
    settled.outcome("admin", Mapped).decide_on(&mapped.after()).is_for(Active, "Active");
    // The deadline waits for nothing.
    let late = world.travels("admin", 9000).outcome("admin", Mapped).outcome("debug", Mapped).decide(&activating);
    late.next(Next::At(at(3600)));
}
