//! What may be granted: an independent reading of the design. It shares no code with the operator.
//!
//! Access is **justified** if, at the moment at which the operator decided to give it, all of this was so:
//!
//! 1. the requester made the object, as the API server's answer to that very write says, and not while the admission
//!    policies were away;
//! 2. the policy was not suspended, was the one under which the request began (by UID), served the requester, had each
//!    grant that was wanted, led to no other role, and allowed the time;
//! 3. enough different people had approved, each counted in one stage, none of them the requester, each cast by the person
//!    named in it, while the admission policies were there, with the present ballot, and not under other rules; each
//!    entitled to it at activation. An automatic policy needs nobody, but must have been so, in the same words, when the
//!    request began;
//! 4. nobody entitled had denied, and the requester had not ended it; the object was not being deleted;
//! 5. the admission policies were in force.
//!
//! The moment lies between two versions of the object: the one that the operator had read (its status write names the
//! resourceVersion) and the one that it wrote. **Where the model gives way**, and only there: a policy that changed between
//! those two counts as either; what the operator may have had in its cache ([`STALE`]) counts as well, when a ballot is
//! drawn; somebody whose rights changed in Keycloak between those two, or within [`STALE`] before, counts as entitled for a
//! yes, and not for a no; rules that changed and changed back while the operator did not look count as unchanged; an end is held
//! against a request only if the admission policies were there for all of its life.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use hallpass::api::{APPROVE, DENY, END};
use serde_json::{Value, json};

use crate::{
    adversary_cast::Cast,
    adversary_ledger::{History, Ledger, Property, Version, part, signals, text},
    adversary_moves::Kind,
};

/// How old what the operator knows may be when it begins to decide. (Longer, if it learns to keep what Keycloak said.)
pub const STALE: Duration = Duration::from_secs(3);

/// The model, looking at what was seen.
pub struct Model<'a> {
    pub cast: &'a Cast,
    pub ledger: &'a Ledger,
}

/// An activation: the version that the operator wrote, and what led to it.
struct Activation<'a> {
    history: &'a History,
    /// What the operator had read.
    read: &'a Version,
    /// What it wrote.
    written: &'a Version,
    /// Where it last became Approved: what it had read then.
    agreed: &'a Version,
    /// Where its policy was pinned.
    pinned: &'a Version,
    requester: usize,
}

/// A version without finalizers, and without what changes with each write.
fn free(version: &Version) -> Value {
    let mut object = version.object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["finalizers", "resourceVersion", "managedFields"] {
            metadata.remove(field);
        }
    }
    object
}

impl<'a> Model<'a> {
    /// The versions of a request whose status is the operator's: not those that one of ours wrote, as far as they can, and
    /// not those that only carry such a status on.
    fn honest(&self, history: &'a History) -> impl Iterator<Item = (usize, &'a Version)> {
        let mut forged: Option<&Value> = None;
        let mut honest = Vec::new();
        for (i, version) in history.versions.iter().enumerate() {
            let status = &version.object["status"];
            if self.ledger.writes_of(version.rv).any(|entry| entry.kind == Kind::ForgeStatus) {
                forged = Some(status);
            } else if forged != Some(status) {
                forged = None;
                honest.push((i, version));
            }
        }
        honest.into_iter()
    }

    /// When the operator said that it was over; nothing while it has not. What somebody else wrote takes nothing away.
    pub fn over(&self, history: &'a History) -> Option<u64> {
        self.honest(history).find(|(_, version)| version.is_final()).map(|(_, version)| version.rv)
    }

    /// Where the operator decided to give what a request asks for.
    pub fn activation(&self, history: &'a History) -> Option<usize> {
        let live = |version: &Version| matches!(version.phase(), "Activating" | "Active" | "Revoking");
        self.honest(history).find(|(_, version)| live(version)).map(|(at, _)| at)
    }

