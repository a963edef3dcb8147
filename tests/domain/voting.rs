//! Votes: who counts, in which stage, on which ballot.

use hallpass::{
    api::{
        Phase::{Activating, Active, Approved, Denied, Pending, Rejected, Revoking},
        VoteDecision::{Approve, Deny},
    },
    domain::{Guard, Lookup, Next},
};

use super::world::*;

/// Whether each recorded vote counts, and why not.
fn votes(answer: &Answer) -> Vec<(&str, bool, &str)> {
    let votes = &answer.status().votes;
    votes.iter().map(|vote| (vote.by.as_str(), vote.counted, vote.why.as_deref().unwrap_or_default())).collect()
}

fn asked() -> RequestBuilder {
    request("fix").pending(&policy())
}

#[test]
fn one_vote_is_enough_for_one_stage() {
    let answer = world(&policy()).decide(&asked().voted(BOB, "lead"));
    answer.is(Activating).next(Next::Now);
    assert_eq!(answer.status().approved_by.as_deref(), Some(BOB));
    let vote = &answer.status().votes[0];
    assert_eq!((vote.user_id.as_deref(), vote.at.0), (Some("bob"), at(0)));
    assert_eq!(vote.key, "approve.hallpass.dev/b0.lead.0");
}

#[test]
fn a_vote_stays_when_its_annotation_is_taken_away() {
    world(&policy()).decide(&asked().recorded(BOB, "lead", Approve)).is(Approved);
}

#[test]
fn votes_are_not_counted_without_the_admission_policies() {
    let answer = world(&policy()).unguarded().decide(&asked().recorded(BOB, "lead", Approve));
    answer.is_for(Pending, "AdmissionPoliciesNotInForce");
}

#[test]
#[expect(clippy::large_stack_arrays, reason = "a table is read best in one piece")]
fn who_may_not_vote() {
    let world = world(&policy());
    for (case, asked, why) in [
        (world.clone(), asked().voted(ERIN, "lead"), "oidc:erin is not an approver of stage lead"),
        (world.clone(), asked().voted(CAROL, "lead"), "is not an approver of stage lead"),
        (world.clone(), asked().voted(BOB, "boss"), "the policy has no stage boss"),
        (world.clone(), asked().voted(ALICE, "lead"), "is the requester's own Keycloak user"),
        (world.clone(), asked().voted(ALICES_OTHER_NAME, "lead"), "is the requester's own Keycloak user"),
        (world.clone().nobody(BOB), asked().voted(BOB, "lead"), "leads to a disabled user"),
        (world.clone().unknown(BOB), asked().voted(BOB, "lead"), "not counted yet: keycloak is away"),
        (world.clone().moves(BOB, &[]), asked().voted(BOB, "lead"), "is not an approver of stage lead"),
        (world.clone(), asked().denied(ERIN, "lead"), "is not an approver of stage lead"),
        (world.clone(), asked().denied(ALICES_OTHER_NAME, "lead"), "is the requester's own Keycloak user"),
    ] {
        let answer = case.decide(&asked);
        answer.is_for(Pending, "WaitingForVotes");
        let [(_, counted, said)] = votes(&answer)[..] else { panic!("{:?}", votes(&answer)) };
        assert!(!counted && said.contains(why), "{said:?}, not {why:?}");
    }
}

#[test]
fn an_approver_may_be_named() {
    let policy = policy().no_stages().stage("lead", 1, &[ERIN]);
    world(&policy).decide(&request("fix").pending(&policy).voted(ERIN, "lead")).is(Activating);
    world(&policy).decide(&request("fix").pending(&policy).voted(BOB, "lead")).is(Pending);
}

#[test]
fn a_vote_that_could_not_be_counted_is_looked_at_again() {
    let waiting = world(&policy()).unknown(BOB).decide(&asked().voted(BOB, "lead"));
    waiting.is(Pending).next(Next::Retry { until: Some(at(3600)) });
    world(&policy()).decide_on(&waiting.after()).is(Approved);
}

