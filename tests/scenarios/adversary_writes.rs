//! How a move becomes a write to the real API server, with what the request looks like at that moment.

use std::time::Instant;

use hallpass::api::{APPROVE, DENY, END, FINALIZER};
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Request};
use serde_json::{Value, json};

use crate::{
    adversary::Arena,
    adversary_cast::{ADMIN, NAMES, OPERATOR, STAGES},
    adversary_ledger::{Entry, History, Version, signals, text},
    adversary_moves::{FORGE_STATUS, Kind, Move, TAKE_FINALIZERS},
    attacks_cast::replacing,
};

/// What is sent.
enum Verb {
    Create(Value),
    Merge(Value),
    Json(Value),
    Status(Value),
    ReplaceStatus(Value, Value),
    Apply(&'static str, Value),
    Replace(Value),
    Delete,
}

/// What a move finds: the versions of the request that it is about, if there is one.
struct Target {
    name: String,
    uid: String,
    phase: String,
    ballot: String,
    old_ballot: String,
    foreign_ballot: String,
    signal: Option<String>,
    newest: Value,
    oldest: Value,
    has_deadline: bool,
}

impl Arena {
    /// Does what a move says. What cannot be tried now is not tried.
    pub async fn tries(&self, who: usize, m: &Move) -> Result<(), String> {
        // A status that is written while the policies are away would be believed: see FORGE_STATUS.
        let away = self.away.read().await;
        if *away && m.kind.waits_for_the_policies() {
            return Ok(());
        }
        match m.kind {
            Kind::Ask | Kind::AskForOther | Kind::AskSubmitted | Kind::AskPreApproved | Kind::AskWithVote => {
                let (name, is_over) = self.free_name(m);
                if is_over && m.kind == Kind::Ask {
                    self.send(who, m, &name, Verb::Delete).await?;
                }
                self.send(who, m, &name, Verb::Create(self.request(who, m, &name))).await
            }
            Kind::EditPolicy | Kind::RemakePolicy => self.touches_policy(who, m).await,
            Kind::Recreate => self.recreates(who, m).await,
            Kind::Membership | Kind::Disable => Err("not a write to the API server".into()),
            _ => match self.target(who, m) {
                Some(target) => match self.verb(who, m, &target) {
                    Some(verb) => self.send(who, m, &target.name, verb).await,
                    None => Ok(()),
                },
                None => Ok(()),
            },
        }
    }

    /// A name that nobody uses now, else one whose request is over, else any.
    fn free_name(&self, m: &Move) -> (String, bool) {
        let ledger = self.ledger();
        let mut names = (0..NAMES.len()).map(|i| NAMES[(m.name + i) % NAMES.len()]);
        if let Some(free) = names.clone().find(|name| ledger.present(name).is_none()) {
            return (free.to_owned(), false);
        }
        let over = names.find(|name| ledger.present(name).is_some_and(|history| history.last().is_final()));
        (over.unwrap_or(NAMES[m.name]).to_owned(), over.is_some())
    }

    /// A manifest.
    fn request(&self, who: usize, m: &Move, name: &str) -> Value {
        let cast = &self.cast;
        let own = matches!(m.kind, Kind::Ask | Kind::AskWithVote | Kind::Recreate);
        let requester = if own { who } else { m.other };
        let mut spec = json!({
            "policyName": cast.policies[m.policy], "requester": cast.writers[requester].username,
            "duration": format!("{}s", m.seconds), "reason": "INC-1",
        });
        let mut annotations = json!({});
        if matches!(m.kind, Kind::AskSubmitted | Kind::AskPreApproved) {
            let submitter = if m.style.is_multiple_of(3) { requester } else { who };
            spec["submittedBy"] = json!(cast.writers[submitter].username);
        }
        if m.kind == Kind::AskPreApproved {
            let at = |seconds| (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string();
            spec["preApproved"] = json!(true);
            (spec["notBefore"], spec["notAfter"]) = (json!(at(-5)), json!(at(60)));
        }
        if m.kind == Kind::AskWithVote {
            let ballot = self.target(who, m).map(|target| target.ballot).unwrap_or_default();
            annotations[key(APPROVE, &ballot, STAGES[m.stage], m)] = json!(cast.writers[m.other].username);
        }
        json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest",
            "metadata": {"name": name, "annotations": annotations}, "spec": spec,
        })
    }

