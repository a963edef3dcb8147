//! A random history: people ask, end and delete, an administrator maps, unmaps and renames, servers fail, the operator
//! dies; all the time, and at the end, Keycloak is as [`Model`] says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use hallpass::api::{AccessRequest, END, Phase};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    dice::Dice,
    keycloak_admin::{self, Group, Role, unique},
    model::{Asked, Model, Requests},
    people::Person,
    policy::Policy,
    request::{Ask, Request},
    script::{Fault, Garbage, Place, When},
    stage::Stage,
};

/// How long it may take until all is over after the last move.
const PATIENCE: Duration = Duration::from_secs(90);

/// Calls to which something can happen.
const KINDS: [&str; 15] = [
    "keycloak POST users/*/role-mappings/realm",
    "keycloak POST users/*/role-mappings/clients/*",
    "keycloak PUT users/*/groups/*",
    "keycloak DELETE users/*/role-mappings/realm",
    "keycloak DELETE users/*/role-mappings/clients/*",
    "keycloak DELETE users/*/groups/*",
    "keycloak GET users/*/role-mappings/realm",
    "keycloak GET users/*/groups",
    "keycloak GET users",
    "keycloak GET roles",
    "keycloak POST token",
    "api PUT accessrequests/*/status",
    "api PUT accessrequests/*/status",
    "api PATCH accessrequests/*",
    "api GET accesspolicies/*",
];

/// What can happen to them.
const FAULTS: [Fault; 15] = [
    Fault::Cut(When::Before),
    Fault::Cut(When::After),
    Fault::Hang(When::Before),
    Fault::Hang(When::After),
    Fault::Late,
    Fault::HangLate,
    Fault::Status(500, When::Before),
    Fault::Status(500, When::After),
    Fault::Status(503, When::Before),
    Fault::Status(504, When::After),
    Fault::Status(401, When::Before),
    Fault::Body(Garbage::Html),
    Fault::Body(Garbage::Empty),
    Fault::Body(Garbage::Truncated),
    Fault::Slow,
];

/// How a history goes.
#[derive(Clone, Copy)]
pub struct Plan {
    pub people: usize,
    pub lasts: Duration,
    /// From one move to the next, on average.
    pub pace: Duration,
    /// Whether the operator is killed.
    pub kills: bool,
    /// Whether an administrator maps, unmaps and renames.
    pub administrator: bool,
}

/// A role or a group.
enum Thing {
    Role(Role),
    Group(Group),
}

impl Thing {
    fn id(&self) -> &str {
        match self {
            Self::Role(role) => &role.id,
            Self::Group(group) => &group.id,
        }
    }
}

/// A history under way.
struct History<'a> {
    stage: &'a Stage,
    plan: Plan,
    people: Vec<(Person, Client)>,
    things: Vec<Thing>,
    /// Policies, and which things each can give, by the names of their grants.
    policies: Vec<(Policy, Vec<(String, usize)>)>,
    model: Mutex<Model>,
    begin: Instant,
    told: std::sync::Mutex<Vec<String>>,
}

/// How often Keycloak was compared with the model, and how often with a role or group of a request that was Active.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looks {
    all: usize,
    held: usize,
}

/// What happened, in numbers.
pub struct Outcome {
    pub requests: usize,
    pub phases: BTreeMap<String, usize>,
    pub faults: (usize, usize),
    pub looks: Looks,
    pub starts: usize,
}

impl Outcome {
    pub fn tell(&self, what: &str, seed: u64) {
        let Self { requests, phases, faults: (happened, meant), looks, starts } = self;
        let Looks { all, held } = looks;
        println!(
            "{what}: {requests} requests {phases:?}, {happened} of {meant} faults, the operator started {starts} times, \
             compared {all} times, with {held} things that were held, HALLPASS_SEED={seed}"
        );
    }

    /// A history in which nothing failed and nobody had anything would pass whatever the operator does.
    pub fn proves_something(&self) {
        assert!(self.faults.0 > 0, "of {} faults none happened", self.faults.1);
        assert!(self.looks.held > 0, "nobody ever had anything: {:?}", self.looks);
    }
}