#[test]
fn a_vote_is_of_the_keycloak_user_who_cast_it() {
    let counted = world(&policy()).clocks_differ().decide(&asked().voted(BOB, "lead"));
    counted.is(Approved);
    let refused = world(&policy()).decide(&asked().voted(ERIN, "lead"));
    for (voter, vote) in [(BOB, counted), (ERIN, refused)] {
        let mut later = world(&policy());
        let Some(Lookup::Person(person)) = later.people.get_mut(voter) else { panic!("{voter} is there") };
        person.id = "somebody else".into();
        person.groups.insert(LEADS.into());
        let answer = later.decide_on(&vote.after());
        answer.is(Pending);
        let why = answer.status().votes[0].why.clone().unwrap_or_default();
        assert!(why.contains("leads to another Keycloak user"), "{voter}: {why}");
    }
}

#[test]
fn a_deny_that_could_not_be_counted_holds_the_approval() {
    let asked = asked().voted(BOB, "lead").denied(DAVE, "lead");
    world(&policy()).unknown(DAVE).decide(&asked).is_for(Pending, "KeycloakUnavailable").says("keycloak is away");
    world(&policy()).decide(&asked).is(Denied);
}

#[test]
fn one_deny_is_final_in_any_stage_and_beside_any_approval() {
    let policy = policy().stage("security", 1, &[SECURITY]);
    let asked = request("fix").pending(&policy).recorded(BOB, "lead", Approve);
    let answer = world(&policy).decide(&asked.denied(CAROL, "security"));
    answer.is_for(Denied, "Denied").says("denied by oidc:carol in stage security").does(&[]).next(Next::OnChange);
}

#[test]
fn every_stage_must_be_satisfied_by_distinct_people() {
    let policy = policy().stage("security", 1, &[SECURITY]);
    let asked = request("fix").pending(&policy);
    let world = world(&policy);
    world.decide(&asked.clone().voted(BOB, "lead")).is(Pending).says("stage security");
    let both = world.decide(&asked.clone().voted(DAVE, "lead").voted(DAVE, "security"));
    both.is(Pending).says("1 approval in stage");
    assert_eq!(both.status().votes.iter().filter(|vote| vote.counted).count(), 1);
    world.decide(&asked.clone().voted(BOB, "lead").voted(CAROL, "security")).is(Activating);
    // Dave could be placed in either stage: the one that nobody else fills.
    let placed = asked.voted(DAVE, "lead").voted(DAVE, "security");
    let answer = world.decide(&placed.clone().voted(BOB, "lead"));
    answer.is(Activating);
    assert_eq!(votes(&answer)[0], (DAVE, false, "this person counts in stage security"));
    world.decide(&placed.voted(CAROL, "security")).is(Activating);
}

#[test]
fn two_approvals_are_two_people() {
    let policy = policy().no_stages().stage("lead", 2, &[LEADS]);
    let asked = request("fix").pending(&policy);
    let twice = world(&policy).decide(&asked.clone().voted(BOB, "lead").voted(BOB, "lead"));
    twice.is(Pending).says("1 approval in stage lead");
    assert_eq!(votes(&twice)[1], (BOB, false, "this person has voted already"));
    world(&policy).decide(&asked.voted(BOB, "lead").voted(DAVE, "lead")).is(Activating);
}

#[test]
fn one_person_under_two_names_is_one_person() {
    let policy = policy().no_stages().stage("lead", 2, &[LEADS]);
    let mut world = world(&policy);
    world.people.insert("oidc:robert".into(), world.people[BOB].clone());
    world.decide(&request("fix").pending(&policy).voted(BOB, "lead").voted("oidc:robert", "lead")).is(Pending);
}

#[test]
fn a_vote_on_another_ballot_is_none() {
    let old = asked().voted_on("old", BOB, "lead");
    let answer = world(&policy()).decide(&old);
    answer.is(Pending);
    assert!(answer.status().votes.is_empty());
    for key in ["approve.hallpass.dev/b0", "approve.hallpass.dev/b0.lead", "approve.hallpass.dev/.lead.1", "b0.lead.1"]
    {
        let answer = world(&policy()).decide(&asked().annotated(key, BOB));
        assert!(answer.is(Pending).status().votes.is_empty(), "{key}");
    }
}

