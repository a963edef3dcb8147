//! Words for the scenarios: a policy, a request, and the world around them at a fixed clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use hallpass::{
    api::{self, AccessRequest, AccessRequestStatus, Phase, PinnedSubject, TargetStatus},
    domain::{
        Account, Decision, Directory, Effect, Guard, Lookup, Missing, Needs, Next, Observed, Outcome, OutcomeResult,
        People, Person, Policy, PolicyView, Request, Resolved, Rosters, Sessions, TargetsError, decide,
        delegation::Record, is_over, needs,
    },
};
use jiff::Timestamp;
use kube::CustomResourceExt;
use serde_json::Value;

pub use super::{policies::*, requests::*};

pub const ALICE: &str = "oidc:alice";
/// Alice's Keycloak user again, under another Kubernetes username.
pub const ALICES_OTHER_NAME: &str = "oidc:a.smith";
/// In the group of leads.
pub const BOB: &str = "oidc:bob";
/// In the group of security.
pub const CAROL: &str = "oidc:carol";
/// In both.
pub const DAVE: &str = "oidc:dave";
/// In neither.
pub const ERIN: &str = "oidc:erin";
/// A GitOps controller, who leads to no Keycloak user.
pub const FLUX: &str = "system:serviceaccount:flux:apply";
pub const LEADS: &str = "oidc:/payments/leads";
pub const SECURITY: &str = "oidc:/security";
pub const PAYMENTS: &str = "oidc:/payments";
/// Where Keycloak is.
pub const URL: &str = "https://sso.example.com";
/// The ballot of a request that was seen.
pub const BALLOT: &str = "b0";

/// Seconds after noon of the day on which everything happens. The admission policies are in force since nine.
pub fn at(seconds: i64) -> Timestamp {
    let noon: Timestamp = "2026-11-23T12:00:00Z".parse().expect("a time");
    Timestamp::from_second(noon.as_second() + seconds).expect("a time")
}

/// Everything that can be seen.
#[derive(Clone, Debug)]
pub struct World {
    pub now: Timestamp,
    pub guard: Guard,
    /// The trust epoch that was seen last, before this answer of the guard.
    pub known_epoch: Option<&'static str>,
    pub policy: PolicyView,
    pub people: People,
    pub rosters: Option<Arc<Rosters>>,
    pub realm_id: &'static str,
    /// Whether the grants lead to Keycloak's administration, which is allowed.
    pub administers: bool,
    /// How long tokens live, or why nobody knows.
    pub lifespan: Result<Duration, String>,
    /// Targets that the subject has in Keycloak, by the grants' names.
    pub mapped: BTreeSet<String>,
    pub targets_error: Option<TargetsError>,
    /// What Alice has done of what Keycloak can ask for.
    pub account: Account,
    pub record: Result<Record, String>,
    pub siblings: Vec<Request>,
    pub travelling: BTreeMap<String, Timestamp>,
    /// What live requests lack, once somebody has looked.
    pub missing: Option<Vec<Missing>>,
    pub clocks: Option<String>,
    pub released: Option<String>,
    pub outcomes: Vec<Outcome>,
    ballots: std::cell::Cell<u32>,
}

/// A world in which everything works, under this policy.
pub fn world(policy: &PolicyBuilder) -> World {
    let person = |id: &str, groups: &[&str]| {
        let groups = groups.iter().map(ToString::to_string).collect();
        Lookup::Person(Person { id: id.into(), username: id.into(), groups })
    };
    World {
        now: at(0),
        guard: Guard::InForce { epoch: "first".into(), since: at(-3 * 3600), stamp: false },
        known_epoch: Some("first"),
        policy: policy.ready(),
        people: BTreeMap::from([
            (ALICE.into(), person("alice", &[PAYMENTS, LEADS])),
            (ALICES_OTHER_NAME.into(), person("alice", &[PAYMENTS, LEADS])),
            (BOB.into(), person("bob", &[LEADS])),
            (CAROL.into(), person("carol", &[SECURITY])),
            (DAVE.into(), person("dave", &[LEADS, SECURITY])),
            (ERIN.into(), person("erin", &[])),
            (FLUX.into(), Lookup::Nobody(format!("{FLUX} stands for no Keycloak user"))),
        ]),
        rosters: None,
        realm_id: "realm",
        administers: false,
        lifespan: Ok(Duration::from_mins(5)),
        mapped: BTreeSet::new(),
        targets_error: None,
        account: Account::default(),
        record: Ok(Record { since: at(-3 * 3600), by: None, full: false }),
        siblings: Vec::new(),
        travelling: BTreeMap::new(),
        missing: None,
        clocks: None,
        released: None,
        outcomes: Vec::new(),
        ballots: std::cell::Cell::new(0),
    }
}