/// Whether a request keeps what it gave in place: nothing has ended it, and it is not due.
fn holds(request: &AccessRequest) -> bool {
    let ended = request.annotations().keys().any(|key| key.starts_with(END));
    let lives = request.grant().is_some_and(|grant| Timestamp::now() < grant.deadline.0);
    request.phase() == Some(Phase::Active) && lives && !ended && request.metadata.deletion_timestamp.is_none()
}

/// Plays a history. What is wrong is an error that tells all moves.
pub async fn play(stage: &Stage, seed: u64, plan: Plan) -> Result<Outcome, String> {
    let history = History::begin(stage, plan).await;
    let over = Mutex::new(false);
    let moves = async {
        history.moves(Dice::new(seed)).await;
        *over.lock().await = true;
    };
    let looks = async {
        let mut looks = Looks::default();
        while !*over.lock().await {
            looks.held += history.looks().await?;
            looks.all += 1;
            sleep(Duration::from_millis(500)).await;
        }
        Ok::<Looks, String>(looks)
    };
    let ended = async {
        let (looked, ()) = tokio::join!(looks, moves);
        let looks = looked?;
        history.ends(looks).await
    };
    ended.await.map_err(|why: String| format!("{why}\n{}", history.told.lock().expect("lock").join("\n")))
}

impl<'a> History<'a> {
    async fn begin(stage: &'a Stage, plan: Plan) -> Self {
        let w = &stage.w;
        let client_id = w.keycloak.robot(&[]).await.client_id;
        let mut things = Vec::new();
        for _ in 0..3 {
            things.push(Thing::Role(w.keycloak.realm_role("thing").await));
        }
        let client_role = w.keycloak.client_role(&client_id, &unique("thing")).await;
        let group = w.keycloak.group(None, &unique("thing")).await;
        let name = |thing: &Thing| match thing {
            Thing::Role(role) => role.name.clone(),
            Thing::Group(group) => group.path.clone(),
        };
        let policy = |start: &str| w.policy(start).everybody().automatic();
        let first = policy("first").realm_role("r0", &name(&things[0])).realm_role("r1", &name(&things[1]));
        let second = policy("second").realm_role("r1", &name(&things[1])).realm_role("r2", &name(&things[2]));
        let first = first.group("g", &group.path).ready().await;
        let second = second.client_role("c", &client_id, &client_role.name).ready().await;
        things.extend([Thing::Role(client_role), Thing::Group(group)]);
        let named =
            |grants: &[(&str, usize)]| grants.iter().map(|(name, thing)| ((*name).to_owned(), *thing)).collect();
        let policies =
            vec![(first, named(&[("r0", 0), ("r1", 1), ("g", 4)])), (second, named(&[("r1", 1), ("r2", 2), ("c", 3)]))];
        let mut people = Vec::new();
        for _ in 0..plan.people {
            let person = w.person("person").await;
            let client = w.somebody_called(&person.username).await;
            people.push((person, client));
        }
        let (model, told) = (Mutex::default(), std::sync::Mutex::default());
        Self { stage, plan, people, things, policies, model, begin: Instant::now(), told }
    }

    fn tell(&self, what: &str) {
        let line = format!("{:7.2} {what}", self.begin.elapsed().as_secs_f64());
        self.told.lock().expect("lock").push(line);
    }

    async fn moves(&self, mut dice: Dice) {
        let mut renamed = None;
        while self.begin.elapsed() < self.plan.lasts {
            if dice.below(5) == 0 {
                self.names_again(&mut renamed).await;
            }
            match dice.below(100) {
                0..38 => self.asks(&mut dice).await,
                38..45 => self.ends_one(&mut dice).await,
                45..50 => self.deletes_one(&mut dice).await,
                50..60 if self.plan.administrator => self.maps_or_unmaps(&mut dice).await,
                60..63 if self.plan.administrator => self.renames(&mut dice, &mut renamed).await,
                63..67 if self.plan.kills => self.kills(&mut dice).await,
                _ => self.strikes(&mut dice),
            }
            let half = self.plan.pace.as_millis() / 2;
            let more = dice.below(usize::try_from(half * 2).expect("not so long"));
            sleep(Duration::from_millis(u64::try_from(half).expect("short") + more as u64)).await;
        }
        self.stage.script.dismiss_all();
        self.names_again(&mut renamed).await;
    }

