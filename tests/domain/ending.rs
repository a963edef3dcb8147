//! The end of the access: why, when, and whose mapping stays.

use hallpass::{
    api::{
        EndReason::{self, Deleted, Ended, Expired, PolicyDeleted, PolicySuspended},
        Phase::{self, Active, Revoking},
        TargetState,
    },
    domain::{
        Guard, Next,
        OutcomeResult::{HandedOver, Removed},
    },
};

use super::world::*;

fn active() -> RequestBuilder {
    request("fix").active(&[ours("admin")])
}

/// Checks that access ends for this reason, recorded before anything is removed.
#[track_caller]
fn ends(world: &World, request: &RequestBuilder, cause: EndReason, words: &str) {
    let answer = world.decide(request);
    answer.is_for(Revoking, "Revoking").does(&["unmap admin"]).next(Next::Now).says(words);
    assert_eq!(answer.status().grant.as_ref().expect("a grant").end_reason, Some(cause));
    let done = world.clone().outcome("admin", Removed).decide_on(&answer.after());
    let phase = if cause == Expired { Phase::Expired } else { Phase::Revoked };
    done.is_for(phase, cause.as_str()).says(words).does(&["remove finalizer"]).next(Next::OnChange);
    let grant = done.status().grant.as_ref().expect("a grant");
    assert_eq!(
        (grant.ended_at.as_ref().map(|time| time.0), grant.targets[0].state),
        (Some(world.now), TargetState::Removed)
    );
}

#[test]
fn why_access_ends() {
    let world = world(&policy());
    let in_time = world.clone().at(10);
    for live in [active(), request("fix").activating(&[ours("admin")])] {
        ends(&world.clone().at(3600), &live, Expired, "its time is up");
        ends(&in_time, &live.clone().deleted(), Deleted, "the request was deleted");
        ends(&in_time, &live.clone().ended(ALICE), Ended, "ended by oidc:alice");
        ends(&in_time, &live.clone().ended(BOB), Ended, "ended by oidc:bob");
        ends(&in_time.clone().without_policy(), &live, PolicyDeleted, "policy oncall was deleted");
        ends(&in_time.clone().under(&policy().made_anew()), &live, PolicyDeleted, "policy oncall was deleted");
        ends(&in_time.clone().not_ready(&policy().made_anew()), &live, PolicyDeleted, "policy oncall was deleted");
        ends(&in_time.clone().under(&policy().suspended()), &live, PolicySuspended, "was suspended");
        ends(&in_time.clone().not_ready(&policy().suspended()), &live, PolicySuspended, "was suspended");
    }
    // What comes first is said, also if the time is up meanwhile.
    ends(&world.clone().at(3600), &active().deleted(), Expired, "its time is up");
    let late = world.at(4000).outcome("admin", Removed);
    late.decide(&request("fix").revoking(Ended, &[ours("admin")])).is_for(Phase::Revoked, "Ended");
    let deleted = request("fix").revoking(Expired, &[ours("admin")]).deleted();
    late.decide(&deleted).is_for(Phase::Expired, "Expired").does(&["remove finalizer"]);
}

#[test]
fn what_does_not_end_it() {
    let world = world(&policy()).at(3599);
    for still in [
        world.clone(),
        world.clone().not_ready(&policy()),
        world.clone().under(&policy().serves(BOB)),
        world.clone().under(&policy().at_most("1m")),
        world.clone().under(&policy().automatic()),
        world.clone().nobody(ALICE),
        world.clone().unguarded(),
    ] {
        still.decide(&active()).is(Active).does(&[]).next(Next::At(at(3600)));
    }
    let somebody = world.decide(&active().ended(ERIN));
    somebody.is(Active).does(&[]).next(Next::At(at(3600)));
    assert!(!somebody.status().ends[0].counted);
}

#[test]
fn an_end_waits_for_whoever_can_vouch_for_it() {
    let world = world(&policy()).at(10);
    let retry = Next::Retry { until: Some(at(3600)) };
    let unguarded = world.clone().guard(Guard::Unknown("timeout".into())).decide(&active().ended(ALICE));
    unguarded.is(Active).next(retry);
    assert!(unguarded.status().ends.is_empty());
    let unknown = world.clone().unknown(BOB).decide(&active().ended(BOB));
    unknown.is(Active).next(retry);
    world.clone().unknown(BOB).decide_on(&unknown.after()).writes_nothing().next(retry);
    world.decide_on(&unknown.after()).is(Revoking);
    // A grant that is missing does not keep approvers from ending; who else may end is not known then.
    world.clone().not_ready(&policy()).decide(&active().ended(BOB)).is(Revoking);
    world.clone().not_ready(&policy()).decide(&active().ended(ERIN)).is(Active).next(retry);
    // The requester is known by name.
    world.unknown(ALICE).decide(&active().ended(ALICE)).is(Revoking);
}

