//! From the first look to Pending: what a policy asks of a request, and what a request waits for.

use hallpass::{
    api::Phase::{Approved, Pending, Rejected, Revoked, TimedOut},
    domain::{Guard, Next},
};

use super::world::*;

#[test]
fn a_request_waits_for_votes_and_says_how_to_vote() {
    let policy = policy();
    let answer = world(&policy).decide(&request("fix"));
    answer.is_for(Pending, "WaitingForVotes").does(&[]).next(Next::At(at(3600)));
    answer.says("1 approval in stage lead by Group oidc:/payments/leads");
    answer.says("kubectl annotate accessrequest fix -n team approve.hallpass.dev/b1.lead.1=YOUR-USERNAME");
    let status = answer.status();
    assert_eq!(status.ballot.as_deref(), Some("b1"));
    assert_eq!(status.rules, Some(policy.read().rules));
    assert_eq!(status.subject, Some(alice()));
    assert_eq!(status.grants.as_deref(), Some("admin"));
    assert_eq!(status.observed_generation, Some(1));
}

#[test]
fn with_the_stamp_yes_is_enough() {
    let stamped = world(&policy()).guard(Guard::InForce { epoch: "first".into(), since: at(-60), stamp: true });
    stamped.decide(&request("fix")).says("lead.1=yes");
}

#[test]
fn an_automatic_policy_needs_no_votes() {
    let policy = policy().automatic();
    let answer = world(&policy).decide(&request("fix"));
    answer.is_for(Approved, "Approved").does(&[]).next(Next::Now);
    assert_eq!(answer.status().ballot, None);
    assert_eq!(answer.status().approved_by.as_deref(), Some("policy oncall (automatic)"));
}

#[test]
fn a_rejection_names_every_broken_rule() {
    let policy = policy().serves(BOB).only_in("elsewhere").at_most("30m").wants_reason("^INC-", "the incident");
    let asked = request("fix").wants(&["root", "admin", "toor"]).lasting("1h").because("please");
    let answer = world(&policy).decide(&asked);
    answer.is_for(Rejected, "Rejected").does(&[]).next(Next::OnChange);
    answer.says("oidc:alice may not ask under policy oncall: it serves User oidc:bob");
    answer.says("policy oncall serves the namespaces elsewhere, not team");
    answer.says("policy oncall has no grant root, toor; it has admin, debug");
    answer.says("spec.duration 1h is longer than the 30m that policy oncall allows");
    answer.says("spec.reason \"please\" must match ^INC- (the incident)");
}

#[test]
fn a_rejection_by_a_suspended_policy_names_the_other_rules_too() {
    let policy = policy().suspended();
    let answer = world(&policy).decide(&request("fix").wants(&["root"]));
    answer.is(Rejected).says("policy oncall is suspended").says("policy oncall has no grant root");
}

#[test]
fn a_missing_reason_is_asked_for() {
    let policy = policy().wants_reason("^INC-", "the incident");
    world(&policy).decide(&request("fix")).is(Rejected).says("policy oncall wants spec.reason: the incident");
    world(&policy).decide(&request("fix").because("INC-1\n")).is(Pending);
}

#[test]
fn a_spec_that_was_changed_after_all_gives_nothing() {
    let mut changed = request("fix").approved_by(BOB, &policy()).with_finalizer();
    changed.0.metadata.generation = Some(2);
    world(&policy()).decide(&changed).is_for(Rejected, "SpecChanged").says("ask again").does(&["remove finalizer"]);
    changed.0.status = None;
    world(&policy()).decide(&changed).is_for(Rejected, "SpecChanged");
    // A deletion counts as well, and is one.
    world(&policy()).decide(&changed.deleted()).is_for(Revoked, "Deleted");
}

#[test]
fn a_request_without_a_requester_is_refused() {
    let mut asked = request("fix");
    asked.0.spec.requester = None;
    world(&policy()).decide(&asked).is(Rejected).says("spec.requester is missing");
}