    async fn asks(&self, dice: &mut Dice) {
        let person = dice.below(self.people.len());
        let (policy, grants) = dice.pick(&self.policies);
        let chosen: Vec<&(String, usize)> = grants.iter().filter(|_| dice.below(2) == 0).collect();
        let chosen = if chosen.is_empty() { grants.iter().collect() } else { chosen };
        let seconds = 5 + dice.below(5);
        let name = unique("ask");
        let (who, client) = &self.people[person];
        let ask = Ask::new(self.stage.w.clone(), who.clone(), name.clone(), &policy.name);
        let ask = ask.grants(chosen.iter().map(|(grant, _)| grant.as_str())).lasting(&format!("{seconds}s"));
        let things: Vec<usize> = chosen.iter().map(|(_, thing)| *thing).collect();
        self.tell(&format!("person {person} asks for {things:?} for {seconds} s: {name}"));
        let mut model = self.model.lock().await;
        match ask.create_with(client).await {
            Ok(_) => model.asked.push(Asked { name, person, things }),
            Err(error) => self.tell(&format!("  refused: {error}")),
        }
    }

    async fn some_request(&self, dice: &mut Dice) -> Option<Asked> {
        let asked = &self.model.lock().await.asked;
        let recent = &asked[asked.len().saturating_sub(2 * self.people.len())..];
        (!recent.is_empty()).then(|| dice.pick(recent).clone())
    }

    async fn ends_one(&self, dice: &mut Dice) {
        let Some(asked) = self.some_request(dice).await else { return };
        let (person, client) = &self.people[asked.person];
        let annotation = json!({"metadata": {"annotations": {format!("{END}{}", unique("e")): person.username}}});
        let api: Api<AccessRequest> = Api::namespaced(client.clone(), &self.stage.w.namespace);
        let ended = api.patch(&asked.name, &PatchParams::default(), &Patch::Merge(&annotation)).await;
        self.tell(&format!("{} is ended by its requester: {}", asked.name, ended.is_ok()));
    }

    async fn deletes_one(&self, dice: &mut Dice) {
        let Some(asked) = self.some_request(dice).await else { return };
        let deleted = self.stage.w.requests().delete(&asked.name, &DeleteParams::default()).await;
        self.tell(&format!("{} is deleted: {}", asked.name, deleted.is_ok()));
    }

    async fn maps_or_unmaps(&self, dice: &mut Dice) {
        let (person, thing, maps) = (dice.below(self.people.len()), dice.below(self.things.len()), dice.below(2) == 0);
        let keycloak = &self.stage.w.keycloak;
        let user = &self.people[person].0.user;
        let mut model = self.model.lock().await;
        self.tell(&format!("an administrator {} {thing} of person {person}", if maps { "maps" } else { "unmaps" }));
        if maps {
            let open = self.requests().await.open;
            model.mapped((person, thing), &open);
        } else {
            model.unmapped((person, thing));
        }
        match (&self.things[thing], maps) {
            (Thing::Role(role), true) => keycloak.map(user, &self.present(role).await).await,
            (Thing::Role(role), false) => keycloak.unmap(user, &self.present(role).await).await,
            (Thing::Group(group), true) => keycloak.join(user, group).await,
            (Thing::Group(group), false) => keycloak.leave(user, group).await,
        }
    }

    /// The role with the name that it has now.
    async fn present(&self, role: &Role) -> Role {
        let now = self.stage.w.keycloak.get(&format!("roles-by-id/{}", role.id)).await;
        Role { name: now["name"].as_str().expect("a name").to_owned(), ..role.clone() }
    }

    /// A role gets another name, unless one has another already.
    async fn renames(&self, dice: &mut Dice, renamed: &mut Option<Role>) {
        let Thing::Role(role) = &self.things[dice.below(3)] else { return };
        if renamed.is_none() {
            let name = format!("{}-renamed", role.name);
            self.tell(&format!("{} is renamed to {name}", role.name));
            *renamed = Some(role.clone());
            self.stage.w.keycloak.rename_role(role, &name).await;
        }
    }

