//! The operator's configuration: which Keycloak realms there are, and how a
//! Kubernetes username becomes a Keycloak user. One YAML file, because whoever
//! says where credentials go must be whoever installs.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use thiserror::Error;

use crate::domain::{Request, duration};

/// Default of `realms[].checkInterval`.
const CHECK_INTERVAL: Duration = Duration::from_mins(10);

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The realms that policies may name.
    pub realms: Vec<Realm>,
    /// What is given up without proof that it is gone.
    #[serde(default)]
    pub release: Release,
}

/// Access that can never be proved gone, because Keycloak is gone for good, and that is given up all the same.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Ids of realms (`status.subject.realmId` of a request).
    #[serde(default)]
    pub realms: BTreeSet<String>,
    /// UIDs of requests.
    #[serde(default)]
    pub requests: BTreeSet<String>,
}

impl Release {
    /// Whether nothing is given up.
    pub fn is_empty(&self) -> bool {
        self.realms.is_empty() && self.requests.is_empty()
    }

    /// Why a request's access is given up, if it is.
    pub fn reason(&self, request: &Request) -> Option<String> {
        let realm = request.status.subject.as_ref().map(|subject| subject.realm_id.as_str()).unwrap_or_default();
        if self.requests.contains(&request.uid) {
            Some(format!("as release.requests of the operator's configuration says ({})", request.uid))
        } else if self.realms.contains(realm) {
            Some(format!("as release.realms of the operator's configuration says ({realm})"))
        } else {
            None
        }
    }
}

/// One Keycloak realm and the way in.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Realm {
    /// What policies call it (`spec.realm`).
    pub name: String,
    /// Base URL of the server, without `/realms/…` and without a slash at the end.
    pub url: String,
    /// What `url` was before, as long as it led to this very server. What was given elsewhere is not looked for here.
    #[serde(default)]
    pub former_urls: Vec<String>,
    /// The realm's name in Keycloak.
    pub realm: String,
    /// How the operator signs in.
    pub auth: Auth,
    /// PEM file with the certificate authorities to trust; those of the operating system if left out.
    pub ca_file: Option<PathBuf>,
    /// How people are found.
    #[serde(default)]
    pub identity: Identity,
    /// Kubernetes service accounts that stand for a Keycloak user.
    #[serde(default)]
    pub service_accounts: Vec<ServiceAccountUser>,
    /// How long a write to Keycloak can arrive after its answer was lost, as `6m`: the life of the operator's token and
    /// Keycloak's limit of a transaction. If left out, the first is taken from the token and the second is 5m, Keycloak's
    /// default.
    pub settle_time: Option<String>,
    /// How often it is looked whether what is lent is still there, as `60s`, which is the default.
    pub check_interval: Option<String>,
    /// Whether policies that say `allowAdminRoles` may reach Keycloak's own administration roles.
    #[serde(default)]
    pub allow_admin_roles: bool,
}

/// How the operator signs in: as which client, and with which file. It is read anew for each token. One of the files is named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Auth {
    /// The client's `clientId` in the realm.
    pub client_id: String,
    /// File that holds the client's secret and nothing else; white space around it is ignored.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// File with a token of a Kubernetes service account, for a client that Keycloak (26.6 and later) lets sign in with it.
    #[serde(default)]
    pub service_account_token_file: Option<PathBuf>,
    /// PEM file with the client's private key: RSA, or in PKCS#8 ECDSA with P-256.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// The realm's issuer, if it is not `{url}/realms/{realm}`. What the client signs with its key is meant for it.
    #[serde(default)]
    pub issuer: Option<String>,
}

/// What the client shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Its secret.
    Secret(PathBuf),
    /// A service account's token, which Keycloak has the cluster's issuer vouch for.
    ServiceAccountToken(PathBuf),
    /// Something that is signed with its private key.
    Key(PathBuf),
    /// An administrator's password, who prepares a realm. Not for the operator.
    Password {
        /// The administrator's name.
        username: String,
        /// The file with the password.
        file: PathBuf,
    },
}

impl Auth {
    /// What the client shows; nothing unless exactly one file is named.
    pub fn credential(&self) -> Option<Credential> {
        match (&self.client_secret_file, &self.service_account_token_file, &self.client_key_file) {
            (Some(file), None, None) => Some(Credential::Secret(file.clone())),
            (None, Some(file), None) => Some(Credential::ServiceAccountToken(file.clone())),
            (None, None, Some(file)) => Some(Credential::Key(file.clone())),
            _ => None,
        }
    }
}

/// From a Kubernetes username to a Keycloak user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// Stripped from the Kubernetes username; a username without it leads to nobody.
    #[serde(default)]
    pub username_prefix: String,
    /// What the rest is compared with.
    #[serde(default, rename = "match")]
    pub matches: UserMatch,
    /// Stands before the full path of a Keycloak group in a policy's `Group`.
    #[serde(default)]
    pub group_prefix: String,
}

