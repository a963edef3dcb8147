//! Who attacks and who is attacked, on the real servers, with the operator stopped: the test writes statuses with the
//! operator's account, so that requests are in the phase that a line is about.

use std::collections::{BTreeMap, BTreeSet};

use kube::{
    Client,
    api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Request},
};
use serde_json::{Value, json};

use crate::{
    attacks::{
        Deed, Line,
        Who::{self, *},
    },
    keycloak_admin::{Role, unique},
    people::Person,
    world::World,
};

/// The ballot of each request.
const BALLOT: &str = "a1b2c3d4";

pub struct Cast {
    pub w: World,
    people: Vec<Person>,
    clients: BTreeMap<Who, Client>,
    /// What `{word}` stands for.
    words: Vec<(String, String)>,
    pub policy: String,
    role: Role,
    namespaces: Vec<String>,
    /// Namespace and name of the request at hand.
    at_hand: (String, String),
    /// All that were let through, as namespace and name.
    made: BTreeSet<(String, String)>,
    /// What was tried and refused.
    pub refused: BTreeSet<&'static str>,
    faults: Vec<String>,
}

impl Cast {
    /// Everybody, and a policy that the API server knows.
    pub async fn new() -> Self {
        let w = World::alone().await;
        w.operator("stop").await;
        let role = w.keycloak.realm_role("admin").await;
        let mut cast = Self {
            policy: unique("payments-oncall"),
            namespaces: vec![w.namespace.clone(), unique("nina"), unique("flux"), unique("argo")],
            at_hand: (w.namespace.clone(), String::new()),
            people: vec![],
            clients: BTreeMap::from([(Admin, w.admin.clone()), (Operator, w.operator_account().await)]),
            words: vec![("admin".into(), "dev-admin".into())],
            made: BTreeSet::new(),
            refused: BTreeSet::new(),
            faults: vec![],
            role,
            w,
        };
        cast.words.push(("policy".into(), cast.policy.clone()));
        cast.words.push(("other".into(), unique("other")));
        for (word, namespace) in ["ns", "nina-ns", "flux-ns", "argo-ns"].iter().zip(&cast.namespaces) {
            cast.words.push(((*word).into(), namespace.clone()));
        }
        for namespace in &cast.namespaces[1..] {
            cast.w.make_namespace(namespace).await;
        }
        cast.signs_everybody_in().await;
        cast.starts_the_robots().await;
        cast.writes_the_policies().await;
        cast
    }

    /// People with the groups that Keycloak puts into their tokens.
    async fn signs_everybody_in(&mut self) {
        let w = self.w.clone();
        let name = unique("payments");
        let payments = w.keycloak.group(None, &name).await;
        let leads = w.keycloak.group(Some(&payments), "leads").await;
        let security = w.keycloak.group(None, &unique("security")).await;
        let marketing = w.keycloak.group(None, &unique("marketing")).await;
        let longer = w.keycloak.group(None, &format!("{name}-x")).await;
        let tenant = w.keycloak.group(None, &unique("tenant")).await;
        let below = w.keycloak.group(Some(&tenant), &name).await;
        let below_leads = w.keycloak.group(Some(&below), "leads").await;
        for (who, start, groups) in [
            (Alice, "alice", vec![&payments]),
            (Bob, "bob", vec![&leads]),
            (Carol, "carol", vec![&leads]),
            (Dave, "dave", vec![&security]),
            (Erin, "erin", vec![&payments, &leads]),
            (Mallory, "mallory", vec![&marketing]),
            (Nina, "nina", vec![&marketing]),
            (Paul, "paul", vec![&longer, &below, &below_leads]),
        ] {
            let mut person = w.person(start).await;
            for group in groups {
                person = person.in_group(group).await;
            }
            self.clients.insert(who, person.client().await);
            self.words.push((start.into(), person.username.clone()));
            self.words.push((start.to_uppercase(), format!("oidc:{}", person.user.username.to_uppercase())));
            self.people.push(person);
        }
        for (word, group) in
            [("payments", &payments), ("leads", &leads), ("security", &security), ("marketing", &marketing)]
        {
            self.words.push((word.into(), format!("oidc:{}", group.path)));
        }
        let oscar = w.person("oscar").await;
        w.makes_administrator(&oscar.username).await;
        self.words.push(("oscar".into(), oscar.username.clone()));
        self.clients.insert(Oscar, w.impersonated(None, &oscar.username, &[]).await);
        let mallory = self.people[5].clone();
        let bob = self.people[1].username.clone();
        self.clients.insert(MalloryAsBob, w.impersonated(Some(&mallory.token().await), &bob, &[]).await);
        w.makes_administrator(&mallory.username).await;
        w.makes_administrator_of(&self.namespaces[1], &self.people[6].username).await;
    }

