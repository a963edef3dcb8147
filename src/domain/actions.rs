//! Required actions of Keycloak: which of them a policy can ask for, and what proves that one was done.
//!
//! That an action is no longer in the user's list proves nothing: an administrator may have taken it out.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;

/// Users have this attribute since they accepted the terms.
pub const TERMS_ATTRIBUTE: &str = "terms_and_conditions";

/// A required action that leaves something behind that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequiredAction {
    /// Set up an app that shows one-time codes.
    ConfigureTotp,
    /// Choose a new password.
    UpdatePassword,
    /// Follow a link in a mail.
    VerifyEmail,
    /// Accept the terms.
    TermsAndConditions,
    /// Register a security key as a second factor.
    WebauthnRegister,
    /// Register a passkey.
    WebauthnRegisterPasswordless,
    /// Write down recovery codes.
    ConfigureRecoveryCodes,
}

impl RequiredAction {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ConfigureTotp,
        Self::UpdatePassword,
        Self::VerifyEmail,
        Self::TermsAndConditions,
        Self::WebauthnRegister,
        Self::WebauthnRegisterPasswordless,
        Self::ConfigureRecoveryCodes,
    ];

    /// As Keycloak calls it. It drops a name that is spelt otherwise silently (26.7.3).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigureTotp => "CONFIGURE_TOTP",
            Self::UpdatePassword => "UPDATE_PASSWORD",
            Self::VerifyEmail => "VERIFY_EMAIL",
            Self::TermsAndConditions => "TERMS_AND_CONDITIONS",
            Self::WebauthnRegister => "webauthn-register",
            Self::WebauthnRegisterPasswordless => "webauthn-register-passwordless",
            Self::ConfigureRecoveryCodes => "CONFIGURE_RECOVERY_AUTHN_CODES",
        }
    }

    /// The action of exactly this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }

    /// The type of the credential that it leaves, if it leaves one.
    const fn credential(self) -> Option<&'static str> {
        match self {
            Self::ConfigureTotp => Some("otp"),
            Self::UpdatePassword => Some("password"),
            Self::WebauthnRegister => Some("webauthn"),
            Self::WebauthnRegisterPasswordless => Some("webauthn-passwordless"),
            Self::ConfigureRecoveryCodes => Some("recovery-authn-codes"),
            Self::VerifyEmail | Self::TermsAndConditions => None,
        }
    }
}

impl fmt::Display for RequiredAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something with which a user signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What it is, as `otp`.
    pub type_: String,
    /// When it was made, if Keycloak says so.
    pub created: Option<Timestamp>,
}

/// What Keycloak says about a user, as far as it can tell that required actions were done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Required actions that Keycloak will ask for at the next interactive sign-in.
    pub pending: BTreeSet<String>,
    /// What the user signs in with.
    pub credentials: Vec<Credential>,
    /// Whether the address was verified.
    pub email_verified: bool,
    /// When the terms were accepted, as Keycloak keeps it.
    pub terms_accepted: Option<String>,
    /// Whether it is a client's service account: that one never signs in.
    pub is_service_account: bool,
    /// Required actions that the realm asks for at all: those that are registered and enabled.
    pub realm_asks_for: BTreeSet<String>,
}

impl Account {
    /// What proves that an action was done, in words. What was done before counts, but for a new password: that must be
    /// newer than `since`, and not one that its owner has to change again.
    pub fn evidence(&self, action: RequiredAction, since: Timestamp) -> Option<String> {
        let newest = action.credential().and_then(|type_| {
            let all = self.credentials.iter().filter(|credential| credential.type_ == type_);
            all.max_by_key(|credential| credential.created)
        });
        match action {
            RequiredAction::VerifyEmail => self.email_verified.then(|| "the address is verified".into()),
            RequiredAction::TermsAndConditions => {
                self.terms_accepted.as_ref().map(|at| format!("{TERMS_ATTRIBUTE} is {at}"))
            }
            RequiredAction::UpdatePassword => {
                let newer = newest.filter(|password| password.created.is_some_and(|created| created > since));
                newer.filter(|_| !self.pending.contains(action.as_str())).map(words)
            }
            RequiredAction::ConfigureTotp
            | RequiredAction::WebauthnRegister
            | RequiredAction::WebauthnRegisterPasswordless
            | RequiredAction::ConfigureRecoveryCodes => newest.map(words),
        }
    }
}

fn words(Credential { type_, created }: &Credential) -> String {
    match created {
        Some(created) => format!("a credential {type_} of {created}"),
        None => format!("a credential {type_}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    }

    fn account(type_: &str, seconds: i64) -> Account {
        let credential = Credential { type_: type_.into(), created: Some(at(seconds)) };
        Account { credentials: vec![credential], ..Account::default() }
    }

    #[test]
    fn each_action_is_found_by_its_exact_name() {
        for action in RequiredAction::ALL {
            assert_eq!(RequiredAction::parse(action.as_str()), Some(action));
        }
        assert_eq!(RequiredAction::parse("configure_totp"), None);
        assert_eq!(RequiredAction::parse("UPDATE_PROFILE"), None, "leaves nothing behind");
    }

    #[test]
    fn what_proves_it() {
        use RequiredAction as A;
        let verified = Account { email_verified: true, ..Account::default() };
        let accepted = Account { terms_accepted: Some("1800000000".into()), ..Account::default() };
        let temporary = Account { pending: [A::UpdatePassword.to_string()].into(), ..account("password", 1) };
        for (what, account, action, done) in [
            ("nothing", Account::default(), A::ConfigureTotp, false),
            ("an older credential", account("otp", -100), A::ConfigureTotp, true),
            ("another one", account("password", 100), A::ConfigureTotp, false),
            ("a key is no passkey", account("webauthn", 1), A::WebauthnRegisterPasswordless, false),
            ("a key", account("webauthn", 1), A::WebauthnRegister, true),
            ("codes", account("recovery-authn-codes", 1), A::ConfigureRecoveryCodes, true),
            ("the old password", account("password", 0), A::UpdatePassword, false),
            ("a new password", account("password", 1), A::UpdatePassword, true),
            ("one that has to be changed", temporary, A::UpdatePassword, false),
            ("a verified address", verified.clone(), A::VerifyEmail, true),
            ("terms", accepted, A::TermsAndConditions, true),
            ("only verified", verified, A::TermsAndConditions, false),
        ] {
            assert_eq!(account.evidence(action, at(0)).is_some(), done, "{what}");
        }
    }
}
