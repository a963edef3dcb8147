//! The tasks beside the writers of the random run: they watch and judge, change Keycloak, and take the admission
//! policies away for a moment.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use hallpass::api::{AccessPolicy, AccessRequest};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    adversary::Arena,
    adversary_cast::{ADMIN, ALICE, Cast, LEA, MALLORY, ROB, ROBOT, SAM},
    adversary_ledger::{Change, Entry, History, Ledger, Property, part, text, version_of},
    adversary_model::{Model, time},
    adversary_moves::{Dice, Kind},
};

/// A role that is still there so long after its deadline was forgotten. How soon it goes is for other scenarios: here the
/// servers are busy.
const OVERDUE: Duration = Duration::from_mins(1);
/// The watches show what happened so long ago.
const LAG: Duration = Duration::from_secs(3);
/// How often the admission policies go away, and how long at least some writes are tried then.
const WINDOWS: u32 = 3;
const WINDOW: Duration = Duration::from_secs(3);

/// A look into Keycloak: who held which role at some time between two versions.
struct Look {
    from: u64,
    to: u64,
    at: Instant,
    clock: Timestamp,
    holders: [Vec<String>; 3],
}

impl Arena {
    /// Watches requests and policies from now on, looks into Keycloak, and judges.
    pub async fn begin_to_watch(self: &Arc<Self>, tasks: &mut JoinSet<Result<(), String>>) {
        let requests: Api<DynamicObject> =
            Api::namespaced_with(self.w.admin.clone(), &self.w.namespace, &ApiResource::erase::<AccessRequest>(&()));
        let policies: Api<DynamicObject> =
            Api::all_with(self.w.admin.clone(), &ApiResource::erase::<AccessPolicy>(&()));
        for policy in policies.list(&ListParams::default()).await.expect("policies").items {
            self.shows_policy(&json!(policy), false);
        }
        let from = self.revision().await.to_string();
        tasks.spawn(self.clone().watches(requests, from.clone()));
        tasks.spawn(self.clone().watches(policies, from));
        tasks.spawn(self.clone().looks());
    }

    fn shows_policy(&self, policy: &Value, gone: bool) {
        if self.cast.policies.iter().any(|name| policy["metadata"]["name"] == name.as_str()) {
            self.ledger().shows_policy(policy, gone);
        }
    }

    async fn watches(self: Arc<Self>, api: Api<DynamicObject>, mut from: String) -> Result<(), String> {
        let broken = |why: String| format!("a watch broke: {why}");
        // The API server ends a watch after some minutes; the next one goes on where it was, so that no version is missed.
        loop {
            let watch = api.watch(&WatchParams::default(), &from).await;
            let mut watch = watch.map_err(|error| broken(error.to_string()))?.boxed();
            while let Some(event) = watch.try_next().await.map_err(|error| broken(error.to_string()))? {
                let (object, gone) = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (json!(object), false),
                    WatchEvent::Deleted(object) => (json!(object), true),
                    WatchEvent::Bookmark(mark) => {
                        from = mark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Error(error) => return Err(broken(error.message.clone())),
                };
                text(&object, "/metadata/resourceVersion").clone_into(&mut from);
                if object["kind"] == "AccessPolicy" {
                    self.shows_policy(&object, gone);
                } else if gone {
                    self.ledger().shows_gone(&object);
                } else {
                    self.ledger().shows(object);
                }
            }
        }
    }

    /// The newest resource version there is.
    async fn revision(&self) -> u64 {
        let list = self.w.requests().list_metadata(&ListParams::default().limit(1)).await.expect("an answer");
        list.metadata.resource_version.expect("a version").parse().expect("a number")
    }

    /// Ids of those who have each of the roles, whoever they are.
    pub async fn holders(&self) -> [Vec<String>; 3] {
        let mut holders = [const { Vec::new() }; 3];
        for (role, holders) in self.cast.roles.iter().zip(&mut holders) {
            let users = self.w.keycloak.get(&format!("roles/{}/users?max=1000", role.name)).await;
            let users = users.as_array().expect("users").iter();
            holders.extend(users.map(|user| user["id"].as_str().expect("an id").to_owned()));
        }
        holders
    }

    async fn look(&self) -> Look {
        let from = self.revision().await;
        let (clock, holders) = (Timestamp::now(), self.holders().await);
        Look { from, to: self.revision().await, at: Instant::now(), clock, holders }
    }

