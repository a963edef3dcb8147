//! Required actions of a realm: whether it asks for those that a policy wants, and what a user has done of them.

use jiff::Timestamp;

use super::realm::{Realm, unavailable};
use crate::{
    domain::{Account, Credential, Policy, Problem, ProblemReason, TERMS_ATTRIBUTE},
    keycloak,
};

impl Realm {
    /// Whether the realm asks for what the policy wants done. What is disabled stays in a user's list and is never asked.
    pub async fn required_actions(&self, policy: &Policy) -> Result<(), Problem> {
        if policy.required_actions.is_empty() {
            return Ok(());
        }
        let asked = self.keycloak.required_actions().await.map_err(|error| unavailable(&error))?;
        let never: Vec<&str> = policy.required_actions.iter().map(|action| action.as_str()).collect();
        let never: Vec<&str> = never.into_iter().filter(|action| !asked.contains(*action)).collect();
        if never.is_empty() {
            return Ok(());
        }
        let message = format!(
            "spec.requiredActions: the Keycloak realm {} does not ask for {}; enable it there under Authentication, Required actions",
            self.config.realm,
            never.join(", ")
        );
        Err(Problem::new(ProblemReason::RequiredActionDisabled, message))
    }

    /// What a user has done.
    pub async fn account_of(&self, user: &str) -> Result<Account, keycloak::Error> {
        let (account, asked) = tokio::join!(self.keycloak.account(user), self.keycloak.required_actions());
        let keycloak::Account { pending, credentials, email_verified, attributes, is_service_account } = account?;
        let credential = |keycloak::Credential { type_, created }| Credential {
            type_,
            created: created.and_then(|created| Timestamp::from_millisecond(created).ok()),
        };
        Ok(Account {
            pending,
            credentials: credentials.into_iter().map(credential).collect(),
            email_verified,
            terms_accepted: attributes.get(TERMS_ATTRIBUTE).and_then(|values| values.first().cloned()),
            is_service_account,
            realm_asks_for: asked?,
        })
    }
}
