//! Who could vote at all: whether a policy's stages can be satisfied, before anybody asks.

use std::collections::{BTreeMap, BTreeSet};

use super::{Problem, ProblemReason, Stage, Subject, votes};

/// Whom a subject of a policy stands for in Keycloak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// So many that it does not matter who they are.
    Many,
    /// The users with these ids, all of them enabled.
    These(BTreeSet<String>),
    /// Nobody, for this reason.
    Nobody(String),
}

/// What each subject of a policy stands for.
pub type Directory = BTreeMap<Subject, Members>;

/// The people who may approve, stage by stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rosters(Vec<Roster>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Roster {
    stage: String,
    required: usize,
    /// The groups that it names.
    groups: Vec<String>,
    /// Ids of its people; nothing for a stage that has more than enough.
    people: Option<BTreeSet<String>>,
    /// Why some of the approvers that it names are none.
    nobodies: Vec<String>,
}

impl Rosters {
    /// The stages of a policy. A subject that nobody asked about may be anybody.
    pub fn new(stages: &[Stage], directory: &Directory) -> Self {
        Self(stages.iter().map(|stage| Roster::new(stage, directory)).collect())
    }

    /// The stages that wait for people: not those that are pre-approved.
    #[must_use]
    pub fn open(&self, pre_approved: &[&str]) -> Self {
        Self(self.0.iter().filter(|roster| !pre_approved.contains(&roster.stage.as_str())).cloned().collect())
    }

    /// Why the stages cannot all be satisfied when these people, the requester and perhaps the submitter, do not vote, for
    /// people: which stages, how many they have and want, and what helps.
    pub fn shortage(&self, without: &[&str]) -> Option<String> {
        let all: usize = self.0.iter().map(|roster| roster.required).sum();
        let stages = self.0.iter().filter_map(|roster| {
            let people = roster.people.as_ref()?.iter().map(String::as_str);
            Some((roster, people.filter(|id| !without.contains(id)).collect::<BTreeSet<_>>()))
        });
        // A stage with as many people as all stages want can be filled, whoever is placed in the others.
        let stages: Vec<(&Roster, BTreeSet<&str>)> = stages.filter(|(_, people)| people.len() < all).collect();
        let short = too_few(&stages)?;
        let wanted: usize = short.iter().map(|(roster, _)| roster.required).sum();
        let names: Vec<&str> = short.iter().map(|(roster, _)| roster.stage.as_str()).collect();
        let (stage, wants) = if names.len() == 1 { ("stage", "wants") } else { ("stages", "want") };
        let approvals = if wanted == 1 { "approval" } else { "approvals" };
        let except = match without {
            [] => "",
            [_] => "without the requester ",
            _ => "without the requester and the submitter ",
        };
        let people = match short.iter().flat_map(|(_, people)| people).collect::<BTreeSet<_>>().len() {
            0 => "nobody could give one".to_owned(),
            1 => "1 person could give one".to_owned(),
            people => format!("{people} people could give one each"),
        };
        let groups: BTreeSet<&str> = short.iter().flat_map(|(roster, _)| &roster.groups).map(String::as_str).collect();
        let help = if groups.is_empty() {
            "add approvers to the policy".to_owned()
        } else {
            let groups: Vec<&str> = groups.into_iter().collect();
            format!("add people to {}, or approvers to the policy", groups.join(" or "))
        };
        let nobodies: BTreeSet<&String> = short.iter().flat_map(|(roster, _)| &roster.nobodies).collect();
        let mut words =
            vec![format!("{stage} {} {wants} {wanted} {approvals}, and {except}{people}", names.join(" and ")), help];
        words.extend(nobodies.into_iter().cloned());
        Some(words.join("; "))
    }

    /// People without whom the stages cannot be satisfied, by id.
    pub fn indispensable(&self) -> BTreeSet<&str> {
        let people: BTreeSet<&str> =
            self.0.iter().filter_map(|roster| roster.people.as_ref()).flatten().map(String::as_str).collect();
        people.into_iter().filter(|id| self.shortage(&[id]).is_some()).collect()
    }