#[test]
fn ends_that_do_not_count_take_no_room_from_one_that_does() {
    let crowd = (0..20).fold(active(), |request, _| request.ended(ERIN));
    let full = world(&policy()).at(10).decide(&crowd);
    full.is(Active);
    assert_eq!(full.status().ends.len(), 16);
    world(&policy()).at(10).decide(&crowd.ended(BOB)).is_for(Revoking, "Revoking").says("ended by oidc:bob");
    let mut later = full.after();
    later.signals.extend(request("fix").annotated("end.hallpass.dev/now", BOB).read().signals);
    world(&policy()).at(10).decide_on(&later).is_for(Revoking, "Revoking").says("ended by oidc:bob");
}

#[test]
fn due_needs_nobody() {
    let alone = world(&policy()).without_policy().unguarded().unknown(ALICE).at(3600);
    alone.decide(&active().ended(BOB)).is_for(Revoking, "Revoking").says("its time is up").does(&["unmap admin"]);
}

#[test]
fn what_the_subject_had_before_stays() {
    let request = request("fix").active(&[theirs("admin"), ours("debug")]);
    let answer = world(&policy()).at(3600).decide(&request);
    answer.is(Revoking).does(&["unmap debug"]);
    assert_eq!(answer.targets()[0].state, TargetState::Kept);
    let done = world(&policy()).at(3601).outcome("debug", Removed).decide_on(&answer.after());
    done.is(Phase::Expired)
        .says("its time is up; left in place: admin (there before); tokens issued before may carry it until ");
    assert_eq!(done.targets().iter().map(|t| t.state).collect::<Vec<_>>(), [TargetState::Kept, TargetState::Removed]);
}

#[test]
fn what_is_due_can_be_gone_before_its_status_says_so() {
    let (due, in_time) = (world(&policy()).at(3600), world(&policy()).at(10));
    for live in [active(), request("fix").activating(&[ours("admin")])] {
        let gone = due.clone().outcome("admin", Removed).decide(&live);
        gone.is_for(Phase::Expired, "Expired").says("its time is up").does(&["remove finalizer"]);
        assert_eq!(gone.targets()[0].state, TargetState::Removed);
        due.clone().fails("admin").decide(&live).is_for(Revoking, "RevocationFailed");
        // What ends early is recorded first: nobody would know why afterwards.
        in_time.clone().outcome("admin", Removed).decide(&live.ended(ALICE)).is(Revoking);
    }
    let both = request("fix").active(&[ours("admin"), ours("debug")]);
    due.outcome("admin", Removed).decide(&both).is(Revoking).does(&["unmap debug"]);
}

#[test]
fn access_ends_by_way_of_revoking_also_if_nothing_is_to_be_removed() {
    let answer = world(&policy()).at(3600).decide(&request("fix").active(&[theirs("admin")]));
    answer.is_for(Revoking, "Revoking").does(&[]).next(Next::Now);
    world(&policy()).at(3600).decide_on(&answer.after()).is_for(Phase::Expired, "Expired");
}

#[test]
fn a_revocation_is_tried_again_without_end() {
    let world = world(&policy()).at(3600);
    let revoking = request("fix").revoking(Expired, &[ours("admin"), removed(ours("debug"))]);
    let failed = world.clone().fails("admin").decide(&revoking);
    failed.is_for(Revoking, "RevocationFailed").says("admin: 403 Forbidden").does(&[]);
    failed.next(Next::Retry { until: Some(at(3610)) });
    world.decide_on(&failed.after()).writes_nothing().does(&["unmap admin"]).next(Next::Now);
    world.clone().fails("admin").decide_on(&failed.after()).writes_nothing().does(&[]);
    let overdue = world.clone().at(3610).fails("admin").decide_on(&failed.after());
    overdue.is_for(Revoking, "Overdue").says("without end").next(Next::Retry { until: None });
    world.clone().at(99_999).fails("admin").decide_on(&overdue.after()).writes_nothing();
    world.at(99_999).outcome("admin", Removed).decide_on(&overdue.after()).is(Phase::Expired);
}

#[test]
fn only_a_proof_ends_it() {
    let revoking = request("fix").revoking(Expired, &[ours("admin")]);
    let world = world(&policy()).at(3600);
    world.decide(&revoking).writes_nothing().does(&["unmap admin"]);
    world.outcome("debug", Removed).decide(&revoking).is(Revoking).does(&["unmap admin"]);
}

#[test]
fn the_last_holder_takes_it_away() {
    let world = world(&policy()).at(10);
    let ended = || request("fix").revoking(Ended, &[ours("admin")]);
    let holders = [request("other").active(&[ours("admin")]), request("other").activating(&[ours("admin")])];
    for holder in holders {
        let answer = world.clone().beside(&holder).decide(&ended());
        answer.is_for(Phase::Revoked, "Ended").does(&["remove finalizer"]);
        answer.says("; left in place: admin (held by another request)");
        assert_eq!(answer.targets()[0].state, TargetState::Kept);
    }
    let no_holders = [
        request("other").active(&[ours("debug")]),
        request("other").active(&[ours("admin")]).until(10),
        request("other").active(&[ours("admin")]).deleted(),
        request("other").revoking(Ended, &[ours("admin")]),
        request("other").approved_by(BOB, &policy()),
    ];
    for other in no_holders {
        world.clone().beside(&other).decide(&ended()).is(Revoking).does(&["unmap admin"]);
    }
    let said = world.decide(&request("other").active(&[ours("admin")]).ended(ALICE)).after();
    let mut world = world;
    world.siblings = vec![hallpass::domain::Request {
        status: {
            let mut status = said.status.clone();
            status.phase = Some(Active);
            status
        },
        ..said
    }];
    world.decide(&ended()).is(Revoking).does(&["unmap admin"]);
}

