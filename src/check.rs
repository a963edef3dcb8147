//! Before it is installed, or where something does not work: can the operator do its work with this configuration? Everything is
//! asked of the servers themselves, and nothing is changed.

use std::sync::Arc;

use futures::future::join_all;
use kube::Client;

use crate::{
    config::{Config, Credential, Realm as Configured},
    controller::{Realm, chain, clock_of_keycloak_problem},
    guard::Guard,
    leader::{Leadership, Times},
    metrics::Metrics,
};

/// What was looked at, and how it is, or what is wrong and how to mend it.
pub type Line = (String, Result<String, String>);

/// Looks at each realm of the configuration.
pub async fn realms(config: Config) -> Vec<Line> {
    join_all(config.realms.into_iter().map(async |realm| (format!("realm {}", realm.name), realm_works(realm).await)))
        .await
}

async fn realm_works(configured: Configured) -> Result<String, String> {
    let Configured { url, realm: name, .. } = &configured;
    let how = match configured.auth.credential() {
        Some(Credential::ServiceAccountToken(_)) => "a service account's token",
        Some(Credential::Key(_)) => "its private key",
        Some(Credential::Secret(_) | Credential::Password { .. }) | None => "its secret",
    };
    let words = format!(
        "signed in to {url} realm {name} as client {} with {how}; it has the rights that are needed",
        configured.auth.client_id
    );
    // Who never leads never writes.
    let realm = Realm::new(configured, Arc::new(Metrics::default()), &Leadership::new(Times::default()));
    let realm = realm.map_err(|error| chain(&error))?;
    realm.test().await;
    realm.state()?;
    clock_of_keycloak_problem(&realm).map_or(Ok(words), Err)
}

/// Looks at what is installed in the cluster. Only the operator's service account knows which objects it should be.
pub async fn cluster(client: Client, api_server: kube::Config, me: &str) -> Vec<Line> {
    let url = api_server.cluster_url.to_string();
    let words = format!("{} answers; this is {me}", url.trim_end_matches('/'));
    let line = |words| ("API server".to_owned(), Ok(words));
    if !me.starts_with("system:serviceaccount:") {
        let not_looked_at = "the admission policies are looked at only as the operator's service account";
        return vec![line(format!("{words}; {not_looked_at}"))];
    }
    let state = match Guard::new(client, api_server, me) {
        Ok(guard) => guard.is_installed().await.map_err(|error| chain(&error)),
        Err(error) => Err(chain(&error)),
    };
    let what = format!("admission policies and CRDs, with {me} as the operator");
    vec![line(words), (what, state.map(|()| "what this version ships".into()))]
}
