//! One life: a person asks, has, and has no more, while one fault happens; and what must be so at the end.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use hallpass::api::{AccessRequest, END, FINALIZER, Phase, TargetState};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::Barrier, time::sleep};

use crate::{
    keycloak_admin::{self, unique},
    operator::Operator,
    people::Person,
    policy::Policy,
    proofs,
    request::{Ask, Request},
    script::{Fault, Place, Script, When},
    stage::{Slot, Stage},
};

/// How long what ends at its deadline lasts. The shortest that there is.
const SHORT: Duration = Duration::from_secs(5);
/// How long an operator stays dead that is to miss the deadline.
const LONG_DEATH: Duration = Duration::from_secs(7);
/// How long each part of a life may take. Far more than it takes: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(2);
/// How late access may be gone after its deadline, or after the operator's last start if that was later. How late the
/// latest of all was is said at the end.
const BOUND: SignedDuration = SignedDuration::from_secs(60);

/// What happens in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Story {
    /// One request for a realm role, a group, and a client role that the person had before. It ends at its deadline.
    Three,
    /// Two requests with a client role in common: one is ended by its requester while the other lives, which ends at its
    /// deadline.
    Overlap,
    /// One request whose end ends the sessions of the person, who has one. What counts is what follows on the removal.
    Sessions,
    /// The same where the sessions of one client end: one in which it takes part, and an offline one. What counts are the calls
    /// that [`Story::Sessions`] has not.
    ClientSessions,
    /// One request for a realm role, which ends at its deadline: what most lives are.
    One,
    /// The same where somebody has to agree. What counts is what follows on the vote.
    Voted,
    /// As [`Story::Three`], and the operator is killed when all is given: what counts are the calls of its next start.
    Start,
}

/// What becomes of the operator after a fault. One that is killed by the fault itself is started again in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Then {
    Nothing,
    /// It is killed and started again at once.
    Restart,
    /// It is killed, and dead until the deadline is past.
    LongDeath,
}

/// One fault at one call of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub story: Story,
    pub place: Place,
    pub fault: Fault,
    pub then: Then,
    /// The call is not about this person: it is one of the operator's own, as a sign-in.
    pub general: bool,
}

impl Point {
    /// Whether nothing else can be tried at the same time.
    pub fn is_alone(&self) -> bool {
        self.fault.is_for_all() || self.then != Then::Nothing
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { story, place, fault, then, general: _ } = self;
        write!(f, "{story:?}/{place}/{fault}/{then:?}")
    }
}

/// Those who wait for one another before the operator is killed in their midst.
#[derive(Clone)]
pub struct Company {
    size: usize,
    barrier: Arc<Barrier>,
}

impl Company {
    pub fn of(size: usize) -> Self {
        Self { size, barrier: Arc::new(Barrier::new(size)) }
    }

    pub fn none() -> Self {
        Self::of(1)
    }
}

/// What became of a life.
pub struct Told {
    pub life: usize,
    /// The fault has happened.
    pub hit: bool,
    pub problems: Vec<String>,
    pub requests: Vec<Request>,
    pub user: keycloak_admin::Person,
    /// The id of the client whose sessions may have been ended.
    client: String,
    before: BTreeSet<String>,
    /// By how much the last access was gone too late.
    pub late: SignedDuration,
}

/// A life under way.
pub struct Life<'a> {
    pub stage: &'a Stage,
    slot: &'a Slot,
    pub number: usize,
    point: Option<&'a Point>,
    policy: &'a Policy,
    pub person: Person,
    client: Client,
    requests: Vec<(Request, Phase)>,
    /// Until then at least, some request holds the client role, whatever becomes of the operator.
    held: Option<Timestamp>,
}

