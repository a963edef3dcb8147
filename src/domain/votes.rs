//! Who counts: votes are counted by Keycloak user, and one person counts in one stage only.

use super::{Lookup, People, Person, Stage, Subject, conditions::shortened, delegation::PRE_APPROVED, policy};
use crate::api::{self, Vote, VoteDecision};

/// The count of the votes on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The recorded votes, each saying whether it counts, and if not, why.
    pub votes: Vec<Vote>,
    /// The first deny that counts.
    pub denied: Option<Denial>,
    /// The stages that still want approvals.
    pub open: Vec<OpenStage>,
    /// Votes that cannot be counted yet, because Keycloak could not be asked.
    pub unknown: Option<String>,
}

/// A deny that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Who denied.
    pub by: String,
    /// In which stage.
    pub stage: String,
}

/// A stage that still wants approvals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenStage {
    /// The stage's name.
    pub name: String,
    /// How many people are missing.
    pub missing: usize,
    /// Who may vote in it, as text.
    pub approvers: String,
}

impl Tally {
    /// Whether every stage is satisfied and nobody denied.
    pub fn is_approved(&self) -> bool {
        self.denied.is_none() && self.open.is_empty()
    }

    /// Whether anybody has voted for it: a pre-approval is no fresh vote.
    pub fn has_fresh_vote(&self) -> bool {
        self.votes.iter().any(|vote| vote.counted && !vote.key.starts_with(PRE_APPROVED))
    }

    /// Who approved, as text.
    pub fn approved_by(&self) -> String {
        let counted = self.votes.iter().filter(|vote| vote.counted && vote.decision == VoteDecision::Approve);
        counted.map(|vote| vote.by.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// What a vote must carry and whom it must not come from.
#[derive(Clone, Copy, Debug)]
pub struct Ballot<'a> {
    /// The present ballot.
    pub word: &'a str,
    /// Id of the Keycloak user who gets the access: that person never votes, under any name.
    pub subject: &'a str,
    /// Who handed the request in, when that is not the requester: that person never votes either.
    pub submitter: Option<&'a str>,
    /// The stages for which the review in Git counts.
    pub pre_approved: &'a [String],
}

/// Counts recorded votes.
pub fn tally(recorded: &[Vote], ballot: Ballot<'_>, stages: &[Stage], people: &People) -> Tally {
    let mut votes = recorded.to_vec();
    let mut unknown = None;
    let mut denied: Option<Denial> = None;
    // People who approved, with the stages in which they did.
    let mut yes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut required: Vec<usize> = stages.iter().map(|stage| stage.required).collect();
    for vote in &mut votes {
        vote.counted = false;
        if let Some(Lookup::Person(person)) = people.get(&vote.by) {
            vote.user_id.get_or_insert_with(|| person.id.clone());
        }
        match judge(vote, ballot, stages, people) {
            Judgement::PreApproves { stage } => {
                required[stage] = 0;
                vote.counted = true;
                vote.why = Some("spec.preApproved: its submitter pre-approves this stage".into());
            }
            Judgement::Counts { stage, person, listed } => {
                vote.why = None;
                if vote.decision == VoteDecision::Deny {
                    (vote.counted, vote.why) = (true, Some(as_listed(listed)));
                    denied.get_or_insert(Denial { by: vote.by.clone(), stage: vote.stage.clone() });
                } else {
                    match yes.iter_mut().find(|(id, _)| *id == person.id) {
                        Some((_, in_stages)) => in_stages.push(stage),
                        None => yes.push((person.id.clone(), vec![stage])),
                    }
                }
            }
            Judgement::DoesNot { why } => vote.why = Some(why),
            Judgement::Unknown { why } => {
                vote.why = Some(format!("not counted yet: {why}"));
                unknown = Some(why);
            }
        }
    }
    let choices: Vec<Vec<usize>> = yes.iter().map(|(_, in_stages)| in_stages.clone()).collect();
    let places = place(&choices, &required);
    count_placed(&mut votes, stages, &yes, &places);
    for vote in votes.iter_mut().filter(|vote| vote.counted && vote.why.is_none()) {
        if let Judgement::Counts { listed, .. } = judge(vote, ballot, stages, people) {
            vote.why = Some(as_listed(listed));
        }
    }
    let open = stages.iter().enumerate().filter_map(|(i, stage)| {
        let missing = required[i] - places.iter().filter(|place| **place == Some(i)).count();
        (missing > 0).then(|| OpenStage {
            name: stage.name.clone(),
            missing,
            approvers: policy::list(&stage.approvers),
        })
    });
    let open = open.collect();
    for vote in &mut votes {
        vote.why = vote.why.take().map(|why| shortened(&why, api::MAX_WHY));
    }
    Tally { votes, denied, open, unknown }
}

/// Whether a vote was cast on this ballot.
pub fn is_on(vote: &Vote, ballot: &str) -> bool {
    let name = vote.key.split_once('/').map_or("", |(_, name)| name);
    name.split('.').next() == Some(ballot)
}

/// Whether a vote, taken by itself, counts.
pub fn counts(vote: &Vote, ballot: Ballot<'_>, stages: &[Stage], people: &People) -> bool {
    matches!(judge(vote, ballot, stages, people), Judgement::Counts { .. })
}

/// On which evidence a vote counts.
fn as_listed(listed: &Subject) -> String {
    format!("as {listed}")
}

enum Judgement<'a> {
    /// As this entry of the stage's approvers.
    Counts {
        stage: usize,
        person: &'a Person,
        listed: &'a Subject,
    },
    PreApproves {
        stage: usize,
    },
    DoesNot {
        why: String,
    },
    Unknown {
        why: String,
    },
}

/// Whether a vote, taken by itself, counts.
fn judge<'a>(vote: &Vote, ballot: Ballot<'_>, stages: &'a [Stage], people: &'a People) -> Judgement<'a> {
    let does_not = |why: String| Judgement::DoesNot { why };
    if !is_on(vote, ballot.word) {
        return does_not("cast on an earlier ballot".into());
    }
    let Some(stage) = stages.iter().position(|stage| stage.name == vote.stage) else {
        return does_not(format!("the policy has no stage {}", vote.stage));
    };
    if vote.key.starts_with(PRE_APPROVED) {
        return if ballot.pre_approved.contains(&vote.stage) {
            Judgement::PreApproves { stage }
        } else {
            does_not(format!("{} may not pre-approve stage {}", vote.by, vote.stage))
        };
    }
    if ballot.submitter == Some(vote.by.as_str()) {
        return does_not(format!("{} submitted this request", vote.by));
    }
    let person = match people.get(&vote.by) {
        Some(Lookup::Person(person)) => person,
        Some(Lookup::Nobody(why)) => return does_not(why.clone()),
        Some(Lookup::Unknown(why)) => return Judgement::Unknown { why: why.clone() },
        None => return Judgement::Unknown { why: "nobody asked Keycloak about the voter".into() },
    };
    if vote.user_id.as_ref().is_some_and(|voter| *voter != person.id) {
        return does_not(format!("{} leads to another Keycloak user than when this was cast", vote.by));
    }
    if person.id == ballot.subject {
        return does_not(format!("{} is the requester's own Keycloak user", vote.by));
    }
    match ballot.submitter.map(|by| people.get(by)) {
        Some(Some(Lookup::Person(submitter))) if submitter.id == person.id => {
            return does_not(format!("{} is the submitter's own Keycloak user", vote.by));
        }
        None | Some(Some(Lookup::Person(_) | Lookup::Nobody(_))) => {}
        Some(Some(Lookup::Unknown(why))) => return Judgement::Unknown { why: why.clone() },
        Some(None) => return Judgement::Unknown { why: "nobody asked Keycloak about the submitter".into() },
    }
    let Some(listed) = stages[stage].approvers.iter().find(|approver| approver.includes(&vote.by, person)) else {
        return does_not(format!(
            "{} is not an approver of stage {}: {}",
            vote.by,
            vote.stage,
            policy::list(&stages[stage].approvers)
        ));
    };
    Judgement::Counts { stage, person, listed }
}

