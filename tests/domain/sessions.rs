//! What follows the removal: sessions end as was recorded, and the status says until when old tokens may carry it.

use std::time::Duration;

use hallpass::{
    api::{
        AtEnd,
        EndReason::{Ended, Expired},
        Phase::{self, Revoking},
        TargetStatus,
    },
    domain::{
        Effect, Instead, Next,
        OutcomeResult::{HandedOver, Removed, SessionsEnded, SessionsLeft},
        Policy, ProblemReason,
    },
};

use super::world::*;

fn ends_all() -> RequestBuilder {
    request("fix").revoking(Expired, &[ours("admin")]).recorded_at_activation(Some(AtEnd::EndAll), Some(300))
}

fn of_client(name: &str, client: &str) -> TargetStatus {
    TargetStatus { client: Some(client.into()), ..ours(name) }
}

fn signed_out(world: &World) -> World {
    world.clone().outcome("", SessionsEnded)
}

#[track_caller]
fn powerless(answer: &Answer) -> Option<i64> {
    let grant = answer.status().grant.as_ref().expect("a grant");
    let ended_at = grant.ended_at.as_ref().expect("an end").0;
    grant.powerless_at.as_ref().map(|time| time.0.as_second() - ended_at.as_second())
}

#[test]
fn what_the_policy_says_is_recorded_when_the_access_begins() {
    let all = policy().client_roles(&[("admin", "checkout"), ("debug", "checkout")]);
    for (said, administers, recorded) in [
        (AtEnd::Keep, false, None),
        (AtEnd::EndClientSessions, false, Some(AtEnd::EndClientSessions)),
        (AtEnd::EndAll, false, Some(AtEnd::EndAll)),
        (AtEnd::Keep, true, Some(AtEnd::EndAll)),
        (AtEnd::EndClientSessions, true, Some(AtEnd::EndAll)),
    ] {
        let policy = all.clone().at_end(said);
        let mut world = world(&policy);
        world.administers = administers;
        let begins = world.decide(&request("fix").approved_by(BOB, &policy).with_finalizer());
        let grant = begins.is(Phase::Activating).status().grant.clone().expect("a grant");
        assert_eq!((grant.sessions, grant.token_lifespan), (recorded, Some(300)), "{said:?}");
    }
    // Nobody waits for somebody to say how long tokens live.
    let mut world = world(&policy());
    world.lifespan = Err("too many clients".into());
    let begins = world.decide(&request("fix").approved_by(BOB, &policy()).with_finalizer());
    assert_eq!(begins.is(Phase::Activating).status().grant.as_ref().expect("a grant").token_lifespan, None);
}

#[test]
fn sessions_end_once_everything_is_gone_and_before_it_is_final() {
    let world = world(&policy()).at(3600);
    world.decide(&ends_all()).is(Revoking).does(&["unmap admin"]);
    let gone = world.clone().outcome("admin", Removed).decide(&ends_all());
    gone.is_for(Revoking, "EndingSessions").does(&["end all sessions after admin"]).next(Next::Now);
    // Killed at any moment from here: the same again, and nothing more to write.
    let later = world.clone().at(3700);
    later.decide_on(&gone.after()).writes_nothing().does(&["end all sessions after admin"]).next(Next::Now);
    let done = signed_out(&later).decide_on(&gone.after());
    done.is_for(Phase::Expired, "Expired").does(&["remove finalizer"]);
    done.says("its time is up; its sessions were ended; tokens issued before may carry it until ");
    let grant = done.status().grant.as_ref().expect("a grant");
    assert_eq!(grant.ended_at.as_ref().map(|time| time.0), Some(at(3600)), "when the mapping was proved gone");
    assert_eq!(powerless(&done), Some(360));
    // Part of it gone is not gone.
    let both = request("fix").revoking(Expired, &[ours("admin"), ours("debug")]);
    let both = both.recorded_at_activation(Some(AtEnd::EndAll), None);
    world.outcome("admin", Removed).fails("debug").decide(&both).is_for(Revoking, "RevocationFailed").does(&[]);
}

#[test]
fn sessions_that_cannot_be_ended_are_tried_again_without_end_and_loudly() {
    let world = world(&policy()).at(3600);
    let gone = world.clone().outcome("admin", Removed).decide(&ends_all()).after();
    let left = |world: &World| world.clone().outcome("", SessionsLeft("403 Forbidden".into()));
    let failed = left(&world).decide_on(&gone);
    failed.is_for(Revoking, "SessionsFailed").does(&[]).says("the access is gone").says("403 Forbidden");
    failed.next(Next::Retry { until: Some(at(3610)) });
    let again = world.clone().at(3605).decide_on(&failed.after());
    again.writes_nothing().does(&["end all sessions after admin"]).next(Next::Now);
    left(&world.clone().at(3605)).decide_on(&failed.after()).writes_nothing();
    let overdue = left(&world.clone().at(3610)).decide_on(&failed.after());
    overdue.is_for(Revoking, "Overdue").says("the access is gone").next(Next::Retry { until: None });
    left(&world.clone().at(99_999)).decide_on(&overdue.after()).writes_nothing();
    let mut released = world.clone().at(99_999);
    released.released = Some("because it is gone for good".into());
    released.decide_on(&overdue.after()).is_for(Phase::Expired, "Expired").says("sessions are given up, because it");
    signed_out(&world.at(99_999)).decide_on(&overdue.after()).is_for(Phase::Expired, "Expired");
}

