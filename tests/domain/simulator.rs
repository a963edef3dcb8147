//! A model of the world for random lives: three requests of one person, a Keycloak that fails, administrators who meddle,
//! a controller that is killed at any moment. Statuses and effects are applied as the controller does.

use std::collections::{BTreeMap, BTreeSet};

use super::{events::*, life::may_go, world::*};
use hallpass::{
    api::{AtEnd, Phase, TargetState, VoteDecision},
    domain::{Decision, Effect, Guard, Lookup, Outcome, OutcomeResult, Policy, PolicyView, Request, decide},
};

/// The grants of the policy.
pub const GRANTS: [&str; 3] = ["a", "b", "c"];

/// A mapping in Keycloak. Who made it is what no status says.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Mapping {
    there: bool,
    ours: bool,
    admins: bool,
    /// Added by an administrator when no request of ours claimed it: never to be removed.
    protected: bool,
    /// An administrator removed it since we mapped it.
    meddled: bool,
    mood: Option<Mood>,
}

pub struct Simulator {
    pub world: World,
    now: i64,
    requests: Vec<Request>,
    outcomes: Vec<Vec<Outcome>>,
    gone: BTreeSet<usize>,
    keycloak: BTreeMap<String, Mapping>,
    policies: Vec<PolicyBuilder>,
    people: BTreeMap<String, Lookup>,
    /// Under which rules a ballot was given out.
    ballots: BTreeMap<String, String>,
    signals: usize,
    /// Requests whose sessions were ended.
    signed_out: BTreeSet<usize>,
}

impl Simulator {
    /// `before` are grants that the person has before anything happens.
    pub fn new(policy: usize, before: &[bool]) -> Self {
        let mut base = policy_with(GRANTS.as_slice());
        base.0.spec.approval.get_or_insert_default().timeout = Some("3h".into());
        let policies = vec![
            base.clone(),
            base.clone().automatic().at_end(AtEnd::EndAll),
            base.clone().stage("security", 1, &[SECURITY]),
            base.clone().suspended(),
            base.clone().made_anew(),
            base.clone().at_most("30m"),
        ];
        let world = world(&policies[policy]);
        let mut requests = Vec::new();
        for (name, wants, lasting) in
            [("one", &["a", "b"][..], "25m"), ("two", &["a"], "1h"), ("three", &["a", "b", "c"], "30m")]
        {
            requests.push(request(name).wants(wants).lasting(lasting).read());
        }
        requests[2].not_before = Some(at(900));
        let mapping = |there: &bool| Mapping { there: *there, admins: *there, protected: *there, ..Mapping::default() };
        let keycloak = GRANTS.iter().zip(before).map(|(name, there)| ((*name).to_owned(), mapping(there))).collect();
        Self {
            people: world.people.clone(),
            world,
            now: 0,
            requests,
            outcomes: vec![Vec::new(); 3],
            gone: BTreeSet::new(),
            keycloak,
            policies,
            ballots: BTreeMap::new(),
            signals: 0,
            signed_out: BTreeSet::new(),
        }
    }

    pub fn happens(&mut self, event: &Event) {
        match event {
            Event::Work { request, steps, killed } => {
                for step in 1..=*steps {
                    self.work(*request, if step == *steps { *killed } else { Killed::No });
                }
            }
            Event::Vote { request, by, stage, decision } => self.vote(*request, PEOPLE[*by], *stage, *decision),
            Event::End { request, by } => {
                let signal = super::world::request("x").annotated(&self.key("end.hallpass.dev/"), PEOPLE[*by]);
                if !matches!(self.requests[*request].phase(), Some(phase) if phase.is_final() || phase == Phase::Revoking)
                {
                    self.requests[*request].signals.extend(signal.read().signals);
                }
            }
            Event::Delete { request } => {
                if self.requests[*request].has_finalizer {
                    self.requests[*request].deleting = true;
                } else {
                    self.gone.insert(*request);
                }
            }
            Event::Policy(number) => {
                self.world = match (self.policies.get(*number), number) {
                    (Some(policy), _) => self.world.clone().under(policy),
                    (None, 6) => self.world.clone().without_policy(),
                    (None, _) => self.world.clone().not_ready(&self.policies[0]),
                }
            }
            Event::Guard(true) => {
                self.world.guard = Guard::InForce { epoch: "first".into(), since: at(-60), stamp: false }
            }
            Event::Guard(false) => self.world.guard = Guard::NotInForce("away".into()),
            Event::Known { who, known: true } => {
                self.world.people.insert(PEOPLE[*who].into(), self.people[PEOPLE[*who]].clone());
            }
            Event::Known { who, known: false } => self.world = self.world.clone().unknown(PEOPLE[*who]),
            Event::Keycloak { grant, mood } => self.mapping(GRANTS[*grant]).mood = Some(*mood),
            Event::AdminMaps(grant) => {
                let claimed = self.is_claimed(GRANTS[*grant]);
                let mapping = self.mapping(GRANTS[*grant]);
                mapping.protected |= !claimed && !mapping.ours;
                (mapping.there, mapping.admins) = (true, true);
            }
            Event::AdminUnmaps(grant) => {
                let mapping = self.mapping(GRANTS[*grant]);
                *mapping = Mapping { meddled: true, mood: mapping.mood, ..Mapping::default() };
            }
            Event::Time(seconds) => self.now += seconds,
        }
        self.check_no_gap();
    }

