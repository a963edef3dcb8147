//! What is counted, in the OpenMetrics text format. Labels come from fixed sets: no names, no users, no error texts.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{api::Phase, keycloak};

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Reconcile, Counter>,
    calls: Family<Call, Histogram>,
    lag: Histogram,
    requests: Family<InPhase, Gauge>,
    overdue: Gauge,
    in_force: Gauge,
    forged: Counter,
    vanished: Counter,
    given_again: Counter,
    taken_away: Gauge,
    older_key: Gauge,
    realms: Family<OfRealm, Gauge>,
    leader: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    kind: &'static str,
    outcome: &'static str,
    category: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    endpoint: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: &'static str,
}

/// A realm of the configuration, by its name there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRealm {
    realm: String,
}

/// What is counted when somebody looks, so that it cannot drift.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The phase of every request.
    pub phases: Vec<Phase>,
    /// Requests whose access should have been gone ten seconds ago.
    pub overdue: usize,
    /// Live requests that lack something, because somebody took it away.
    pub taken_away: usize,
    /// Whether the admission policies are in force.
    pub in_force: bool,
    /// Whether the operator can work in each realm.
    pub realms: Vec<(String, bool)>,
    /// Requests whose status carries the seal of an older key.
    pub older_key: usize,
    /// Whether this process leads.
    pub leader: bool,
}

fn call_histogram() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hallpass");
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciles by kind, outcome and category of error", reconciles.clone());
        let calls = Family::new_with_constructor(call_histogram as fn() -> Histogram);
        registry.register("keycloak_call_seconds", "Calls to Keycloak by endpoint and result", calls.clone());
        let lag = Histogram::new([0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0]);
        registry.register(
            "expiry_lag_seconds",
            "Time from a deadline to the proof that the access is gone",
            lag.clone(),
        );
        let requests = Family::default();
        registry.register("requests", "AccessRequests by phase", requests.clone());
        let overdue = Gauge::default();
        registry.register("overdue_revocations", "Access that should have been gone ten seconds ago", overdue.clone());
        let in_force = Gauge::default();
        registry.register(
            "admission_policies_in_force",
            "1 while the admission policies are in force",
            in_force.clone(),
        );
        let forged = Counter::default();
        registry.register("forged_statuses", "Statuses that somebody else wrote", forged.clone());
        let vanished = Counter::default();
        registry.register(
            "vanished_requests",
            "Live requests that disappeared before their access was taken away",
            vanished.clone(),
        );
        let given_again = Counter::default();
        registry.register(
            "given_again",
            "What somebody else gave again after the access had ended",
            given_again.clone(),
        );
        let taken_away = Gauge::default();
        registry.register(
            "taken_away_requests",
            "Active AccessRequests of which somebody else has taken something away",
            taken_away.clone(),
        );
        let older_key = Gauge::default();
        registry.register(
            "seals_with_older_key",
            "AccessRequests whose status carries the seal of an older key",
            older_key.clone(),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 while this process leads", leader.clone());
        let realms = Family::default();
        registry.register("realm_ready", "1 while the operator can work in the realm", realms.clone());
        Self {
            registry,
            reconciles,
            calls,
            lag,
            requests,
            overdue,
            in_force,
            forged,
            vanished,
            given_again,
            taken_away,
            older_key,
            realms,
            leader,
        }
    }
}

impl Metrics {
    /// A reconcile of this kind ended; `category` is empty if it went well.
    pub fn reconciled(&self, kind: &'static str, category: &'static str) {
        let outcome = if category.is_empty() { "ok" } else { "error" };
        self.reconciles.get_or_create(&Reconcile { kind, outcome, category }).inc();
    }

    /// A status that somebody else wrote was seen.
    pub fn forged(&self) {
        self.forged.inc();
    }

    /// A live request disappeared before its access was taken away.
    pub fn vanished(&self) {
        self.vanished.inc();
    }

    /// Somebody gave again what had ended.
    pub fn given_again(&self) {
        self.given_again.inc();
    }

    /// Access whose time was up is gone, this long after its deadline.
    pub fn expired(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    /// The text that a scrape gets.
    pub fn text(&self, snapshot: &Snapshot) -> Result<String, fmt::Error> {
        for phase in Phase::ALL {
            let count = snapshot.phases.iter().filter(|other| **other == phase).count();
            let gauge = self.requests.get_or_create(&InPhase { phase: phase.as_str() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.overdue.set(i64::try_from(snapshot.overdue).unwrap_or(i64::MAX));
        self.taken_away.set(i64::try_from(snapshot.taken_away).unwrap_or(i64::MAX));
        self.in_force.set(i64::from(snapshot.in_force));
        self.older_key.set(i64::try_from(snapshot.older_key).unwrap_or(i64::MAX));
        for (realm, ready) in &snapshot.realms {
            self.realms.get_or_create(&OfRealm { realm: realm.clone() }).set(i64::from(*ready));
        }
        self.leader.set(i64::from(snapshot.leader));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl keycloak::Observer for Metrics {
    fn call(&self, endpoint: &'static str, result: &'static str, seconds: f64) {
        self.calls.get_or_create(&Call { endpoint, result }).observe(seconds);
    }
}
