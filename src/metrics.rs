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
    older_key: Gauge,
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

/// What is counted when somebody looks, so that it cannot drift.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The phase of every request.
    pub phases: Vec<Phase>,
    /// Requests whose access should have been gone ten seconds ago.
    pub overdue: usize,
    /// Whether the admission policies are in force.
    pub in_force: bool,
    /// Requests whose status carries the seal of an older key.
    pub older_key: usize,
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
        let older_key = Gauge::default();
        registry.register(
            "seals_with_older_key",
            "AccessRequests whose status carries the seal of an older key",
            older_key.clone(),
        );
        Self { registry, reconciles, calls, lag, requests, overdue, in_force, forged, vanished, older_key }
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
        self.in_force.set(i64::from(snapshot.in_force));
        self.older_key.set(i64::try_from(snapshot.older_key).unwrap_or(i64::MAX));
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