impl World {
    pub fn at(mut self, seconds: i64) -> Self {
        self.now = at(seconds);
        self
    }
    pub fn without_policy(mut self) -> Self {
        self.policy = PolicyView::Absent;
        self
    }
    pub fn under(mut self, policy: &PolicyBuilder) -> Self {
        self.policy = policy.ready();
        self
    }
    pub fn not_ready(mut self, policy: &PolicyBuilder) -> Self {
        let policy = policy.read();
        let (uid, suspended, why) = (policy.uid.clone(), policy.suspended, "spec.grants: no such role".into());
        self.policy = PolicyView::NotReady { uid, suspended, why, policy: Some(Arc::new(policy)) };
        self
    }
    /// Keycloak was asked whom these subjects of the policy stand for.
    pub fn rosters(mut self, directory: &Directory) -> Self {
        let policy = self.policy.known().expect("a policy");
        self.rosters = Some(Arc::new(Rosters::new(policy.approval.stages(), directory)));
        self
    }
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }
    /// This trust epoch was seen last, or none.
    pub fn knows_epoch(mut self, epoch: Option<&'static str>) -> Self {
        self.known_epoch = epoch;
        self
    }
    /// The admission policies are away.
    pub fn unguarded(self) -> Self {
        self.guard(Guard::NotInForce("hallpass-identity was deleted".into()))
    }
    pub fn clocks_differ(mut self) -> Self {
        self.clocks = Some("the clock of the API server is 40 s behind the operator's".into());
        self
    }
    pub fn nobody(mut self, name: &str) -> Self {
        self.people.insert(name.into(), Lookup::Nobody(format!("{name} leads to a disabled user")));
        self
    }
    pub fn unknown(mut self, name: &str) -> Self {
        self.people.insert(name.into(), Lookup::Unknown("keycloak is away".into()));
        self
    }
    /// Somebody is in these groups now.
    pub fn moves(mut self, name: &str, groups: &[&str]) -> Self {
        if let Some(Lookup::Person(person)) = self.people.get_mut(name) {
            person.groups = groups.iter().map(ToString::to_string).collect();
        }
        self
    }
    /// The request with this UID has started in the same window.
    pub fn has_started(mut self, uid: &str) -> Self {
        self.record = self.record.map(|record| Record { by: Some(uid.into()), ..record });
        self
    }
    pub fn keycloak_has(mut self, grant: &str) -> Self {
        self.mapped.insert(grant.into());
        self
    }
    pub fn beside(mut self, sibling: &RequestBuilder) -> Self {
        self.siblings.push(sibling.read());
        self
    }
    /// A write to this grant's target lost its answer, and may arrive until then.
    pub fn travels(mut self, grant: &str, seconds: i64) -> Self {
        self.travelling.insert(ours(grant).id, at(seconds));
        self
    }
    /// Nothing is on its way any more.
    pub fn settled(mut self) -> Self {
        self.travelling.clear();
        self
    }
    pub fn outcome(mut self, target: &str, result: OutcomeResult) -> Self {
        self.outcomes.push(Outcome { target: target.into(), result, travelling: None });
        self
    }
    /// When that came out something that was sent before could still arrive, until then.
    pub fn while_travelling(mut self, seconds: i64) -> Self {
        self.outcomes.iter_mut().for_each(|outcome| outcome.travelling = Some(at(seconds)));
        self
    }
    pub fn fails(self, target: &str) -> Self {
        self.outcome(target, OutcomeResult::Failed("403 Forbidden".into()))
    }

    /// What the controller would show: what was asked for, and nothing else.
    pub fn observed(&self, request: &Request) -> Observed {
        let Needs { guard, people, enders, targets, record } =
            needs(request, &self.outcomes, self.now, self.known_epoch);
        let phase = request.phase();
        let ends = phase.is_some_and(|phase| phase.is_final() || phase == Phase::Revoking)
            || request.is_due(self.now)
            || request.deleting;
        let policy = if ends { PolicyView::Absent } else { self.policy.clone() };
        let seen = |name: &String| self.people.get(name).cloned().map(|lookup| (name.clone(), lookup));
        let people: People = match &policy {
            PolicyView::Ready(_) => people.iter().filter_map(seen).collect(),
            PolicyView::NotReady { policy: Some(_), .. } => enders.iter().filter_map(seen).collect(),
            PolicyView::Absent | PolicyView::NotReady { .. } => People::new(),
        };
        let gives = phase.is_none_or(|phase| phase == Phase::Pending) || targets;
        let asks = matches!(people.get(&request.requester), Some(Lookup::Person(_)));
        self.ballots.set(self.ballots.get() + 1);
        Observed {
            guard: if guard { self.guard.clone() } else { Guard::NotAsked },
            realm_id: (gives && asks).then(|| self.realm_id.to_owned()),
            url: (gives && asks).then(|| URL.to_owned()),
            targets: match (&policy, targets) {
                (PolicyView::Ready(policy), true) => Some(self.targets(policy, request)),
                _ => None,
            },
            policy,
            people,
            account: targets.then(|| Ok(self.account.clone())),
            clocks: self.clocks.clone(),
            record: (gives && asks && record).then(|| self.record.clone()),
            rosters: self.rosters.clone(),
            siblings: self.siblings.clone(),
            token_lifespan: (targets || is_over(request, &self.outcomes, self.now)).then(|| self.lifespan.clone()),
            travelling: self.travelling.clone(),
            missing: self.missing.clone(),
            released: self.released.clone(),
            outcomes: self.outcomes.clone(),
            ballot: format!("b{}", self.ballots.get()),
        }
    }

    fn targets(&self, policy: &Arc<Policy>, request: &Request) -> Result<Vec<Resolved>, TargetsError> {
        if let Some(error) = &self.targets_error {
            return Err(error.clone());
        }
        let resolved = policy.wanted(&request.grants).map(|grant| {
            let TargetStatus { name, type_, id, client, display, .. } = ours(&grant.name);
            let (mapped, administers) = (self.mapped.contains(&name), self.administers);
            Resolved { mapped, administers, grant: name, type_, id, client, display }
        });
        Ok(resolved.collect())
    }

    /// Decides, and makes sure of what holds for every decision: the API server takes the status, and deciding again
    /// without news writes nothing and wants nothing else.
    #[track_caller]
    pub fn decide(&self, request: &RequestBuilder) -> Answer {
        let answer = self.decide_on(&request.read());
        fits(answer.status());
        answer
    }

    #[track_caller]
    pub fn decide_on(&self, request: &Request) -> Answer {
        let answer = Answer { decision: decide(request, &self.observed(request), self.now), before: request.clone() };
        if let Some(status) = answer.decision.status.as_ref().filter(|_| request.forged.is_none()) {
            assert_ne!(**status, request.status, "written although nothing changed");
        }
        let quiet = Self { outcomes: Vec::new(), ..self.clone() };
        let mut next = answer.after();
        let mut last = decide(&next, &quiet.observed(&next), self.now);
        for _ in 0..4 {
            let Some(status) = last.status.take() else { break };
            (next.status, next.forged) = (*status, None);
            last = decide(&next, &quiet.observed(&next), self.now);
        }
        assert_eq!(last.status, None, "written again and again without news");
        let again = decide(&next, &quiet.observed(&next), self.now);
        assert_eq!(again, last, "decided otherwise without news");
        answer
    }
}