#[test]
fn the_last_owner_hands_over_to_a_holder() {
    let world = world(&policy()).at(10);
    let had_it = || request("heir").active(&[theirs("admin")]);
    let answer = world.clone().beside(&had_it()).decide(&active().ended(ALICE));
    answer.is(Revoking).does(&["hand admin over to heir"]).next(Next::Now);
    let failed = world.clone().beside(&had_it()).fails("admin").decide_on(&answer.after());
    failed.is_for(Revoking, "RevocationFailed").does(&[]);
    let heir = request("heir").active(&[ours("admin")]);
    let done = world.clone().beside(&heir).outcome("admin", HandedOver).decide_on(&answer.after());
    done.is_for(Phase::Revoked, "Ended").does(&["remove finalizer"]);
    // Another owner is enough; nobody has to take over.
    let owner = world.clone().beside(&had_it()).beside(&request("owner").active(&[ours("admin")]));
    owner.decide(&request("fix").revoking(Ended, &[ours("admin")])).is(Phase::Revoked);
    // One that ends itself takes nothing over.
    world.beside(&had_it().deleted()).decide(&active().ended(ALICE)).does(&["unmap admin"]);
}

#[test]
fn a_clock_that_was_set_back_keeps_nothing_alive() {
    let early = world(&policy()).at(10);
    for live in [active(), request("fix").activating(&[ours("admin")])] {
        let answer = early.decide_on(&live.time_is_up());
        answer.is_for(Revoking, "Revoking").does(&["unmap admin"]).says("its time is up");
    }
    // Nobody holds a target any more whose time is up.
    let mut due = early.clone();
    due.siblings = vec![request("other").active(&[ours("admin")]).time_is_up()];
    due.decide(&active().deleted()).is_for(Revoking, "Revoking").does(&["unmap admin"]);
    let mut held = early;
    held.siblings = vec![request("other").active(&[ours("admin")]).read()];
    held.decide(&active().deleted()).is_for(Revoking, "Revoking").does(&[]);
    // Without a deadline there is nothing that could be up.
    world(&policy()).decide_on(&request("fix").time_is_up()).is(Phase::Pending);
}

#[test]
fn what_the_configuration_gives_up_is_over_without_proof_and_says_so() {
    let mut world = world(&policy()).at(3600).fails("admin");
    world.released = Some("as release.realms of the operator's configuration says (realm)".into());
    let request = request("fix").revoking(Expired, &[ours("admin"), theirs("debug")]);
    let over = world.decide(&request);
    over.is_for(Phase::Expired, "Released").says("release.realms").does(&["remove finalizer"]);
    over.says("alice may still have");
    let states: Vec<_> = over.targets().iter().map(|target| target.state).collect();
    assert_eq!(states, [TargetState::Released, TargetState::Kept]);
    assert_eq!(over.status().grant.as_ref().and_then(|grant| grant.ended_at.clone()), None);
    // It is tried at least once.
    let mut untried = world.clone();
    untried.outcomes.clear();
    untried.decide(&request).does(&["unmap admin"]);
    let gone = untried.clone().outcome("admin", Removed).decide(&request);
    gone.is_for(Phase::Expired, "Expired");
    // Nothing more is given there.
    let asked = self::request("fix").approved_automatically(&policy().automatic()).with_finalizer();
    let mut given_up = self::world(&policy().automatic());
    given_up.decide(&asked).is(Phase::Activating);
    given_up.released.clone_from(&world.released);
    given_up.decide(&asked).is_for(Phase::Approved, "Released").says("release.realms").does(&[]);
    // Who holds it still owns it: that needs no proof.
    let heir = self::request("heir").active(&[theirs("admin")]);
    let mut heirs = world.clone().at(10).beside(&heir);
    heirs.outcomes.clear();
    heirs.decide(&request).does(&["hand admin over to heir"]);
    heirs.siblings = vec![self::request("owner").active(&[ours("admin")]).read()];
    let kept = heirs.decide(&request);
    kept.is_for(Phase::Expired, "Expired").does(&["remove finalizer"]);
    assert!(kept.targets().iter().all(|target| target.state == TargetState::Kept));
    // What is live is not given up before its time.
    world.at(10).decide(&self::request("fix").active(&[ours("admin")])).is(Active);
}

#[test]
fn a_finalizer_that_was_taken_off_comes_back_while_there_is_access() {
    let mut request = active().read();
    request.has_finalizer = false;
    world(&policy()).at(10).decide_on(&request).is(Active).does(&["add finalizer"]);
}
