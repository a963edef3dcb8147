//! Who takes part in the random run, what they may be given, and the policies under which they ask.

use kube::Client;
use serde_json::{Value, json};

use crate::{
    keycloak_admin::{Group, Role, unique},
    people::Person,
    world::World,
};

/// Asks.
pub const ALICE: usize = 0;
/// Asks as well, and is one of the leads.
pub const ROB: usize = 1;
/// Approves in stage `lead`, as long as Keycloak has her in the group.
pub const LEA: usize = 2;
/// Approves in stage `security`, as long as Keycloak has him enabled.
pub const SAM: usize = 3;
/// Cluster-admin in the namespace by a `RoleBinding`, and nothing in any policy.
pub const MALLORY: usize = 4;
/// A GitOps controller's service account: cluster-admin in the namespace, and listed nowhere.
pub const ROBOT: usize = 5;
/// `system:masters`.
pub const ADMIN: usize = 6;
/// The account that the operator itself runs under, in the hands of somebody else.
pub const OPERATOR: usize = 7;
/// How many there are.
pub const WRITERS: usize = 8;

/// Requests have these names, over and over.
pub const NAMES: [&str; 10] =
    ["fix-0", "fix-1", "fix-2", "fix-3", "fix-4", "fix-5", "fix-6", "fix-7", "fix-8", "fix-9"];
/// Stages that votes name; the last is in no policy.
pub const STAGES: [&str; 3] = ["lead", "security", "nonsense"];

/// One identity at the API server.
pub struct Writer {
    pub title: &'static str,
    /// As the API server knows it.
    pub username: String,
    pub client: Client,
    /// In Keycloak, if that is a person.
    pub person: Option<Person>,
}

/// Everybody and everything that takes part.
pub struct Cast {
    pub writers: Vec<Writer>,
    pub roles: [Role; 3],
    pub leads: Group,
    /// Names of the two policies: one with two stages, one that is automatic, most of the time.
    pub policies: [String; 2],
}

impl Cast {
    pub async fn gather(w: &World) -> Self {
        let leads = w.keycloak.group(None, &unique("leads")).await;
        let mut writers = Vec::new();
        for title in ["alice", "rob", "lea", "sam", "mallory"] {
            let mut person = w.person(title).await;
            if matches!(title, "rob" | "lea") {
                person = person.in_group(&leads).await;
            }
            let client = person.client().await;
            writers.push(Writer { title, username: person.username.clone(), client, person: Some(person) });
        }
        w.makes_administrator(&writers[MALLORY].username).await;
        let robot = w.robot("flux").await;
        let admin = w.does(&["auth", "whoami", "--output=jsonpath={.status.userInfo.username}"]).await;
        let operator = "system:serviceaccount:hallpass-system:hallpass".to_owned();
        for (title, username, client) in [
            ("robot", robot.username, robot.client),
            ("admin", admin, w.admin.clone()),
            ("operator's account", operator, w.operator_account().await),
        ] {
            writers.push(Writer { title, username, client, person: None });
        }
        let roles = [
            w.keycloak.realm_role("adversary-a").await,
            w.keycloak.realm_role("adversary-b").await,
            w.keycloak.realm_role("adversary-c").await,
        ];
        let policies = [unique("two"), unique("one")];
        let cast = Self { writers, roles, leads, policies };
        for policy in 0..cast.policies.len() {
            let mut builder = w.policy("adversary").named(&cast.policies[policy]);
            builder.spec = cast.spec(policy, 0);
            builder.ready().await;
        }
        cast
    }

    /// The identity with this username.
    pub fn known(&self, username: &str) -> Option<usize> {
        self.writers.iter().position(|writer| writer.username == username)
    }

    /// What a policy says in one of its variations; some are the normal one, so that requests get through.
    pub fn spec(&self, policy: usize, variation: u64) -> Value {
        let user = |who: usize| json!({"kind": "User", "name": self.writers[who].username});
        let leads = json!({"kind": "Group", "name": format!("oidc:{}", self.leads.path)});
        let stage = |name: &str, required: u8, approvers: &[Value]| json!({"name": name, "required": required, "approvers": approvers});
        let stages = |list: &[Value]| json!({"timeout": "30s", "stages": list});
        let automatic = json!({"timeout": "30s", "automatic": true});
        let grant = |name: &str, role: usize| json!({"name": name, "realmRole": self.roles[role].name});
        let (lead, security) = (stage("lead", 1, std::slice::from_ref(&leads)), stage("security", 1, &[user(SAM)]));
        let mut spec = json!({"realm": "prod", "duration": {"default": "5s", "max": "10s"}});
        spec["requesters"] = json!([user(ALICE), user(ROB)]);
        if policy == 0 {
            spec["grants"] = json!([grant("a", 0)]);
            spec["approval"] = stages(&[lead.clone(), security.clone()]);
        } else {
            spec["grants"] = json!([grant("c", 2)]);
            spec["approval"] = automatic.clone();
        }
        match (policy, variation) {
            (0, 5) => spec["approval"] = stages(&[stage("lead", 2, &[leads]), security]),
            (0, 6) => spec["approval"] = stages(&[stage("lead", 1, &[user(ROB)]), security]),
            (0, 7) => spec["approval"] = stages(&[lead, stage("security", 1, &[user(SAM), user(ROB)])]),
            (0, 9) => spec["grants"] = json!([grant("a", 0), grant("b", 1)]),
            (0, 10) => spec["approval"] = automatic,
            (0, 8) | (1, 5) => spec["approval"] = stages(&[lead]),
            (1, 6) => spec["approval"] = stages(&[security]),
            (1, 7) => spec["duration"]["max"] = json!("6s"),
            (1, 8) => spec["grants"] = json!([grant("c", 1)]),
            (_, 11) => spec["suspended"] = json!(true),
            (_, 12) => spec["requesters"] = json!([user(ROB)]),
            _ => {}
        }
        spec
    }
}
