//! Words for policies, requests and what is seen of the world, as the tests of the domain have them.
#![allow(dead_code, reason = "a part of them is needed here")]

#[path = "../domain/policies.rs"]
pub mod policies;
#[path = "../domain/requests.rs"]
pub mod requests;
#[path = "../domain/world.rs"]
pub mod world;