    fn key(&mut self, prefix: &str) -> String {
        self.signals += 1;
        format!("{prefix}{}", self.signals)
    }

    /// The API server takes votes on the present ballot of a Pending request, not from its requester.
    fn vote(&mut self, request: usize, by: &str, stage: usize, yes: bool) {
        let Some(ballot) = self.requests[request].status.ballot.clone() else { return };
        if self.requests[request].phase() == Some(Phase::Pending) && by != ALICE {
            let prefix = if yes { "approve" } else { "deny" };
            let key = self.key(&format!("{prefix}.hallpass.dev/{ballot}.{}.", ["lead", "security"][stage]));
            self.requests[request].signals.extend(super::world::request("x").annotated(&key, by).read().signals);
        }
    }

    fn mapping(&mut self, grant: &str) -> &mut Mapping {
        self.keycloak.entry(grant.into()).or_default()
    }

    /// Whether a request of ours says that this is its own.
    fn is_claimed(&self, grant: &str) -> bool {
        self.live().any(|request| {
            let targets = request.status.grant.iter().flat_map(|grant| &grant.targets);
            targets.clone().any(|target| target.name == grant && !target.pre_existing)
        })
    }

    fn live(&self) -> impl Iterator<Item = &Request> {
        let there = |(i, request): (usize, _)| (!self.gone.contains(&i)).then_some(request);
        self.requests
            .iter()
            .enumerate()
            .filter_map(there)
            .filter(|request| !request.phase().is_some_and(Phase::is_final))
    }

    /// One step of the controller, alone with the subject.
    fn work(&mut self, i: usize, killed: Killed) {
        if self.gone.contains(&i) {
            return;
        }
        let before = self.requests[i].clone();
        let decision = self.look(i);
        // It goes on before the status is written.
        self.requests[i].has_finalizer |= decision.effects.contains(&Effect::AddFinalizer);
        if killed == Killed::BeforeStatus {
            self.outcomes.iter_mut().for_each(Vec::clear);
            return;
        }
        if let Some(status) = &decision.status {
            self.requests[i].status = (**status).clone();
        }
        self.check_step(&before, i, &decision);
        let limit = match killed {
            Killed::AfterEffects(limit) => limit,
            Killed::No | Killed::BeforeStatus => usize::MAX,
        };
        let mut outcomes = Vec::new();
        for effect in decision.effects.iter().take(limit) {
            outcomes.extend(self.carry_out(i, effect));
        }
        self.outcomes[i] = outcomes;
        if killed != Killed::No {
            self.outcomes.iter_mut().for_each(Vec::clear);
        }
    }

    fn look(&mut self, i: usize) -> Decision {
        let now = at(self.now);
        self.world.now = now;
        self.world.mapped = self.keycloak.iter().filter(|(_, m)| m.there).map(|(name, _)| name.clone()).collect();
        self.world.outcomes = std::mem::take(&mut self.outcomes[i]);
        // Those with a pinned subject: the others cannot be known to be the same person's.
        self.world.siblings = self
            .live()
            .filter(|other| other.uid != self.requests[i].uid && other.status.subject.is_some())
            .cloned()
            .collect();
        let decision = decide(&self.requests[i], &self.world.observed(&self.requests[i]), now);
        // What is not news now is none if asked again.
        let news = decision.status.is_some() || !self.world.outcomes.is_empty();
        if news { self.world.decide_on(&self.requests[i]).decision } else { decision }
    }

