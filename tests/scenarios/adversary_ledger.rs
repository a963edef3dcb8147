//! What was seen: each version of each object, in the order of the API server's resource versions, who wrote which
//! of them, and what was changed in Keycloak when. Nothing here judges.
//!
//! Resource versions order all writes of Kubernetes, of requests and of policies alike (they are etcd's revisions).
//! Keycloak has no such order: what is changed there has a time at which it was sent and one at which it was answered.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    time::{Duration, Instant},
};

use hallpass::api::{APPROVE, DENY, END};
use serde_json::Value;

use crate::{adversary_cast::Cast, adversary_moves::Kind};

/// One version of an object.
pub struct Version {
    pub rv: u64,
    /// When the watch showed it.
    pub seen: Instant,
    pub object: Value,
}

/// The life of one request.
pub struct History {
    pub name: String,
    pub versions: Vec<Version>,
    /// When the object went.
    pub gone: Option<(u64, Instant)>,
}

/// A write, and what the API server answered.
pub struct Entry {
    pub who: usize,
    pub kind: Kind,
    pub name: String,
    pub what: String,
    pub sent: Instant,
    /// The version that came of it, or why not.
    pub answer: Result<u64, String>,
}

/// What Keycloak's administrator changed about a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Property {
    Enabled,
    Lead,
}

/// One such change.
pub struct Change {
    pub who: usize,
    pub property: Property,
    pub value: bool,
    pub sent: Instant,
    pub answered: Instant,
}

/// All that was seen.
pub struct Ledger {
    pub start: Instant,
    pub entries: Vec<Entry>,
    /// By UID.
    pub requests: HashMap<String, History>,
    /// By name: each version; `None` while there is no such policy.
    pub policies: HashMap<String, Vec<(u64, Instant, Option<Value>)>>,
    /// When the admission policies were away: from their deletion until they were seen to bite again.
    pub windows: Vec<(u64, u64)>,
    pub changes: Vec<Change>,
    by_version: HashMap<u64, Vec<usize>>,
    in_flight: BTreeMap<u64, Instant>,
    next: u64,
}

/// A part of an object; null if it is not there.
pub fn part<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

/// A text of an object; empty if it is not there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    part(object, pointer).as_str().unwrap_or_default()
}

/// The resource version of an object.
pub fn version_of(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or_default()
}

/// Votes and ends among the annotations of an object.
pub fn signals(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    let all = part(object, "/metadata/annotations").as_object();
    let all = all.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
    all.filter(|(key, _)| [APPROVE, DENY, END].iter().any(|prefix| key.starts_with(prefix)))
}

impl Version {
    pub fn phase(&self) -> &str {
        text(&self.object, "/status/phase")
    }

    pub fn ballot(&self) -> &str {
        text(&self.object, "/status/ballot")
    }

    pub fn is_final(&self) -> bool {
        matches!(self.phase(), "Expired" | "Revoked" | "Denied" | "TimedOut" | "Rejected")
    }
}

impl History {
    pub fn last(&self) -> &Version {
        self.versions.last().expect("at least one")
    }