#[test]
fn a_requester_who_leads_to_nobody_is_refused() {
    world(&policy()).nobody(ALICE).decide(&request("fix")).is(Rejected).says("leads to a disabled user");
}

#[test]
fn a_requester_counts_by_the_groups_that_keycloak_knows() {
    world(&policy()).moves(ALICE, &[LEADS]).decide(&request("fix")).is(Rejected).says("may not ask");
}

#[test]
fn while_keycloak_cannot_say_who_asks_the_request_waits() {
    let answer = world(&policy()).unknown(ALICE).decide(&request("fix").not_after(1800));
    answer.is_for(Pending, "KeycloakUnavailable").next(Next::Retry { until: Some(at(1800)) });
    assert_eq!(answer.status().ballot, None, "nothing is pinned before everything is known");
    let broken = world(&policy()).unknown(ALICE).decide(&request("fix").wants(&["root"]));
    broken.is(Rejected).says("no grant root");
}

#[test]
fn a_request_waits_a_minute_for_its_policy() {
    let policy = policy();
    let asked = request("fix");
    let waiting = world(&policy).without_policy().at(59).decide(&asked);
    waiting.is_for(Pending, "PolicyNotFound").next(Next::At(at(60))).says("until 2026-11-23T12:01:00Z");
    world(&policy).at(59).decide_on(&waiting.after()).is_for(Pending, "WaitingForVotes");
    let late = world(&policy).without_policy().at(60);
    late.decide_on(&waiting.after()).is_for(Rejected, "PolicyNotFound").says("there is no policy \"oncall\"");
    late.decide(&asked).is_for(Rejected, "PolicyNotFound");
}

#[test]
fn a_policy_that_is_not_ready_is_waited_for() {
    let policy = policy();
    let answer = world(&policy).not_ready(&policy).at(300).decide(&request("fix"));
    answer.is_for(Pending, "PolicyNotReady").says("no such role").next(Next::Retry { until: Some(at(3600)) });
    let late = world(&policy).not_ready(&policy).at(3600).decide_on(&answer.after());
    late.is_for(TimedOut, "TimedOut").says("nobody decided within 1h").says("no such role");
    world(&policy).not_ready(&policy.suspended()).decide(&request("fix")).is(Rejected).says("suspended");
}

#[test]
fn what_was_made_before_the_admission_policies_were_in_force_is_not_believed() {
    let since =
        |seconds| world(&policy()).guard(Guard::InForce { epoch: "first".into(), since: at(seconds), stamp: false });
    since(-2).decide(&request("fix")).is(Pending);
    since(-1).decide(&request("fix")).is(Pending);
    since(0).decide(&request("fix")).is_for(Rejected, "NotAuthenticated").says("create it again");
    since(60).decide(&request("fix")).is_for(Rejected, "NotAuthenticated");
    since(60).decide(&request("fix").pending(&policy())).is(Pending);
}

#[test]
fn what_was_made_while_they_were_not_in_force_is_not_believed() {
    let answer = world(&policy()).unguarded().decide(&request("fix"));
    answer.is_for(Rejected, "NotAuthenticated").says("hallpass-identity was deleted");
}

#[test]
fn while_the_api_server_cannot_say_nobody_has_looked() {
    let answer = world(&policy()).guard(Guard::Unknown("timeout".into())).decide(&request("fix"));
    answer.writes_nothing().does(&[]).next(Next::Retry { until: None });
}

#[test]
fn a_request_that_was_seen_waits_for_the_admission_policies() {
    for guard in [Guard::NotInForce("edited".into()), Guard::Unknown("timeout".into())] {
        let answer = world(&policy()).guard(guard).decide(&request("fix").pending(&policy()).voted(BOB, "lead"));
        answer.is_for(Pending, "AdmissionPoliciesNotInForce");
        assert!(answer.status().votes.is_empty(), "a vote that nobody vouches for");
    }
}

