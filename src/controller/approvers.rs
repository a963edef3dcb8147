//! Whether anybody could approve under a policy: asked with the policy's other questions, before anybody needs it.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use tokio::time::Instant;

use super::realm::{GroupIds, Realm, unavailable};
use crate::domain::{Directory, Lookup, Members, Policy, Problem, ProblemReason, Rosters, Subject};

/// A group with more members than this has enough of them for every stage, whoever they are.
const ENOUGH: usize = 100;

/// What Keycloak said about a policy's approvers.
#[derive(Clone)]
pub struct Approvers {
    /// When.
    pub at: Instant,
    /// Who they are, as far as Keycloak could be asked.
    pub rosters: Option<Arc<Rosters>>,
    /// Why the policy is of no use to anybody, if so.
    pub problem: Option<Problem>,
}

impl Realm {
    /// Asks Keycloak who could approve under a policy, and for whom.
    pub async fn approvers(&self, policy: &Policy, groups: &GroupIds) -> Approvers {
        let (rosters, problem) = match self.rosters(policy, groups, Instant::now()).await {
            Ok((rosters, problem)) => (Some(Arc::new(rosters)), problem),
            Err(problem) => (None, Some(problem)),
        };
        Approvers { at: Instant::now(), rosters, problem }
    }

    async fn rosters(
        &self,
        policy: &Policy,
        groups: &GroupIds,
        not_before: Instant,
    ) -> Result<(Rosters, Option<Problem>), Problem> {
        let stages = policy.approval.stages();
        let approvers = stages.iter().flat_map(|stage| &stage.approvers);
        let rosters = Rosters::new(stages, &self.directory(approvers, groups, not_before).await?);
        // Where everybody is dispensable it does not matter who asks.
        let requesters = if rosters.indispensable().is_empty() {
            None
        } else {
            everybody(self.directory(&policy.requesters, groups, not_before).await?)
        };
        let problem = rosters.problem(requesters.as_ref());
        Ok((rosters, problem))
    }

    /// Whom these subjects stand for.
    async fn directory<'a>(
        &self,
        subjects: impl IntoIterator<Item = &'a Subject>,
        groups: &GroupIds,
        not_before: Instant,
    ) -> Result<Directory, Problem> {
        let subjects: BTreeSet<&Subject> = subjects.into_iter().collect();
        let lookups = subjects
            .into_iter()
            .map(async |subject| Ok((subject.clone(), self.members(subject, groups, not_before).await?)));
        join_all(lookups).await.into_iter().collect()
    }

    async fn members(&self, subject: &Subject, groups: &GroupIds, not_before: Instant) -> Result<Members, Problem> {
        match subject {
            Subject::User(name) => match self.person(name, &GroupIds::new(), not_before).await {
                Lookup::Person(person) => Ok(Members::These(BTreeSet::from([person.id]))),
                Lookup::Nobody(why) => Ok(Members::Nobody(why)),
                Lookup::Unknown(why) => Err(Problem::new(ProblemReason::KeycloakUnavailable, why)),
            },
            Subject::Group(name) => {
                // It is everybody.
                let Some(id) = groups.get(name) else { return Ok(Members::Many) };
                let members = self.keycloak.group_members(id, ENOUGH + 1).await.map_err(|error| unavailable(&error))?;
                if members.len() > ENOUGH {
                    return Ok(Members::Many);
                }
                Ok(Members::These(members.into_iter().filter(|user| user.enabled).map(|user| user.id).collect()))
            }
        }
    }
}

/// Ids of all whom these subjects stand for, unless they are too many to know.
fn everybody(directory: Directory) -> Option<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for members in directory.into_values() {
        match members {
            Members::Many => return None,
            Members::These(more) => ids.extend(more),
            Members::Nobody(_) => {}
        }
    }
    Some(ids)
}