/// A decision, and the request that it is about.
pub struct Answer {
    pub before: Request,
    pub decision: Decision,
}

impl Answer {
    /// The status once it is written.
    pub fn status(&self) -> &AccessRequestStatus {
        self.decision.status.as_deref().unwrap_or(&self.before.status)
    }

    /// The request once status and finalizer are written.
    pub fn after(&self) -> Request {
        let mut after = Request { status: self.status().clone(), ..self.before.clone() };
        // What is written is ours.
        after.forged = after.forged.filter(|_| self.decision.status.is_none());
        for effect in &self.decision.effects {
            after.has_finalizer = match effect {
                Effect::AddFinalizer => true,
                Effect::RemoveFinalizer => false,
                _ => after.has_finalizer,
            };
        }
        after
    }

    pub fn word(&self) -> String {
        self.ready().map(|ready| ready.reason.clone()).unwrap_or_default()
    }

    pub fn message(&self) -> String {
        self.ready().map(|ready| ready.message.clone()).unwrap_or_default()
    }

    fn ready(&self) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
        self.status().conditions.iter().find(|condition| condition.type_ == "Ready")
    }

    pub fn targets(&self) -> &[TargetStatus] {
        self.status().grant.as_ref().map(|grant| grant.targets.as_slice()).unwrap_or_default()
    }

    #[track_caller]
    pub fn is(&self, phase: Phase) -> &Self {
        assert_eq!(self.status().phase, Some(phase), "{} {}", self.word(), self.message());
        self
    }

    /// Is in this phase for this reason.
    #[track_caller]
    pub fn is_for(&self, phase: Phase, word: &str) -> &Self {
        self.is(phase);
        assert_eq!(self.word(), word, "{}", self.message());
        self
    }

    #[track_caller]
    pub fn says(&self, words: &str) -> &Self {
        assert!(self.message().contains(words), "{:?} is not in {:?}", words, self.message());
        self
    }

    /// Wants these effects and no others.
    #[track_caller]
    pub fn does(&self, effects: &[&str]) -> &Self {
        assert_eq!(self.decision.effects.iter().map(words).collect::<Vec<_>>(), effects, "{}", self.message());
        self
    }

    #[track_caller]
    pub fn writes_nothing(&self) -> &Self {
        assert_eq!(self.decision.status, None);
        self
    }

    #[track_caller]
    pub fn next(&self, next: Next) -> &Self {
        assert_eq!(self.decision.next, next, "{}", self.message());
        self
    }
}

