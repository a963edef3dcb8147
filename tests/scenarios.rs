//! What people do, on the real API server and the real Keycloak of a stack that `dev/scenarios` brings up. One binary:
//! the scenarios share the servers and run side by side, each in a [`world::World`] of its own.
#![allow(missing_docs, unreachable_pub, reason = "a binary of tests")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "whatever goes wrong fails the test")]

#[path = "scenarios/accounts.rs"]
mod accounts;
#[path = "scenarios/administration.rs"]
mod administration;
#[path = "scenarios/admission.rs"]
mod admission;
#[path = "scenarios/adversary.rs"]
mod adversary;
#[path = "scenarios/adversary_cast.rs"]
mod adversary_cast;
#[path = "scenarios/adversary_ledger.rs"]
mod adversary_ledger;
#[path = "scenarios/adversary_model.rs"]
mod adversary_model;
#[path = "scenarios/adversary_moves.rs"]
mod adversary_moves;
#[path = "scenarios/adversary_watch.rs"]
mod adversary_watch;
#[path = "scenarios/adversary_writes.rs"]
mod adversary_writes;
#[path = "scenarios/approvers.rs"]
mod approvers;
#[path = "scenarios/asked_again.rs"]
mod asked_again;
#[path = "scenarios/attacks.rs"]
mod attacks;
#[path = "scenarios/attacks_asking.rs"]
mod attacks_asking;
#[path = "scenarios/attacks_cast.rs"]
mod attacks_cast;
#[path = "scenarios/attacks_ending.rs"]
mod attacks_ending;
#[path = "scenarios/attacks_holding.rs"]
mod attacks_holding;
#[path = "scenarios/attacks_voting.rs"]
mod attacks_voting;
#[path = "scenarios/bad_input.rs"]
mod bad_input;
#[path = "scenarios/browser.rs"]
mod browser;
#[path = "scenarios/chart.rs"]
mod chart;
#[path = "scenarios/checking.rs"]
mod checking;
#[path = "scenarios/clocks.rs"]
mod clocks;
#[path = "scenarios/crowd.rs"]
mod crowd;
#[path = "scenarios/docs.rs"]
mod docs;
#[path = "documentation/mod.rs"]
mod documentation;
#[path = "scenarios/drift.rs"]
mod drift;
#[path = "scenarios/ending.rs"]
mod ending;
#[path = "scenarios/ending_overlaps.rs"]
mod ending_overlaps;
#[path = "scenarios/faults.rs"]
mod faults;
#[path = "scenarios/forging_away.rs"]
mod forging_away;
#[path = "scenarios/forging_rules.rs"]
mod forging_rules;
#[path = "scenarios/forging_votes.rs"]
mod forging_votes;
#[path = "scenarios/gate.rs"]
mod gate;
#[path = "scenarios/git.rs"]
mod git;
#[path = "scenarios/giving.rs"]
mod giving;
#[path = "scenarios/identity.rs"]
mod identity;
#[path = "scenarios/keycloak.rs"]
mod keycloak;
#[path = "scenarios/keycloak_admin.rs"]
mod keycloak_admin;
#[path = "scenarios/leading.rs"]
mod leading;
#[path = "scenarios/least_privilege.rs"]
mod least_privilege;
#[path = "scenarios/many_ends.rs"]
mod many_ends;
#[path = "scenarios/operators.rs"]
mod operators;
#[path = "scenarios/outage.rs"]
mod outage;
#[path = "scenarios/people.rs"]
mod people;
#[path = "scenarios/policy.rs"]
mod policy;
#[path = "scenarios/realms.rs"]
mod realms;
#[path = "scenarios/refusing.rs"]
mod refusing;
#[path = "scenarios/releasing.rs"]
mod releasing;
#[path = "scenarios/removals.rs"]
mod removals;
#[path = "scenarios/report.rs"]
mod report;
#[path = "scenarios/request.rs"]
mod request;
#[path = "scenarios/required_actions.rs"]
mod required_actions;
#[path = "scenarios/restarts.rs"]
mod restarts;
#[path = "scenarios/rights.rs"]
mod rights;
#[path = "scenarios/sealing.rs"]
mod sealing;
#[path = "scenarios/secretless.rs"]
mod secretless;
#[path = "scenarios/seeing.rs"]
mod seeing;
#[path = "scenarios/sessions.rs"]
mod sessions;
#[path = "scenarios/sso.rs"]
mod sso;
#[path = "scenarios/tampering.rs"]
mod tampering;
#[path = "scenarios/uninstalling.rs"]
mod uninstalling;
#[path = "scenarios/vanishing.rs"]
mod vanishing;
#[path = "scenarios/world.rs"]
mod world;