#[test]
fn only_what_really_goes_ends_sessions() {
    let world = world(&policy()).at(10);
    let kept = |targets: &[TargetStatus]| {
        request("fix").revoking(Ended, targets).recorded_at_activation(Some(AtEnd::EndAll), Some(300))
    };
    let had_it = kept(&[theirs("admin")]);
    let begins = world.decide(&had_it);
    begins.is_for(Phase::Revoked, "Ended").does(&["remove finalizer"]);
    assert_eq!(powerless(&begins), None, "nothing lost its power");
    let beside = world.clone().beside(&request("other").active(&[ours("admin")]));
    beside.decide(&kept(&[ours("admin")])).is_for(Phase::Revoked, "Ended").does(&["remove finalizer"]);
    let heir = beside.outcome("admin", HandedOver);
    heir.decide(&kept(&[ours("admin")])).is_for(Phase::Revoked, "Ended").does(&["remove finalizer"]);
    world.decide(&kept(&[theirs("admin"), removed(ours("debug"))])).does(&["end all sessions after debug"]);
    // Sessions are kept where nothing else was recorded.
    let silent = request("fix").revoking(Ended, &[removed(ours("admin"))]);
    world.decide(&silent).is_for(Phase::Revoked, "Ended").does(&["remove finalizer"]);
}

#[test]
fn sessions_end_of_the_clients_whose_roles_are_gone() {
    let targets = [removed(of_client("a", "one")), removed(of_client("b", "two")), of_client("c", "three")];
    let ends = request("fix").revoking(Ended, &targets);
    let ends = ends.recorded_at_activation(Some(AtEnd::EndClientSessions), Some(60));
    let world = world(&policy()).at(10).beside(&request("other").active(&[of_client("c", "three")]));
    world.decide(&ends).does(&["end sessions of one two after a b"]);
}

#[test]
fn the_longer_of_two_lifespans_counts_and_none_delays_the_end() {
    let ends = |at_activation| {
        request("fix").revoking(Expired, &[removed(ours("admin"))]).recorded_at_activation(None, at_activation)
    };
    let unknown = || Err("Keycloak is away".to_owned());
    let known = |seconds| Ok(Duration::from_secs(seconds));
    for (at_activation, at_the_end, expected, words) in [
        (Some(300), known(60), Some(360), None),
        (Some(60), known(300), Some(360), None),
        (None, known(300), Some(360), None),
        (
            Some(300),
            unknown(),
            Some(360),
            Some("(Keycloak is away), so powerlessAt goes by how it was when the access"),
        ),
        (None, unknown(), None, Some("(Keycloak is away), so powerlessAt is left out")),
    ] {
        let mut world = world(&policy()).at(3600);
        world.lifespan = at_the_end;
        let answer = world.decide(&ends(at_activation));
        answer.is_for(Phase::Expired, "Expired").says("its time is up").says(words.unwrap_or_default());
        assert_eq!(powerless(&answer), expected, "{at_activation:?}");
    }
}

#[test]
fn sessions_end_with_a_forged_status_too() {
    let named = || {
        let mut named = request("fix").active(&[ours("admin")]).recorded_at_activation(Some(AtEnd::EndAll), None);
        named.0.status.as_mut().expect("a status").phase = None;
        named
    };
    let forged = named().forged(&request("fix").in_phase(Phase::Expired), Instead::Named);
    let world = world(&policy()).at(10).without_policy().unguarded();
    world.decide_on(&forged).writes_nothing().does(&["unmap admin"]);
    // Nothing of it stands in the status: what follows brings it along.
    let gone = world.clone().outcome("admin", Removed).decide_on(&forged);
    gone.writes_nothing().does(&["end all sessions after admin"]);
    let Effect::EndSessions { removed, .. } = &gone.decision.effects[0] else { panic!("sessions are ended") };
    let after = |world: &World| removed.iter().fold(world.clone(), |world, name| world.outcome(name, Removed));
    let failed = after(&world).outcome("", SessionsLeft("timeout".into())).decide_on(&forged);
    failed.writes_nothing().does(&[]);
    assert!(matches!(failed.decision.next, Next::Retry { .. }));
    signed_out(&after(&world)).decide_on(&forged).is_for(Phase::Expired, "StatusForged");
}

#[test]
fn sessions_of_clients_end_only_where_all_grants_are_client_roles() {
    let said = policy().client_roles(&[("admin", "checkout")]).at_end(AtEnd::EndClientSessions);
    assert_eq!(said.read().at_end, AtEnd::EndClientSessions);
    let problems = Policy::parse(&said.grant("oncall").0).expect_err("must be refused");
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].reason, ProblemReason::Invalid);
    for words in ["spec.sessions.atEnd EndClientSessions", "\"oncall\" is no client's role", "EndAll or Keep"] {
        assert!(problems[0].message.contains(words), "{problems:?}");
    }
}

#[test]
fn votes_are_for_a_policy_that_may_lend_administration_or_may_not() {
    let mut allows = policy();
    allows.0.spec.allow_admin_roles = true;
    assert_ne!(allows.read().rules, policy().read().rules);
    assert_eq!(policy().at_end(AtEnd::EndAll).read().rules, policy().read().rules);
}