    fn carry_out(&mut self, i: usize, effect: &Effect) -> Option<Outcome> {
        let (target, done) = match effect {
            Effect::AddFinalizer => {
                self.requests[i].has_finalizer = true;
                return None;
            }
            Effect::RemoveFinalizer => {
                self.requests[i].has_finalizer = false;
                if self.requests[i].deleting {
                    self.gone.insert(i);
                }
                return None;
            }
            Effect::HandOver { target, to } => {
                let heir = self.requests.iter_mut().find(|request| request.uid == *to);
                let targets = heir.and_then(|heir| heir.status.grant.as_mut()).map(|grant| &mut grant.targets);
                for theirs in targets.into_iter().flatten().filter(|theirs| theirs.id == target.id) {
                    theirs.pre_existing = false;
                }
                return Some(Outcome {
                    target: target.name.clone(),
                    result: OutcomeResult::HandedOver,
                    travelling: None,
                });
            }
            Effect::EndSessions { which: _, removed } => {
                for name in removed {
                    let mapping = &self.keycloak[name];
                    assert!(!(mapping.there && mapping.ours), "signed out before {name} was gone");
                }
                self.signed_out.insert(i);
                return Some(Outcome { target: String::new(), result: OutcomeResult::SessionsEnded, travelling: None });
            }
            Effect::AskForActions(_) => panic!("the policy wants nothing done"),
            Effect::Record { .. } => panic!("nobody submits for others here"),
            Effect::Map(target) | Effect::Confirm(target) | Effect::Unmap(target) => {
                let mood = self.mapping(&target.name).mood.unwrap_or(Mood::Works);
                if mood == Mood::Refuses {
                    (target, OutcomeResult::Failed("refused".into()))
                } else {
                    let done = self.in_keycloak(effect, &target.name);
                    let lost = mood == Mood::LosesAnswers;
                    (target, if lost { OutcomeResult::Failed("no answer".into()) } else { done })
                }
            }
        };
        Some(Outcome { target: target.name.clone(), result: done, travelling: None })
    }

    fn in_keycloak(&mut self, effect: &Effect, name: &str) -> OutcomeResult {
        let mapping = self.mapping(name);
        match effect {
            Effect::Map(_) => {
                if !mapping.there {
                    *mapping = Mapping { there: true, ours: true, mood: mapping.mood, ..Mapping::default() };
                }
                OutcomeResult::Mapped
            }
            Effect::Confirm(_) if mapping.there => OutcomeResult::Mapped,
            Effect::Confirm(_) => OutcomeResult::Missing,
            _ => {
                assert!(!(mapping.there && mapping.protected), "took away {name}, which was there before we looked");
                *mapping = Mapping { mood: mapping.mood, ..Mapping::default() };
                OutcomeResult::Removed
            }
        }
    }

    /// What holds for one step.
    fn check_step(&mut self, before: &Request, i: usize, decision: &Decision) {
        let (now, after) = (at(self.now), &self.requests[i]);
        let (from, to) = (before.phase(), after.phase());
        assert!(may_go(from, to), "{from:?} to {to:?}");
        if from.is_some_and(Phase::is_final) {
            assert_eq!(before.status, after.status, "final stays final");
        }
        let live = matches!(to, Some(Phase::Activating | Phase::Active));
        assert!(!live || after.deadline().is_some_and(|deadline| deadline > now), "{to:?} past its deadline");
        if let Some(grant) = &before.status.grant {
            let now = after.status.grant.as_ref().expect("a grant stays");
            assert!(now.deadline.0 <= grant.deadline.0, "the deadline moved later");
            assert_eq!(grant.targets.len(), now.targets.len(), "fewer targets");
            for (old, new) in grant.targets.iter().zip(&now.targets) {
                assert_eq!((&old.name, &old.id), (&new.name, &new.id));
                assert!(old.pre_existing || !new.pre_existing, "preExisting became true");
            }
        }
        for effect in &decision.effects {
            let allowed = match effect {
                Effect::Map(target) => to == Some(Phase::Activating) && !target.pre_existing,
                Effect::Confirm(target) => to == Some(Phase::Activating) && target.pre_existing,
                Effect::Unmap(target) | Effect::HandOver { target, .. } => {
                    to == Some(Phase::Revoking) && !target.pre_existing
                }
                Effect::AddFinalizer => !to.is_some_and(Phase::is_final),
                Effect::RemoveFinalizer => to.is_some_and(Phase::is_final),
                Effect::EndSessions { .. } => to == Some(Phase::Revoking),
                Effect::Record { .. } | Effect::AskForActions(_) => false,
            };
            assert!(allowed, "{effect:?} in {to:?}");
        }
        if let (Some(grant), true) = (&after.status.grant, from != to && to.is_some_and(Phase::is_final)) {
            let taken = grant.targets.iter().any(|target| target.state == TargetState::Removed);
            assert_eq!(self.signed_out.contains(&i), taken && grant.sessions.is_some(), "{grant:?}");
            assert_eq!(grant.powerless_at.is_some(), taken, "{grant:?}");
        }
        if let (Some(ballot), PolicyView::Ready(policy)) = (&after.status.ballot, &self.world.policy) {
            self.ballots.entry(format!("{i}{ballot}")).or_insert_with(|| policy.rules.clone());
        }
        if from != Some(Phase::Activating) && to == Some(Phase::Activating) {
            assert!(before.has_finalizer || decision.effects.contains(&Effect::AddFinalizer));
            self.check_agreed(after, i);
        }
    }

