//! An administrator of the development stack's realm: makes people, roles and groups for a scenario, looks at the
//! state of the world, and takes what it made away again.
//!
//! ```ignore
//! let admin = Admin::new();
//! let alice = admin.user("alice").await;              // a unique name that begins with it, and a password
//! let role = admin.realm_role("on call/ä").await;     // unique as well; `named_realm_role` takes the name as it is
//! admin.map(&alice, &role).await;
//! assert!(admin.realm_roles(&alice).await.contains(&role.name));
//! let claims = admin.claims(&alice).await;            // of a fresh access token
//! admin.clean_up().await;
//! ```
//! Whatever goes wrong here fails the test with what was asked and what Keycloak answered.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each scenario needs another part")]
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

use std::{
    env, fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Certificate, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// The part of `stack.json` that is about Keycloak.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stack {
    pub url: String,
    pub realm: String,
    pub ca_file: PathBuf,
    pub admin_user: String,
    pub admin_password: String,
    /// Public client with which people sign in.
    pub client_id: String,
}

impl Stack {
    /// The running stack, from the file that `HALLPASS_STACK` names.
    pub fn load() -> Self {
        let file = env::var("HALLPASS_STACK").expect("HALLPASS_STACK names the stack.json of `dev/dev up`");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let all: Value = serde_json::from_str(&text).expect("stack.json is JSON");
        serde_json::from_value(all["keycloak"].clone()).expect("stack.json says where Keycloak is")
    }
}

/// A person, or a client's service account.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: String,
    pub username: String,
    pub password: String,
}

/// A role of the realm or, with `client`, of a client.
#[derive(Clone, Debug)]
pub struct Role {
    pub id: String,
    pub name: String,
    /// Id of the client.
    pub client: Option<String>,
}

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    pub id: String,
    pub path: String,
}

/// A client with a secret and a service account.
#[derive(Clone, Debug)]
pub struct Robot {
    /// Id of the client.
    pub id: String,
    pub client_id: String,
    pub secret: String,
    pub account: Person,
}

/// A client at which people sign in.
#[derive(Clone, Debug)]
pub struct App {
    /// Id of the client.
    pub id: String,
    pub client_id: String,
}

/// A session of the server's administrator.
pub struct Admin {
    pub stack: Stack,
    http: reqwest::Client,
    token: tokio::sync::Mutex<Option<(Instant, String)>>,
    made: Mutex<Vec<String>>,
}