    async fn looks(self: Arc<Self>) -> Result<(), String> {
        let mut looks: Vec<Look> = Vec::new();
        let mut every = tokio::time::interval(Duration::from_millis(200));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            looks.push(self.look().await);
            let until = Instant::now().checked_sub(LAG).unwrap_or_else(Instant::now).min(self.ledger().settled());
            self.judges(until)?;
            let ready = looks.iter().take_while(|look| look.at < until).count();
            for look in looks.drain(..ready) {
                self.judges_look(&look)?;
            }
        }
    }

    /// A last look, once everything is over.
    pub async fn looks_once(&self) -> Result<(), String> {
        let look = self.look().await;
        tokio::time::sleep(LAG).await;
        self.judges_look(&look)?;
        self.judges(Instant::now())
    }

    /// Judges every request by what the watch had shown of it until then.
    fn judges(&self, until: Instant) -> Result<(), String> {
        let ledger = self.ledger();
        let model = Model { cast: &self.cast, ledger: &ledger };
        let wrote_status = |entry: &&Entry| entry.kind == Kind::Status && entry.answer.is_ok();
        if let Some(entry) = ledger.entries.iter().find(wrote_status) {
            return Err(failure(&ledger, &self.cast, &entry.name, "somebody wrote a status"));
        }
        for (uid, history) in &ledger.requests {
            let tell = |why: String| Err(failure(&ledger, &self.cast, &history.name, &format!("{uid}: {why}")));
            if let Err(why) = stays(history) {
                return tell(why);
            }
            let Some(at) = model.activation(history).filter(|at| history.versions[*at].seen < until) else { continue };
            if let Err(why) = model.justified(history, at) {
                return tell(format!("NOT JUSTIFIED, and activated at {}: {why}", history.versions[at].rv));
            }
        }
        Ok(())
    }

    /// Whoever had a role then had it by a live request of their own.
    fn judges_look(&self, look: &Look) -> Result<(), String> {
        let ledger = self.ledger();
        let model = Model { cast: &self.cast, ledger: &ledger };
        for (role, holders) in look.holders.iter().enumerate() {
            for holder in holders {
                let is_for = |history: &&History| {
                    let Some(at) = model.activation(history) else { return false };
                    let given = &history.versions[at];
                    let theirs = part(&given.object, "/status/subject/userId") == holder.as_str();
                    theirs && given.rv <= look.to && model.roles(&given.object).contains(&role)
                };
                let lends = |history: &History| {
                    let over = model.over(history).is_some_and(|rv| rv < look.from);
                    let lost = history.gone.is_some_and(|(_, gone)| look.at.saturating_duration_since(gone) > OVERDUE);
                    let deadline =
                        history.versions.iter().rev().map(|version| part(&version.object, "/status/grant/deadline"));
                    let deadline = deadline.clone().find(|deadline| !deadline.is_null()).map(time);
                    let late = deadline.is_some_and(|deadline| {
                        look.clock.duration_since(deadline) > jiff::SignedDuration::try_from(OVERDUE).expect("short")
                    });
                    !over && !lost && !late
                };
                let all: Vec<&History> = ledger.requests.values().filter(is_for).collect();
                if !all.iter().any(|history| lends(history)) {
                    let role = &self.cast.roles[role].name;
                    let names: Vec<&str> = all.iter().map(|history| history.name.as_str()).collect();
                    let why = format!(
                        "{holder} had {role} at {}, between {} and {}, by no live request (of {names:?})",
                        look.clock, look.from, look.to
                    );
                    let newest = all.iter().max_by_key(|history| history.last().rv);
                    return Err(failure(&ledger, &self.cast, newest.map_or("", |history| &history.name), &why));
                }
            }
        }
        Ok(())
    }

    /// Keycloak's administrator takes approvers out of their group, disables people, and puts them back.
    pub async fn upsets_keycloak(self: Arc<Self>, mut dice: Dice) -> Result<(), String> {
        let people: [(&[usize], Property); 5] = [
            (&[LEA], Property::Lead),
            (&[LEA, ROB], Property::Lead),
            (&[LEA, ROB], Property::Lead),
            (&[SAM], Property::Enabled),
            (&[ALICE], Property::Enabled),
        ];
        for _ in 0..14 {
            let (who, property) = people[dice.below(people.len())];
            // Long enough to matter, and for the requester not so long that nothing is granted.
            let away = if property == Property::Lead { 5000 + dice.roll() % 7000 } else { 500 + dice.roll() % 2500 };
            for (value, pause) in [(false, away), (true, 500 + dice.roll() % 4000)] {
                for who in who {
                    self.changes(*who, property, value).await;
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        Ok(())
    }

    async fn changes(&self, who: usize, property: Property, value: bool) {
        let user = &self.cast.writers[who].person.as_ref().expect("a person").user;
        let sent = Instant::now();
        match property {
            Property::Enabled => self.w.keycloak.update_user(user, &json!({"enabled": value})).await,
            Property::Lead if value => self.w.keycloak.join(user, &self.cast.leads).await,
            Property::Lead => self.w.keycloak.leave(user, &self.cast.leads).await,
        }
        let kind = if property == Property::Lead { Kind::Membership } else { Kind::Disable };
        let mut ledger = self.ledger();
        ledger.changes.push(Change { who, property, value, sent, answered: Instant::now() });
        let what = format!("{property:?} {value}");
        // Version 0 is none of the API server's.
        ledger.entries.push(Entry { who: ADMIN, kind, name: "Keycloak".into(), what, sent, answer: Ok(0) });
    }

    /// The admission policies go away for a moment, some forge meanwhile, and they come back exactly as they were.
    pub async fn takes_the_policies_away(self: Arc<Self>, mut dice: Dice) -> Result<(), String> {
        for _ in 0..WINDOWS {
            tokio::time::sleep(Duration::from_millis(14_000 + dice.roll() % 8000)).await;
            *self.away.write().await = true;
            let from = self.revision().await;
            let both = dice.below(3) > 0;
            let w = self.w.clone();
            let weaken = move || {
                let mut arguments = vec!["delete", "validatingadmissionpolicybindings", "hallpass-identity"];
                arguments.extend(both.then_some("hallpass-policy"));
                w.weaken(&arguments)
            };
            let away = tokio::task::spawn_blocking(weaken).await.expect("no panic");
            // What was written before they were deleted was written under them.
            let from = self.deleted_since(from).await?;
            self.ledger().windows.push((from, u64::MAX));
            let begin = Instant::now();
            while begin.elapsed() < WINDOW {
                let kind =
                    [Kind::VoteInName, Kind::VoteAnyStage, Kind::AskForOther, Kind::AskWithVote, Kind::EndInName]
                        [dice.below(5)];
                let kind =
                    if crate::adversary_moves::FORGE_STATUS && dice.below(3) == 0 { Kind::ForgeStatus } else { kind };
                let who = [MALLORY, ROBOT, ADMIN, LEA, ROB, SAM, ALICE][dice.below(7)];
                let next = dice.with(kind);
                self.tries(who, &next).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::task::spawn_blocking(move || drop(away)).await.expect("no panic");
            while !self.bites().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let to = self.revision().await;
            self.ledger().windows.last_mut().expect("one").1 = to;
            *self.away.write().await = false;
        }
        Ok(())
    }

    /// At which version the first binding was deleted.
    async fn deleted_since(&self, from: u64) -> Result<u64, String> {
        let bindings: Api<DynamicObject> =
            Api::all_with(self.w.admin.clone(), &ApiResource::erase::<ValidatingAdmissionPolicyBinding>(&()));
        let watch = bindings.watch(&WatchParams::default(), &from.to_string()).await;
        let mut watch = watch.map_err(|error| error.to_string())?.boxed();
        while let Some(event) = watch.try_next().await.map_err(|error| error.to_string())? {
            if let WatchEvent::Deleted(binding) = event {
                return Ok(version_of(&json!(binding)));
            }
        }
        Err("nobody saw the admission policies go".into())
    }

    /// Whether a forged request is refused by `hallpass-identity`.
    async fn bites(&self) -> bool {
        let forged = json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest", "metadata": {"name": "forged"},
            "spec": {"policyName": "none", "requester": "oidc:nobody", "submittedBy": "oidc:nobody"},
        });
        let forged: AccessRequest = serde_json::from_value(forged).expect("a request");
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let answer = self.w.requests().create(&params, &forged).await;
        answer.is_err_and(|error| error.to_string().contains("hallpass-identity"))
    }
}

/// What never changes: a final phase, and a deadline but to be earlier.
fn stays(history: &History) -> Result<(), String> {
    for pair in history.versions.windows(2) {
        let (old, new) = (&pair[0], &pair[1]);
        if old.is_final() && old.phase() != new.phase() {
            return Err(format!("{} became {} at {}", old.phase(), new.phase(), new.rv));
        }
        let deadline = |object| part(object, "/status/grant/deadline");
        let (before, after) = (deadline(&old.object), deadline(&new.object));
        if !before.is_null() && (after.is_null() || time(after) > time(before)) {
            return Err(format!("the deadline moved from {before} to {after} at {}", new.rv));
        }
    }
    Ok(())
}

/// All that is known about a request that went wrong.
fn failure(ledger: &Ledger, cast: &Cast, name: &str, why: &str) -> String {
    let mut told = format!("{why}\n{}", ledger.story(name, cast));
    let histories = ledger.requests.iter().filter(|(_, history)| history.name == name);
    if let Some((uid, history)) = histories.max_by_key(|(uid, history)| (why.contains(*uid), history.last().rv)) {
        let mut object = history.last().object.clone();
        object["metadata"]["managedFields"] = Value::Null;
        let _ = writeln!(told, "{uid}: {object:#}");
    }
    told
}
