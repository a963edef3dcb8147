//! A person signs in to Keycloak with a browser, and does what it asks for.

use std::{
    collections::BTreeMap,
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use regex::Regex;
use reqwest::{Certificate, Client, RequestBuilder, redirect::Policy};
use sha2::Sha256;

use crate::keycloak_admin::{Person, Stack};

/// A browser with its cookies, at a page.
pub struct Browser {
    http: Client,
    stack: Stack,
    cookies: BTreeMap<String, String>,
    page: String,
}

impl Browser {
    /// Opens the sign-in page and signs in with name and password; what Keycloak asks for then is on the page.
    pub async fn signs_in(user: &Person) -> Self {
        let stack = Stack::load();
        let pem = fs::read(&stack.ca_file).expect("the stack's certificate authority");
        let http = Client::builder().tls_certs_only(Certificate::from_pem_bundle(&pem).expect("PEM"));
        let http = http.redirect(Policy::none()).build().expect("a client");
        let mut browser = Self { http, stack, cookies: BTreeMap::new(), page: String::new() };
        let url = format!("{}/realms/{}/protocol/openid-connect/auth", browser.stack.url, browser.stack.realm);
        let query = [
            ("client_id", browser.stack.client_id.as_str()),
            ("redirect_uri", "http://localhost:8000/"),
            ("response_type", "code"),
            ("scope", "openid"),
        ];
        let request = browser.http.get(url).query(&query);
        browser.follows(request).await;
        browser.submits(&[("username", &user.username), ("password", &user.password)]).await;
        browser
    }

    /// Sets up an app with one-time codes, which the page must ask for. The realm's codes must be made with SHA-256.
    pub async fn sets_up_codes(&mut self) {
        let secret = self.value("totpSecret");
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
        let hash = mac.chain_update((seconds / 30).to_be_bytes()).finalize().into_bytes();
        let at = usize::from(hash[31] & 15);
        let number = u32::from_be_bytes([hash[at] & 127, hash[at + 1], hash[at + 2], hash[at + 3]]) % 1_000_000;
        self.submits(&[("totp", &format!("{number:06}")), ("totpSecret", &secret), ("userLabel", "app")]).await;
    }

    /// Whether it has come back to the application: nothing is asked any more.
    pub fn is_through(&self) -> bool {
        self.page.starts_with("http://localhost:8000/")
    }

    /// What the page says.
    pub fn page(&self) -> &str {
        &self.page
    }

    async fn submits(&mut self, fields: &[(&str, &str)]) {
        let action = Regex::new(r#"<form[^>]* action="([^"]+)""#).expect("a regular expression");
        let found = action.captures(&self.page).unwrap_or_else(|| panic!("no form: {}", self.page));
        let url = found[1].replace("&amp;", "&");
        let request = self.http.post(url).form(fields);
        self.follows(request).await;
    }

    fn value(&self, name: &str) -> String {
        let value = Regex::new(&format!(r#"<input[^>]* name="{name}"[^>]* value="([^"]+)""#)).expect("an expression");
        let found = value.captures(&self.page).unwrap_or_else(|| panic!("no {name}: {}", self.page));
        found[1].to_owned()
    }

    /// Sends a request and follows redirects, as far as Keycloak.
    async fn follows(&mut self, request: RequestBuilder) {
        let mut request = request;
        for _ in 0..10 {
            let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let answer = request.header("cookie", cookies.join("; ")).send().await.expect("Keycloak answers");
            for cookie in answer.headers().get_all("set-cookie") {
                let cookie = cookie.to_str().expect("text").split(';').next().unwrap_or_default();
                let (name, value) = cookie.split_once('=').expect("a cookie");
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
            let location = answer.headers().get("location").map(|place| place.to_str().expect("text").to_owned());
            match location {
                None => {
                    self.page = answer.text().await.expect("a page");
                    return;
                }
                Some(place) if place.starts_with(&self.stack.url) => request = self.http.get(place),
                Some(place) => {
                    self.page = place;
                    return;
                }
            }
        }
        panic!("redirected for ever");
    }
}
