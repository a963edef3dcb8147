//! Approved, or about to be: at activation everything is asked again; then the finalizer, then the intent.

use hallpass::{
    api::{
        EndReason,
        Phase::{Activating, Approved, Denied, Pending, Rejected, Revoked, TimedOut},
        VoteDecision::{Approve, Deny},
    },
    domain::{Guard, Next, Observed, OutcomeResult, TargetsError, decide},
};

use super::world::*;

/// Agreed by Bob, and ready to be activated.
fn agreed() -> RequestBuilder {
    request("fix").approved_by(BOB, &policy()).with_finalizer()
}

/// The targets that an activation records, as name and `preExisting`.
fn intends(answer: &Answer) -> Vec<(&str, bool)> {
    answer.targets().iter().map(|target| (target.name.as_str(), target.pre_existing)).collect()
}

#[test]
fn the_deadline_and_the_targets_are_recorded_before_anything_is_mapped() {
    let answer = world(&policy()).at(5).decide(&agreed());
    answer.is_for(Activating, "Activating").does(&["map admin"]).next(Next::Now);
    let grant = answer.status().grant.clone().expect("a grant");
    assert_eq!((grant.starts_at.0, grant.deadline.0), (at(5), at(3605)));
    assert_eq!(intends(&answer), [("admin", false)]);
    assert_eq!(answer.status().subject.as_ref().and_then(|subject| subject.url.as_deref()), Some(URL), "where");
    assert_eq!(answer.status().ends_at.as_deref(), Some("2026-11-23T13:00:05Z"));
}

#[test]
fn the_finalizer_comes_first() {
    let answer = world(&policy()).decide(&request("fix").approved_by(BOB, &policy()));
    answer.is_for(Activating, "Activating").does(&["add finalizer", "map admin"]).next(Next::Now);
    // What is not given has none: it goes when it is deleted, whoever is there.
    let later = request("fix").not_before(600);
    let waits = world(&policy()).decide(&later.pending(&policy()).voted(BOB, "lead"));
    waits.is_for(Approved, "WaitingForStart").does(&[]);
}

/// Pending, with Bob's vote just cast.
fn voted() -> RequestBuilder {
    request("fix").pending(&policy()).voted(BOB, "lead")
}

#[test]
fn what_is_agreed_is_given_in_the_same_step() {
    let answer = world(&policy()).at(5).decide(&voted());
    answer.is_for(Activating, "Activating").does(&["add finalizer", "map admin"]).next(Next::Now);
    assert_eq!(intends(&answer), [("admin", false)]);
    assert_eq!(answer.status().approved_by.as_deref(), Some(BOB), "who agreed is on record with it");
    assert!(answer.status().votes[0].counted);
    assert_eq!(answer.status().subject.as_ref().and_then(|subject| subject.url.as_deref()), Some(URL), "where");
    let before = world(&policy()).keycloak_has("admin").decide(&voted());
    before.is(Activating).does(&["add finalizer", "confirm admin"]);
    assert_eq!(intends(&before), [("admin", true)]);
}

#[test]
fn what_stands_in_the_way_is_said_once_it_is_approved() {
    let mut asked = policy();
    let world = world(&asked);
    let [mut away, mut refused, mut given_up, mut moved] = [world.clone(), world.clone(), world.clone(), world.clone()];
    away.targets_error = Some(TargetsError::Unknown("keycloak is away".into()));
    refused.targets_error = Some(TargetsError::Refused(vec!["grant admin is gone".into()]));
    given_up.released = Some("release.realms".into());
    moved.realm_id = "another";
    let other = request("other").revoking(EndReason::Ended, &[ours("admin")]);
    for (case, world, asked) in [
        ("its grants cannot be seen", away, voted()),
        ("its grants cannot be given", refused, voted()),
        ("it is given up", given_up, voted()),
        ("the subject was another one when it was pinned", moved, voted()),
        ("the clocks differ", world.clone().clocks_differ(), voted()),
        ("the same is being taken away", world.clone().beside(&other), voted()),
        (
            "nobody looked what it would get",
            world.clone(),
            request("fix").pending(&policy()).recorded(BOB, "lead", Approve),
        ),
        ("it begins later", world.clone(), voted().not_before(600)),
    ] {
        let answer = world.decide(&asked);
        answer.is(Approved).does(&[]);
        assert!(answer.status().grant.is_none(), "{case}");
    }
    // Whoever has looked all the same.
    let later = voted().not_before(600).read();
    let observed = Observed { targets: Some(Ok(Vec::new())), ..world.observed(&later) };
    let status = decide(&later, &observed, at(0)).status.expect("news");
    assert_eq!((status.phase, status.grant), (Some(Approved), None));
    asked = asked.wants_done(&["UPDATE_PASSWORD"]);
    let gated = super::world::world(&asked).decide(&request("fix").pending(&asked).voted(BOB, "lead"));
    gated.is(Approved).does(&[]);
}

