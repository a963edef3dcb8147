//! Probes and metrics: what a person or a machine can look at over HTTP.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{
    controller::{Context, Realm, line},
    leader::Leadership,
    metrics::{Metrics, Snapshot},
};

/// Media type of the OpenMetrics text format, version 1.0.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is served: also while this process waits to lead.
pub struct Shown {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who leads.
    pub leadership: Leadership,
    /// The realms of the configuration.
    pub realms: Arc<BTreeMap<String, Realm>>,
    /// Once this process leads.
    pub context: OnceLock<Arc<Context>>,
}

/// Serves `/livez`, `/readyz` and `/metrics` until `stop` is done.
pub async fn serve(
    listener: TcpListener,
    shown: Arc<Shown>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shown);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn ready(State(shown): State<Arc<Shown>>) -> Response {
    let lead = shown.leadership.describe();
    let (ready, mut text) = (lead.is_ok(), line("lease", &lead));
    let able = if let Some(context) = shown.context.get() {
        let health = context.health();
        text.push_str(&health.to_string());
        health.is_ready()
    } else {
        // Whoever waits must be able to take over; whoever leads is starting.
        let states: Vec<_> = shown.realms.iter().map(|(name, realm)| (name, realm.state())).collect();
        for (name, state) in &states {
            text.push_str(&line(&format!("realm {name}"), &state.clone().map(|()| "ok".into())));
        }
        states.iter().any(|(_, state)| state.is_ok()) && shown.leadership.may_give().is_err()
    };
    let status = if ready && able { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    let snapshot = shown.context.get().map(|context| context.snapshot()).unwrap_or_default();
    let snapshot = Snapshot { leader: shown.leadership.may_give().is_ok(), ..snapshot };
    match shown.metrics.text(&snapshot) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