/// Which property of a Keycloak user the username is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UserMatch {
    /// `username`; Keycloak stores it in lower case.
    #[default]
    Username,
    /// `email`, which must be verified.
    Email,
    /// `id`.
    Id,
}

/// A Kubernetes service account that asks for a Keycloak user.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccountUser {
    /// `namespace/name` of the service account.
    pub service_account: String,
    /// Keycloak username it stands for.
    pub username: String,
}

/// Why a configuration cannot be used. Names the file and the key.
#[derive(Debug, Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the configuration {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("the configuration {} cannot be parsed", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where, and what was expected.
        source: Box<serde_saphyr::Error>,
    },
    /// A value cannot stand.
    #[error("the configuration {}: {key}: {problem}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, as `realms[0].url`.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        // An error is one line of the log: without the lines of the file around it.
        let options = serde_saphyr::options! { with_snippet: false };
        let mut config: Self = serde_saphyr::from_str_with_options(text, options)
            .map_err(|source| Error::Parse { path: path.into(), source: Box::new(source) })?;
        match config.problem() {
            None => {
                config.realms.iter_mut().for_each(Realm::write_the_urls_one_way);
                Ok(config)
            }
            Some((key, problem)) => Err(Error::Value { path: path.into(), key, problem }),
        }
    }

    /// The realm of this name, or the only one; the error says which there are.
    pub fn realm(&self, name: Option<&str>) -> Result<&Realm, String> {
        let names: Vec<_> = self.realms.iter().map(|realm| realm.name.clone()).collect();
        let mut found = self.realms.iter().filter(|realm| name.is_none_or(|name| realm.name == name));
        match (found.next(), found.next()) {
            (Some(realm), None) => Ok(realm),
            (Some(_), Some(_)) => Err(format!("--realm is needed: the configuration has {}", names.join(", "))),
            (None, _) => {
                let name = name.unwrap_or_default();
                Err(format!("--realm {name:?} is not in the configuration; it has {}", names.join(", ")))
            }
        }
    }

    /// The first value that cannot stand, with its key.
    fn problem(&self) -> Option<(String, String)> {
        if self.realms.is_empty() {
            return Some(("realms".into(), "at least one realm is needed".into()));
        }
        let mut names = BTreeSet::new();
        for (i, realm) in self.realms.iter().enumerate() {
            if !names.insert(&realm.name) {
                return Some((format!("realms[{i}].name"), format!("{:?} is there twice", realm.name)));
            }
            if let Some((key, problem)) = realm.problem() {
                return Some((format!("realms[{i}].{key}"), problem));
            }
        }
        None
    }
}

impl Realm {
    /// Which realm of Keycloak it is: one can be configured under several names.
    pub fn place(&self) -> (&str, &str) {
        (&self.url, &self.realm)
    }

    /// `HTTPS://SSO.example.com:443` is `https://sso.example.com`: whose holdings are whose is told by the URL.
    fn write_the_urls_one_way(&mut self) {
        for text in self.former_urls.iter_mut().chain([&mut self.url]) {
            if let Ok(url) = reqwest::Url::parse(text) {
                url.as_str().trim_end_matches('/').clone_into(text);
            }
        }
    }

    /// Whether this URL leads, or led, to the realm's server.
    pub fn is_of_server(&self, url: &str) -> bool {
        self.former_urls.iter().chain([&self.url]).any(|known| known == url)
    }

    /// How long a write can arrive after its answer was lost, if the file says so.
    pub fn settling_time(&self) -> Option<Duration> {
        self.settle_time.as_deref().and_then(duration::parse)
    }

    /// How often it is looked whether what is lent is still there.
    pub fn checking_interval(&self) -> Duration {
        self.check_interval.as_deref().and_then(duration::parse).unwrap_or(CHECK_INTERVAL)
    }

    fn problem(&self) -> Option<(String, String)> {
        let empty = [("name", &self.name), ("realm", &self.realm), ("auth.clientId", &self.auth.client_id)];
        if let Some((key, _)) = empty.into_iter().find(|(_, value)| value.trim().is_empty()) {
            return Some((key.into(), "must not be empty".into()));
        }
        if self.auth.credential().is_none() {
            let problem = "must name one of clientSecretFile, serviceAccountTokenFile and clientKeyFile";
            return Some(("auth".into(), problem.into()));
        }
        if self.auth.issuer.is_some() && self.auth.client_key_file.is_none() {
            return Some(("auth.issuer".into(), "is for clientKeyFile only".into()));
        }
        let former = self.former_urls.iter().enumerate().map(|(i, url)| (format!("formerUrls[{i}]"), url));
        for (key, url) in former.chain([("url".to_owned(), &self.url)]) {
            if !is_base_url(url) {
                let shown = if url.contains('@') { "a URL with a user" } else { url };
                let problem =
                    format!("{shown:?} must be the server's base URL and nothing more, as https://sso.example.com");
                return Some((key, problem));
            }
        }
        if let (Some(text), None) = (&self.settle_time, self.settling_time()) {
            return Some(("settleTime".into(), format!("{text:?} must be a duration, as 90s or 6m")));
        }
        if let Some(text) = &self.check_interval
            && duration::parse(text).is_none_or(|interval| interval.is_zero())
        {
            return Some(("checkInterval".into(), format!("{text:?} must be a duration, as 60s or 5m")));
        }
        for (i, account) in self.service_accounts.iter().enumerate() {
            if account.service_account.split('/').filter(|part| !part.is_empty()).count() != 2 {
                let problem = format!("{:?} must be namespace/name", account.service_account);
                return Some((format!("serviceAccounts[{i}].serviceAccount"), problem));
            }
            if account.username.is_empty() {
                return Some((format!("serviceAccounts[{i}].username"), "must not be empty".into()));
            }
        }
        None
    }
}

