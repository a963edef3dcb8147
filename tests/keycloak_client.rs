//! The Keycloak client against a scripted peer: what each kind of answer means, what is sent, and what is not a proof.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

#[path = "keycloak_client/answers.rs"]
mod answers;
#[path = "keycloak_client/asking.rs"]
mod asking;
#[path = "keycloak_client/looking_up.rs"]
mod looking_up;
#[path = "keycloak_client/outages.rs"]
mod outages;
#[path = "keycloak_client/peer.rs"]
mod peer;
#[path = "keycloak_client/proofs.rs"]
mod proofs;
#[path = "keycloak_client/realms.rs"]
mod realms;
#[path = "keycloak_client/sessions.rs"]
mod sessions;
#[path = "keycloak_client/signing_in.rs"]
mod signing_in;
