//! Hallpass: just-in-time access in Keycloak, asked for and approved in Kubernetes.
//!
//! The way of a request through the code: [`controller`] observes, [`domain`] decides, [`controller`] enacts and
//! reports. [`keycloak`] is the client for Keycloak, [`guard`] watches over the admission policies, [`leader`] sees to it that
//! one process writes.

pub mod admin;
pub mod api;
pub mod args;
pub mod check;
pub mod clock;
pub mod config;
pub mod controller;
pub mod domain;
pub mod drain;
pub mod guard;
pub mod keycloak;
pub mod leader;
pub mod metrics;
pub mod setup;
mod shared;
pub mod standing;
pub mod telemetry;
