//! What one grant costs in realms of different sizes.

use std::{fmt::Write, fs, time::Duration};

use reqwest::Method;
use serde_json::json;

use crate::{
    crowd::Crowd,
    keycloak_admin::Admin,
    results::{Aim, Row, Unit, Values},
    scene::create_to_mapped,
    stage::Stage,
};

const NAME: &str = "realm size";
/// So many users are imported in one call. By 5,000 a hundred thousand had not come in after ten minutes.
const IN_ONE_CALL: usize = 200;

pub async fn run(stage: &mut Stage) {
    let (sizes, times) = (stage.sizes(&[100, 10_000, 100_000], &[10, 20]), stage.size(20, 1));
    let config = &stage.w.stack.operator.config.clone();
    let before = fs::read_to_string(config).expect("the operator's configuration");
    let secret = config.with_file_name("secrets").join("hallpass-client");
    let secret = fs::read_to_string(secret).expect("a secret");
    let mut text = before.clone();
    let mut realms = Vec::new();
    for size in &sizes {
        let name = format!("size-{size}");
        let admin = Admin::of_realm(&name);
        admin.delete_realm().await;
        admin.make_realm("hallpass", secret.trim()).await;
        fill(&admin, *size).await;
        let first = before.lines().skip_while(|line| !line.starts_with("- name:"));
        for line in first.take_while(|line| !line.is_empty()) {
            let line =
                line.replace("name: prod", &format!("name: {name}")).replace("realm: acme", &format!("realm: {name}"));
            let _ = writeln!(text, "{line}");
        }
        realms.push((name, admin));
    }
    fs::write(config, text).expect("the operator's configuration");
    stage.starts().await;
    for who in ["few", "many"] {
        let mut smallest: Option<Values> = None;
        for (size, (realm, admin)) in sizes.iter().zip(&realms) {
            let times = of_one_grant(stage, realm, admin, who == "many", times).await;
            let row = Row::new(
                NAME,
                format!("{size} users, role of {who}: create to mapped"),
                Unit::Milliseconds,
                times.clone(),
            );
            let row = match &smallest {
                Some(smallest) => row.beside("the smallest realm", smallest.clone()).aims(Aim::RatioAtMost(1.1)),
                None => row,
            };
            stage.add(row);
            smallest.get_or_insert(times);
        }
    }
    stage.clear().await;
    fs::write(config, before).expect("the operator's configuration");
    stage.starts().await;
    for (_, admin) in &realms {
        admin.delete_realm().await;
    }
}

/// Users without passwords, who have the default roles.
async fn fill(admin: &Admin, size: usize) {
    let all: Vec<usize> = (0..size).collect();
    for some in all.chunks(IN_ONE_CALL) {
        let users: Vec<_> =
            some.iter().map(|i| json!({"username": format!("somebody-{i}"), "enabled": true})).collect();
        let users = json!({"ifResourceExists": "FAIL", "users": users});
        admin.call(Method::POST, "partialImport", Some(&users)).await;
    }
}

async fn of_one_grant(stage: &Stage, realm: &str, admin: &Admin, many: bool, times: usize) -> Values {
    let w = &stage.w;
    let role = admin.realm_role("size").await;
    if many {
        // Each new user has it, so each of another crowd.
        let users: Vec<_> = (0..stage.size(1000, 3))
            .map(|i| json!({"username": format!("{}-{i}", role.name), "enabled": true, "realmRoles": [role.name]}))
            .collect();
        admin.call(Method::POST, "partialImport", Some(&json!({"ifResourceExists": "FAIL", "users": users}))).await;
    }
    let policy = w.policy("size").realm(realm).realm_role("role", &role.name).everybody().automatic().ready().await;
    let crowd = Crowd::of(admin, times).await;
    let mut took = Vec::new();
    for i in 0..times {
        took.push(create_to_mapped(stage, admin, &policy, &crowd, i).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Values::of_times(&took)
}