/// Lives one life in a slot.
pub async fn live(stage: &Stage, slot: &Slot, company: Company, story: Story, point: Option<&Point>) -> Told {
    let user = match story {
        Story::ClientSessions => stage.w.keycloak.user("life").await,
        _ => stage.newcomer().await,
    };
    stage.w.keycloak.map(&user, &slot.bystander).await;
    if matches!(story, Story::Three | Story::Sessions | Story::Start) {
        stage.w.keycloak.map(&user, &slot.client_role).await;
    }
    let mut sessions = Vec::new();
    match story {
        Story::Sessions => stage.signs_in(&user).await,
        Story::ClientSessions => sessions = slot.signs_in(stage, &user).await,
        Story::Three | Story::Overlap | Story::One | Story::Voted | Story::Start => {}
    }
    let before = stage.holdings(&user).await;
    let mut life = Life::of(stage, slot, user.clone()).await;
    life.point = point;
    for id in sessions {
        stage.script.add_key(life.number, &id);
    }
    life.policy = match story {
        Story::Sessions => &slot.ending_sessions,
        Story::ClientSessions => &slot.ending_client_sessions,
        Story::Voted => &slot.voted,
        Story::Three | Story::Overlap | Story::One | Story::Start => &slot.policy,
    };
    let undertaker = point
        .filter(|point| point.then != Then::Nothing)
        .map(|point| tokio::spawn(bury(stage.script.clone(), stage.operator.clone(), life.number, point.clone())));
    let mut problems = Vec::new();
    let lived = match story {
        Story::Three => life.three().await,
        Story::Overlap => life.overlap().await,
        Story::One | Story::Sessions => life.alone("realm").await,
        Story::ClientSessions => life.alone("client").await,
        Story::Voted => life.voted().await,
        Story::Start => life.start(&company).await,
    };
    problems.extend(lived.err());
    let late = match life.ends().await {
        Ok(late) => late,
        Err(more) => {
            problems.extend(more);
            SignedDuration::ZERO
        }
    };
    if let Some(undertaker) = undertaker {
        undertaker.abort();
    }
    stage.is_quiet().await;
    let number = life.number;
    let requests: Vec<Request> = life.requests.into_iter().map(|(request, _)| request).collect();
    let hit = stage.script.dismiss(number);
    let client = slot.app.id.clone();
    let mut told = Told { life: number, hit, problems, requests, user, client, before, late };
    told.look_at_keycloak(stage).await;
    told
}

/// How late the access of a request is gone while the operator looks at another one of the same person, and Keycloak leaves
/// that without an answer.
pub async fn due_beside_a_look(stage: &Stage) -> Result<SignedDuration, String> {
    let mut life = Life::of_a_newcomer(stage, &stage.slots[0]).await;
    let number = life.number;
    let first = life.asks(&["realm"], "8s", Phase::Expired).await?;
    let deadline = |now: &AccessRequest| now.grant().map(|grant| grant.deadline.0);
    let due = deadline(&life.has_it(&first).await?).ok_or("nothing was given")?;
    // A read has ten seconds: this one lasts until long after the deadline.
    let place = Place { kind: "keycloak GET groups/*/role-mappings".into(), nth: 1 };
    stage.script.arm(number, Some((place, Fault::Hang(When::Before))), false);
    while Timestamp::now().duration_since(due) < SignedDuration::from_secs(-3) {
        sleep(Duration::from_millis(50)).await;
    }
    let second = life.asks(&["group"], "10m", Phase::Revoked).await?;
    let over = stage.until(&first, "over", PATIENCE, is_final).await?;
    let hit = stage.script.dismiss(number);
    let ended = over.grant().and_then(|grant| grant.ended_at.clone()).ok_or("it does not say when it ended")?;
    stage.until(&second, "Active", PATIENCE, |now| phase(now) == Some(Phase::Active)).await?;
    if hit { Ok(ended.0.duration_since(due)) } else { Err("the look did not hang".into()) }
}

/// Kills the operator after the fault, if the point says so.
async fn bury(script: Arc<Script>, operator: Arc<Operator>, life: usize, point: Point) {
    if point.then == Then::LongDeath {
        operator.stays_dead_for(LONG_DEATH);
    }
    if matches!(point.fault, Fault::Kill(_) | Fault::KillLate) {
        return;
    }
    while !script.is_hit(life) {
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_millis(200)).await;
    script.kill().await;
}

fn phase(request: &AccessRequest) -> Option<Phase> {
    request.status.as_ref().and_then(|status| status.phase)
}

fn is_final(request: &AccessRequest) -> bool {
    phase(request).is_some_and(Phase::is_final)
}

impl<'a> Life<'a> {
    /// The life of somebody who is new, in this slot.
    pub async fn of_a_newcomer(stage: &'a Stage, slot: &'a Slot) -> Self {
        Self::of(stage, slot, stage.newcomer().await).await
    }

    async fn of(stage: &'a Stage, slot: &'a Slot, user: keycloak_admin::Person) -> Self {
        let number = stage.script.enlist([slot.keys(), vec![user.id.clone(), user.username.clone()]].concat());
        let (person, policy) = (Person::new(stage.w.clone(), user), &slot.policy);
        let client = stage.w.somebody_called(&person.username).await;
        Self { stage, slot, number, point: None, policy, person, client, requests: Vec::new(), held: None }
    }

