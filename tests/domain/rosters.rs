//! Stages that nobody could satisfy are told of before anybody asks, and to whoever asks.

use std::collections::BTreeSet;

use hallpass::{
    api::Phase::{Activating, Pending},
    domain::{Directory, Members, ProblemReason, Rosters, Subject},
};

use super::world::*;

/// What Keycloak says of these subjects; a name with a slash is a group.
fn directory(subjects: &[(&str, Members)]) -> Directory {
    let subject = |name: &str| {
        if name.contains('/') { Subject::Group(name.into()) } else { Subject::User(name.into()) }
    };
    subjects.iter().map(|(name, members)| (subject(name), members.clone())).collect()
}

fn these(ids: &[&str]) -> Members {
    Members::These(ids.iter().map(ToString::to_string).collect())
}

fn nobody(why: &str) -> Members {
    Members::Nobody(why.into())
}

/// Who is asked about, and what is said against the policy.
type Case<'a> = (&'a str, PolicyBuilder, Directory, Option<&'a [&'a str]>, Option<&'a str>);

#[test]
fn a_policy_that_nobody_could_use_says_why() {
    let one = || policy();
    let two = || policy().no_stages().stage("lead", 2, &[LEADS]);
    let both = || policy().stage("security", 2, &[SECURITY]);
    let named = || policy().no_stages().stage("lead", 1, &[BOB, ERIN]);
    let leads = |ids: &[&str]| directory(&[(LEADS, these(ids))]);
    let both_are = |leads: &[&str], security: &[&str]| directory(&[(LEADS, these(leads)), (SECURITY, these(security))]);
    let cases: [Case<'_>; 17] = [
        ("one is enough", one(), leads(&["bob"]), Some(&["alice"]), None),
        (
            "an empty group",
            one(),
            leads(&[]),
            None,
            Some(
                "stage lead wants 1 approval, and nobody could give one; \
             add people to Group oidc:/payments/leads, or approvers to the policy",
            ),
        ),
        (
            "a small group",
            two(),
            leads(&["bob"]),
            None,
            Some("stage lead wants 2 approvals, and 1 person could give one; "),
        ),
        ("a big group", two(), directory(&[(LEADS, Members::Many)]), Some(&["alice"]), None),
        ("a group that nobody asked about", two(), directory(&[]), None, None),
        (
            "the requester alone",
            one(),
            leads(&["alice"]),
            Some(&["alice"]),
            Some("whoever asks, stage lead wants 1 approval, and without the requester nobody could give one; "),
        ),
        ("the requester and somebody", one(), leads(&["alice", "bob"]), Some(&["alice"]), None),
        ("each other's approvers", one(), leads(&["alice", "bob"]), Some(&["alice", "bob"]), None),
        (
            "each other's approvers, too few",
            two(),
            leads(&["alice", "bob"]),
            Some(&["alice", "bob"]),
            Some("whoever asks, stage lead wants 2 approvals, and without the requester 1 person could give one; "),
        ),
        ("one requester is served", two(), leads(&["alice", "bob"]), Some(&["alice", "bob", "erin"]), None),
        ("any number of requesters", one(), leads(&["alice"]), None, None),
        ("no requester at all", one(), leads(&["alice"]), Some(&[]), None),
        (
            "one person in two stages",
            both(),
            both_are(&["dave"], &["dave", "carol"]),
            None,
            Some(
                "stages lead and security want 3 approvals, and 2 people could give one each; add people to \
             Group oidc:/payments/leads or Group oidc:/security, or approvers to the policy",
            ),
        ),
        ("enough for two stages", both(), both_are(&["dave", "bob"], &["dave", "carol"]), None, None),
        (
            "one of two stages",
            both(),
            both_are(&["dave"], &["carol"]),
            None,
            Some("stage security wants 2 approvals, and 1 person could give one; add people to Group oidc:/security, "),
        ),
        (
            "a name of nobody",
            named(),
            directory(&[(BOB, these(&["bob"])), (ERIN, nobody("erin is disabled"))]),
            None,
            None,
        ),
        (
            "names of nobody",
            named(),
            directory(&[(BOB, nobody("no bob")), (ERIN, nobody("erin is disabled"))]),
            None,
            Some(
                "stage lead wants 1 approval, and nobody could give one; add approvers to the policy; erin is disabled; no bob",
            ),
        ),
    ];
    for (case, policy, directory, requesters, said) in cases {
        let rosters = Rosters::new(policy.read().approval.stages(), &directory);
        let requesters: Option<BTreeSet<String>> = requesters.map(|ids| ids.iter().map(ToString::to_string).collect());
        let problem = rosters.problem(requesters.as_ref());
        let message = problem.as_ref().map(|problem| problem.message.as_str());
        match said {
            None => assert_eq!(message, None, "{case}"),
            Some(said) => {
                let begin = format!("spec.approval.stages: {said}");
                assert!(message.is_some_and(|message| message.starts_with(&begin)), "{case}: {message:?}");
                assert!(problem.is_some_and(|problem| problem.reason == ProblemReason::StageUnsatisfiable), "{case}");
            }
        }
    }
}

#[test]
fn the_same_person_under_two_names_is_one_person() {
    let policy = policy().no_stages().stage("lead", 2, &[ALICE, ALICES_OTHER_NAME]);
    let stages = policy.read();
    let twice = directory(&[(ALICE, these(&["alice"])), (ALICES_OTHER_NAME, these(&["alice"]))]);
    assert!(Rosters::new(stages.approval.stages(), &twice).shortage(&[]).is_some());
}

#[test]
fn who_is_indispensable() {
    let policy = policy().stage("security", 1, &[SECURITY]);
    let policy = policy.read();
    let of = |leads: &[&str], security: &[&str]| {
        let directory = directory(&[(LEADS, these(leads)), (SECURITY, these(security))]);
        let rosters = Rosters::new(policy.approval.stages(), &directory);
        rosters.indispensable().into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(&["bob", "dave"], &["carol", "dave"]), [""; 0]);
    assert_eq!(of(&["bob"], &["carol", "dave"]), ["bob"]);
    assert_eq!(of(&["bob", "dave"], &["dave"]), ["bob", "dave"]);
}

#[test]
fn a_request_says_first_that_nobody_is_left_to_approve_it() {
    let leads = |ids: &[&str]| world(&policy()).rosters(&directory(&[(LEADS, these(ids))]));
    let asked = request("fix").pending(&policy());
    let told = leads(&["alice"]).decide(&asked);
    told.is_for(Pending, "WaitingForVotes");
    let begin = "cannot be approved as it is: stage lead wants 1 approval, and without the requester nobody could give \
                 one; add people to Group oidc:/payments/leads, or approvers to the policy; waiting for 1 approval in \
                 stage lead by Group oidc:/payments/leads. To approve: ";
    assert!(told.message().starts_with(begin), "{}", told.message());
    let hopeful = leads(&["alice", "bob"]).decide(&asked);
    assert!(hopeful.message().starts_with("waiting for 1 approval"), "{}", hopeful.message());
    // Who was in the group when Keycloak was asked about it says nothing against a vote that counts now.
    leads(&["alice"]).decide(&asked.voted(BOB, "lead")).is(Activating);
}
