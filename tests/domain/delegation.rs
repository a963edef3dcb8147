//! Requests for other people: who may submit them, what the review in Git counts for, and that the same starts once.

use hallpass::{
    api::{
        Phase::{Activating, Approved, Denied, Pending, Rejected, Revoked, TimedOut},
        VoteDecision::Approve,
    },
    domain::{Guard, Next, delegation::Record},
};

use super::world::*;

/// One lead must agree, and Flux may submit for others; the review in Git counts as the lead's.
fn lent() -> PolicyBuilder {
    policy().submitter("apply", &["lead"])
}

/// Submitted by Flux for Alice, in a window from now to one o'clock.
fn submitted() -> RequestBuilder {
    request("fix").submitted_by(FLUX).not_before(0).not_after(3600)
}

fn votes(answer: &Answer) -> Vec<(&str, bool, &str)> {
    let votes = &answer.status().votes;
    votes.iter().map(|vote| (vote.by.as_str(), vote.counted, vote.why.as_deref().unwrap_or_default())).collect()
}

#[test]
fn what_is_submitted_for_another_person_wants_votes_like_any_request() {
    let waiting = world(&lent()).decide(&submitted());
    waiting.is_for(Pending, "WaitingForVotes").does(&[]);
    world(&lent()).decide(&submitted().pending(&lent()).voted(BOB, "lead")).is(Activating);
}

#[test]
fn who_may_not_submit() {
    let not_listed =
        "spec.submittedBy \"system:serviceaccount:flux:apply\" may not submit requests for others under policy oncall";
    for (policy, asked, why) in [
        (policy(), submitted(), format!("{not_listed}: its submitters are nobody")),
        (
            policy().submitter("other", &["lead"]),
            submitted().pre_approved(),
            format!("{not_listed}: its submitters are system:serviceaccount:flux:other"),
        ),
        (
            policy().submitter("apply", &[]),
            submitted().pre_approved(),
            format!("{FLUX} may not pre-approve under policy oncall: its entry in spec.submitters has no preApproves"),
        ),
        (lent(), request("fix").pre_approved(), "nobody pre-approves a request for themselves".into()),
        (
            lent(),
            request("fix").submitted_by(ALICE).pre_approved(),
            "nobody pre-approves a request for themselves".into(),
        ),
        (lent(), submitted().by(ERIN), "oidc:erin may not ask under policy oncall".into()),
    ] {
        world(&policy).decide(&asked).is_for(Rejected, "Rejected").says(&why).does(&[]);
    }
}

#[test]
fn what_needs_no_fresh_vote_lies_in_an_absolute_window() {
    let window = "spec.notBefore and spec.notAfter are needed";
    let from_git = || request("fix").submitted_by(FLUX);
    let automatic = policy().automatic().submitter("apply", &[]);
    for (policy, asked) in [
        (&automatic, from_git()),
        (&automatic, from_git().not_after(3600)),
        (&automatic, from_git().not_before(0)),
        (&lent(), from_git().pre_approved().not_after(3600)),
        (&lent(), from_git().pre_approved().not_before(0)),
    ] {
        world(policy).decide(&asked).is_for(Rejected, "Rejected").says(window);
    }
    world(&lent()).decide(&from_git()).is(Pending);
    world(&automatic).decide(&request("fix")).is(Approved);
    world(&lent()).at(3600).decide(&submitted().pre_approved()).is(TimedOut).does(&[]);
}

#[test]
fn the_review_in_git_counts_for_the_stages_that_the_policy_says() {
    let asked = submitted().pre_approved();
    let recording = world(&lent()).decide(&asked);
    recording.is_for(Pending, "Recording").does(&["record until 2026-11-23T13:00:00Z"]).next(Next::Now);
    let answer = world(&lent()).has_started("fix").decide_on(&recording.after());
    answer.is(Approved).does(&[]);
    assert_eq!(answer.status().approved_by.as_deref(), Some(FLUX));
    assert_eq!(votes(&answer), [(FLUX, true, "spec.preApproved: its submitter pre-approves this stage")]);

    let two = lent().stage("security", 2, &[SECURITY]);
    let waiting = world(&two).decide(&asked);
    waiting.is_for(Pending, "WaitingForVotes").says("waiting for 2 approvals in stage security").does(&[]);
    assert!(!waiting.message().contains("stage lead"), "{}", waiting.message());
    let both = policy().stage("security", 2, &[SECURITY]).submitter("apply", &["lead", "security"]);
    world(&both).decide(&asked).is_for(Pending, "Recording");
}

#[test]
fn a_pre_approved_stage_may_still_be_denied() {
    let two = lent().stage("security", 1, &[SECURITY]);
    let waiting = world(&two).decide(&submitted().pre_approved());
    let ballot = waiting.status().ballot.clone().expect("a ballot");
    let mut asked = submitted().pre_approved();
    asked.0.status = Some(waiting.status().clone());
    world(&two).decide(&asked.annotated(&format!("deny.hallpass.dev/{ballot}.lead.1"), BOB)).is(Denied);
}

#[test]
fn a_pre_approval_is_void_when_the_rules_or_the_epoch_change() {
    let recording = world(&lent()).decide(&submitted().pre_approved());
    let changed = lent().stage("lead2", 1, &[SECURITY]);
    let second = Guard::InForce { epoch: "second".into(), since: at(-3600), stamp: false };
    for world in [world(&changed), world(&lent()).guard(second)] {
        world.decide(&request("another, which takes the first ballot"));
        let answer = world.has_started("fix").decide_on(&recording.after());
        answer.is_for(Pending, "WaitingForVotes").says("in stage lead by").does(&[]);
        assert_eq!(votes(&answer), [(FLUX, false, "cast on an earlier ballot")]);
    }
}

