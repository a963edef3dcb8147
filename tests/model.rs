//! An executable model of the protocol, explored exhaustively for small worlds. The rules that are checked are the real
//! ones: `hallpass::domain::decide` decides in the model, too.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

#[path = "model/controller.rs"]
mod controller;
#[path = "model/mutants.rs"]
mod mutants;
#[path = "model/planted.rs"]
mod planted;
#[path = "model/protocol.rs"]
mod protocol;
#[path = "model/real.rs"]
mod real;
#[path = "model/rest.rs"]
mod rest;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/runs.rs"]
mod runs;
#[path = "model/servers.rs"]
mod servers;
#[path = "model/state.rs"]
mod state;
#[path = "model/telling.rs"]
mod telling;
#[path = "model/vocabulary.rs"]
mod vocabulary;
