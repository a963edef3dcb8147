//! The reference: a client that makes the calls that cannot be done without, and knows nothing of crashes, lost answers, other
//! holders or forged statuses. It uses the operator's own accounts and as many connections.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use hallpass::api::{AccessRequest, AccessRequestStatus};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use reqwest::{Certificate, Method};
use serde_json::{Value, json};

use crate::{keycloak_admin::Role, world::World};

/// Calls to Keycloak at once, as many as Hallpass makes.
pub const TO_KEYCLOAK: usize = 8;
/// Writes to the API server at once, as many as Hallpass sends.
pub const TO_API_SERVER: usize = 16;

/// A bare client of both servers.
pub struct Bare {
    http: reqwest::Client,
    realm: String,
    token: String,
    requests: Api<AccessRequest>,
}

impl Bare {
    pub async fn of(w: &World) -> Self {
        let client: Client = w.operator_account().await;
        let stack = &w.keycloak.stack;
        let pem = fs::read(&stack.ca_file).expect("the stack's certificate authority");
        let certificates = Certificate::from_pem_bundle(&pem).expect("PEM");
        let http = reqwest::Client::builder().tls_certs_only(certificates).build().expect("an HTTP client");
        let secret = w.stack.operator.config.with_file_name("secrets").join("hallpass-client");
        let secret = fs::read_to_string(secret).expect("the operator's secret");
        let url = format!("{}/realms/{}/protocol/openid-connect/token", stack.url, stack.realm);
        let form = [("grant_type", "client_credentials"), ("client_id", "hallpass"), ("client_secret", secret.trim())];
        let answer = http.post(url).form(&form).send().await.expect("Keycloak answers");
        let answer: Value = answer.json().await.expect("JSON");
        let token = answer["access_token"].as_str().expect("a token").to_owned();
        let realm = format!("{}/admin/realms/{}", stack.url, stack.realm);
        Self { http, realm, token, requests: Api::namespaced(client, &w.namespace) }
    }

    /// Its way to Keycloak: it trusts the stack's authority.
    pub fn http(&self) -> reqwest::Client {
        self.http.clone()
    }

    async fn call(&self, method: Method, place: &str, body: Option<&Value>) {
        let mut request = self.http.request(method, format!("{}/{place}", self.realm)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("Keycloak answers");
        assert!(answer.status().is_success(), "{place}: {}", answer.status());
        answer.bytes().await.expect("a body");
    }

    pub async fn get(&self, place: &str) {
        self.call(Method::GET, place, None).await;
    }

    pub async fn map(&self, user: &str, role: &Role) {
        self.mapping(Method::POST, user, role).await;
    }

    pub async fn unmap(&self, user: &str, role: &Role) {
        self.mapping(Method::DELETE, user, role).await;
    }

    async fn mapping(&self, method: Method, user: &str, role: &Role) {
        let body = json!([{"id": role.id, "name": role.name}]);
        self.call(method, &format!("users/{user}/role-mappings/realm"), Some(&body)).await;
    }

    /// Writes a request's status anew.
    pub async fn write(&self, request: &AccessRequest, status: &AccessRequestStatus) -> AccessRequest {
        let mut object = request.clone();
        object.status = Some(status.clone());
        let params = PostParams { field_manager: Some("bare".into()), ..PostParams::default() };
        self.requests.replace_status(&request.name_any(), &params, &object).await.expect("a status")
    }

    /// Puts a finalizer on, or takes it off.
    pub async fn finalizer(&self, request: &AccessRequest, on: bool) -> AccessRequest {
        let finalizers = if on { json!([hallpass::api::FINALIZER]) } else { json!([]) };
        let patch = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
        self.requests.patch(&request.name_any(), &PatchParams::default(), &patch).await.expect("a finalizer")
    }

    /// Does something for each, so many at once; how long it took.
    pub async fn each<T>(at_once: usize, items: &[T], what: impl AsyncFn(&T)) -> Duration {
        let begin = Instant::now();
        stream::iter(items).for_each_concurrent(at_once, |item| what(item)).await;
        begin.elapsed()
    }

    /// Unmaps a role from each and writes the status of its request; how long it took. No write waits for another one's
    /// Keycloak.
    pub async fn unmap_and_write(&self, holdings: &[(String, Role)], requests: &[AccessRequest]) -> Duration {
        let begin = Instant::now();
        let unmapped = stream::iter(holdings.iter().zip(requests))
            .map(async |((user, role), request)| {
                self.unmap(user, role).await;
                request
            })
            .buffer_unordered(TO_KEYCLOAK);
        unmapped
            .for_each_concurrent(TO_API_SERVER, async |request| {
                self.write(request, request.status.as_ref().expect("a status")).await;
            })
            .await;
        begin.elapsed()
    }
}