    /// Whether access was justified; if not, why not.
    pub fn justified(&self, history: &'a History, at: usize) -> Result<(), String> {
        let created = &history.versions[0];
        let requester = text(&created.object, "/spec/requester");
        let made_by: Vec<usize> = self.ledger.writes_of(created.rv).map(|entry| entry.who).collect();
        let Some(who) = self.cast.known(requester).filter(|who| made_by.contains(who)) else {
            return Err(format!("made by {made_by:?} for {requester}"));
        };
        let submitter = text(&created.object, "/spec/submittedBy");
        if !submitter.is_empty() && submitter != requester {
            return Err("submitted, and no policy lists submitters".into());
        }
        if self.was_away(created.rv) {
            return Err("made while the admission policies were away".into());
        }
        // The operator puts its finalizer on what it has read, and writes upon that.
        let only_finalizer = |i: usize| i > 1 && free(&history.versions[i - 1]) == free(&history.versions[i - 2]);
        let from = if only_finalizer(at) { at - 1 } else { at };
        let before = from.checked_sub(1).ok_or("given before anybody looked")?;
        // What is agreed can be given in the same step.
        let agreed = (1..=from).rev().find(|i| history.versions[*i - 1].phase() != "Approved");
        let agreed = agreed.ok_or("was agreed before anybody looked")? - 1;
        let pins = |version: &Version| !text(&version.object, "/status/policy/uid").is_empty();
        let pinned = self.honest(history).find(|(_, version)| pins(version)).ok_or("no policy was pinned")?.1;
        let (read, written) = (&history.versions[before], &history.versions[at]);
        let agreed = &history.versions[agreed];
        self.as_a_whole(&Activation { history, read, written, agreed, pinned, requester: who })
    }

    fn as_a_whole(&self, a: &Activation<'_>) -> Result<(), String> {
        if self.was_away(a.read.rv) {
            return Err("given while the admission policies were away".into());
        }
        if !part(&a.read.object, "/metadata/deletionTimestamp").is_null() {
            return Err("given although it was being deleted".into());
        }
        let steady = self.unbroken(a.history.versions[0].rv, a.read.rv);
        let mut ends = signals(&a.read.object).filter(|(key, _)| steady && key.starts_with(END));
        if let Some((key, _)) = ends.find(|(key, by)| self.cast_by(a, key, by) == Some(a.requester)) {
            return Err(format!("given although its requester had ended it: {key}"));
        }
        let name = text(&a.read.object, "/spec/policyName");
        let mut why = Vec::new();
        for policy in self.ledger.policy_between(name, a.read.rv, a.written.rv) {
            match self.under(a, policy) {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(format!("under {}: {reason}", policy["metadata"]["generation"])),
            }
        }
        Err(if why.is_empty() { format!("there was no policy {name}") } else { why.join("; ") })
    }

    /// Whether it was justified under this version of its policy.
    fn under(&self, a: &Activation<'_>, policy: &Value) -> Result<(), String> {
        let (spec, status) = (&policy["spec"], &a.written.object["status"]);
        if spec["suspended"] == true {
            return Err("the policy was suspended".into());
        }
        let first = self.known_to_the_operator(a, a.pinned);
        if !first.iter().any(|first| first["metadata"]["uid"] == policy["metadata"]["uid"]) {
            return Err("the policy was not there when the request began".into());
        }
        if !self.may_be_in(part(spec, "/requesters"), a.requester, a) {
            return Err("the policy did not serve the requester".into());
        }
        self.no_more_than_wanted(a, spec)?;
        if part(spec, "/approval/automatic") == true {
            let same = first.iter().any(|first| voted_on(first) == voted_on(policy));
            return if same { Ok(()) } else { Err("the policy became automatic after the request began".into()) };
        }
        let ballot = text(status, "/ballot");
        let drawn = self.honest(a.history).find(|(_, version)| version.ballot() == ballot && !ballot.is_empty());
        let drawn = drawn.ok_or("there was no ballot")?.1;
        if !self.known_to_the_operator(a, drawn).iter().any(|then| voted_on(then) == voted_on(policy)) {
            return Err("the ballot is from before the policy's rules changed".into());
        }
        if !self.unbroken(drawn.rv, a.read.rv) {
            return Err("the ballot is from before the admission policies were away".into());
        }
        self.denied(a, ballot)?;
        self.approved(a, ballot, spec)
    }

