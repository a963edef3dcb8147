//! What the client shows to sign in. Files are read anew for each sign-in, so that what was rotated needs no restart.
//!
//! What Keycloak 26.7.3 does that shapes this module:
//! * A service account's token is sent as a client assertion, without a `client_id`: issuer and subject say which client it is.
//!   Its audience is exactly the realm's issuer, and an `iat` of more than an hour ago is refused.
//! * An assertion that the client signs itself has `iss` and `sub` of its `clientId`, and a `jti` that was not used before.

use std::{fmt, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::{
    error::{Error, Kind, root_cause},
    token::{ENDPOINT, claims},
};
use crate::config::Credential;

/// RFC 7523, section 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Seconds for which an assertion of our own is valid. It is used at once.
const LIFE: i64 = 60;

/// Fields of the form of a sign-in. Do not print themselves.
pub(super) type Fields = Vec<(&'static str, SecretString)>;

impl Credential {
    /// What is sent.
    pub(super) fn fields(&self, client_id: &str, issuer: &str) -> Result<Fields, Error> {
        let assertion = |assertion| {
            vec![("client_assertion_type", SecretString::from(JWT_BEARER)), ("client_assertion", assertion)]
        };
        Ok(match self {
            Self::Password { username, file } => vec![
                ("client_id", SecretString::from(client_id)),
                ("username", SecretString::from(username.as_str())),
                ("password", read("password", file)?),
            ],
            Self::Secret(file) => {
                vec![("client_id", SecretString::from(client_id)), ("client_secret", read("secret", file)?)]
            }
            Self::ServiceAccountToken(file) => assertion(read("service account token", file)?),
            Self::Key(file) => {
                let key = read("key", file)?;
                assertion(signed(&key, client_id, issuer).map_err(|words| {
                    Error::new(Kind::Config, ENDPOINT, format!("the key file {}: {words}", file.display()))
                })?)
            }
        })
    }

    /// Whose token is asked for (RFC 6749, sections 4.3 and 4.4).
    pub(super) const fn grant_type(&self) -> &'static str {
        match self {
            Self::Password { .. } => "password",
            Self::Secret(_) | Self::ServiceAccountToken(_) | Self::Key(_) => "client_credentials",
        }
    }

    /// What it usually means that Keycloak does not accept it.
    pub(super) fn hint(&self, issuer: &str) -> String {
        match self {
            Self::Secret(_) => "is the client secret right?".into(),
            Self::Password { username, .. } => format!("is the password of {username} right?"),
            Self::Key(_) => format!(
                "does the client have the public key that belongs to this one, is its authenticator \"Signed JWT\", and is \
                 {issuer} the realm's issuer? Do the clocks agree?"
            ),
            Self::ServiceAccountToken(file) => {
                let said = read("token", file).ok().and_then(|token| claims(token.expose_secret()));
                let Some(Claims { iss, sub, aud, exp }) = said else {
                    return format!("{} holds no token", file.display());
                };
                if exp.is_some_and(|exp| exp < Timestamp::now().as_second()) {
                    return format!("the token in {} has expired: does the kubelet renew it?", file.display());
                }
                format!(
                    "the token is of {sub}, from {iss}, for {aud}: it must be for the realm's issuer alone, an identity \
                     provider of the type Kubernetes must have {iss}, and the client that subject"
                )
            }
        }
    }
}

/// What a service account's token says of itself, for people.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(default)]
    aud: Audience,
    exp: Option<i64>,
}

/// One, or several (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(audience) => f.write_str(audience),
            Self::Several(all) if all.is_empty() => f.write_str("nobody"),
            Self::Several(all) => f.write_str(&all.join(" and ")),
        }
    }
}

/// Reads a file that is not empty. It is small and local: no need to hand that to another thread.
fn read(what: &str, file: &Path) -> Result<SecretString, Error> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map(SecretString::from).map_err(|error| {
        Error::new(Kind::Config, ENDPOINT, format!("the {what} file {name}: {}", root_cause(&error)))
    })?;
    match text.expose_secret().trim() {
        "" => Err(Error::new(Kind::Config, ENDPOINT, format!("the {what} file {name} is empty"))),
        text => Ok(SecretString::from(text)),
    }
}

/// An assertion by which the client signs in (RFC 7523, section 3), or what is wrong with the key. Nothing of the key is in the
/// words.
fn signed(key: &SecretString, client_id: &str, issuer: &str) -> Result<SecretString, String> {
    let random = SystemRandom::new();
    let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
        .map_err(|_| "no private key in PEM (BEGIN PRIVATE KEY, or BEGIN RSA PRIVATE KEY)".to_owned())?;
    let ecdsa = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der(), &random);
    let algorithm = if ecdsa.is_ok() { "ES256" } else { "RS256" };
    let now = Timestamp::now().as_second();
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| error.to_string())?;
    let claims = json!({
        "iss": client_id, "sub": client_id, "aud": issuer, "jti": URL_SAFE_NO_PAD.encode(id), "iat": now, "exp": now + LIFE,
    });
    let header = json!({"alg": algorithm, "typ": "JWT"});
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = format!("{header}.{claims}");
    let failed = |_| "it cannot sign".to_owned();
    let signature = if let Ok(key) = ecdsa {
        key.sign(&random, message.as_bytes()).map_err(failed)?.as_ref().to_vec()
    } else {
        let rsa = match &key {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            key => RsaKeyPair::from_pkcs8(key.secret_der()),
        };
        let key = rsa.map_err(|why| format!("neither RSA nor, in PKCS#8, ECDSA with P-256 ({why})"))?;
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).map_err(failed)?;
        signature
    };
    Ok(SecretString::from(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_token_that_is_refused_is_said_what_may_be_wrong_and_not_the_token() {
        let file = std::env::temp_dir().join(format!("hallpass-token-{}", std::process::id()));
        let hint = |life: i64| {
            let claims = json!({
                "iss": "https://cluster", "sub": "system:serviceaccount:a:b", "aud": ["kube"],
                "exp": Timestamp::now().as_second() + life,
            });
            let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()));
            std::fs::write(&file, &token).expect("a file");
            let hint = Credential::ServiceAccountToken(file.clone()).hint("https://sso/realms/acme");
            assert!(!hint.contains(&token));
            hint
        };
        assert!(hint(60).contains("of system:serviceaccount:a:b, from https://cluster, for kube: it must"));
        assert!(hint(-60).contains("has expired"));
        std::fs::remove_file(&file).expect("removed");
    }
}