/// A name that nobody else uses, beginning with this.
pub fn unique(start: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() % 1_000_000_000_000;
    format!("{start}-{now:x}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Admin {
    pub fn new() -> Self {
        Self::of(Stack::load())
    }

    /// The same for `master`, the realm of administrators.
    pub fn of_master() -> Self {
        Self::of(Stack { realm: "master".into(), ..Stack::load() })
    }

    /// The same for another realm of the server.
    pub fn of_realm(name: &str) -> Self {
        Self::of(Stack { realm: name.into(), ..Stack::load() })
    }

    /// The same in the name of a robot of this realm, with its rights and for as long as one token lives.
    pub async fn in_the_name_of(&self, robot: &Robot) -> Self {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", robot.client_id.as_str()),
            ("client_secret", robot.secret.as_str()),
        ];
        let (status, answer) = self.protocol("token", &form).await;
        assert_eq!(status, 200, "{} cannot sign in: {answer}", robot.client_id);
        let admin = Self::of(self.stack.clone());
        let never = Instant::now() + Duration::from_hours(1);
        *admin.token.lock().await = Some((never, text(&answer["access_token"])));
        admin
    }

    fn of(stack: Stack) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pem = fs::read(&stack.ca_file).expect("the stack's certificate authority");
        let http = reqwest::Client::builder()
            .tls_certs_only(Certificate::from_pem_bundle(&pem).expect("PEM"))
            // Making and deleting a realm on a busy machine takes long.
            .timeout(Duration::from_secs(90))
            .build()
            .expect("HTTP client");
        Self { stack, http, token: tokio::sync::Mutex::default(), made: Mutex::default() }
    }

    /// Takes away all that was made, the last first.
    pub async fn clean_up(&self) {
        let made = std::mem::take(&mut *self.made.lock().expect("lock"));
        for place in made.iter().rev() {
            self.delete(place).await;
        }
    }

    // People

    /// A person who can sign in.
    pub async fn user(&self, start: &str) -> Person {
        self.user_named(&unique(start).to_lowercase()).await
    }

    /// A person with this very name.
    pub async fn user_named(&self, username: &str) -> Person {
        let email = format!("{}@example.com", username.replace(|c: char| !c.is_ascii_alphanumeric(), "."));
        let credential = json!({"type": "password", "value": username, "temporary": false});
        let body = json!({
            "username": username, "enabled": true, "email": email, "emailVerified": true,
            "firstName": "F", "lastName": "L", "credentials": [credential],
        });
        let id = self.create("users", &body).await;
        Person { id, password: username.to_owned(), username: username.to_owned() }
    }

    /// Changes some of a user's properties, as `{"enabled": false}`. Never send `attributes` alone.
    pub async fn update_user(&self, user: &Person, change: &Value) {
        self.call(Method::PUT, &format!("users/{}", user.id), Some(change)).await;
    }

    pub async fn delete_user(&self, user: &Person) {
        self.delete(&format!("users/{}", user.id)).await;
    }

    /// The user with this username, as one of those that the stack begins with.
    pub async fn find_user(&self, username: &str) -> Person {
        let found = self.get(&format!("users?username={}&exact=true", escape(username))).await;
        assert_eq!(found.as_array().map(Vec::len), Some(1), "users called {username:?}: {found}");
        Person { id: text(&found[0]["id"]), username: username.into(), password: username.into() }
    }

    // Roles

    pub async fn realm_role(&self, start: &str) -> Role {
        self.named_realm_role(&unique(start)).await
    }

    /// A realm role with exactly this name; one that is there already is taken over.
    pub async fn named_realm_role(&self, name: &str) -> Role {
        self.create_if_missing("roles", &json!({ "name": name })).await;
        let role = self.role_in("roles", name).await;
        self.made.lock().expect("lock").push(format!("roles-by-id/{}", role.id));
        role
    }

    /// The realm role that is there.
    pub async fn find_realm_role(&self, name: &str) -> Role {
        self.role_in("roles", name).await
    }

    /// A new client's role with exactly this name.
    pub async fn client_role(&self, client_id: &str, name: &str) -> Role {
        let client = self.find_client(client_id).await;
        self.create_if_missing(&format!("clients/{client}/roles"), &json!({ "name": name })).await;
        let role = self.find_client_role(client_id, name).await;
        self.made.lock().expect("lock").push(format!("roles-by-id/{}", role.id));
        role
    }

    /// The client's role that is there, as `realm-management`'s `realm-admin`.
    pub async fn find_client_role(&self, client_id: &str, name: &str) -> Role {
        let client = self.find_client(client_id).await;
        let role = self.role_in(&format!("clients/{client}/roles"), name).await;
        Role { client: Some(client), ..role }
    }

    async fn role_in(&self, place: &str, name: &str) -> Role {
        let found = self.get(&format!("{place}?search={}&first=0&max=1000", escape(name))).await;
        let role = found.as_array().and_then(|roles| roles.iter().find(|role| role["name"] == name));
        let role = role.unwrap_or_else(|| panic!("no role {name:?} in {found}"));
        Role { id: text(&role["id"]), name: name.into(), client: None }
    }

    /// Puts roles into a role.
    pub async fn compose(&self, role: &Role, parts: &[&Role]) {
        let parts = json!(parts.iter().map(|part| part.json()).collect::<Vec<_>>());
        self.call(Method::POST, &format!("roles-by-id/{}/composites", role.id), Some(&parts)).await;
    }

    pub async fn rename_role(&self, role: &Role, name: &str) -> Role {
        self.call(Method::PUT, &format!("roles-by-id/{}", role.id), Some(&json!({ "name": name }))).await;
        Role { name: name.into(), ..role.clone() }
    }

    pub async fn delete_role(&self, role: &Role) {
        self.delete(&format!("roles-by-id/{}", role.id)).await;
    }

    // Groups

    /// A group at the top, or in another one. The name is taken as it is.
    pub async fn group(&self, parent: Option<&Group>, name: &str) -> Group {
        let place = parent.map_or_else(|| "groups".into(), |parent| format!("groups/{}/children", parent.id));
        let id = self.create(&place, &json!({ "name": name })).await;
        let path = text(&self.get(&format!("groups/{id}")).await["path"]);
        Group { id, path }
    }

    pub async fn rename_group(&self, group: &Group, name: &str) {
        self.call(Method::PUT, &format!("groups/{}", group.id), Some(&json!({ "name": name }))).await;
    }

    pub async fn delete_group(&self, group: &Group) {
        self.delete(&format!("groups/{}", group.id)).await;
    }

    /// Gives the members of a group a role.
    pub async fn map_to_group(&self, group: &Group, role: &Role) {
        let place = format!("groups/{}/{}", group.id, role.mappings());
        self.call(Method::POST, &place, Some(&json!([role.json()]))).await;
    }

    pub async fn join(&self, user: &Person, group: &Group) {
        self.call(Method::PUT, &format!("users/{}/groups/{}", user.id, group.id), None).await;
    }

    pub async fn leave(&self, user: &Person, group: &Group) {
        self.call(Method::DELETE, &format!("users/{}/groups/{}", user.id, group.id), None).await;
    }

    // Mappings

    pub async fn map(&self, user: &Person, role: &Role) {
        let place = format!("users/{}/{}", user.id, role.mappings());
        self.call(Method::POST, &place, Some(&json!([role.json()]))).await;
    }

    /// Tries it; the status of the answer.
    pub async fn try_map(&self, user: &Person, role: &Role) -> u16 {
        let place = format!("users/{}/{}", user.id, role.mappings());
        self.try_call(Method::POST, &place, Some(&json!([role.json()]))).await.0.as_u16()
    }

    pub async fn unmap(&self, user: &Person, role: &Role) {
        let place = format!("users/{}/{}", user.id, role.mappings());
        self.call(Method::DELETE, &place, Some(&json!([role.json()]))).await;
    }

    /// Names of the realm roles that are mapped directly.
    pub async fn realm_roles(&self, user: &Person) -> Vec<String> {
        names(&self.get(&format!("users/{}/role-mappings/realm", user.id)).await, "name")
    }

    /// Names of the client's roles that are mapped directly.
    pub async fn client_roles(&self, user: &Person, client_id: &str) -> Vec<String> {
        let client = self.find_client(client_id).await;
        names(&self.get(&format!("users/{}/role-mappings/clients/{client}", user.id)).await, "name")
    }

    /// Whether the user has this very role directly.
    pub async fn has(&self, user: &Person, role: &Role) -> bool {
        let mapped = self.get(&format!("users/{}/{}", user.id, role.mappings())).await;
        names(&mapped, "id").contains(&role.id)
    }

    /// Paths of the groups that the user is directly in.
    pub async fn groups(&self, user: &Person) -> Vec<String> {
        names(&self.get(&format!("users/{}/groups", user.id)).await, "path")
    }

    // Clients

    /// Id of the client that is there.
    pub async fn find_client(&self, client_id: &str) -> String {
        let found = self.get(&format!("clients?clientId={}", escape(client_id))).await;
        text(&found[0]["id"])
    }

    /// The client whose roles are the rights on this realm.
    pub fn management_client(&self) -> &'static str {
        if self.stack.realm == "master" { "master-realm" } else { "realm-management" }
    }

    /// A client with a service account that has these rights (roles of the management client).
    pub async fn robot(&self, rights: &[&str]) -> Robot {
        self.robot_that(&json!({}), rights).await
    }

    /// The same with more properties.
    pub async fn robot_that(&self, more: &Value, rights: &[&str]) -> Robot {
        let client_id = unique("robot");
        let secret = unique("secret");
        let mut body = json!({
            "clientId": client_id, "secret": secret, "publicClient": false, "serviceAccountsEnabled": true,
            "standardFlowEnabled": false, "directAccessGrantsEnabled": false,
        });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let id = self.create("clients", &body).await;
        let account = self.get(&format!("clients/{id}/service-account-user")).await;
        let account =
            Person { id: text(&account["id"]), username: text(&account["username"]), password: String::new() };
        let robot = Robot { id, client_id, secret, account };
        for right in rights {
            self.map(&robot.account, &self.find_client_role(self.management_client(), right).await).await;
        }
        robot
    }

    /// A client without a secret at which people sign in, with a browser or with name and password.
    pub async fn app(&self) -> App {
        self.app_named(&unique("app"), &json!({})).await
    }

    /// The same with this very `clientId` and more properties; one that is there already is taken over.
    pub async fn app_named(&self, client_id: &str, more: &Value) -> App {
        let mut body = json!({
            "clientId": client_id, "publicClient": true, "directAccessGrantsEnabled": true, "standardFlowEnabled": true,
            "redirectUris": [format!("https://{client_id}.example.com/*")],
        });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.create_if_missing("clients", &body).await;
        let id = self.find_client(client_id).await;
        self.made.lock().expect("lock").push(format!("clients/{id}"));
        App { id, client_id: client_id.into() }
    }

    // Realms

    /// Makes this realm, with a client that has this secret and the operator's rights; one that is there already stays.
    pub async fn make_realm(&self, client_id: &str, secret: &str) {
        let rights = ["manage-users", "view-realm", "view-clients"];
        // Making RSA keys is what takes long.
        let key = |kind: &str| json!({"name": kind, "providerId": kind, "config": {"priority": ["100"]}});
        let body = json!({
            "realm": self.stack.realm, "enabled": true, "adminEventsEnabled": true, "defaultSignatureAlgorithm": "ES256",
            "components": {"org.keycloak.keys.KeyProvider": [
                key("ecdsa-generated"), key("hmac-generated"), key("aes-generated"),
            ]},
            "clients": [{
                "clientId": client_id, "secret": secret, "publicClient": false, "serviceAccountsEnabled": true,
                "standardFlowEnabled": false, "directAccessGrantsEnabled": false,
            }],
            "users": [{
                "username": format!("service-account-{client_id}"), "enabled": true, "serviceAccountClientId": client_id,
                "clientRoles": {"realm-management": rights},
            }],
        });
        let url = format!("{}/admin/realms", self.stack.url);
        let answer = self.http.post(&url).bearer_auth(self.session().await).json(&body).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let status = answer.status();
        assert!(status.is_success() || status == StatusCode::CONFLICT, "{status} {:?}", answer.text().await);
        // The rights on it are in new tokens only.
        *self.token.lock().await = None;
    }

    /// Gives the realm another name; it is called so from now on.
    pub async fn rename_realm(&mut self, name: &str) {
        self.call(Method::PUT, "", Some(&json!({ "realm": name }))).await;
        name.clone_into(&mut self.stack.realm);
        *self.token.lock().await = None;
    }

    /// Deletes the realm if it is there.
    pub async fn delete_realm(&self) {
        self.delete("").await;
        *self.token.lock().await = None;
    }

    // Tokens

    /// Signs in with name and password; the answer of the token endpoint.
    pub async fn tokens(&self, user: &Person) -> Value {
        let Stack { realm, client_id, .. } = &self.stack;
        let answer = self.password_grant(realm, client_id, &user.username, &user.password).await;
        assert!(answer["access_token"].is_string(), "{} cannot sign in: {answer}", user.username);
        answer
    }

    /// Sends a form to an endpoint of the realm's protocol, as `token` or `token/introspect`: status and answer.
    pub async fn protocol(&self, endpoint: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/realms/{}/protocol/openid-connect/{endpoint}", self.stack.url, self.stack.realm);
        let response = self.http.post(&url).form(form).send().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    /// Signs in at a client with name and password.
    pub async fn signs_in_at(&self, user: &Person, app: &App, scope: &str) -> Value {
        let form = [
            ("grant_type", "password"),
            ("scope", scope),
            ("client_id", &app.client_id),
            ("username", &user.username),
            ("password", &user.password),
        ];
        let (status, answer) = self.protocol("token", &form).await;
        assert_eq!(status, 200, "{} cannot sign in: {answer}", user.username);
        answer
    }

    /// What a refresh token (an offline one, too) still gives: an access token's claims, or why not.
    pub async fn refresh(&self, app: &App, tokens: &Value) -> Result<Value, String> {
        let token = tokens["refresh_token"].as_str().expect("a refresh token");
        let form = [("grant_type", "refresh_token"), ("client_id", &app.client_id), ("refresh_token", token)];
        let (status, answer) = self.protocol("token", &form).await;
        if status == 200 { Ok(claims(&text(&answer["access_token"]))) } else { Err(answer.to_string()) }
    }

    /// The claims of a fresh access token of the user.
    pub async fn claims(&self, user: &Person) -> Value {
        claims(&text(&self.tokens(user).await["access_token"]))
    }

    async fn password_grant(&self, realm: &str, client_id: &str, username: &str, password: &str) -> Value {
        let url = format!("{}/realms/{realm}/protocol/openid-connect/token", self.stack.url);
        let form = [
            ("grant_type", "password"),
            ("scope", "openid"),
            ("client_id", client_id),
            ("username", username),
            ("password", password),
        ];
        let response = self.http.post(&url).form(&form).send().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        response.json().await.unwrap_or_else(|error| panic!("{url}: {error:?}"))
    }

    // The way in

    /// One sign-in at a time: it costs Keycloak more than all else here.
    async fn session(&self) -> String {
        let mut last = self.token.lock().await;
        if let Some((since, token)) = &*last
            && since.elapsed() < Duration::from_secs(30)
        {
            return token.clone();
        }
        let Stack { admin_user, admin_password, .. } = &self.stack;
        let answer = self.password_grant("master", "admin-cli", admin_user, admin_password).await;
        let token = text(&answer["access_token"]);
        *last = Some((Instant::now(), token.clone()));
        token
    }

    /// Asks for anything below the realm, as `realm` properties or events.
    pub async fn get(&self, place: &str) -> Value {
        self.call(Method::GET, place, None).await.1
    }

    /// Asks for anything else, by its URL.
    pub async fn get_at(&self, url: &str) -> Value {
        let answer = self.http.get(url).bearer_auth(self.session().await).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        answer.json().await.unwrap_or_else(|error| panic!("{url}: {error:?}"))
    }

    /// Any call below the realm that must succeed: the id of what was made, and the body.
    pub async fn call(&self, method: Method, place: &str, body: Option<&Value>) -> (Option<String>, Value) {
        let (status, id, body) = self.try_call(method.clone(), place, body).await;
        assert!(status.is_success(), "{method} {place}: {status} {body}");
        (id, body)
    }

    async fn try_call(&self, method: Method, place: &str, body: Option<&Value>) -> (StatusCode, Option<String>, Value) {
        let Stack { url, realm, .. } = &self.stack;
        let url = if place.is_empty() {
            format!("{url}/admin/realms/{realm}")
        } else {
            format!("{url}/admin/realms/{realm}/{place}")
        };
        let mut request = self.http.request(method, &url).bearer_auth(self.session().await);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let status = response.status();
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        let id = location.and_then(|location| location.rsplit('/').next()).map(str::to_owned);
        let body = response.bytes().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        (status, id, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn create(&self, place: &str, body: &Value) -> String {
        let id = self.call(Method::POST, place, Some(body)).await.0.unwrap_or_else(|| panic!("{place}: no Location"));
        let place = if place.starts_with("groups") { "groups" } else { place };
        self.made.lock().expect("lock").push(format!("{place}/{id}"));
        id
    }

    /// An identity provider that vouches for the service accounts of this cluster. A realm has one for each issuer.
    pub async fn trusts_cluster(&self, alias: &str, issuer: &str) {
        let place = "identity-provider/instances";
        let (status, _, _) = self.try_call(Method::GET, &format!("{place}/{alias}"), None).await;
        if status == StatusCode::NOT_FOUND {
            let config = json!({ "issuer": issuer });
            let body = json!({"alias": alias, "providerId": "kubernetes", "enabled": true, "config": config});
            self.call(Method::POST, place, Some(&body)).await;
        }
    }

    /// A key pair for a client. Keycloak keeps the public key; the answer is the private one in PEM.
    pub async fn key_of(&self, robot: &Robot) -> String {
        let place = format!("clients/{}/certificates/jwt.credential/generate", robot.id);
        let made = self.call(Method::POST, &place, None).await.1;
        format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n", text(&made["privateKey"]))
    }

    async fn create_if_missing(&self, place: &str, body: &Value) {
        let (status, _, answer) = self.try_call(Method::POST, place, Some(body)).await;
        assert!(status.is_success() || status == StatusCode::CONFLICT, "{place} {body}: {status} {answer}");
    }

    /// Gone is fine as well.
    /// Takes something away, if it is there.
    pub async fn delete(&self, place: &str) {
        let (status, _, body) = self.try_call(Method::DELETE, place, None).await;
        assert!(status.is_success() || status == StatusCode::NOT_FOUND, "DELETE {place}: {status} {body}");
    }
}

impl Role {
    fn json(&self) -> Value {
        json!({"id": self.id, "name": self.name})
    }

    fn mappings(&self) -> String {
        self.client.as_ref().map_or("role-mappings/realm".into(), |client| format!("role-mappings/clients/{client}"))
    }
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a JWT has three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("the payload is base64url");
    serde_json::from_slice(&payload).expect("the claims are JSON")
}

fn escape(text: &str) -> String {
    const RESERVED: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, RESERVED).to_string()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap_or_else(|| panic!("not a list: {list}")).iter().map(|item| text(&item[key])).collect()
}