    /// The role gets its name back, and the policies are looked at again at once.
    async fn names_again(&self, renamed: &mut Option<Role>) {
        let Some(role) = renamed.take() else { return };
        let present = self.present(&role).await;
        self.tell(&format!("{} is renamed to {} again", present.name, role.name));
        self.stage.w.keycloak.rename_role(&present, &role.name).await;
        for (policy, _) in &self.policies {
            policy.change(json!({ "description": unique("renamed") })).await;
        }
    }

    async fn kills(&self, dice: &mut Dice) {
        let dead = Duration::from_millis(300 + 500 * dice.below(12) as u64);
        self.tell(&format!("the operator is killed, and dead for {dead:?}"));
        self.stage.operator.stays_dead_for(dead);
        self.stage.script.kill().await;
    }

    fn strikes(&self, dice: &mut Dice) {
        let (kind, nth, fault) = (*dice.pick(&KINDS), 1 + dice.below(2), *dice.pick(&FAULTS));
        let place = Place { kind: kind.to_owned(), nth };
        self.tell(&format!("{fault} at {place} from here"));
        self.stage.script.strike(place, fault);
    }

    /// The requests as they are now. What is not there is over.
    async fn requests(&self) -> Requests {
        let all = self.stage.w.requests().list(&ListParams::default()).await.expect("the API server answers");
        let mut now = Requests::default();
        for request in all {
            if holds(&request) {
                now.held.insert(request.name_any());
            }
            if !request.phase().is_some_and(Phase::is_final) {
                now.open.insert(request.name_any());
            }
        }
        now
    }

    /// Compares Keycloak with the model, while nobody asks and no administrator does anything; says how much was held.
    async fn looks(&self) -> Result<usize, String> {
        let mut held = 0;
        for (number, (person, _)) in self.people.iter().enumerate() {
            let model = self.model.lock().await;
            let mut requests = self.requests().await;
            let has = self.has(&person.user).await;
            // What is taken away is due or said to be Revoking before: who is Active and not due afterwards had it at that moment.
            let afterwards = self.requests().await.held;
            requests.held.retain(|name| afterwards.contains(name));
            held += model.holds(number, &requests.held).len();
            let wrong = model.complaints(number, &has, self.things.len(), &requests);
            if !wrong.is_empty() {
                self.tell(&format!("person {number} has {has:?}"));
                return Err(wrong.join("\n"));
            }
        }
        Ok(held)
    }

    async fn has(&self, user: &keycloak_admin::Person) -> BTreeSet<usize> {
        let held = self.stage.holdings(user).await;
        let has = |thing: &Thing| held.iter().any(|one| one.contains(thing.id()));
        self.things.iter().enumerate().filter(|(_, thing)| has(thing)).map(|(number, _)| number).collect()
    }

    /// All comes to its end by itself.
    async fn ends(&self, looks: Looks) -> Result<Outcome, String> {
        let begin = Instant::now();
        while !self.requests().await.open.is_empty() || !self.stage.script.is_quiet() {
            if begin.elapsed() > PATIENCE {
                return Err(format!("not over within {PATIENCE:?}: {:?}", self.requests().await.open));
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.looks().await?;
        let mut wrong = Vec::new();
        let mut phases = BTreeMap::new();
        let model = self.model.lock().await;
        for asked in &model.asked {
            wrong.extend(self.stage.ledger.complaints(&asked.name));
            let request = Request::new(&self.stage.w, &asked.name, "");
            let now = self.stage.read(&request).await;
            let status = now.and_then(|now| now.status).unwrap_or_default();
            *phases.entry(status.phase.map_or("gone".into(), |phase| format!("{phase:?}"))).or_default() += 1;
            if status.grant.is_some_and(|grant| grant.ended_at.is_none()) {
                wrong.push(format!("{} does not say when it ended", asked.name));
            }
        }
        let (faults, starts) = (self.stage.script.hits(), self.stage.operator.starts().0);
        let outcome = Outcome { requests: model.asked.len(), phases, faults, looks, starts };
        if wrong.is_empty() { Ok(outcome) } else { Err(wrong.join("\n")) }
    }
}
