//! What a seal covers, and what it is made with.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

use std::collections::BTreeSet;

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::*;
use crate::api::AccessRequest;

/// Fields that steer nothing: what is said about the request, and the seal itself.
const NOT_SEALED: [&str; 5] = ["/observedGeneration", "/grants", "/endsAt", "/grant/tokenLifespan", "/seal"];

fn keys(ids: &[&str]) -> Keys {
    let mut keys = Keys::default();
    for id in ids {
        let byte = *id.as_bytes().last().expect("an id");
        assert!(keys.add(id, &[byte; KEY_BYTES]).expect("a key"));
    }
    keys
}

/// A status with everything in it.
fn full() -> Value {
    let said = |key: &str| json!({ "by": "oidc:bob", "userId": "bob", "at": "2026-11-23T12:00:00Z", "key": key, "counted": true, "why": "so" });
    let vote = |key: &str| {
        let mut vote = said(key);
        vote["stage"] = json!("lead");
        vote["decision"] = json!("Approve");
        vote
    };
    let target = |name: &str| {
        json!({
            "name": name, "type": "ClientRole", "id": "r1", "client": "c1", "display": "admin", "preExisting": false,
            "state": "Mapped",
        })
    };
    json!({
        "observedGeneration": 1, "phase": "Active", "policy": { "uid": "p1", "generation": 3 }, "ballot": "b1",
        "rules": "r1", "trustEpoch": "e1",
        "subject": { "realm": "prod", "url": "https://sso.example.com", "realmId": "realm", "userId": "alice", "username": "alice" },
        "votes": [vote("approve.hallpass.dev/b1.lead.1"), vote("approve.hallpass.dev/b1.lead.2")],
        "ends": [said("end.hallpass.dev/1"), said("end.hallpass.dev/2")],
        "requiredActions": [{ "name": "CONFIGURE_TOTP", "since": "2026-11-23T12:00:00Z", "done": "a credential otp" }],
        "approvedBy": "oidc:bob", "grants": "admin", "endsAt": "2026-11-23T13:00:00Z",
        "grant": {
            "startsAt": "2026-11-23T12:00:00Z", "deadline": "2026-11-23T13:00:00Z", "endReason": "Ended",
            "endedAt": "2026-11-23T12:30:00Z", "powerlessAt": "2026-11-23T12:35:00Z",
            "sessions": "EndAll", "tokenLifespan": 300,
            "targets": [target("admin"), target("debug")],
        },
        "fence": "f1", "seal": "v1.k1.00",
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Active", "message": "in place", "observedGeneration": 1,
            "lastTransitionTime": "2026-11-23T12:00:00Z",
        }],
    })
}