#[test]
fn nobody_answers_in_time() {
    let asked = request("fix").pending(&policy());
    let waiting = world(&policy()).at(3599).decide(&asked);
    waiting.is(Pending).next(Next::At(at(3600))).says(&format!("). Undecided, it times out at {}", at(3600)));
    let answer = world(&policy()).at(3600).decide(&asked);
    answer.is_for(TimedOut, "TimedOut").says("nobody decided within 1h: waiting for 1 approval in stage lead");
}

#[test]
fn not_after_passes_before_the_access() {
    let asked = request("fix").not_after(600);
    let waiting = world(&policy()).at(599).decide(&asked);
    waiting.is(Pending).next(Next::At(at(600))).says(&format!("times out at {}", at(600)));
    for asked in [asked.clone(), asked.clone().pending(&policy()), asked.approved_by(BOB, &policy())] {
        world(&policy()).at(600).decide(&asked).is_for(TimedOut, "TimedOut").says("notAfter");
    }
}

#[test]
fn deleted_before_the_access() {
    let policy = policy();
    for asked in [
        request("fix"),
        request("fix").in_phase(Pending),
        request("fix").pending(&policy),
        request("fix").approved_by(BOB, &policy),
    ] {
        let answer = world(&policy).decide(&asked.clone().deleted().with_finalizer());
        answer.is_for(Revoked, "Deleted").does(&["remove finalizer"]);
        world(&policy).unguarded().decide(&asked.deleted()).is_for(Revoked, "Deleted").does(&[]);
    }
}

#[test]
fn withdrawn_before_the_access() {
    let policy = policy();
    for asked in [request("fix"), request("fix").pending(&policy), request("fix").approved_by(BOB, &policy)] {
        for by in [ALICE, BOB] {
            let answer = world(&policy).decide(&asked.clone().ended(by));
            answer.is_for(Revoked, "Ended").says(&format!("withdrawn by {by}"));
        }
        let answer = world(&policy).decide(&asked.ended(ERIN));
        assert!(!answer.status().ends[0].counted, "{:?}", answer.status().ends);
    }
}

#[test]
fn the_policy_goes_while_a_request_waits() {
    let policy = policy();
    for asked in [request("fix").pending(&policy), request("fix").approved_by(BOB, &policy).not_before(600)] {
        let world = world(&policy);
        let deleted = world.clone().without_policy().decide(&asked);
        deleted.is_for(Rejected, "PolicyDeleted").says("policy oncall was deleted; ask again");
        let anew = world.clone().under(&policy.clone().made_anew()).decide(&asked);
        anew.is_for(Rejected, "PolicyDeleted").says("a re-created policy is another policy");
        let anew = world.clone().not_ready(&policy.clone().made_anew()).decide(&asked);
        anew.is_for(Rejected, "PolicyDeleted");
        world.clone().under(&policy.clone().suspended()).decide(&asked).is(Rejected).says("policy oncall is suspended");
        let phase = asked.read().phase();
        let waits = world.not_ready(&policy).decide(&asked);
        assert_eq!((waits.status().phase, waits.word().as_str()), (phase, "PolicyNotReady"));
    }
}

#[test]
fn what_a_policy_said_when_it_was_seen_first_is_what_counts() {
    // given: a request that is seen while its policy is not ready
    let seen = world(&policy()).not_ready(&policy()).decide(&request("fix"));
    seen.is_for(Pending, "PolicyNotReady");
    // when: by the time it is, nobody has to agree any more, or it is another one
    let automatic = world(&policy().automatic()).decide_on(&seen.after());
    automatic.is_for(Rejected, "RulesChanged").says("ask again");
    let again = world(&policy().made_anew()).decide_on(&seen.after());
    again.is_for(Rejected, "PolicyDeleted").says("made anew");
    world(&policy()).decide_on(&seen.after()).is_for(Pending, "WaitingForVotes");
}