#[test]
fn how_long() {
    let ends = |policy: &PolicyBuilder, asked: RequestBuilder| {
        let asked = asked.approved_by(BOB, policy).with_finalizer();
        world(policy).decide(&asked).is(Activating).status().ends_at.clone().expect("an end")
    };
    assert_eq!(ends(&policy(), request("fix").lasting("2h")), "2026-11-23T14:00:00Z");
    assert_eq!(ends(&policy(), request("fix")), "2026-11-23T13:00:00Z", "an hour if nobody says");
    assert_eq!(ends(&policy().at_most("30m"), request("fix")), "2026-11-23T12:30:00Z", "or the maximum");
    assert_eq!(ends(&policy(), request("fix").not_after(60)), "2026-11-23T12:01:00Z", "never past notAfter");
    assert_eq!(ends(&policy(), request("fix").not_after(7200)), "2026-11-23T13:00:00Z");
}

#[test]
fn the_clock_starts_at_activation() {
    let asked = request("fix").not_before(600).approved_by(BOB, &policy()).with_finalizer();
    let waiting = world(&policy()).decide(&asked);
    waiting.is_for(Approved, "WaitingForStart").does(&[]).next(Next::At(at(600)));
    let answer = world(&policy()).at(600).decide(&asked);
    assert_eq!(answer.is(Activating).status().ends_at.as_deref(), Some("2026-11-23T13:10:00Z"));
}

#[test]
fn all_grants_if_none_is_named() {
    let answer = world(&policy()).decide(&agreed().wants(&[]));
    answer.is(Activating).does(&["map admin", "map debug"]);
}

#[test]
fn everything_is_asked_again() {
    let world = world(&policy());
    let at_once = [
        (world.clone().moves(ALICE, &[]), "may not ask"),
        (world.clone().nobody(ALICE), "leads to a disabled user"),
        (world.clone().under(&policy().suspended()), "is suspended"),
        (world.clone().under(&policy().only_in("elsewhere")), "serves the namespaces elsewhere"),
        (world.clone().under(&policy().made_anew()), "a re-created policy is another policy"),
        (world.clone().without_policy(), "was deleted"),
    ];
    for (changed, why) in at_once {
        changed.decide(&agreed()).is(Rejected).says(why).does(&["remove finalizer"]);
    }
    let shorter = world.clone().under(&policy().at_most("30m"));
    shorter.decide(&agreed().lasting("1h")).is(Rejected).says("longer than the 30m");
    world.clone().under(&policy().stage("more", 1, &[LEADS])).decide(&agreed()).is_for(Pending, "RulesChanged");
    let voters = [world.clone().moves(BOB, &[]), world.clone().nobody(BOB)];
    for changed in voters {
        let answer = changed.decide(&agreed());
        answer.is_for(Pending, "WaitingForVotes");
        assert_eq!(answer.status().approved_by, None);
        assert!(!answer.status().votes[0].counted && answer.status().votes[0].why.is_some());
        changed.clone().at(3600).decide(&agreed()).is(TimedOut);
    }
    world.decide(&agreed().recorded(DAVE, "lead", Deny)).is(Denied);
}