    /// The request that a move is about: for votes one that can be voted on, if there is one.
    fn target(&self, who: usize, m: &Move) -> Option<Target> {
        let ledger = self.ledger();
        let there: Vec<&History> = NAMES.iter().filter_map(|name| ledger.present(name)).collect();
        let own = &self.cast.writers[who].username;
        let can_be_voted_on =
            |history: &History| !history.last().ballot().is_empty() && history.last().phase() == "Pending";
        let wanted = |history: &&History| match m.kind {
            Kind::Vote => {
                let newest = history.last();
                let is_mine = |(key, by): (&str, &str)| by == own && key.contains(newest.ballot());
                can_be_voted_on(history) && !signals(&newest.object).any(is_mine)
            }
            Kind::VoteInName | Kind::VoteAnyStage | Kind::VoteForeignBallot | Kind::VoteOldBallot => {
                can_be_voted_on(history)
            }
            Kind::Overwrite | Kind::NullKey => signals(&history.last().object).next().is_some(),
            Kind::Delete => history.last().is_final(),
            _ => true,
        };
        let liked: Vec<&History> = there.iter().copied().filter(wanted).collect();
        let from = if liked.is_empty() { &there } else { &liked };
        let history = *from.get(m.name % from.len().max(1))?;
        let newest = history.last();
        let ballots = history.versions.iter().rev().map(Version::ballot);
        let old = ballots.clone().find(|ballot| !ballot.is_empty() && *ballot != newest.ballot());
        let mut foreign = there.iter().map(|other| other.last().ballot());
        let foreign = foreign.rfind(|ballot| !ballot.is_empty() && *ballot != newest.ballot());
        let all: Vec<&str> = signals(&newest.object).map(|(key, _)| key).collect();
        let signal = all.get(m.other % all.len().max(1)).map(|key| (*key).to_owned());
        Some(Target {
            name: history.name.clone(),
            uid: text(&newest.object, "/metadata/uid").to_owned(),
            phase: newest.phase().to_owned(),
            ballot: newest.ballot().to_owned(),
            old_ballot: old.unwrap_or("0123456789ab").to_owned(),
            foreign_ballot: foreign.unwrap_or("ba9876543210").to_owned(),
            signal,
            newest: newest.object.clone(),
            oldest: history.versions[m.other % history.versions.len()].object.clone(),
            has_deadline: !text(&newest.object, "/status/grant/deadline").is_empty(),
        })
    }