/// Whether this is a server's base URL and nothing more. Whatever else a URL can hold would end up in messages, a password
/// first of all.
fn is_base_url(text: &str) -> bool {
    let plain = |url: reqwest::Url| {
        matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && !url.path().contains("/realms/")
    };
    !text.ends_with('/') && reqwest::Url::parse(text).is_ok_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REALM: &str = "realms:\n- name: prod\n  url: https://sso.example.com\n  realm: acme\n  auth: {clientId: hallpass, clientSecretFile: /s}\n";

    fn refusal(text: &str) -> String {
        let error = Config::parse(text, Path::new("h.yaml")).expect_err("must be refused");
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    }

    #[test]
    fn the_smallest_configuration_is_enough() {
        let config = Config::parse(REALM, Path::new("h.yaml")).expect("valid");
        assert_eq!(config.realms[0].identity.matches, UserMatch::Username);
    }

    #[test]
    fn one_server_is_one_server_however_its_url_is_written() {
        for (written, expected) in [
            ("https://sso.example.com", "https://sso.example.com"),
            ("HTTPS://SSO.Example.com:443", "https://sso.example.com"),
            ("https://sso.example.com:8443/Auth", "https://sso.example.com:8443/Auth"),
        ] {
            let text = REALM.replace("https://sso.example.com", written);
            assert_eq!(Config::parse(&text, Path::new("h.yaml")).expect("valid").realms[0].url, expected);
            let text = format!("{REALM}  formerUrls: [\"{written}\"]\n");
            let realm = &Config::parse(&text.replace("url: https://sso", "url: https://new"), Path::new("h.yaml"))
                .expect("valid")
                .realms[0];
            assert!(realm.is_of_server(expected) && realm.is_of_server("https://new.example.com"));
            assert!(!realm.is_of_server("https://other.example.com"));
        }
    }

    #[test]
    fn a_refusal_names_the_file_and_the_key() {
        for (text, words) in [
            ("realms: []", vec!["h.yaml", "realms", "at least one"]),
            ("realmz: []", vec!["h.yaml", "realmz"]),
            (
                &REALM.replace("https://sso.example.com", "sso.example.com"),
                vec!["realms[0].url", "\"sso.example.com\"", "https://"],
            ),
            (&REALM.replace("//", "//me:secret@"), vec!["realms[0].url", "a URL with a user"]),
            (
                &format!("{REALM}  formerUrls: [sso.example.com]\n"),
                vec!["realms[0].formerUrls[0]", "\"sso.example.com\""],
            ),
            (&REALM.replace(".com", ".com?x=1"), vec!["realms[0].url", "nothing more"]),
            (&REALM.replace(".com", ".com/realms/acme"), vec!["realms[0].url", "nothing more"]),
            (&REALM.replace("acme", "''"), vec!["realms[0].realm", "must not be empty"]),
            (&REALM.replace("clientId", "clientID"), vec!["clientID"]),
            (&REALM.replace(", clientSecretFile: /s", ""), vec!["realms[0].auth", "one of clientSecretFile"]),
            (&REALM.replace("/s}", "/s, clientKeyFile: /k}"), vec!["realms[0].auth", "one of clientSecretFile"]),
            (&REALM.replace("/s}", "/s, issuer: 'https://x'}"), vec!["realms[0].auth.issuer", "clientKeyFile only"]),
            (
                &format!("{REALM}{}", REALM.trim_start_matches("realms:\n")),
                vec!["realms[1].name", "\"prod\" is there twice"],
            ),
            (
                &format!("{REALM}  serviceAccounts: [{{serviceAccount: deployer, username: x}}]\n"),
                vec!["serviceAccounts[0].serviceAccount", "namespace/name"],
            ),
        ] {
            let refusal = refusal(text);
            assert_eq!(refusal.lines().count(), 1, "{refusal}");
            for word in words {
                assert!(refusal.contains(word), "{word:?} is missing in: {refusal}");
            }
        }
    }
}