#[test]
fn what_cannot_be_asked_is_waited_for() {
    let world = world(&policy());
    let away = || TargetsError::Unknown("keycloak is away".into());
    let mut targets = world.clone();
    targets.targets_error = Some(away());
    let waits = [
        (world.clone().unknown(ALICE), "KeycloakUnavailable"),
        (world.clone().unknown(BOB), "KeycloakUnavailable"),
        (targets, "KeycloakUnavailable"),
        (world.clone().not_ready(&policy()), "PolicyNotReady"),
        (world.clone().unguarded(), "AdmissionPoliciesNotInForce"),
        (world.clone().guard(Guard::Unknown("timeout".into())), "AdmissionPoliciesNotInForce"),
        (world.clone().clocks_differ(), "ClocksDiffer"),
    ];
    for (world, word) in waits {
        let answer = world.decide(&agreed().not_after(600));
        answer.is_for(Approved, word).does(&[]).next(Next::Retry { until: Some(at(600)) });
    }
}

#[test]
fn grants_that_cannot_be_given_are_refused() {
    let mut world = world(&policy());
    world.targets_error =
        Some(TargetsError::Refused(vec!["grant a is gone".into(), "grant b reaches realm-admin".into()]));
    world.decide(&agreed()).is(Rejected).says("grant a is gone; grant b reaches realm-admin");
}

#[test]
fn the_name_leads_to_somebody_else_now() {
    let mut other = world(&policy());
    other.people.insert(ALICE.into(), other.people[ERIN].clone());
    let other = other.moves(ALICE, &[PAYMENTS]);
    other.decide(&agreed()).is_for(Rejected, "SubjectChanged").says("ask again");
}

#[test]
fn the_realm_is_another_one_now() {
    let mut other = world(&policy());
    other.realm_id = "a realm of the same name";
    other.decide(&agreed()).is_for(Rejected, "SubjectChanged").says("ask again");
}

#[test]
fn what_the_subject_had_before_is_not_mapped() {
    let answer = world(&policy()).keycloak_has("admin").decide(&agreed().wants(&["admin", "debug"]));
    assert_eq!(intends(&answer), [("admin", true), ("debug", false)]);
    answer.does(&["confirm admin", "map debug"]);
}

#[test]
fn what_is_there_because_of_another_request_is_ours() {
    let present = world(&policy()).keycloak_has("admin");
    let siblings = [
        (request("other").activating(&[ours("admin")]), false),
        (request("other").active(&[ours("admin")]), false),
        (request("other").active(&[theirs("admin")]), true),
        (request("other").active(&[ours("debug")]), true),
        (request("other").pending(&policy()), true),
    ];
    for (sibling, pre_existing) in siblings {
        let answer = present.clone().beside(&sibling).decide(&agreed());
        assert_eq!(intends(&answer), [("admin", pre_existing)]);
    }
}

#[test]
fn what_is_not_there_is_ours_whatever_others_say() {
    for sibling in [request("other").active(&[theirs("admin")]), request("other").active(&[ours("admin")])] {
        let answer = world(&policy()).beside(&sibling).decide(&agreed());
        assert_eq!(intends(&answer), [("admin", false)]);
        answer.does(&["map admin"]);
    }
}

#[test]
fn an_activation_waits_while_the_same_target_is_being_taken_away() {
    let revoking = |target| request("other").revoking(EndReason::Ended, &[target]);
    let world = world(&policy()).keycloak_has("admin");
    for finalizer in [agreed(), request("fix").approved_by(BOB, &policy())] {
        let answer = world.clone().beside(&revoking(ours("admin"))).decide(&finalizer);
        answer.is_for(Approved, "WaitingForRevocation").does(&[]).says("team/other");
        answer.next(Next::Retry { until: None });
    }
    world.clone().beside(&revoking(ours("debug"))).decide(&agreed()).is(Activating);
    // What is due is being taken away, also if its status does not say so yet.
    let due = request("other").active(&[ours("admin")]);
    let late = world.at(3600).beside(&due).decide(&agreed());
    late.is_for(Approved, "WaitingForRevocation").says("team/other");
}

