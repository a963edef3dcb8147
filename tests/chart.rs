//! The chart and the examples say what the code says. Needs no servers.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use hallpass::api::{AccessPolicy, AccessRequest};
use serde_json::Value;

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).expect("YAML")
}

#[test]
fn the_chart_has_the_version_of_the_crate() {
    let chart = &documents(&read("charts/hallpass/Chart.yaml"))[0];
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn each_admission_file_holds_a_policy_and_its_binding() {
    let files = files("charts/hallpass/files/admission");
    assert_eq!(files.len(), 3, "{files:?}: guard and templates/admission.yaml know three");
    for file in files {
        let name = format!("hallpass-{}", file.file_stem().and_then(|stem| stem.to_str()).expect("a name"));
        let found = documents(&read(&file));
        let [policy, binding] = found.as_slice() else { panic!("{}: not two objects", file.display()) };
        assert_eq!(policy["metadata"]["name"], *name);
        assert_eq!(binding["metadata"]["name"], *name);
        assert_eq!(binding["spec"]["policyName"], *name);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{name}");
    }
}

/// Whether the values file still fits the chart, and the objects the API server, is tested where those are.
#[test]
fn the_examples_are_complete_objects_of_our_kinds() {
    for file in files("examples").iter().filter(|file| !file.ends_with("helm-values.yaml")) {
        for document in documents(&read(file)) {
            let kind = document["kind"].as_str().expect("a kind");
            let same = match kind {
                "AccessPolicy" => serde_json::from_value(document.clone())
                    .map(|policy: AccessPolicy| serde_json::to_value(policy.spec)),
                "AccessRequest" => serde_json::from_value(document.clone())
                    .map(|request: AccessRequest| serde_json::to_value(request.spec)),
                "Namespace" => continue,
                other => panic!("{}: kind {other}", file.display()),
            };
            // A field that the types do not know would be lost.
            let same = same.and_then(|spec| spec).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(same, document["spec"], "{}", file.display());
        }
    }
}

/// A variable that is not there shows on a real API server only.
#[test]
fn every_variable_of_an_admission_policy_is_declared_above_its_use() {
    let used = regex::Regex::new(r"variables\.(\w+)").expect("a regular expression");
    for file in files("charts/hallpass/files/admission") {
        for policy in documents(&read(file)).iter().filter(|object| object["spec"]["variables"].is_array()) {
            let mut declared: Vec<&str> = Vec::new();
            let check = |text: &str, declared: &[&str]| {
                for found in used.captures_iter(text) {
                    assert!(declared.contains(&&found[1]), "{}: {}", policy["metadata"]["name"], &found[0]);
                }
            };
            for variable in policy["spec"]["variables"].as_array().expect("a list") {
                check(variable["expression"].as_str().expect("text"), &declared);
                declared.push(variable["name"].as_str().expect("text"));
            }
            for part in ["validations", "mutations", "auditAnnotations"] {
                // As JSON it has escapes, and the same names.
                check(&policy["spec"][part].to_string(), &declared);
            }
        }
    }
}
