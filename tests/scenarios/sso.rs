//! A browser: signs in at one client after another, and stays signed in between.
#![allow(dead_code, reason = "each scenario needs another part")]

use std::{collections::BTreeMap, fs, sync::Mutex};

use reqwest::{Certificate, RequestBuilder, Response, Url, header, redirect};
use serde_json::Value;

use crate::keycloak_admin::{Admin, App, Person};

/// A browser with its cookies.
pub struct Browser {
    http: reqwest::Client,
    cookies: Mutex<BTreeMap<String, String>>,
}

impl Browser {
    /// One that has been nowhere yet.
    pub fn new(keycloak: &Admin) -> Self {
        let pem = fs::read(&keycloak.stack.ca_file).expect("the stack's certificate authority");
        let http = reqwest::Client::builder()
            .tls_certs_only(Certificate::from_pem_bundle(&pem).expect("PEM"))
            .redirect(redirect::Policy::none())
            .build()
            .expect("HTTP client");
        Self { http, cookies: Mutex::default() }
    }

    /// Signs a person in at a client; without a password if the browser is signed in already. The client's tokens.
    pub async fn signs_in(&self, keycloak: &Admin, user: &Person, app: &App, scope: &str) -> Value {
        let (url, realm) = (&keycloak.stack.url, &keycloak.stack.realm);
        let back = format!("https://{}.example.com/", app.client_id);
        let query = [
            ("response_type", "code"),
            ("client_id", &app.client_id),
            ("scope", scope),
            ("redirect_uri", back.as_str()),
        ];
        let page = format!("{url}/realms/{realm}/protocol/openid-connect/auth");
        let mut answer = self.send(self.http.get(page).query(&query)).await;
        if answer.status() == 200 {
            let page = answer.text().await.expect("a page");
            let form = page.split("action=\"").nth(1).and_then(|rest| rest.split('"').next());
            let form = form.unwrap_or_else(|| panic!("no form to sign in: {page}")).replace("&amp;", "&");
            let fields = [("username", &user.username), ("password", &user.password)];
            answer = self.send(self.http.post(form).form(&fields)).await;
        }
        let place = answer.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
        let place = Url::parse(place.unwrap_or_else(|| panic!("not signed in: {answer:?}"))).expect("a URL");
        let code = place.query_pairs().find(|(key, _)| key == "code");
        let code = code.unwrap_or_else(|| panic!("no code in {place}")).1.into_owned();
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", &app.client_id),
            ("redirect_uri", &back),
            ("code", &code),
        ];
        let (status, tokens) = keycloak.protocol("token", &form).await;
        assert_eq!(status, 200, "{tokens}");
        tokens
    }

    async fn send(&self, request: RequestBuilder) -> Response {
        let cookies: Vec<String> =
            self.cookies.lock().expect("lock").iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header(header::COOKIE, cookies.join("; ")).send().await.expect("an answer");
        let mut cookies = self.cookies.lock().expect("lock");
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().expect("text").split(';').next().and_then(|pair| pair.split_once('='));
            let (name, value) = cookie.expect("a cookie has a name");
            if value.is_empty() {
                cookies.remove(name);
            } else {
                cookies.insert(name.into(), value.into());
            }
        }
        drop(cookies);
        answer
    }
}
