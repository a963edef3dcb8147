//! An executable model of the protocol, explored exhaustively for small worlds. The rules that are checked are the real
//! ones: `hallpass::domain::decide` decides in the model, too, on real requests (`model/real.rs`).
//!
//! In the model: two requests of one person under an automatic policy, with one target or two; the API server with
//! resourceVersions, finalizers and the CRD's rules; Keycloak with roles that are renamed and deleted; one operator at a time,
//! its index, fence, settling and what it remembers of requests that disappear; up to two writes that nobody waits for any
//! more, from this leader or an earlier one, which arrive at any later time or never; a watch that lags; a few hours.
//!
//! Not in the model: votes, the policy and the admission policies (see the tests of the domain); statuses that others write;
//! sessions; drift; a release; more than one realm; how long things take, clocks that differ, and whether a request is
//! looked at again in time (any may be looked at, at any time); the lease, but for this: who has lost it sends nothing more
//! to Keycloak. The time to settle is over when nothing is on its way, and not before. The effects of a step are carried out
//! one after another. A process is not told apart from another one that knows the same.
//!
//! Liveness is "from every state a way without further faults leads to rest" (`model/rest.rs`), not "every fair way does".
#![allow(
    clippy::similar_names,
    clippy::unused_self,
    clippy::unnecessary_wraps,
    clippy::trivially_copy_pass_by_ref,
    clippy::format_push_string,
    clippy::inconsistent_struct_constructor,
    clippy::struct_excessive_bools,
    clippy::needless_range_loop,
    reason = "every move has one form, every fact is one of its own, and targets are numbers"
)]
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
