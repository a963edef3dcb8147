//! The two kinds, and the names they use. Nothing but data: what the API
//! server stores and checks by itself.

mod crd;
mod follows;
mod policy;
mod request;
mod status;

pub use crd::crds;
pub use policy::*;
pub use request::*;
pub use status::*;

/// API group of both kinds.
pub const GROUP: &str = "hallpass.dev";
/// Keeps a deleted request until its access is gone.
pub const FINALIZER: &str = "hallpass.dev/revoke";
/// Field manager of every write of the operator. Not `kubectl…`: Flux takes over fields of managers
/// named so (kustomize-controller 1.9.5).
pub const FIELD_MANAGER: &str = "hallpass";
/// An annotation with this prefix approves.
pub const APPROVE: &str = "approve.hallpass.dev/";
/// An annotation with this prefix denies.
pub const DENY: &str = "deny.hallpass.dev/";
/// An annotation with this prefix ends the access early.
pub const END: &str = "end.hallpass.dev/";
/// Longest username, in characters.
pub const MAX_USERNAME: usize = 512;
/// Longest name of a stage, in characters.
pub const MAX_STAGE: usize = 40;
/// Longest text that says why a vote or an end does not count, in characters.
pub const MAX_WHY: usize = 1024;
/// Longest `status.approvedBy`, in characters.
pub const MAX_APPROVED_BY: usize = 32768;
/// Longest text that says what proves that a required action was done, in characters.
pub const MAX_EVIDENCE: usize = 256;
/// Most votes in `status.votes`.
pub const MAX_VOTES: usize = 64;