    /// Service accounts.
    async fn starts_the_robots(&mut self) {
        let w = self.w.clone();
        for (who, word, namespace, name) in [
            (Flux, "flux", &self.namespaces[2], "payments"),
            (Argo, "argo", &self.namespaces[3], "argocd-application-controller"),
            (Imitator, "imitator", &self.namespaces[0], "payments"),
        ] {
            let robot = w.robot_in(namespace, name).await;
            w.makes_administrator(&robot.username).await;
            self.words.push((word.into(), robot.username));
            self.clients.insert(who, robot.client);
        }
        let argo = format!("--serviceaccount={}:argocd-application-controller", self.namespaces[3]);
        w.does(&["create", "clusterrolebinding", &self.namespaces[3], "--clusterrole=cluster-admin", &argo]).await;
        let controller = "system:serviceaccount:kube-system:namespace-controller";
        self.clients.insert(Namespaces, w.impersonated(None, controller, &["system:serviceaccounts"]).await);
    }

    /// Waits until the API server knows the policies.
    async fn writes_the_policies(&self) {
        let w = &self.w;
        let oncall = w.policy("x").named(&self.policy).in_own_namespace().lasting_at_most("8h");
        let spec = self.fill(&json!({
            "realm": "prod",
            "grants": [{"name": "admin", "realmRole": self.role.name}, {"name": "debug", "realmRole": "debug"}],
            "requesters": [{"kind": "Group", "name": "{payments}"}],
            "submitters": [
                {"kind": "ServiceAccount", "namespace": "{flux-ns}", "name": "payments", "preApproves": ["lead"]},
                {"kind": "User", "name": "{dave}"},
            ],
            "reason": {"required": true, "pattern": "^INC-[0-9]+", "hint": "start with the incident number"},
            "approval": {"stages": [
                {"name": "lead", "required": 1, "approvers": [{"kind": "Group", "name": "{leads}"}]},
                {"name": "security", "required": 2, "approvers": [{"kind": "Group", "name": "{security}"}]},
            ]},
        }));
        let fields = spec.as_object().expect("an object").clone();
        fields.into_iter().fold(oncall, |policy, (key, value)| policy.with(&key, value)).create().await.unwrap();
        let carol = &self.people[2];
        let other = w.policy("x").named(&self.text("{other}")).realm_role("x", "x").requester(carol).automatic();
        other.create().await.unwrap();
        for policy in [self.text("{policy}"), self.text("{other}")] {
            self.people[5].asks_under(&policy).because("INC-1").refused().await;
        }
    }

    /// Waits until the API server fills in nobody any more.
    pub async fn are_on_their_own(&self) {
        self.people[0].asks_under(&self.policy).because("INC-1").with("requester", Value::Null).refused().await;
    }