    /// What is sent to a request that is there; nothing if this kind has nothing to do with what is there.
    fn verb(&self, who: usize, m: &Move, target: &Target) -> Option<Verb> {
        let name_of = |who: usize| self.cast.writers[who].username.clone();
        let (own, other) = (name_of(who), name_of(m.other));
        let note = |key: String, value: Value| Verb::Merge(json!({"metadata": {"annotations": {key: value}}}));
        let prefix = if m.deny { DENY } else { APPROVE };
        // The stage in which people know that they have a say.
        let usual = if who == crate::adversary_cast::SAM { "security" } else { "lead" };
        let stage = STAGES[m.stage];
        Some(match m.kind {
            Kind::Vote => note(key(prefix, &target.ballot, usual, m), json!(own)),
            Kind::VoteAnyStage => note(key(prefix, &target.ballot, stage, m), json!(own)),
            Kind::VoteInName => note(key(prefix, &target.ballot, stage, m), json!(other)),
            Kind::VoteOldBallot => note(key(prefix, &target.old_ballot, usual, m), json!(own)),
            Kind::VoteForeignBallot => note(key(prefix, &target.foreign_ballot, usual, m), json!(own)),
            Kind::End => note(format!("{END}e{}", m.n), json!(own)),
            Kind::EndInName => note(format!("{END}e{}", m.n), json!(other)),
            Kind::Delete => Verb::Delete,
            Kind::Wipe => Verb::Merge(json!({"metadata": {"annotations": null}})),
            Kind::Overwrite => {
                note(target.signal.clone()?, if m.style.is_multiple_of(3) { json!("") } else { json!(own) })
            }
            Kind::NullKey => note(target.signal.clone()?, Value::Null),
            Kind::Label => Verb::Merge(json!({"metadata": {"labels": {"adversary": format!("l{}", m.n)}}})),
            Kind::Owner => Verb::Merge(json!({"metadata": {"ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": format!("0000-{}", m.n),
            }]}})),
            Kind::AddFinalizer => Verb::Merge(json!({"metadata": {"finalizers": [FINALIZER, "example.com/stay"]}})),
            Kind::TakeFinalizer | Kind::Apply if who == OPERATOR && !TAKE_FINALIZERS => return None,
            Kind::TakeFinalizer => Verb::Merge(json!({"metadata": {"finalizers": null}})),
            Kind::EditSpec => Verb::Merge(match m.style % 3 {
                0 => json!({"spec": {"requester": own}}),
                1 => json!({"spec": {"duration": "9s"}}),
                _ => json!({"spec": {"policyName": self.cast.policies[m.policy]}}),
            }),
            Kind::ReplaceEdited => Verb::Replace(self.edited(m, target, &other)),
            Kind::ReplaceStale => {
                let mut old = target.oldest.clone();
                if m.style.is_multiple_of(2) {
                    old["metadata"]["resourceVersion"] = target.newest["metadata"]["resourceVersion"].clone();
                }
                Verb::Replace(old)
            }
            Kind::Apply => {
                let manager = ["hallpass", "kubectl-client-side-apply"][usize::from(m.style.is_multiple_of(2))];
                let voter = if m.style % 4 < 2 { other } else { own };
                let annotations = if m.style % 8 < 6 {
                    json!({key(prefix, &target.ballot, stage, m): voter})
                } else {
                    json!({"example.com/applied": "yes"})
                };
                Verb::Apply(
                    manager,
                    json!({
                        "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest",
                        "metadata": {"name": target.name, "annotations": annotations}, "spec": target.newest["spec"],
                    }),
                )
            }
            Kind::PlantLastApplied => {
                let mut planted = self.edited(m, target, &other);
                planted["metadata"]["finalizers"] = json!([FINALIZER]);
                note("kubectl.kubernetes.io/last-applied-configuration".into(), json!(planted.to_string()))
            }
            Kind::StatusInMain => Verb::Merge(json!({"status": forged_status(self, m, target)})),
            // It may replace a status, not patch it.
            Kind::Status if who == OPERATOR => Verb::ReplaceStatus(target.newest.clone(), operators(m, target)?),
            Kind::Status => Verb::Status(json!({"status": forged_status(self, m, target)})),
            Kind::ForgeStatus if FORGE_STATUS => Verb::Status(json!({
                "metadata": {"uid": target.uid}, "status": forged_status(self, m, target),
            })),
            _ => return None,
        })
    }

    /// A whole copy with something forged in it.
    fn edited(&self, m: &Move, target: &Target, other: &str) -> Value {
        let mut copy = target.newest.clone();
        match m.style % 4 {
            0 => copy["metadata"]["annotations"][key(APPROVE, &target.ballot, STAGES[m.stage], m)] = json!(other),
            1 => copy["spec"]["duration"] = json!("10s"),
            2 => copy["status"] = forged_status(self, m, target),
            _ => copy["metadata"]["annotations"] = json!({}),
        }
        copy
    }

    /// Deletes a request, and asks again under its name with the annotations that it had.
    async fn recreates(&self, who: usize, m: &Move) -> Result<(), String> {
        let Some(target) = self.target(who, m) else { return Ok(()) };
        self.send(who, m, &target.name, Verb::Delete).await?;
        let mut again = self.request(who, m, &target.name);
        if m.style.is_multiple_of(2) {
            again["metadata"]["annotations"] = target.newest["metadata"]["annotations"].clone();
        }
        self.send(who, m, &target.name, Verb::Create(again)).await
    }

    /// The administrator changes a policy; others try.
    async fn touches_policy(&self, who: usize, m: &Move) -> Result<(), String> {
        let name = &self.cast.policies[m.policy];
        let spec = self.cast.spec(m.policy, if m.style < 40 { 0 } else { m.style % 13 });
        if who != ADMIN {
            let change = json!({"spec": {"approval": {"automatic": true, "stages": null}}});
            return self.send(who, m, name, Verb::Merge(change)).await;
        }
        if m.kind == Kind::EditPolicy {
            let whole = json!([{"op": "replace", "path": "/spec", "value": spec}]);
            return self.send(who, m, name, Verb::Json(whole)).await;
        }
        self.send(who, m, name, Verb::Delete).await?;
        let again = json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessPolicy", "metadata": {"name": name}, "spec": spec,
        });
        self.send(who, m, name, Verb::Create(again)).await
    }

    /// Sends a write, and enters what was answered.
    async fn send(&self, who: usize, m: &Move, name: &str, verb: Verb) -> Result<(), String> {
        let place = if self.cast.policies.iter().any(|policy| policy == name) {
            "/apis/hallpass.dev/v1alpha1/accesspolicies".to_owned()
        } else {
            format!("/apis/hallpass.dev/v1alpha1/namespaces/{}/accessrequests", self.w.namespace)
        };
        let (at, plain) = (Request::new(place), PatchParams::default());
        let bytes = |body: &Value| serde_json::to_vec(body).expect("JSON");
        let (what, request) = match &verb {
            Verb::Create(body) => (format!("create {body}"), at.create(&PostParams::default(), bytes(body))),
            Verb::Merge(body) => (format!("patch {body}"), at.patch(name, &plain, &Patch::Merge(body))),
            Verb::Json(body) => {
                let request = at.patch(name, &plain, &Patch::Merge(body)).map(|mut request| {
                    let kind = "application/json-patch+json".parse().expect("a content type");
                    request.headers_mut().insert("content-type", kind);
                    request
                });
                (format!("patch {body}"), request)
            }
            Verb::Status(body) => {
                (format!("patch status {body}"), at.patch_subresource("status", name, &plain, &Patch::Merge(body)))
            }
            Verb::ReplaceStatus(object, change) => {
                let body = replacing(object.clone(), change);
                (
                    format!("replace status {change}"),
                    at.replace_subresource("status", name, &PostParams::default(), body),
                )
            }
            Verb::Apply(manager, body) => {
                let params = PatchParams::apply(manager).force();
                (format!("apply as {manager} {body}"), at.patch(name, &params, &Patch::Apply(body)))
            }
            Verb::Replace(body) => (format!("replace {body}"), at.replace(name, &PostParams::default(), bytes(body))),
            Verb::Delete => ("delete".into(), at.delete(name, &DeleteParams::default())),
        };
        let request = request.map_err(|error| format!("{what}: {error}"))?;
        let write = self.ledger().begins();
        let sent = Instant::now();
        let answer = match self.cast.writers[who].client.request::<Value>(request).await {
            Ok(object) => Ok(text(&object, "/metadata/resourceVersion").parse().unwrap_or_default()),
            Err(kube::Error::Api(status)) => Err(status.message.clone()),
            // Nobody knows whether it was done: then nobody could say what may follow from it.
            Err(error) => return Err(format!("{what}: no answer: {error:?}")),
        };
        let entry = Entry { who, kind: m.kind, name: name.to_owned(), what, sent, answer };
        self.ledger().answered(write, entry);
        Ok(())
    }
}

