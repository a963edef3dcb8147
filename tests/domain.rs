//! The rules of the life of a request, without a server: tables first, then properties over random lives.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

#[path = "domain/activation.rs"]
mod activation;
#[path = "domain/asking.rs"]
mod asking;
#[path = "domain/delegation.rs"]
mod delegation;
#[path = "domain/drift.rs"]
mod drift;
#[path = "domain/ending.rs"]
mod ending;
#[path = "domain/events.rs"]
mod events;
#[path = "domain/forged.rs"]
mod forged;
#[path = "domain/gate.rs"]
mod gate;
#[path = "domain/life.rs"]
mod life;
#[path = "domain/policies.rs"]
mod policies;
#[path = "domain/properties.rs"]
mod properties;
#[path = "domain/requests.rs"]
mod requests;
#[path = "domain/rosters.rs"]
mod rosters;
#[path = "domain/sessions.rs"]
mod sessions;
#[path = "domain/settling.rs"]
mod settling;
#[path = "domain/simulator.rs"]
mod simulator;
#[path = "domain/voting.rs"]
mod voting;
#[path = "domain/world.rs"]
mod world;
