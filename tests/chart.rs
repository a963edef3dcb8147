//! The chart and the examples say what the code says. Needs no servers.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use hallpass::api::{AccessPolicy, AccessRequest, crds};
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
fn the_charts_crds_are_what_the_code_says() {
    for crd in crds() {
        let file = format!("charts/hallpass/files/crds/{}.yaml", crd.spec.names.plural);
        let generated = serde_saphyr::to_string(&crd).expect("YAML");
        assert!(
            generated == read(&file),
            "{file} is stale: run  cargo run --bin crdgen charts/hallpass/files/crds  and commit what it writes"
        );
    }
}

#[test]
fn the_chart_has_the_version_of_the_crate() {
    let chart = &documents(&read("charts/hallpass/Chart.yaml"))[0];
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

/// The names of all values that the chart takes.
fn names<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    for (name, of_it) in schema["properties"].as_object().into_iter().flatten() {
        found.push(name);
        names(of_it, found);
    }
    for part in schema
        .get("items")
        .into_iter()
        .chain(schema["definitions"].as_object().into_iter().flat_map(|all| all.values()))
    {
        names(part, found);
    }
}

/// That `values.yaml` fits the schema is tested at each rendering.
#[test]
fn each_value_that_the_schema_takes_is_in_the_values_file() {
    let schema: Value = serde_json::from_str(&read("charts/hallpass/values.schema.json")).expect("JSON");
    let (values, mut taken) = (read("charts/hallpass/values.yaml"), Vec::new());
    names(&schema, &mut taken);
    assert!(taken.len() > 50, "{taken:?}");
    // Helm's own, for charts of which this is a part.
    taken.retain(|name| *name != "global");
    let missing: Vec<_> = taken.iter().filter(|name| !values.contains(&format!("{name}:"))).collect();
    assert!(missing.is_empty(), "values.yaml says nothing of {missing:?}");
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

/// What the chart's README says before the values.
const ABOUT: &str = "\
# Hallpass

Just-in-time access in Keycloak: a person asks with an `AccessRequest`, an `AccessPolicy` says who must agree, the operator maps the
role for a while and takes it away. This chart installs the operator, its two kinds and the admission policies without which nothing is
given. There can be one in a cluster.

Needed: Kubernetes 1.32 or newer whose API server takes Keycloak's tokens, Keycloak 26.4 or newer, and a
[client](../../README.md#1-the-client-in-keycloak) in each realm.

```console
$ helm install hallpass charts/hallpass --namespace hallpass-system --create-namespace --values values.yaml
$ helm upgrade hallpass charts/hallpass --namespace hallpass-system --values values.yaml      # brings CRDs and admission policies up to date
$ helm uninstall hallpass --namespace hallpass-system                                         # first ends all that is lent
```

[Step by step](../../README.md#install-it-beside-your-own-keycloak), [in full](../../docs/configuration.md#the-charts-values),
[uninstalling](../../docs/configuration.md#uninstalling).

## Values

At least one realm is needed. What the chart does not know it refuses. (This part is made from `values.yaml`.)
";

/// The chart's README: each block of `values.yaml`, below the names of its values.
fn readme() -> String {
    let values = read("charts/hallpass/values.yaml");
    let name = |line: &str| line.split_once(':').map(|(name, _)| format!("`{name}`"));
    let sections = values.split("\n\n").skip(1).map(|block| {
        let names: Vec<_> =
            block.lines().filter(|line| line.starts_with(char::is_alphabetic)).filter_map(name).collect();
        format!("\n### {}\n\n```yaml\n{}\n```\n", names.join(", "), block.trim_end())
    });
    [ABOUT.to_owned()].into_iter().chain(sections).collect()
}

#[test]
fn the_charts_readme_is_what_its_values_say() {
    let file = "charts/hallpass/README.md";
    if std::env::var_os("HALLPASS_WRITE").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), readme()).expect("a file");
    }
    assert!(
        readme() == read(file),
        "{file} is stale: run  HALLPASS_WRITE=1 cargo test --test chart  and commit what it writes"
    );
}