#[test]
fn the_rest_of_activating() {
    let activating = || request("fix").activating(&[ours("admin"), ours("debug")]);
    let world = world(&policy());
    // After a crash: what was intended is done again.
    world.decide(&activating()).writes_nothing().does(&["map admin", "map debug"]).next(Next::Now);
    let half = world.clone().outcome("admin", OutcomeResult::Mapped).fails("debug").decide(&activating());
    half.is_for(Activating, "MappingFailed").says("debug: 403 Forbidden").does(&[]);
    half.next(Next::Retry { until: Some(at(3600)) });
    // Trying again says nothing new, and failing again neither.
    world.decide_on(&half.after()).writes_nothing().does(&["map debug"]);
    world.clone().fails("debug").decide_on(&half.after()).writes_nothing().does(&[]);
    let done = world.outcome("debug", OutcomeResult::Mapped).decide_on(&half.after());
    done.is_for(hallpass::api::Phase::Active, "Active").does(&[]).next(Next::At(at(3600)));
}

#[test]
fn nothing_is_mapped_while_the_admission_policies_are_away() {
    let activating = request("fix").activating(&[ours("admin"), ours("debug")]);
    let waits = world(&policy()).unguarded().outcome("admin", OutcomeResult::Mapped).decide(&activating);
    waits.is_for(Activating, "AdmissionPoliciesNotInForce").does(&[]).next(Next::Retry { until: Some(at(3600)) });
    assert_eq!(waits.targets(), [mapped(ours("admin")), ours("debug")]);
    world(&policy()).unguarded().decide_on(&waits.after()).writes_nothing().does(&[]);
    world(&policy()).decide_on(&waits.after()).does(&["map debug"]);
    // It ends all the same.
    world(&policy()).unguarded().at(3600).decide_on(&waits.after()).does(&["unmap admin", "unmap debug"]);
}

#[test]
fn nothing_is_mapped_while_clocks_differ_and_what_is_due_goes() {
    let activating = request("fix").activating(&[ours("admin")]);
    let waits = world(&policy()).clocks_differ().decide(&activating);
    waits.is_for(Activating, "ClocksDiffer").does(&[]).next(Next::Retry { until: Some(at(3600)) }).says("40 s behind");
    world(&policy()).decide_on(&waits.after()).does(&["map admin"]);
    world(&policy()).clocks_differ().at(3600).decide_on(&waits.after()).does(&["unmap admin"]);
}

#[test]
fn what_was_there_and_is_gone_is_recorded_as_ours_before_it_is_mapped() {
    let world = world(&policy());
    let activating = request("fix").activating(&[theirs("admin")]);
    world.decide(&activating).writes_nothing().does(&["confirm admin"]);
    let there = world.clone().outcome("admin", OutcomeResult::Mapped).decide(&activating);
    there.is(hallpass::api::Phase::Active);
    assert_eq!(there.targets(), [mapped(theirs("admin"))]);
    let gone = world.outcome("admin", OutcomeResult::Missing).decide(&activating);
    gone.is(Activating).does(&["map admin"]);
    assert_eq!(gone.targets(), [ours("admin")], "recorded in the same decision, and so written first");
}

#[test]
fn an_end_that_cannot_be_judged_yet_is_not_forgotten_when_the_access_is_in_place() {
    let world = world(&policy()).unknown(BOB).outcome("admin", OutcomeResult::Mapped);
    let answer = world.decide(&request("fix").activating(&[ours("admin")]).ended(BOB));
    answer.is(hallpass::api::Phase::Active).next(Next::Retry { until: Some(at(3600)) });
}

#[test]
fn an_end_that_cannot_be_judged_yet_is_not_forgotten_while_the_start_is_waited_for() {
    let asked = request("fix").not_before(600).approved_by(BOB, &policy()).ended(BOB);
    let answer = world(&policy()).unknown(BOB).decide(&asked);
    answer.is(Approved).next(Next::Retry { until: Some(at(600)) });
    world(&policy()).decide_on(&answer.after()).is(Revoked);
}