    /// Nothing is given that was not agreed to: by distinct people who may, not the requester, under these very rules.
    fn check_agreed(&self, request: &Request, i: usize) {
        assert!(matches!(self.world.guard, Guard::InForce { .. }));
        let PolicyView::Ready(policy) = &self.world.policy else { panic!("without a policy") };
        let Policy { rules, suspended, approval, .. } = &**policy;
        assert!(!suspended && request.status.policy.as_ref().is_some_and(|pin| pin.uid == policy.uid));
        let stages = approval.stages();
        if stages.is_empty() {
            assert_eq!(request.status.rules.as_ref(), Some(rules), "released by a policy that became automatic");
            return;
        }
        let ballot = request.status.ballot.clone().unwrap_or_default();
        assert_eq!(self.ballots.get(&format!("{i}{ballot}")), Some(rules), "votes under other rules");
        let may = |stage: usize, decision: VoteDecision| -> BTreeSet<&str> {
            let group = [LEADS, SECURITY][stage];
            let cast = request.status.votes.iter().filter(|vote| {
                vote.decision == decision
                    && vote.stage == stages[stage].name
                    && vote.key.contains(&format!("/{ballot}."))
            });
            let people = cast.filter_map(|vote| match &self.people[&vote.by] {
                Lookup::Person(person) if person.groups.contains(group) && person.id != "alice" => {
                    Some(person.id.as_str())
                }
                _ => None,
            });
            people.collect()
        };
        assert!((0..stages.len()).all(|stage| may(stage, VoteDecision::Deny).is_empty()), "although somebody denied");
        let leads = may(0, VoteDecision::Approve);
        let agreed = match stages.len() {
            1 => !leads.is_empty(),
            _ => may(1, VoteDecision::Approve).iter().any(|second| leads.iter().any(|first| first != second)),
        };
        assert!(agreed, "without the votes");
    }

    /// While somebody holds it and nobody meddles, it is there.
    fn check_no_gap(&self) {
        let now = at(self.now);
        for request in self.live().filter(|request| request.phase() == Some(Phase::Active)) {
            let ends = request.is_due(now) || request.deleting || request.status.ends.iter().any(|end| end.counted);
            for target in request.status.grant.iter().flat_map(|grant| &grant.targets) {
                let mapping = &self.keycloak[&target.name];
                assert!(ends || mapping.there || mapping.meddled, "{} is not there for {}", target.name, request.name);
            }
        }
    }

    /// From here on nothing fails: everything comes to its end.
    pub fn runs_out(&mut self) {
        let first = self.policies[0].clone();
        self.world.people = self.people.clone();
        self.world = self.world.clone().under(&first);
        self.happens(&Event::Guard(true));
        self.keycloak.values_mut().for_each(|mapping| mapping.mood = None);
        for hours in [0, 2, 200] {
            self.now += hours * 3600;
            for round in 0..60 {
                let i = round % 3;
                self.happens(&Event::Work { request: i, steps: 1, killed: Killed::No });
            }
        }
        let waiting: Vec<_> = self.live().map(|request| (&request.name, request.phase())).collect();
        assert!(waiting.is_empty(), "not over: {waiting:?}");
        for (name, mapping) in &self.keycloak {
            assert!(!(mapping.there && mapping.ours && !mapping.admins), "{name} was left behind");
        }
        for (i, request) in self.requests.iter().enumerate() {
            assert!(self.gone.contains(&i) || !request.has_finalizer, "{} is held", request.name);
        }
    }
}

fn policy_with(grants: &[&str]) -> PolicyBuilder {
    let mut policy = policy();
    policy.0.spec.grants.clear();
    grants.iter().fold(policy, |policy, grant| policy.grant(grant))
}