/// The key of a vote.
fn key(prefix: &str, ballot: &str, stage: &str, m: &Move) -> String {
    format!("{prefix}{ballot}.{stage}.v{}", m.n)
}

/// A status that gives what nobody agreed to.
fn forged_status(arena: &Arena, m: &Move, target: &Target) -> Value {
    let at = |seconds| (Timestamp::now() + SignedDuration::from_secs(seconds)).strftime("%FT%TZ").to_string();
    let role = &arena.cast.roles[m.other % 3];
    let person = arena.cast.writers.iter().filter_map(|writer| writer.person.as_ref()).nth(m.name % 5);
    let person = person.expect("five people");
    let vote = json!({
        "stage": "lead", "decision": "Approve", "by": arena.cast.writers[2].username, "at": at(0), "counted": true,
        "key": key(APPROVE, &target.ballot, "lead", m),
    });
    let grant = json!({"startsAt": at(0), "deadline": at(60), "targets": [{
        "name": "a", "type": "RealmRole", "id": role.id, "display": role.name, "preExisting": false, "state": "Intended",
    }]});
    match m.style % 5 {
        0 => json!({"phase": "Activating", "grant": grant}),
        1 => json!({"phase": "Approved", "votes": [vote]}),
        2 => json!({"votes": [vote]}),
        3 => json!({"subject": {
            "realm": "prod", "realmId": "x", "userId": person.user.id, "username": person.user.username,
        }}),
        _ => json!({"phase": "Expired"}),
    }
}

/// What not even the operator's account may write: a later deadline, another end.
fn operators(m: &Move, target: &Target) -> Option<Value> {
    let later = (Timestamp::now() + SignedDuration::from_secs(600)).strftime("%FT%TZ").to_string();
    let status = if target.phase.is_empty() {
        return None;
    } else if matches!(target.phase.as_str(), "Expired" | "Revoked" | "Denied" | "TimedOut" | "Rejected") {
        let phases = ["Active", "Pending", "Revoking"];
        json!({"phase": phases[usize::try_from(m.style % 3).expect("small")]})
    } else if target.has_deadline {
        json!({"grant": {"deadline": later}})
    } else {
        return None;
    };
    Some(json!({"metadata": {"uid": target.uid}, "status": status}))
}
