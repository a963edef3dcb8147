//! Hallpass in Pods, installed with Helm on a real node, as the README says. `dev/cluster` brings the node up and runs these;
//! where a machine cannot have one it says why, and that they were skipped.
#![allow(missing_docs, unreachable_pub, reason = "a binary of tests")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "whatever goes wrong fails the test")]

#[path = "scenarios/accounts.rs"]
mod accounts;
#[path = "documentation/mod.rs"]
mod documentation;
#[path = "scenarios/gate.rs"]
mod gate;
#[path = "cluster/installation.rs"]
mod installation;
#[path = "scenarios/keycloak_admin.rs"]
mod keycloak_admin;
#[path = "cluster/life.rs"]
mod life;
#[path = "scenarios/people.rs"]
mod people;
#[path = "scenarios/policy.rs"]
mod policy;
#[path = "scenarios/realms.rs"]
mod realms;
#[path = "scenarios/report.rs"]
mod report;
#[path = "scenarios/request.rs"]
mod request;
#[path = "scenarios/world.rs"]
mod world;