    fn text(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(&format!("{{{word}}}"), value))
    }

    fn fill(&self, value: &Value) -> Value {
        serde_json::from_str(&self.text(&value.to_string())).expect("JSON")
    }

    /// Plays the lines. What went wrong in any of them is told when the cast leaves.
    pub async fn play(&mut self, lines: Vec<Line>) {
        for line in lines {
            match line {
                Line::Fresh(by, spec) => self.makes_a_fresh_one(by, spec).await,
                Line::Status(status) => self.writes_status(status).await,
                Line::Holds(what, pointer, value) => {
                    let (wanted, object) = (self.fill(&value), self.now().await.unwrap_or_default());
                    let found = object.pointer(&self.text(&pointer)).cloned().unwrap_or_default();
                    self.is(found == wanted, || format!("{what}: {pointer} is {found}, not {wanted}"));
                }
                Line::Allowed(what, who, deed) => {
                    let answer = self.does(who, &deed).await;
                    self.is(answer.is_ok(), || format!("{what}: refused: {answer:?}"));
                }
                Line::Refused(what, who, deed, words) => self.is_refused(what, who, &deed, words).await,
            }
        }
    }

    fn is(&mut self, right: bool, fault: impl FnOnce() -> String) {
        if !right {
            self.faults.push(fault());
        }
    }

    async fn is_refused(&mut self, what: &'static str, who: Who, deed: &Deed, words: &str) {
        let new = self.refused.insert(what);
        self.is(new, || format!("{what}: another line says the same"));
        let before = self.now().await;
        let answer = self.does(who, deed).await;
        let words = self.text(words);
        match answer {
            Ok(_) => self.is(false, || format!("{what}: done")),
            Err(said) => {
                if std::env::var_os("HALLPASS_TELL").is_some() {
                    println!("{what}\n    {said}");
                }
                self.is(words.split('|').any(|words| said.contains(words)), || {
                    format!("{what}: not refused for {words:?}, but: {said}")
                });
            }
        }
        let after = self.now().await;
        self.is(before == after, || format!("{what}: refused, but it was {before:?} and is {after:?}"));
    }

    async fn makes_a_fresh_one(&mut self, by: Who, spec: Value) {
        if let Err(why) = self.does(by, &Deed::Ask(spec, json!({}))).await {
            panic!("a good request: {why}");
        }
        self.writes_status(json!({"phase": "Pending", "ballot": BALLOT})).await;
    }

    async fn writes_status(&mut self, status: Value) {
        let done = self.does(Operator, &Deed::Sub("status", json!({ "status": status }))).await;
        assert!(done.is_ok(), "the operator writes {status}: {done:?}");
    }

    /// The request at hand, as the API server has it.
    async fn now(&self) -> Option<Value> {
        let (namespace, name) = &self.at_hand;
        let request = Request::new(path(namespace)).get(name, &GetParams::default()).ok()?;
        self.w.admin.request(request).await.ok()
    }

    async fn does(&mut self, who: Who, deed: &Deed) -> Result<Value, String> {
        let client = self.clients[&who].clone();
        let (namespace, name) = self.at_hand.clone();
        let (params, requests) = (PatchParams::default(), Request::new(path(&namespace)));
        let request = match deed {
            Deed::Ask(spec, metadata) => return self.asks(&client, spec, metadata).await,
            Deed::Merge(patch) => requests.patch(&name, &params, &Patch::Merge(self.fill(patch))),
            Deed::Strategic(patch) => requests.patch(&name, &params, &Patch::Strategic(self.fill(patch))),
            Deed::Json(patch) => {
                let patch = serde_json::from_value(self.fill(patch)).expect("a JSON patch");
                requests.patch(&name, &params, &Patch::Json::<()>(patch))
            }
            Deed::Apply(manager, object) => {
                let mut object = self.fill(object);
                object["apiVersion"] = json!("hallpass.dev/v1alpha1");
                object["kind"] = json!("AccessRequest");
                let name = object["metadata"]["name"].as_str().unwrap_or(&name).to_owned();
                requests.patch(&name, &PatchParams::apply(manager).force(), &Patch::Apply(object))
            }
            Deed::Replace(change) => {
                let mut object = self.now().await.expect("it is there");
                merge(&mut object, &self.fill(change));
                requests.replace(&name, &PostParams::default(), object.to_string().into_bytes())
            }
            // It may replace a status, not patch it.
            Deed::Sub(sub, patch) if who == Operator => {
                let object = replacing(self.now().await.expect("it is there"), &self.fill(patch));
                requests.replace_subresource(sub, &name, &PostParams::default(), object)
            }
            Deed::Sub(sub, patch) => requests.patch_subresource(sub, &name, &params, &Patch::Merge(self.fill(patch))),
            Deed::Delete => requests.delete(&name, &DeleteParams::default()),
            Deed::DeleteAll => requests.delete_collection(&DeleteParams::default(), &ListParams::default()),
        };
        client.request(request.expect("a request")).await.map_err(|error| error.to_string())
    }

    /// A good request of Alice, but for this. If it is taken, it is the one at hand.
    async fn asks(&mut self, client: &Client, spec: &Value, metadata: &Value) -> Result<Value, String> {
        let mut object = json!({
            "apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest",
            "metadata": {"name": unique("r"), "namespace": "{ns}"},
            "spec": {"policyName": "{policy}", "requester": "{alice}", "grants": ["admin"], "duration": "2h", "reason": "INC-4711 checkout"},
        });
        merge(&mut object, &json!({"metadata": metadata, "spec": spec}));
        let object = self.fill(&object);
        let namespace = object["metadata"]["namespace"].as_str().expect("a namespace").to_owned();
        let request = Request::new(path(&namespace)).create(&PostParams::default(), object.to_string().into_bytes());
        let created: Value = client.request(request.expect("a request")).await.map_err(|error| error.to_string())?;
        self.at_hand = (namespace, created["metadata"]["name"].as_str().expect("a name").to_owned());
        self.made.insert(self.at_hand.clone());
        Ok(created)
    }

    /// No request is there that was refused, nothing was given to anybody; then takes everything away again.
    pub async fn leaves(self) {
        let w = &self.w;
        let mut found = BTreeSet::new();
        for namespace in &self.namespaces {
            let list = Request::new(path(namespace)).list(&ListParams::default()).expect("a request");
            let list: Value = w.admin.request(list).await.expect("a list");
            for object in list["items"].as_array().expect("items") {
                let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
                let free = json!({"metadata": {"finalizers": null}});
                let free = Request::new(path(namespace)).patch(&name, &PatchParams::default(), &Patch::Merge(free));
                let _: Value = self.clients[&Operator].request(free.expect("a request")).await.expect("no finalizer");
                let gone = Request::new(path(namespace)).delete(&name, &DeleteParams::default()).expect("a request");
                let _: Result<Value, _> = w.admin.request(gone).await;
                found.insert((namespace.clone(), name));
            }
        }
        assert!(found.is_subset(&self.made), "{found:?} are there, and only {:?} were let through", self.made);
        for person in &self.people {
            assert!(!w.keycloak.has(&person.user, &self.role).await, "{} has it", person.username);
        }
        w.does(&["delete", "clusterrolebinding", &self.namespaces[3]]).await;
        for namespace in &self.namespaces[1..] {
            w.does(&["delete", "namespace", namespace, "--wait=false"]).await;
        }
        w.operator("start").await;
        w.clean_up().await;
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n"));
    }
}

fn path(namespace: &str) -> String {
    format!("/apis/hallpass.dev/v1alpha1/namespaces/{namespace}/accessrequests")
}

/// A JSON merge patch.
/// An object with this change.
pub fn replacing(mut object: Value, change: &Value) -> Vec<u8> {
    merge(&mut object, change);
    object.to_string().into_bytes()
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else { return *object = patch.clone() };
    for (key, change) in changes {
        if change.is_null() {
            object.as_object_mut().and_then(|object| object.remove(key));
        } else {
            merge(&mut object[key], change);
        }
    }
}