/// An effect in short.
pub fn words(effect: &Effect) -> String {
    match effect {
        Effect::AddFinalizer => "add finalizer".into(),
        Effect::RemoveFinalizer => "remove finalizer".into(),
        Effect::Map(target) => format!("map {}", target.name),
        Effect::Confirm(target) => format!("confirm {}", target.name),
        Effect::Unmap(target) => format!("unmap {}", target.name),
        Effect::HandOver { target, to } => format!("hand {} over to {to}", target.name),
        Effect::EndSessions { which: Sessions::All, removed } => {
            format!("end all sessions after {}", removed.join(" "))
        }
        Effect::EndSessions { which: Sessions::OfClients(clients), removed } => {
            let clients: Vec<_> = clients.iter().map(String::as_str).collect();
            format!("end sessions of {} after {}", clients.join(" "), removed.join(" "))
        }
        Effect::AskForActions(actions) => {
            format!("ask for {}", actions.iter().cloned().collect::<Vec<_>>().join(", "))
        }
        Effect::Record { digest: _, until } => format!("record until {until}"),
    }
}

pub fn alice() -> PinnedSubject {
    PinnedSubject {
        realm: "prod".into(),
        url: None,
        realm_id: "realm".into(),
        user_id: "alice".into(),
        username: "alice".into(),
    }
}

/// Fails unless the API server would store this status.
#[track_caller]
pub fn fits(status: &AccessRequestStatus) {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| serde_json::to_value(AccessRequest::crd()).expect("a CRD"));
    let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let mut problems = Vec::new();
    within(schema, &serde_json::to_value(status).expect("a status"), "status", &mut problems);
    assert!(problems.is_empty(), "the API server refuses this: {problems:?}");
}

fn within(schema: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
    let limit = |name: &str| schema[name].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    match value {
        Value::String(text) if text.chars().count() > limit("maxLength") => {
            problems.push(format!("{path} is too long"));
        }
        Value::Array(items) => {
            if items.len() > limit("maxItems") {
                problems.push(format!("{path} has too many items"));
            }
            for item in items {
                within(&schema["items"], item, path, problems);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                within(&schema["properties"][name], value, &format!("{path}.{name}"), problems);
            }
        }
        _ => {}
    }
    if schema.is_null() {
        problems.push(format!("{path} is not in the CRD"));
    }
}

/// The annotation of a vote or an end.
pub fn key(prefix: &str, ballot: &str, stage: &str, number: usize) -> String {
    if prefix == api::END { format!("{prefix}{number}") } else { format!("{prefix}{ballot}.{stage}.{number}") }
}