    /// Why a policy with these stages is of no use to anybody: they can never be satisfied, or never for anybody who may
    /// ask, because nobody approves their own request. `requesters` are those who may ask, if all of them are known.
    pub fn problem(&self, requesters: Option<&BTreeSet<String>>) -> Option<Problem> {
        let unsatisfiable =
            |why: String| Some(Problem::new(ProblemReason::StageUnsatisfiable, format!("spec.approval.stages: {why}")));
        if let Some(why) = self.shortage(&[]) {
            return unsatisfiable(why);
        }
        let mut left_alone = None;
        for requester in requesters? {
            left_alone = Some(self.shortage(&[requester])?);
        }
        let why = left_alone?;
        unsatisfiable(format!("whoever asks, {why}"))
    }
}

impl Roster {
    fn new(stage: &Stage, directory: &Directory) -> Self {
        let Stage { name, required, approvers } = stage;
        let groups = approvers.iter().filter(|approver| matches!(approver, Subject::Group(_))).map(ToString::to_string);
        let mut people = Some(BTreeSet::new());
        let mut nobodies = Vec::new();
        for approver in approvers {
            match directory.get(approver) {
                Some(Members::These(ids)) => people.iter_mut().for_each(|people| people.extend(ids.iter().cloned())),
                Some(Members::Nobody(why)) => nobodies.push(why.clone()),
                Some(Members::Many) | None => people = None,
            }
        }
        Self { stage: name.clone(), required: *required, groups: groups.collect(), people, nobodies }
    }
}

/// Stages that together have fewer people than they want, if there are such. Without them all can be satisfied: people
/// are placed as votes are, and whoever could fill a place that is left empty has one in these very stages.
fn too_few<'a, 'b>(stages: &'a [(&'b Roster, BTreeSet<&'b str>)]) -> Option<Vec<&'a (&'b Roster, BTreeSet<&'b str>)>> {
    let mut voters: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, (_, people)) in stages.iter().enumerate() {
        for id in people {
            voters.entry(id).or_default().push(i);
        }
    }
    let choices: Vec<Vec<usize>> = voters.into_values().collect();
    let required: Vec<usize> = stages.iter().map(|(roster, _)| roster.required).collect();
    let places = votes::place(&choices, &required);
    let filled = |stage: usize| places.iter().filter(|place| **place == Some(stage)).count();
    let mut short = vec![(0..stages.len()).find(|stage| filled(*stage) < required[*stage])?];
    while let Some(more) = choices.iter().zip(&places).find_map(|(choices, place)| {
        place.filter(|place| !short.contains(place) && choices.iter().any(|choice| short.contains(choice)))
    }) {
        short.push(more);
    }
    short.sort_unstable();
    Some(short.into_iter().map(|stage| &stages[stage]).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_short_is_short_and_nothing_is_that_can_be_satisfied(
            people in prop::collection::vec(prop::collection::btree_set("[a-f]", 0..5), 0..5),
            required in prop::collection::vec(1usize..4, 5),
        ) {
            let stages: Vec<Stage> = people.iter().zip(&required).enumerate().map(|(i, (_, required))| Stage {
                name: i.to_string(), required: *required, approvers: vec![Subject::Group(i.to_string())],
            }).collect();
            let directory = people.iter().enumerate().map(|(i, people)| (Subject::Group(i.to_string()), Members::These(people.clone())));
            let rosters = Rosters::new(&stages, &directory.collect());
            let stages: Vec<(&Roster, BTreeSet<&str>)> = rosters.0.iter()
                .map(|roster| (roster, roster.people.iter().flatten().map(String::as_str).collect())).collect();
            // All stages can be satisfied if and only if no set of them has fewer people than it wants (Hall).
            let lacks = |stages: &[&(&Roster, BTreeSet<&str>)]| {
                let people: BTreeSet<&str> = stages.iter().flat_map(|(_, people)| people).copied().collect();
                people.len() < stages.iter().map(|(roster, _)| roster.required).sum()
            };
            let mut sets = (0..1usize << stages.len())
                .map(|set| stages.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, stage)| stage).collect::<Vec<_>>());
            prop_assert_eq!(rosters.shortage(&[]).is_some(), too_few(&stages).is_some());
            match too_few(&stages) {
                Some(short) => prop_assert!(lacks(&short)),
                None => prop_assert!(!sets.any(|set| lacks(&set))),
            }
        }
    }
}