#[test]
fn the_same_starts_once_in_its_window() {
    let asked = submitted().pre_approved();
    let started = "was approved in this window before, and starts once";
    world(&lent()).has_started("another").decide(&asked).is_for(Rejected, "StartsOnce").says(started).does(&[]);
    let automatic = policy().automatic().submitter("apply", &[]);
    world(&automatic).has_started("another").decide(&submitted()).is_for(Rejected, "StartsOnce").says(started);
    world(&automatic).has_started("fix").decide(&submitted()).is(Approved);
    // With a fresh vote it is another matter, and whoever asks for herself may ask again.
    world(&lent()).has_started("another").decide(&submitted().pending(&lent()).voted(BOB, "lead")).is(Activating);
    world(&automatic).has_started("another").decide(&request("fix").not_before(0).not_after(3600)).is(Approved);
}

#[test]
fn it_is_on_record_again_before_anything_is_mapped() {
    let automatic = policy().automatic().submitter("apply", &[]);
    let agreed = submitted().approved_automatically(&automatic).with_finalizer();
    world(&automatic).has_started("fix").decide(&agreed).is(Activating).does(&["map admin"]);
    world(&automatic).decide(&agreed).is_for(Approved, "Recording").does(&["record until 2026-11-23T13:00:00Z"]);
    world(&automatic).has_started("another").decide(&agreed).is_for(Rejected, "StartsOnce").does(&["remove finalizer"]);
}

#[test]
fn a_lost_record_starts_nothing_whose_window_began_before() {
    let mut world = world(&lent());
    world.record = Ok(Record { since: at(1), by: None, full: false });
    let answer = world.decide(&submitted().pre_approved());
    answer.is_for(Rejected, "StartsOnce").says("submit one with a later spec.notBefore").does(&[]);
    world.decide(&submitted().not_before(1).pre_approved()).is_for(Pending, "Recording");
}

#[test]
fn without_the_record_nothing_starts_without_a_vote() {
    let mut world = world(&lent());
    world.record = Err("cannot read it".into());
    let asked = submitted().pre_approved();
    world.decide(&asked).is_for(Pending, "RecordUnavailable").says("cannot read it").does(&[]);
    world.record = Ok(Record { since: at(-9), by: None, full: true });
    world.decide(&asked).is_for(Pending, "RecordUnavailable").says("too many open windows").does(&[]);
}

#[test]
fn the_submitter_s_person_has_no_vote_under_any_name_and_pre_approves_nothing_for_herself() {
    // Dave submits for Alice; he leads.
    let policy = policy().stage("other", 1, &[DAVE]);
    let mut by_person = policy.clone();
    by_person.0.spec.submitters = vec![hallpass::api::Submitter {
        kind: hallpass::api::SubmitterKind::User,
        name: DAVE.into(),
        namespace: None,
        pre_approves: vec!["lead".into()],
    }];
    let asked = request("fix").submitted_by(DAVE).not_before(0).not_after(3600);
    let answer = world(&by_person).decide(&asked.clone().pending(&by_person).voted(DAVE, "lead"));
    assert_eq!(votes(answer.is(Pending)), [(DAVE, false, "oidc:dave submitted this request")]);
    // Bob's name leads to Dave now.
    let mut same = world(&by_person);
    let dave = same.people[DAVE].clone();
    same.people.insert(BOB.into(), dave.clone());
    let answer = same.decide(&asked.clone().pending(&by_person).voted(BOB, "lead"));
    assert_eq!(votes(&answer), [(BOB, false, "oidc:bob is the submitter's own Keycloak user")]);
    // Who Dave is is not known: nobody's vote is counted yet.
    let away =
        world(&by_person).unknown(DAVE).decide(&asked.clone().pending(&by_person).recorded(BOB, "lead", Approve));
    assert_eq!(votes(&away), [(BOB, false, "not counted yet: keycloak is away")]);
    // Dave is Alice.
    same.people.insert(ALICE.into(), dave);
    same.moves(ALICE, &[PAYMENTS])
        .decide(&asked.pre_approved())
        .is(Rejected)
        .says("spec.preApproved: the submitter is the requester's own Keycloak user");
}

#[test]
fn who_submitted_it_may_end_it() {
    let asked = submitted().pending(&lent()).ended(FLUX);
    world(&lent()).decide(&asked).is_for(Revoked, "Ended").says("withdrawn by system:serviceaccount:flux:apply");
}

#[test]
fn what_is_remembered_is_policy_subject_and_spec() {
    let digest = |asked: RequestBuilder| hallpass::domain::delegation::digest(&asked.read(), "realm", "alice");
    let mut elsewhere = submitted().by(ALICES_OTHER_NAME);
    elsewhere.0.metadata.name = Some("copy".into());
    elsewhere.0.metadata.uid = Some("copy".into());
    elsewhere.0.metadata.namespace = Some("elsewhere".into());
    elsewhere.0.spec.submitted_by = Some(DAVE.into());
    elsewhere.0.spec.source = Some(hallpass::api::Source { revision: Some("4711".into()), url: None });
    assert_eq!(digest(elsewhere), digest(submitted()));
    for other in [
        submitted().wants(&["debug"]),
        submitted().lasting("1h"),
        submitted().because("INC-1"),
        submitted().not_before(1),
        submitted().not_after(3601),
        submitted().pre_approved(),
    ] {
        assert_ne!(digest(other), digest(submitted()));
    }
    // A version that computes another one has forgotten everything that the one before had on record.
    assert_eq!(digest(submitted()), "3d71a8700ba363974b0669396b1c34da55c9ba4be6862d2d33e32a00d6b72369");
}