    /// The role and the time that the request asked for and the policy has, and no others.
    fn no_more_than_wanted(&self, a: &Activation<'_>, spec: &Value) -> Result<(), String> {
        let asked = &a.read.object["spec"];
        let named = asked["grants"].as_array().filter(|named| !named.is_empty());
        let grants = spec["grants"].as_array().map(Vec::as_slice).unwrap_or_default();
        let wanted = grants.iter().filter(|grant| named.is_none_or(|named| named.contains(&grant["name"])));
        let wanted: HashSet<&str> = wanted.filter_map(|grant| grant["realmRole"].as_str()).collect();
        let given = self.roles(&a.written.object);
        if given.is_empty() || given.iter().any(|role| !wanted.contains(self.cast.roles[*role].name.as_str())) {
            return Err(format!("it gives {given:?}, and the policy has {wanted:?}"));
        }
        let (max, default) = (seconds(part(spec, "/duration/max")), seconds(part(spec, "/duration/default")));
        let allowed = asked.get("duration").map_or(default, seconds);
        let grant = &a.written.object["status"]["grant"];
        let (from, to) = (time(&grant["startsAt"]), time(&grant["deadline"]));
        if allowed > max || to.duration_since(from).as_secs() > allowed {
            return Err(format!("it lasts from {from} to {to}, and the policy allows {allowed} of {max} s"));
        }
        let user = self.cast.writers[a.requester].person.as_ref().map(|person| person.user.id.as_str());
        if user != a.written.object.pointer("/status/subject/userId").and_then(Value::as_str) {
            return Err("it is for somebody else than the requester".into());
        }
        Ok(())
    }

    /// Nobody who was entitled, whatever is uncertain, had denied when it was agreed.
    fn denied(&self, a: &Activation<'_>, ballot: &str) -> Result<(), String> {
        let prefix = format!("{DENY}{ballot}.");
        for (key, by) in signals(&a.agreed.object).filter(|(key, _)| key.starts_with(&prefix)) {
            let Some(voter) = self.cast_by(a, key, by).filter(|voter| *voter != a.requester) else { continue };
            let cast = a.history.first_with(key, by).map_or(a.read.seen, |version| version.seen);
            let (from, to) = (cast.checked_sub(STALE).unwrap_or(cast), a.written.seen);
            let name = text(&a.read.object, "/spec/policyName");
            let old = self.ledger.since(name, from, a.read.rv);
            let always = self.ledger.policy_between(name, old, a.written.rv).all(|policy| {
                let stage = stages(&policy["spec"])
                    .find(|stage| key[prefix.len()..].starts_with(&format!("{}.", text(stage, "/name"))));
                stage.is_some_and(|stage| self.surely_in(part(stage, "/approvers"), voter, from, to))
            });
            if always {
                return Err(format!("{by} had denied: {key}"));
            }
        }
        Ok(())
    }

    /// Enough different people had approved.
    fn approved(&self, a: &Activation<'_>, ballot: &str, spec: &Value) -> Result<(), String> {
        let stages: Vec<&Value> = stages(spec).collect();
        let mut open: Vec<u64> = stages.iter().map(|stage| stage["required"].as_u64().unwrap_or(1)).collect();
        let mut places: Vec<HashSet<usize>> = vec![HashSet::new(); self.cast.writers.len()];
        let earlier = a.history.versions.iter().take_while(|version| version.rv <= a.read.rv);
        for (key, by) in earlier.flat_map(|version| signals(&version.object)) {
            let Some(voter) = self.cast_by(a, key, by).filter(|voter| *voter != a.requester) else { continue };
            for (i, stage) in stages.iter().enumerate() {
                let right = key.starts_with(&format!("{APPROVE}{ballot}.{}.", text(stage, "/name")));
                if right && self.may_be_in(part(stage, "/approvers"), voter, a) {
                    places[voter].insert(i);
                }
            }
        }
        let fits = place(&places, &mut open);
        let who = |(voter, places): (usize, &HashSet<usize>)| {
            (!places.is_empty()).then(|| format!("{} in {places:?}", self.cast.writers[voter].title))
        };
        let had: Vec<String> = places.iter().enumerate().filter_map(who).collect();
        if fits { Ok(()) } else { Err(format!("not enough had approved on ballot {ballot}: {had:?}")) }
    }

