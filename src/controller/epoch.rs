//! Since when the admission policies have been in force, as a part of what is voted on: what was written before they were
//! installed, repaired or put back may be anybody's, so votes from before do not count.

use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::domain::{Approval, Guard, Policy, PolicyView, Request};

/// So many characters of `status.rules` are about the policy, and as many about the admission policies.
const HALF: usize = 32;

/// The policy as it is voted on: its rules, and since when votes can be believed. Nobody votes under an automatic one.
pub fn voted_on(view: PolicyView, guard: &Guard, request: &Request) -> PolicyView {
    match view {
        PolicyView::Ready(policy) if policy.approval != Approval::Automatic => {
            let rules = rules(&policy.rules, guard, request.status.rules.as_deref());
            PolicyView::Ready(Arc::new(Policy { rules, ..Policy::clone(&policy) }))
        }
        view => view,
    }
}

/// What status says about the rules: if the admission policies were not asked for, nothing is known to have changed.
fn rules(policy: &str, guard: &Guard, recorded: Option<&str>) -> String {
    let since = match guard {
        Guard::InForce { since, .. } => digest(*since),
        Guard::NotAsked | Guard::NotInForce(_) | Guard::Unknown(_) => {
            recorded.and_then(|recorded| recorded.get(HALF..)).unwrap_or_default().to_owned()
        }
    };
    format!("{policy:.HALF$}{since:.HALF$}")
}

fn digest(since: Timestamp) -> String {
    Sha256::digest(since.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(since: i64) -> Guard {
        Guard::InForce { since: Timestamp::from_second(since).expect("a time"), stamp: true }
    }

    #[test]
    fn rules_change_with_the_policy_and_with_the_admission_policies() {
        let (one, other) = ("1".repeat(64), "2".repeat(64));
        let recorded = rules(&one, &in_force(1), None);
        assert_eq!(recorded.len(), 64);
        assert_eq!(rules(&one, &in_force(1), Some(&recorded)), recorded);
        assert_ne!(rules(&other, &in_force(1), Some(&recorded)), recorded);
        assert_ne!(rules(&one, &in_force(2), Some(&recorded)), recorded);
        for guard in [Guard::NotAsked, Guard::NotInForce("away".into()), Guard::Unknown("no answer".into())] {
            assert_eq!(rules(&one, &guard, Some(&recorded)), recorded);
            assert_ne!(rules(&other, &guard, Some(&recorded)), recorded);
        }
    }
}