#[test]
fn a_vote_that_the_status_cannot_hold_is_none() {
    let stage = "s".repeat(41);
    let answer = world(&policy()).decide(&asked().voted(BOB, &stage).voted(BOB, "lead"));
    answer.is(Activating);
    let somebody = "x".repeat(513);
    world(&policy()).decide(&asked().voted(&somebody, "lead").denied(BOB, "lead").ended(&somebody)).is(Denied);
}

#[test]
fn however_many_approvers_there_are_the_status_can_be_written() {
    let names: Vec<String> = (0..64).map(|i| format!("oidc:/{}/{i}", "group".repeat(80))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let policy = policy().no_stages();
    let policy = ["a", "b", "c", "d", "e"].iter().fold(policy, |policy, stage| policy.stage(stage, 1, &names));
    let asked = request("fix").pending(&policy);
    world(&policy).decide(&asked.clone().voted(ERIN, "a")).is(Pending);
    world(&policy).decide(&asked.ended(ERIN)).is(Pending);
    world(&policy).decide(&request("fix").active(&[ours("admin")]).ended(ERIN));
}

#[test]
fn no_more_votes_are_recorded_than_fit() {
    let full = (0..70).fold(asked(), |asked, _| asked.voted(ERIN, "lead"));
    let answer = world(&policy()).decide(&full);
    assert_eq!(answer.is(Pending).status().votes.len(), 64);
}

#[test]
fn changed_rules_void_the_votes_and_say_so() {
    let changed = policy().stage("security", 1, &[SECURITY]);
    let answer = world(&changed).decide(&asked().recorded(BOB, "lead", Approve).voted(DAVE, "lead"));
    answer
        .is_for(Pending, "WaitingForVotes")
        .says("the policy or the admission policies have changed, so earlier votes no longer count");
    assert_eq!(answer.status().ballot.as_deref(), Some("b1"));
    assert_eq!(answer.status().rules, Some(changed.read().rules));
    assert!(answer.status().votes.iter().all(|vote| !vote.counted), "{:?}", answer.status().votes);
    // Votes on the new ballot count, those on the old one do not come back.
    let mut again = answer.after();
    again.signals.extend(request("fix").voted_on("b1", CAROL, "security").read().signals);
    world(&changed).decide_on(&again).is(Pending).says("stage lead");
}

#[test]
fn a_new_trust_epoch_voids_votes_approvals_and_ends() {
    let epoch = |epoch: &str| Guard::InForce { epoch: epoch.into(), since: at(-10), stamp: true };
    let (first, second) = (world(&policy()).guard(epoch("first")), world(&policy()).guard(epoch("second")));
    // Each world draws its own words, and the second must not draw the first one's.
    let _ = (second.decide(&request("other")), second.decide(&request("other")));
    let waiting = first.decide(&request("fix")).after();
    let ballot = waiting.status.ballot.clone().expect("a ballot");
    // given: a vote that may have been forged between the epochs
    let mut forged = waiting.clone();
    forged.signals.extend(request("fix").voted_on(&ballot, BOB, "lead").read().signals);
    first.decide_on(&forged).is(Activating);
    let voided = second.decide_on(&forged);
    voided.is_for(Pending, "WaitingForVotes").says("the admission policies have changed");
    assert_ne!(voided.status().ballot, Some(ballot));
    assert!(voided.status().votes.iter().all(|vote| !vote.counted), "{:?}", voided.status().votes);
    // An approval from before is void, too; an end does not count, once more it does.
    let approved = first.clone().clocks_differ().decide_on(&forged).after();
    let live = || request("fix").active(&[]).guarded_by("first");
    second.decide_on(&approved).is_for(Pending, "RulesChanged").says("the admission policies were changed");
    first.decide(&live().ended(ALICE)).is(Revoking);
    // Also if nobody knows yet that there is another epoch. Who is not to end waits until somebody knows.
    for before in [None, Some("first")] {
        let second = second.clone().knows_epoch(before);
        let unheard = second.decide(&live().ended(ALICE));
        unheard.is(Active);
        assert!(!unheard.status().ends[0].counted, "{before:?}");
        let quiet = second.decide(&live()).after();
        assert_eq!(quiet.status.trust_epoch.as_deref(), Some("first"), "{before:?}");
    }
    let unheard = second.decide(&live().ended(ALICE));
    unheard.is(Active);
    assert!(!unheard.status().ends[0].counted);
    let mut once_more = unheard.after();
    once_more.signals.extend(request("fix").ended(ALICE).read().signals.into_iter().map(|mut end| {
        end.key.push_str("-again");
        end
    }));
    second.decide_on(&once_more).is(Revoking);
    // One that comes when the epoch was taken on already counts at once.
    let mut taken_on = second.clone().knows_epoch(Some("second")).decide(&live()).after();
    taken_on.signals = request("fix").ended(ALICE).read().signals;
    second.decide_on(&taken_on).is(Revoking);
}

#[test]
fn each_of_the_rules_voids_the_votes() {
    let mut realm = policy();
    realm.0.spec.realm = "other".into();
    let changed = [
        realm,
        policy().grant("more"),
        policy().serves(ALICE),
        policy().no_stages().stage("lead", 1, &[LEADS, SECURITY]),
        policy().no_stages().stage("lead", 2, &[LEADS]),
    ];
    for changed in changed {
        let answer = world(&changed).decide(&asked().recorded(BOB, "lead", Approve));
        answer.is(Pending).says("earlier votes no longer count");
    }
    // These are not voted on.
    let same = [policy().at_most("4h"), policy().only_in("team"), policy().wants_reason("x", "y")];
    for same in same {
        world(&same).decide(&asked().because("x").recorded(BOB, "lead", Approve)).is(Approved);
    }
}

#[test]
fn a_policy_that_becomes_automatic_releases_nothing() {
    let answer = world(&policy().automatic()).decide(&asked().recorded(BOB, "lead", Approve));
    answer.is_for(Rejected, "RulesChanged").says("ask again");
}

#[test]
fn an_automatic_policy_that_gets_stages_wants_votes() {
    let automatic = policy().automatic();
    let asked = request("fix").approved_automatically(&automatic);
    let back = world(&policy()).decide(&asked);
    back.is_for(Pending, "RulesChanged").next(Next::Now);
    let answer = world(&policy()).decide_on(&back.after());
    answer.is_for(Pending, "WaitingForVotes");
    assert_eq!(answer.status().ballot.as_deref(), Some("b1"));
    assert_eq!(answer.status().approved_by, None);
}

#[test]
fn an_end_by_nobody_who_may_is_said_and_forgotten() {
    let answer = world(&policy()).decide(&asked().ended(ERIN));
    answer.is_for(Pending, "WaitingForVotes").next(Next::At(at(3600)));
    let why = answer.status().ends[0].why.clone().unwrap_or_default();
    assert!(why.contains("only oidc:alice and an approver can end this: Group oidc:/payments/leads"), "{why}");
}

#[test]
fn an_end_that_cannot_be_judged_is_looked_at_again() {
    let unknown = world(&policy()).unknown(BOB);
    for guarded in [unknown.clone(), world(&policy()).guard(Guard::Unknown("timeout".into()))] {
        let answer = guarded.decide(&asked().ended(BOB));
        assert!(matches!(answer.decision.next, Next::Retry { .. }), "{:?}", answer.decision.next);
    }
    let waiting = unknown.decide(&asked().ended(BOB));
    waiting.is(Pending);
    world(&policy()).decide_on(&waiting.after()).is(hallpass::api::Phase::Revoked);
}

#[test]
fn a_deny_counts_however_it_was_recorded() {
    world(&policy()).decide(&asked().recorded(BOB, "lead", Deny)).is(Denied);
}
