//! How long access tokens live: what was issued stays in the hands of whoever has it until then.

use std::time::Duration;

use serde::Deserialize;

use super::{Client, Error, Kind, RealmInfo, http::Time, path::Path, targets::CLIENTS};

/// Clients of one read. With its mappers one can take some kilobytes, and Keycloak 26.7.3 needs 1 to 10 ms for each.
const PAGE: usize = 100;

/// Reads after which it is given up: 10,000 clients.
const MAX_PAGES: usize = 100;

/// What a client says about its tokens.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientRep {
    #[serde(default)]
    implicit_flow_enabled: bool,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(rename = "access.token.lifespan")]
    lifespan: Option<String>,
}

impl Client {
    /// The longest that an access token of the realm can live if it is issued now: the realm's lifespan, any client's own,
    /// and that of the implicit flow where a client may use it. Any client counts, because a role can be in the tokens of
    /// any. [`Kind::Malformed`] if there are too many clients to look at.
    pub async fn token_lifespan(&self) -> Result<Duration, Error> {
        self.longest().await.map_err(|error| error.during(|| self.action("find out how long tokens live in")))
    }

    async fn longest(&self) -> Result<Duration, Error> {
        let realm = self.realm_within(Time::PerRead).await?;
        let mut longest = realm.access_token_lifespan;
        for page in 0..MAX_PAGES {
            let window = [("first", (page * PAGE).to_string()), ("max", PAGE.to_string())];
            let path = Path::of(&["clients"])?.query(&window.each_ref().map(|(key, value)| (*key, value.as_str())));
            let clients: Vec<ClientRep> = self.0.read(CLIENTS, path, Time::PerRead).await?;
            longest = clients.iter().map(|client| client.lifespan(&realm)).fold(longest, Duration::max);
            if clients.len() < PAGE {
                // Without view-clients Keycloak can answer with an empty list; every realm has clients of its own.
                return if page == 0 && clients.is_empty() { Err(self.forbidden(CLIENTS)) } else { Ok(longest) };
            }
        }
        let detail = format!("there are more than {} clients", MAX_PAGES * PAGE);
        Err(Error::new(Kind::Malformed, CLIENTS.label, detail))
    }
}

impl ClientRep {
    fn lifespan(&self, realm: &RealmInfo) -> Duration {
        let implicit = if self.implicit_flow_enabled { realm.implicit_token_lifespan } else { Duration::ZERO };
        // One that is no number does not count with Keycloak either: it issues no tokens then.
        let own = self.attributes.lifespan.as_deref().and_then(|text| text.trim().parse::<i64>().ok());
        own.map_or(Duration::ZERO, |seconds| realm.lifespan(seconds)).max(implicit)
    }
}