    /// The version in which a signal stood first.
    pub fn first_with(&self, key: &str, value: &str) -> Option<&Version> {
        self.versions.iter().find(|version| signals(&version.object).any(|signal| signal == (key, value)))
    }
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            entries: Vec::new(),
            requests: HashMap::new(),
            policies: HashMap::new(),
            windows: Vec::new(),
            changes: Vec::new(),
            by_version: HashMap::new(),
            in_flight: BTreeMap::new(),
            next: 0,
        }
    }

    /// A write is sent: nothing is judged that it may have a part in until it is answered.
    pub fn begins(&mut self) -> u64 {
        self.next += 1;
        self.in_flight.insert(self.next, Instant::now());
        self.next
    }

    pub fn answered(&mut self, write: u64, entry: Entry) {
        self.in_flight.remove(&write);
        if let Ok(rv) = entry.answer {
            self.by_version.entry(rv).or_default().push(self.entries.len());
        }
        self.entries.push(entry);
    }

    /// All writes that were sent before this are answered.
    pub fn settled(&self) -> Instant {
        self.in_flight.values().min().copied().unwrap_or_else(Instant::now)
    }

    /// The writes of ours that were answered with this version; the operator's are not among them. One of them wrote it,
    /// unless the operator did: a write that changes nothing is answered with the version that was there.
    pub fn writes_of(&self, rv: u64) -> impl Iterator<Item = &Entry> {
        self.by_version.get(&rv).into_iter().flatten().map(|entry| &self.entries[*entry])
    }

    /// The watch shows a version of a request.
    pub fn shows(&mut self, object: Value) {
        let uid = text(&object, "/metadata/uid").to_owned();
        let name = text(&object, "/metadata/name").to_owned();
        let version = Version { rv: version_of(&object), seen: Instant::now(), object };
        let history = self.requests.entry(uid).or_insert(History { name, versions: Vec::new(), gone: None });
        if history.versions.last().is_none_or(|last| last.rv < version.rv) {
            history.versions.push(version);
        }
    }

    /// The watch shows that a request is gone.
    pub fn shows_gone(&mut self, object: &Value) {
        if let Some(history) = self.requests.get_mut(text(object, "/metadata/uid")) {
            history.gone = Some((version_of(object), Instant::now()));
        }
    }

    /// The watch shows what a policy says, or that it is gone.
    pub fn shows_policy(&mut self, object: &Value, gone: bool) {
        let versions = self.policies.entry(text(object, "/metadata/name").to_owned()).or_default();
        versions.push((version_of(object), Instant::now(), (!gone).then(|| object.clone())));
    }

    /// What a policy said at some time between two versions, both included.
    pub fn policy_between(&self, name: &str, from: u64, to: u64) -> impl Iterator<Item = &Value> {
        let versions = self.policies.get(name).map(Vec::as_slice).unwrap_or_default();
        let first = versions.iter().rposition(|(rv, ..)| *rv <= from).unwrap_or_default();
        versions[first..].iter().take_while(move |(rv, ..)| *rv <= to).filter_map(|(.., object)| object.as_ref())
    }

    /// A version that is at most as old as this time, going back from another version.
    pub fn since(&self, name: &str, time: Instant, at_most: u64) -> u64 {
        let versions = self.policies.get(name).map(Vec::as_slice).unwrap_or_default();
        let before = versions.iter().rev().find(|(_, seen, _)| *seen <= time).map(|(rv, ..)| *rv);
        before.unwrap_or_default().min(at_most)
    }

    /// The live request of this name.
    pub fn present(&self, name: &str) -> Option<&History> {
        self.requests.values().find(|history| history.name == name && history.gone.is_none())
    }

    /// What may have been so about a person at some time between these two: both values while a change was under way.
    pub fn was(&self, who: usize, property: Property, value: bool, from: Instant, to: Instant) -> bool {
        let mine = || self.changes.iter().filter(|change| change.who == who && change.property == property);
        let before = mine().rfind(|change| change.answered <= from);
        let then = before.map_or_else(|| at_first(who, property), |change| change.value);
        then == value || mine().any(|change| change.answered > from && change.sent <= to && change.value == value)
    }

    /// What happened to the requests of a name, for a person who has to understand a failure.
    pub fn story(&self, name: &str, cast: &Cast) -> String {
        let mut lines: Vec<(Duration, String)> = Vec::new();
        let since = |time: Instant| time.saturating_duration_since(self.start);
        for entry in self.entries.iter().filter(|entry| entry.name == name || cast.policies.contains(&entry.name)) {
            let Entry { who, kind, name, what, sent, answer } = entry;
            let answer = match answer {
                Ok(rv) => format!("accepted at {rv}"),
                Err(why) => format!("refused: {why}"),
            };
            if answer.starts_with("acc") || *name != cast.policies[0] && *name != cast.policies[1] {
                lines.push((since(*sent), format!("{} {kind:?} {name} {what}: {answer}", cast.writers[*who].title)));
            }
        }
        for (uid, history) in self.requests.iter().filter(|(_, history)| history.name == name) {
            for version in &history.versions {
                let what = format!("{uid} at {}: {} ballot {}", version.rv, version.phase(), version.ballot());
                lines.push((since(version.seen), format!("    {what}")));
            }
            if let Some((rv, seen)) = history.gone {
                lines.push((since(seen), format!("    {uid} gone at {rv}")));
            }
        }
        for Change { who, property, value, answered, .. } in &self.changes {
            lines.push((since(*answered), format!("Keycloak: {} {property:?} {value}", cast.writers[*who].title)));
        }
        lines.sort();
        let mut story = format!("windows: {:?}\n", self.windows);
        for (time, line) in lines {
            let _ = writeln!(story, "{:>8.2} s {line}", time.as_secs_f64());
        }
        story
    }
}

/// How it is in Keycloak when the run begins.
fn at_first(who: usize, property: Property) -> bool {
    use crate::adversary_cast::{LEA, ROB};
    match property {
        Property::Enabled => true,
        Property::Lead => matches!(who, ROB | LEA),
    }
}
