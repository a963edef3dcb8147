//! What Keycloak's admin events say against the operator: it took what somebody still held, or called a request over before
//! all of it was taken.

use hallpass::api::{AccessRequest, TargetState};
use jiff::{SignedDuration, Timestamp};

use crate::{
    keycloak_admin::Person,
    removals::{changes, removals},
    stage::Stage,
};

/// A status has whole seconds.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// Whether a role was taken from a person before this time.
pub async fn taken_before(stage: &Stage, user: &Person, role: &str, time: Timestamp) -> Option<String> {
    let first = *removals(&stage.w.keycloak, user, role).await.first()?;
    (first < time).then(|| format!("role {role} was taken at {first}, and a request held it until {time}"))
}

/// What a status that is final says is gone, and was taken later than that or, if nothing went wrong, never.
pub async fn ended_too_early(stage: &Stage, user: &Person, request: &AccessRequest, disturbed: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(grant) = request.grant() else { return wrong };
    let Some(ended) = &grant.ended_at else { return wrong };
    for target in grant.targets.iter().filter(|target| target.state == TargetState::Removed) {
        let name = &target.name;
        match last_loss(stage, user, &target.id).await {
            Some(time) if time.duration_since(ended.0) > SECOND => {
                wrong.push(format!("it says that {name} was gone at {}, and it was taken at {time}", ended.0));
            }
            None if !disturbed => wrong.push(format!("Keycloak has no event of the removal of {name}")),
            Some(_) | None => {}
        }
    }
    wrong
}

/// When a role or group was last taken from somebody who had it. A repetition takes nothing away: two requests ended
/// together, or a status was written and the answer was lost.
async fn last_loss(stage: &Stage, user: &Person, id: &str) -> Option<Timestamp> {
    let all = async |what, held| {
        let times = changes(&stage.w.keycloak, user, id, what).await;
        times.into_iter().map(move |time| (time, held)).collect::<Vec<_>>()
    };
    let mut changes = [all("CREATE", true).await, all("DELETE", false).await].concat();
    changes.sort();
    // Two without a gift in between are one loss.
    changes.dedup_by_key(|(_, held)| *held);
    changes.into_iter().rev().find(|(_, held)| !held).map(|(time, _)| time)
}
