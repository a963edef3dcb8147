//! The seal of a request's status: an HMAC over everything that steers the request, with a key that only the operator has.
//!
//! The admission policies keep others from writing a status. The seal shows that it was written all the same: while they
//! were away, in etcd, or in another cluster.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use serde::Serialize;
use sha2::Sha256;

use crate::api::{AccessRequestStatus, ActionStatus, End, GrantStatus, Phase, PinnedSubject, PolicyPin, Vote};

/// Which form of seal it is. A status that is sealed otherwise has another.
const VERSION: &str = "v1";
/// A key has at least so many bytes: as many as the HMAC.
pub const KEY_BYTES: usize = 32;
/// Longest id of a key.
const MAX_ID: usize = 32;

/// What is sealed. A field that is left out when it is not set can be added later without breaking older seals.
#[derive(Serialize)]
struct Sealed<'a> {
    version: &'static str,
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a PolicyPin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ballot: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_epoch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a PinnedSubject>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    votes: Vec<&'a Vote>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ends: Vec<&'a End>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_actions: Vec<&'a ActionStatus>,
    /// Whether it is set makes the condition `Approved`, and it is the record of who agreed.
    #[serde(skip_serializing_if = "Option::is_none")]
    approved_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<GrantStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<&'a str>,
}

impl<'a> Sealed<'a> {
    fn of(uid: &'a str, status: &'a AccessRequestStatus) -> Self {
        // A new field does not compile here until somebody decides whether it steers anything.
        let AccessRequestStatus {
            observed_generation: _,
            phase,
            policy,
            ballot,
            rules,
            trust_epoch,
            subject,
            votes,
            ends,
            required_actions,
            approved_by,
            grants: _,
            ends_at: _,
            grant,
            fence,
            seal: _,
            conditions: _,
        } = status;
        // The order of lists that are maps is nobody's to keep.
        let (mut votes, mut ends, mut grant) =
            (votes.iter().collect::<Vec<_>>(), ends.iter().collect::<Vec<_>>(), grant.clone());
        let mut required_actions: Vec<_> = required_actions.iter().collect();
        required_actions.sort_by_key(|action| &action.name);
        votes.sort_by_key(|vote| &vote.key);
        ends.sort_by_key(|end| &end.key);
        if let Some(grant) = &mut grant {
            // It steers nothing, and is in statuses that a version without it must be able to verify.
            grant.token_lifespan = None;
            grant.targets.sort_by(|one, other| one.name.cmp(&other.name));
        }
        Self {
            version: VERSION,
            uid,
            phase: *phase,
            policy: policy.as_ref(),
            ballot: ballot.as_deref(),
            rules: rules.as_deref(),
            trust_epoch: trust_epoch.as_deref(),
            subject: subject.as_ref(),
            votes,
            ends,
            required_actions,
            approved_by: approved_by.as_deref(),
            grant,
            fence: fence.as_deref(),
        }
    }

    fn text(&self) -> String {
        // These types have no maps and no numbers that JSON lacks: it cannot fail, and a seal over nothing fits nothing.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Whether a status says nothing that is sealed: nobody has looked at the request.
pub fn is_blank(status: &AccessRequestStatus) -> bool {
    status.seal.is_none() && Sealed::of("", status).text() == Sealed::of("", &AccessRequestStatus::default()).text()
}

/// The id of the key that a seal was made with.
pub fn key_id(seal: &str) -> Option<&str> {
    let (id, _) = seal.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')?;
    Some(id)
}

/// A key. It has no `Debug`: it must not be printed.
#[derive(Clone)]
struct Key {
    bytes: SecretSlice<u8>,
    mac: Hmac<Sha256>,
}

/// The keys, by id. Seals with the one whose id sorts last, verifies with any.
#[derive(Clone, Default)]
pub struct Keys(BTreeMap<String, Key>);

/// Why an entry of the Secret is no key.
#[derive(Debug, thiserror::Error)]
pub enum NoKey {
    /// Its name cannot stand in a seal.
    #[error("key {0:?}: an id has at most {MAX_ID} lower-case letters, digits and dashes")]
    Id(String),
    /// It could be guessed.
    #[error("key {0:?}: a key has at least {KEY_BYTES} random bytes")]
    Short(String),
}

impl Keys {
    /// Takes on a key. A key that is known under this id stays as it is; says whether it is this one.
    pub fn add(&mut self, id: &str, bytes: &[u8]) -> Result<bool, NoKey> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(fits) {
            return Err(NoKey::Id(id.to_owned()));
        }
        let mac = Hmac::new_from_slice(bytes).ok().filter(|_| bytes.len() >= KEY_BYTES);
        let mac = mac.ok_or_else(|| NoKey::Short(id.to_owned()))?;
        let new = || Key { bytes: bytes.to_vec().into(), mac };
        Ok(self.0.entry(id.to_owned()).or_insert_with(new).bytes.expose_secret() == bytes)
    }

    /// Forgets the keys whose ids do not pass.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|id, _| keep(id));
    }

    /// The id of the key that seals, if there is one.
    pub fn newest(&self) -> Option<&str> {
        self.0.last_key_value().map(|(id, _)| id.as_str())
    }

    /// The ids of all keys.
    pub fn ids(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// The keys themselves, for the Secret that keeps them.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(id, key)| (id.as_str(), key.bytes.expose_secret()))
    }

    /// The seal of a request's status, with the newest key.
    pub fn seal(&self, uid: &str, status: &AccessRequestStatus) -> Option<String> {
        let (id, key) = self.0.last_key_value()?;
        let hmac = key.mac.clone().chain_update(Sealed::of(uid, status).text()).finalize().into_bytes();
        let hex: String = hmac.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("{VERSION}.{id}.{hex}"))
    }

    /// Whether a status carries a seal of its own, of this request, made with one of the keys.
    pub fn verify(&self, uid: &str, status: &AccessRequestStatus) -> bool {
        let verified = || {
            let seal = status.seal.as_deref()?;
            let id = key_id(seal)?;
            let hmac = unhex(seal.rsplit_once('.')?.1)?;
            let mac = self.0.get(id)?.mac.clone().chain_update(Sealed::of(uid, status).text());
            mac.verify_slice(&hmac).ok()
        };
        verified().is_some()
    }
}

/// The bytes that lower-case hexadecimal digits stand for.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    text.as_bytes().chunks(2).map(|pair| Some((digit(*pair.first()?)? << 4) | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