    /// Who cast a signal, if that is who it names, and the admission policies were there then.
    fn cast_by(&self, a: &Activation<'_>, key: &str, value: &str) -> Option<usize> {
        let version = a.history.first_with(key, value)?;
        let named = self.cast.known(value)?;
        let mut writes = self.ledger.writes_of(version.rv);
        let cast = writes.any(|entry| entry.who == named && entry.what.contains(key));
        (cast && !self.was_away(version.rv)).then_some(named)
    }

    /// What the operator may have known a policy to say when it wrote this version.
    fn known_to_the_operator(&self, a: &Activation<'_>, version: &Version) -> Vec<&Value> {
        let name = text(&a.read.object, "/spec/policyName");
        let before = a.history.versions.iter().rfind(|before| before.rv < version.rv).unwrap_or(version);
        let old = before.seen.checked_sub(STALE).unwrap_or(before.seen);
        self.ledger.policy_between(name, self.ledger.since(name, old, version.rv), version.rv).collect()
    }

    /// Whether somebody may have been one of these at activation.
    fn may_be_in(&self, subjects: &Value, who: usize, a: &Activation<'_>) -> bool {
        let (from, to) = (a.read.seen.checked_sub(STALE).unwrap_or(a.read.seen), a.written.seen);
        let was = |property| self.ledger.was(who, property, true, from, to);
        self.cast.writers[who].person.is_some()
            && was(Property::Enabled)
            && self.named(subjects, who, was(Property::Lead))
    }

    /// Whether somebody was one of these all the time.
    fn surely_in(&self, subjects: &Value, who: usize, from: Instant, to: Instant) -> bool {
        let ever_not = |property| self.ledger.was(who, property, false, from, to);
        !ever_not(Property::Enabled) && self.named(subjects, who, !ever_not(Property::Lead))
    }

    fn named(&self, subjects: &Value, who: usize, is_lead: bool) -> bool {
        let group = format!("oidc:{}", self.cast.leads.path);
        let mut all = subjects.as_array().into_iter().flatten();
        all.any(|subject| match text(subject, "/kind") {
            "User" => subject["name"] == self.cast.writers[who].username.as_str(),
            "Group" => is_lead && subject["name"] == group.as_str(),
            _ => false,
        })
    }

    /// Whether the admission policies may have been away when this was written.
    fn was_away(&self, rv: u64) -> bool {
        self.ledger.windows.iter().any(|(from, to)| *from < rv && rv <= *to)
    }

    /// Whether they were there all the time between two versions.
    fn unbroken(&self, from: u64, to: u64) -> bool {
        self.ledger.windows.iter().all(|(away, back)| *back < from || *away >= to)
    }

    /// Which of the roles a request gives.
    pub fn roles(&self, object: &Value) -> Vec<usize> {
        let targets = part(object, "/status/grant/targets").as_array().into_iter().flatten();
        targets.filter_map(|target| self.cast.roles.iter().position(|role| target["id"] == role.id.as_str())).collect()
    }
}

/// What is voted on.
fn voted_on(policy: &Value) -> Value {
    let spec = &policy["spec"];
    json!([spec["realm"], spec["grants"], spec["requesters"], spec["submitters"], spec["approval"]])
}

fn stages(spec: &Value) -> impl Iterator<Item = &Value> {
    part(spec, "/approval/stages").as_array().into_iter().flatten()
}

/// Whether people can be placed, each in one of these stages, so that none wants more.
fn place(people: &[HashSet<usize>], open: &mut [u64]) -> bool {
    if open.iter().all(|missing| *missing == 0) {
        return true;
    }
    let Some((first, rest)) = people.split_first() else { return false };
    if place(rest, open) {
        return true;
    }
    for stage in first {
        if open[*stage] > 0 {
            open[*stage] -= 1;
            if place(rest, open) {
                return true;
            }
            open[*stage] += 1;
        }
    }
    false
}

/// A duration in whole seconds, as this test writes them.
fn seconds(duration: &Value) -> i64 {
    duration.as_str().and_then(|text| text.strip_suffix('s')?.parse().ok()).unwrap_or_default()
}

/// A time; long ago if it is none.
pub fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}