/// Marks as counted one vote of each person, in the stage where that person was placed.
fn count_placed(votes: &mut [Vote], stages: &[Stage], yes: &[(String, Vec<usize>)], places: &[Option<usize>]) {
    let mut used: Vec<&str> = Vec::new();
    for vote in votes.iter_mut().filter(|vote| vote.decision == VoteDecision::Approve && vote.why.is_none()) {
        let Some(person) = yes.iter().position(|(id, _)| vote.user_id.as_ref() == Some(id)) else { continue };
        let id = yes[person].0.as_str();
        vote.why = match places[person].map(|stage| stages[stage].name.as_str()) {
            None => Some(format!("stage {} has enough approvals", vote.stage)),
            Some(stage) if stage != vote.stage => Some(format!("this person counts in stage {stage}")),
            Some(_) if used.contains(&id) => Some("this person has voted already".into()),
            Some(_) => {
                used.push(id);
                vote.counted = true;
                None
            }
        };
    }
}

/// Places voters in stages, each in one at most, so that as many places as possible are filled: a maximum matching by
/// augmenting paths. `voters[i]` lists the stages in which voter `i` may be placed, `required[j]` the places of stage `j`.
pub fn place(voters: &[Vec<usize>], required: &[usize]) -> Vec<Option<usize>> {
    let mut places = vec![None; voters.len()];
    for voter in 0..voters.len() {
        seat(voter, voters, required, &mut places, &mut vec![false; required.len()]);
    }
    places
}

/// Finds a place for a voter, moving others to their other stages where that helps.
fn seat(
    voter: usize,
    voters: &[Vec<usize>],
    required: &[usize],
    places: &mut Vec<Option<usize>>,
    tried: &mut Vec<bool>,
) -> bool {
    for &stage in &voters[voter] {
        if std::mem::replace(&mut tried[stage], true) {
            continue;
        }
        let seated: Vec<usize> = (0..voters.len()).filter(|other| places[*other] == Some(stage)).collect();
        let free = seated.len() < required[stage]
            || seated.into_iter().any(|other| seat(other, voters, required, places, tried));
        if free {
            places[voter] = Some(stage);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fills as many places as any placing can, by trying all of them.
    fn best(voters: &[Vec<usize>], required: &mut [usize]) -> usize {
        let Some((first, rest)) = voters.split_first() else { return 0 };
        let mut most = best(rest, required);
        for &stage in first {
            if required[stage] > 0 {
                required[stage] -= 1;
                most = most.max(1 + best(rest, required));
                required[stage] += 1;
            }
        }
        most
    }

    proptest! {
        #[test]
        fn no_placing_fills_more_places(
            voters in prop::collection::vec(prop::collection::vec(0usize..3, 0..4), 0..7),
            mut required in prop::collection::vec(1usize..4, 3),
        ) {
            let places = place(&voters, &required);
            for (voter, stage) in places.iter().enumerate() {
                prop_assert!(stage.is_none_or(|stage| voters[voter].contains(&stage)));
            }
            for (stage, limit) in required.iter().enumerate() {
                prop_assert!(places.iter().filter(|place| **place == Some(stage)).count() <= *limit);
            }
            prop_assert_eq!(places.iter().flatten().count(), best(&voters, &mut required));
        }
    }
}