fn status(value: &Value) -> AccessRequestStatus {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

fn sealed(keys: &Keys, uid: &str, value: &Value) -> AccessRequestStatus {
    let status = status(value);
    AccessRequestStatus { seal: keys.seal(uid, &status), ..status }
}

/// The pointers of all values in this one that have no parts.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| leaves(value, &format!("{at}/{name}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| leaves(item, &format!("{at}/{i}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}

/// Another value for this field.
fn another(at: &str, old: &Value) -> Value {
    let last = at.rsplit('/').next().unwrap_or_default();
    match (last, old) {
        ("phase", _) => json!("Approved"),
        ("decision", _) => json!("Deny"),
        ("endReason", _) => json!("Deleted"),
        ("sessions", _) => json!("EndClientSessions"),
        ("type", _) => json!("Group"),
        ("state", _) => json!("Kept"),
        (_, Value::Bool(old)) => json!(!old),
        (_, Value::Number(_)) => json!(7),
        (_, Value::String(old)) if old.ends_with('Z') => json!("2027-01-01T00:00:00Z"),
        (_, Value::String(_)) => json!("other"),
        (_, other) => panic!("{at}: {other}"),
    }
}

/// The pointers of all fields of the status, by the CRD.
fn schema(schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    if let Some(items) = schema.get("items") {
        return self::schema(items, &format!("{at}/0"), found);
    }
    match schema.get("properties").and_then(Value::as_object) {
        Some(fields) => fields.iter().for_each(|(name, field)| self::schema(field, &format!("{at}/{name}"), found)),
        None => drop(found.insert(at.to_owned())),
    }
}

#[test]
fn every_field_is_sealed_or_steers_nothing() {
    let keys = keys(&["k1"]);
    let mut paths = Vec::new();
    leaves(&full(), "", &mut paths);
    let crd = serde_json::to_value(AccessRequest::crd()).expect("a CRD");
    let mut fields = BTreeSet::new();
    let root = "/spec/versions/0/schema/openAPIV3Schema/properties/status";
    schema(crd.pointer(root).expect("a schema"), "", &mut fields);
    let missing: Vec<_> = fields.iter().filter(|field| !paths.contains(field)).collect();
    assert!(missing.is_empty() && fields.len() > 40, "not tried: {missing:?}");
    for path in paths {
        let mut changed = sealed(&keys, "u1", &full());
        assert!(keys.verify("u1", &changed));
        let seal = changed.seal.clone();
        let mut value = serde_json::to_value(&changed).expect("JSON");
        let field = value.pointer_mut(&path).expect("a field");
        *field = another(&path, field);
        changed = AccessRequestStatus { seal, ..status(&value) };
        let free = NOT_SEALED.contains(&path.as_str()) || path.starts_with("/conditions/");
        assert_eq!(keys.verify("u1", &changed), free, "{path}");
    }
}

#[test]
fn what_is_missing_or_added_breaks_the_seal() {
    let keys = keys(&["k1"]);
    for path in [
        "/votes/0",
        "/ends/1",
        "/grant/targets/0",
        "/grant",
        "/subject",
        "/policy",
        "/votes",
        "/phase",
        "/requiredActions",
        "/approvedBy",
    ] {
        let whole = sealed(&keys, "u1", &full());
        let mut value = full();
        let (parent, last) = path.rsplit_once('/').expect("a pointer");
        match value.pointer_mut(parent).expect("a parent") {
            Value::Array(items) => drop(items.remove(last.parse().expect("a number"))),
            parent => drop(parent.as_object_mut().expect("an object").remove(last)),
        }
        let without = sealed(&keys, "u1", &value);
        assert!(keys.verify("u1", &without), "{path}");
        assert!(!keys.verify("u1", &AccessRequestStatus { seal: whole.seal.clone(), ..without.clone() }), "{path}");
        assert!(!keys.verify("u1", &AccessRequestStatus { seal: without.seal, ..whole }), "{path}");
    }
}

#[test]
fn the_order_of_lists_does_not_matter() {
    let keys = keys(&["k1"]);
    let mut status = sealed(&keys, "u1", &full());
    status.votes.reverse();
    status.ends.reverse();
    status.grant.as_mut().expect("a grant").targets.reverse();
    assert!(keys.verify("u1", &status));
}

#[test]
fn a_seal_is_of_one_request_and_of_a_key_that_is_known() {
    let (old, both, other) = (keys(&["k1"]), keys(&["k1", "k2"]), keys(&["k3"]));
    let by_old = sealed(&old, "u1", &full());
    let by_both = sealed(&both, "u1", &full());
    assert_eq!(by_old.seal.as_deref().and_then(key_id), Some("k1"));
    assert_eq!(by_both.seal.as_deref().and_then(key_id), Some("k2"), "the newest seals");
    assert!(old.verify("u1", &by_old) && both.verify("u1", &by_old) && both.verify("u1", &by_both));
    assert!(!old.verify("u1", &by_both), "of a key that is not known");
    assert!(!other.verify("u1", &by_old));
    assert!(!old.verify("u2", &by_old), "of another request");
    // The same id, and another key.
    let mut impostor = Keys::default();
    impostor.add("k1", &[7; KEY_BYTES]).expect("a key");
    assert!(!old.verify("u1", &sealed(&impostor, "u1", &full())));
    let longest = keys(&["an-id-of-thirty-two-characters-1"]);
    assert!(sealed(&longest, "u1", &full()).seal.expect("a seal").len() <= 128, "maxLength of status.seal");
}

#[test]
fn what_is_no_seal_fits_nothing() {
    let keys = keys(&["k1"]);
    let whole = sealed(&keys, "u1", &full());
    let seal = whole.seal.clone().expect("a seal");
    let hex = seal.rsplit_once('.').expect("three parts").1.to_owned();
    let forged = ["", ".", "v1", "v1.", "v1.k1", "v1.k1.", "v1..", "v1.k1.00", "v1.k1.xy", "v2.k1.", "k1."];
    let cut = [format!("v1.k1.{}", &hex[2..]), format!("v2.k1.{hex}"), format!("v1.k2.{hex}"), format!("{seal}00")];
    for seal in forged.into_iter().map(ToOwned::to_owned).chain(cut).chain([seal.to_uppercase(), "v1.k1.ä".into()]) {
        assert!(!keys.verify("u1", &AccessRequestStatus { seal: Some(seal.clone()), ..whole.clone() }), "{seal:?}");
    }
    assert!(!keys.verify("u1", &AccessRequestStatus { seal: None, ..whole }));
}

#[test]
fn a_key_stays_what_it_was() {
    let mut keys = keys(&["k1"]);
    assert!(keys.add("k1", &[b'1'; KEY_BYTES]).expect("the same"));
    assert!(!keys.add("k1", &[9; KEY_BYTES]).expect("another"), "it is told, and not taken on");
    assert!(keys.add("k1", &[b'1'; KEY_BYTES]).expect("as it was"));
    let long = "a".repeat(33);
    for id in ["", "K", "a.b", "a_b", "ä", long.as_str()] {
        assert!(matches!(keys.add(id, &[9; KEY_BYTES]), Err(NoKey::Id(_))), "{id:?}");
    }
    assert!(matches!(keys.add("k2", &[9; KEY_BYTES - 1]), Err(NoKey::Short(_))));
    assert_eq!(keys.ids(), ["k1"]);
}

#[test]
fn only_a_status_that_says_nothing_is_blank() {
    assert!(is_blank(&AccessRequestStatus::default()));
    assert!(is_blank(&status(&json!({ "observedGeneration": -1 }))));
    for (field, value) in full().as_object().expect("an object") {
        let free = ["observedGeneration", "grants", "endsAt", "conditions"].contains(&field.as_str());
        assert_eq!(is_blank(&status(&json!({ field: value }))), free, "{field}");
    }
}
