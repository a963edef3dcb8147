//! The operator's rights at the API server are those that it uses. What it uses says the audit log, when all other scenarios have
//! run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader},
};

use serde_json::Value;

use crate::{
    chart::{example, find, rendered},
    world::Stack,
};

/// As the chart's example installs it in the development stack.
const OPERATOR: &str = "system:serviceaccount:hallpass-system:hallpass";
/// Scenarios that try what the operator's account may not do do not say this.
const USER_AGENT: &str = "hallpass/";

/// What somebody may do, or has done: "get secrets hallpass-seal".
type Right = String;

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text"))
}

/// What the chart gives, each verb of each object by itself; and of which resources it names the objects.
fn given() -> (BTreeSet<Right>, BTreeSet<String>) {
    let objects = rendered(&example("helm-values.yaml"), &[]);
    let (mut given, mut by_name) = (BTreeSet::new(), BTreeSet::new());
    for kind in ["ClusterRole", "Role"] {
        let rules = &find(&objects, kind, "hallpass")["rules"];
        for rule in rules.as_array().expect("rules") {
            for (group, resource) in
                texts(&rule["apiGroups"]).flat_map(|group| texts(&rule["resources"]).map(move |one| (group, one)))
            {
                for verb in texts(&rule["verbs"]) {
                    let right = format!("{verb} {resource}.{group}");
                    for name in texts(&rule["resourceNames"]) {
                        given.insert(format!("{right} {name}"));
                        by_name.insert(right.clone());
                    }
                    if rule["resourceNames"].is_null() {
                        given.insert(right);
                    }
                }
            }
        }
    }
    (given, by_name)
}

/// The lines of the audit log, and of what the API server has put aside of it.
fn audited() -> impl Iterator<Item = String> {
    let log = Stack::load().audit_log;
    let files = fs::read_dir(log.parent().expect("a folder")).expect("the logs");
    let files = files.map(|file| file.expect("a file").path());
    let files = files.filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit")));
    files.flat_map(|file| BufReader::new(File::open(file).expect("a log")).lines()).map(|line| line.expect("a line"))
}

/// What the operator has asked for, and how often: what it was allowed and what it was refused.
fn asked(by_name: &BTreeSet<String>) -> [BTreeMap<Right, usize>; 2] {
    let mut asked = [BTreeMap::new(), BTreeMap::new()];
    for line in audited().filter(|line| line.contains(OPERATOR)) {
        let event: Value = serde_json::from_str(&line).expect("JSON");
        let is_operator = event["userAgent"].as_str().is_some_and(|agent| agent.starts_with(USER_AGENT));
        if event["user"]["username"] != OPERATOR || !is_operator {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let mut resource = text(&object["resource"]);
        if let Some(subresource) = object["subresource"].as_str() {
            resource = format!("{resource}/{subresource}");
        }
        let right = format!("{} {resource}.{}", text(&event["verb"]), text(&object["apiGroup"]));
        let right = if by_name.contains(&right) { format!("{right} {}", text(&object["name"])) } else { right };
        let refused = event["annotations"]["authorization.k8s.io/decision"] != "allow";
        *asked[usize::from(refused)].entry(right).or_default() += 1;
    }
    asked
}

#[test]
#[ignore = "when all others have run: dev/scenarios"]
fn the_chart_gives_the_operator_exactly_the_rights_that_it_uses() {
    let (given, by_name) = given();
    let [mut used, refused] = asked(&by_name);
    // Everybody who is signed in may.
    used.remove("create selfsubjectreviews.authentication.k8s.io").expect("it asks who it is");
    println!("{used:#?}");
    // Some scenarios take away what the chart gives.
    let never_given: Vec<_> = refused.iter().filter(|(right, _)| !given.contains(*right)).collect();
    assert!(never_given.is_empty(), "{never_given:#?}");
    let used: BTreeSet<Right> = used.into_keys().collect();
    let unused: Vec<_> = given.difference(&used).collect();
    let not_given: Vec<_> = used.difference(&given).collect();
    assert!(
        unused.is_empty() && not_given.is_empty(),
        "given and not used: {unused:#?}; used and not given: {not_given:#?}"
    );
}