    /// Asks for some of the slot's grants.
    pub async fn asks(&mut self, grants: &[&str], duration: &str, ends_as: Phase) -> Result<Request, String> {
        let name = unique("fix");
        self.stage.script.add_key(self.number, &name);
        let ask = Ask::new(self.stage.w.clone(), self.person.clone(), name, &self.policy.name);
        let request = ask.grants(grants.iter().copied()).lasting(duration).create_with(&self.client).await?;
        self.requests.push((request.clone(), ends_as));
        Ok(request)
    }

    pub async fn has_it(&self, request: &Request) -> Result<AccessRequest, String> {
        let has = |now: &AccessRequest| phase(now) == Some(Phase::Active) || is_final(now);
        self.stage.until(request, "Active", PATIENCE, has).await
    }

    /// From here on the calls count.
    fn begins(&self, all: bool) {
        let rule = self.point.map(|point| (point.place.clone(), point.fault));
        self.stage.script.arm(self.number, rule, all || self.point.is_some_and(|point| point.general));
    }

    async fn three(&mut self) -> Result<(), String> {
        self.begins(false);
        self.asks(&["realm", "client", "group"], &format!("{}s", SHORT.as_secs()), Phase::Expired).await.map(drop)
    }

    async fn alone(&mut self, grant: &str) -> Result<(), String> {
        self.begins(false);
        self.asks(&[grant], &format!("{}s", SHORT.as_secs()), Phase::Expired).await.map(drop)
    }

    async fn voted(&mut self) -> Result<(), String> {
        let request = self.asks(&["realm"], &format!("{}s", SHORT.as_secs()), Phase::Expired).await?;
        let ballot = |now: &AccessRequest| now.status.as_ref().and_then(|status| status.ballot.clone());
        let asked = self.stage.until(&request, "voted on", PATIENCE, |now| ballot(now).is_some()).await?;
        self.begins(false);
        self.stage.approves(&request, &ballot(&asked).unwrap_or_default()).await
    }

    async fn start(&mut self, company: &Company) -> Result<(), String> {
        // The more ask, the longer it takes until all have it: what is over before the operator dies proves nothing.
        let seconds = 10 + 2 * company.size;
        let given = match self.asks(&["realm", "client", "group"], &format!("{seconds}s"), Phase::Expired).await {
            Ok(request) => self.has_it(&request).await.map(drop),
            Err(error) => Err(error),
        };
        // All count from here on, and the operator dies once.
        company.barrier.wait().await;
        self.begins(true);
        if company.barrier.wait().await.is_leader() {
            self.stage.script.kill().await;
        }
        company.barrier.wait().await;
        self.stage.operator.is_ready().await;
        given
    }

    async fn overlap(&mut self) -> Result<(), String> {
        self.begins(false);
        let first = self.asks(&["realm", "client"], "10m", Phase::Revoked).await?;
        self.has_it(&first).await?;
        let second = self.asks(&["client", "group"], &format!("{}s", SHORT.as_secs()), Phase::Expired).await?;
        let given = self.has_it(&second).await?;
        self.held = given.grant().map(|grant| grant.deadline.0.max(Timestamp::now()));
        self.is_ended(&first).await?;
        self.stage.until(&first, "final", PATIENCE, is_final).await?;
        self.keeps_what_the_other_has(&second).await
    }

    /// The requester ends a request before its time.
    pub async fn is_ended(&self, request: &Request) -> Result<(), String> {
        let annotation = json!({"metadata": {"annotations": {format!("{END}{}", unique("e")): self.person.username}}});
        let api: Api<AccessRequest> = request.api(self.client.clone());
        let ended = api.patch(&request.name, &PatchParams::default(), &Patch::Merge(&annotation)).await;
        ended.map(drop).map_err(|error| format!("{} cannot be ended: {error}", request.name))
    }

