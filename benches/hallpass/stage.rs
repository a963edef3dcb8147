//! The servers, with the operator as it is installed: one realm, looked at as often as by default.

use std::{
    fs,
    time::{Duration, Instant},
};

use kube::api::{DeleteParams, ListParams};

use crate::{
    bare::Bare,
    results::{Results, Row},
    world::World,
};

/// How much is tried.
#[derive(Clone, Copy)]
pub struct Limits {
    /// The smallest numbers: nothing is measured.
    pub smoke: bool,
    /// No more than so many, where there is a choice.
    pub most: Option<usize>,
    /// No more rounds than this.
    pub rounds: Option<usize>,
}

/// What every benchmark needs.
pub struct Stage {
    pub w: World,
    pub results: Results,
    limits: Limits,
}

impl Stage {
    pub async fn prepare(limits: Limits) -> Self {
        let w = World::without_operator().await;
        let config = fs::read_to_string(&w.stack.operator.config).expect("the operator's configuration");
        // It is for tests that want to see something soon. The short settleTime stays: an operator that was killed here before
        // would be waited for.
        let shortened = |line: &&str| line.contains("checkInterval");
        let plain: String = config.lines().filter(|line| !shortened(line)).map(|line| format!("{line}\n")).collect();
        fs::write(&w.stack.operator.config, plain).expect("the operator's configuration");
        let stage = Self { results: Results::new(limits.smoke, versions(&w).await), w, limits };
        stage.starts().await;
        stage
    }

    /// So many in earnest, or so many in a smoke test.
    pub fn size<T>(&self, earnest: T, smoke: T) -> T {
        if self.limits.smoke { smoke } else { earnest }
    }

    /// Those of these numbers that are not too many.
    pub fn sizes(&self, earnest: &[usize], smoke: &[usize]) -> Vec<usize> {
        let all = self.size(earnest, smoke).iter().copied();
        all.filter(|size| self.limits.most.is_none_or(|most| *size <= most)).collect()
    }

    /// So many rounds, or fewer.
    pub fn rounds(&self, earnest: usize) -> usize {
        self.limits.rounds.unwrap_or(earnest).min(self.size(earnest, 1))
    }

    pub fn add(&mut self, row: Row) {
        self.results.add(row);
    }

    /// Starts the operator, or starts it anew, and waits until it can give; how long that took.
    pub async fn starts(&self) -> Duration {
        self.stops().await;
        let begin = Instant::now();
        self.w.stack.dev(&["operator", "start"]).await;
        let took = begin.elapsed();
        self.w.until("a trust epoch", async || self.w.epoch_has_begun().await).await;
        took
    }

    /// Stops the operator: what is bare has the servers for itself.
    pub async fn stops(&self) {
        self.w.stack.dev(&["operator", "stop"]).await;
    }

    /// Somebody who makes the same calls without Hallpass, which has been stopped.
    pub async fn bare(&self) -> Bare {
        Bare::of(&self.w).await
    }

    /// Deletes the world's requests, and waits until they are gone.
    pub async fn clear(&self) {
        let requests = self.w.requests();
        let _ = requests.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        let gone =
            async || requests.list_metadata(&ListParams::default()).await.is_ok_and(|list| list.items.is_empty());
        self.w.until_within(Duration::from_mins(5), "the requests are gone", gone).await;
    }

    /// Leaves the servers as they were.
    pub async fn leave(self) {
        self.w.clean_up().await;
        self.results.save();
    }
}

async fn versions(w: &World) -> String {
    let kubernetes = w.admin.apiserver_version().await.expect("a version").git_version;
    let url = format!("{}/admin/serverinfo", w.keycloak.stack.url);
    let info = w.keycloak.get_at(&url).await;
    let keycloak = info["systemInfo"]["version"].as_str().unwrap_or("?").to_owned();
    format!("Hallpass {}, Kubernetes {kubernetes}, Keycloak {keycloak}", env!("CARGO_PKG_VERSION"))
}