    /// While the second lives, its role and group are there, whatever became of the first.
    async fn keeps_what_the_other_has(&self, other: &Request) -> Result<(), String> {
        let held = self.stage.holdings(&self.person.user).await;
        let now = self.stage.read(other).await.ok_or("the second request is gone")?;
        let grant = now.status.as_ref().and_then(|status| status.grant.as_ref());
        let lives = grant.is_some_and(|grant| Timestamp::now() < grant.deadline.0);
        let has = |id: &str| held.iter().any(|one| one.contains(id));
        let all = has(&self.slot.client_role.id) && has(&self.slot.group.id);
        if lives && phase(&now) == Some(Phase::Active) && !all {
            return Err(format!("{} is Active and has only {held:?}", other.name));
        }
        let theirs = has(&self.slot.realm_role.id);
        if theirs { Err(format!("the first request is final, and there is {held:?}")) } else { Ok(()) }
    }

    /// Waits until all is over, and compares the statuses with what must be.
    async fn ends(&self) -> Result<SignedDuration, Vec<String>> {
        let mut problems = Vec::new();
        let mut latest = SignedDuration::ZERO;
        for (request, expected) in &self.requests {
            let over = |now: &AccessRequest| is_final(now) && !now.finalizers().iter().any(|name| name == FINALIZER);
            match self.stage.until(request, "over", PATIENCE, over).await {
                Err(problem) => problems.push(problem),
                Ok(now) => {
                    let (wrong, late) = self.judge(&now, *expected);
                    problems.extend(wrong);
                    latest = latest.max(late);
                    let (user, disturbed) = (&self.person.user, self.point.is_some());
                    let early = proofs::ended_too_early(self.stage, user, &now, disturbed).await;
                    problems.extend(early.into_iter().map(|wrong| format!("{}: {wrong}", request.name)));
                }
            }
            problems.extend(self.stage.ledger.complaints(&request.name));
        }
        if let Some(held) = self.held {
            let role = &self.slot.client_role.id;
            problems.extend(proofs::taken_before(self.stage, &self.person.user, role, held).await);
        }
        if latest > BOUND {
            problems.push(format!("gone {latest:#} after the deadline, or after the operator's last start"));
        }
        if problems.is_empty() { Ok(latest) } else { Err(problems) }
    }

    /// What is wrong with a status that is final, and how late its access was gone.
    fn judge(&self, request: &AccessRequest, expected: Phase) -> (Vec<String>, SignedDuration) {
        let name = request.name_any();
        let status = request.status.clone().unwrap_or_default();
        let mut wrong = Vec::new();
        if status.phase != Some(expected) {
            wrong.push(format!("{name} is {:?}, not {expected:?}", status.phase));
        }
        let Some(grant) = status.grant else {
            wrong.push(format!("{name} was never given"));
            return (wrong, SignedDuration::ZERO);
        };
        let Some(ended) = grant.ended_at else {
            wrong.push(format!("{name} does not say when it ended"));
            return (wrong, SignedDuration::ZERO);
        };
        if expected == Phase::Expired && ended.0 < grant.deadline.0 {
            wrong.push(format!("{name} expired before its deadline"));
        }
        for target in &grant.targets {
            let left = target.pre_existing && target.state == TargetState::Kept;
            let taken = !target.pre_existing && target.state == TargetState::Removed;
            // The first of two hands over what the second has as well.
            let shared = target.name == "client" && target.state == TargetState::Kept;
            if !left && !taken && !shared {
                wrong.push(format!("{name}: {} is {:?}", target.name, target.state));
            }
        }
        let due = grant.deadline.0.max(self.stage.operator.starts().1);
        (wrong, if expected == Phase::Expired { ended.0.duration_since(due) } else { SignedDuration::ZERO })
    }
}

impl Told {
    /// At the end Keycloak is as it was before.
    pub async fn look_at_keycloak(&mut self, stage: &Stage) {
        let after = stage.holdings(&self.user).await;
        let left: Vec<_> = after.difference(&self.before).collect();
        let lost: Vec<_> = self.before.difference(&after).collect();
        if !left.is_empty() {
            self.problems.push(format!("left in Keycloak: {left:?}"));
        }
        for which in ["sessions".to_owned(), format!("offline-sessions/{}", self.client)] {
            if !stage.sessions(&self.user, &which).await.is_empty() {
                self.problems.push(format!("{which} are left"));
            }
        }
        if !lost.is_empty() {
            self.problems.push(format!("taken although it was there before: {lost:?}"));
        }
    }

    /// Takes away what this life made.
    pub async fn clear(&self, stage: &Stage) {
        for request in &self.requests {
            let _ = stage.w.requests().delete(&request.name, &DeleteParams::default()).await;
        }
        stage.w.keycloak.delete_user(&self.user).await;
    }
}
