//! The documentation says what the code says. Needs no servers; `tests/scenarios/docs.rs` sends its YAML to some.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::CommandFactory;
use hallpass::{
    api::{AccessPolicy, AccessRequest, EndReason, Phase, crds},
    args::Arguments,
    keycloak::Observer,
    metrics::{Metrics, Snapshot},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use regex::Regex;
use serde_json::Value;

mod documentation;

use documentation::{Sort, blocks, files, project, read};

/// All that the pattern's first group matches.
fn all(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).expect("a regular expression");
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// How GitHub names a heading in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    for file in files() {
        for link in all(r"\]\(([^)\s]+)\)", &prose(&read(&file))) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                PathBuf::from(&file)
            } else {
                Path::new(&file).parent().expect("a folder").join(path)
            };
            assert!(project(&target).exists(), "{file}: {link}: there is no {}", target.display());
            if !heading.is_empty() {
                let headings = all(r"(?m)^#+ (.*)$", &prose(&read(&target)));
                assert!(headings.iter().any(|other| anchor(other) == heading), "{file}: {link}: no such heading");
            }
        }
    }
}

#[test]
fn every_block_of_yaml_is_an_object_a_realms_file_or_values() {
    for block in blocks() {
        let Sort::Object(object) = block.sort() else { continue };
        let same = match object["kind"].as_str() {
            Some("AccessPolicy") => {
                serde_json::from_value(object.clone()).map(|policy: AccessPolicy| serde_json::to_value(policy.spec))
            }
            Some("AccessRequest") => {
                serde_json::from_value(object.clone()).map(|request: AccessRequest| serde_json::to_value(request.spec))
            }
            _ => continue,
        };
        // A field that the types do not know would be lost.
        let same = same.and_then(|spec| spec).unwrap_or_else(|error| panic!("{block}: {error}"));
        assert_eq!(same, object["spec"], "{block}");
    }
}

/// The paths of all fields below this one, as `stages[].name`.
fn fields(schema: &JSONSchemaProps, path: &str, found: &mut BTreeSet<String>) {
    if path == "conditions" {
        return;
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        fields(item, &format!("{path}[]"), found);
    }
    for (name, field) in schema.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        fields(field, &path, found);
        found.insert(path);
    }
}

#[test]
fn every_field_is_documented() {
    for (crd, file) in crds().iter().zip(["docs/policies.md", "docs/requests.md"]) {
        let text = read(file);
        let schema = crd.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let parts = schema.and_then(|schema| schema.properties.as_ref()).expect("a schema");
        let mut found = BTreeSet::new();
        fields(&parts["spec"], "", &mut found);
        fields(&parts["status"], "", &mut found);
        assert!(found.len() > 20, "{found:?}");
        let missing: Vec<_> = found.iter().filter(|field| !text.contains(&format!("`{field}`"))).collect();
        assert!(missing.is_empty(), "{file} does not mention {missing:?}");
    }
}

#[test]
fn every_phase_and_reason_is_documented_and_no_other() {
    let word = r#""([A-Z][a-z]+(?:[A-Z][a-z]+)*)""#;
    let mut of_requests = BTreeSet::new();
    let files = ["", "/waiting", "/gate", "/drift", "/live", "/ending", "/sessions", "/forged"]
        .map(|file| format!("domain/decide{file}.rs"));
    for file in files {
        of_requests.extend(all(word, &read(Path::new("src").join(file))));
    }
    let ends = [
        EndReason::Expired,
        EndReason::Ended,
        EndReason::Deleted,
        EndReason::PolicyDeleted,
        EndReason::PolicySuspended,
        EndReason::StatusForged,
    ];
    of_requests.extend(ends.map(|reason| reason.as_str().to_owned()));
    let mut of_policies = all(word, &read("src/domain/policy.rs"));
    of_policies.extend(all(word, &read("src/controller/policies.rs")));
    for (file, reasons) in [("docs/requests.md", of_requests), ("docs/policies.md", of_policies)] {
        let text = read(file);
        let table = text.split("| reason |").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a table");
        let documented = all(r"(?m)^\| `(\w+)`", table);
        assert_eq!(documented, reasons, "{file} (left) and the source (right)");
    }
    let requests = read("docs/requests.md");
    for phase in Phase::ALL {
        assert!(requests.contains(&format!("| `{}` |", phase.as_str())), "docs/requests.md: {}", phase.as_str());
    }
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let metrics = Metrics::default();
    metrics.reconciled("request", "");
    metrics.call("users", "Ok", 0.1);
    let snapshot = Snapshot { realms: vec![("prod".into(), true)], ..Snapshot::default() };
    let text = metrics.text(&snapshot).expect("metrics");
    let mut real = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        real.insert(if kind == "counter" { format!("{name}_total") } else { name.to_owned() });
    }
    let documentation: String = files().iter().map(read).collect();
    let named = all(r"\b(hallpass_[a-z_]+)", &documentation).into_iter().map(|name| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        base.map_or(name.clone(), ToOwned::to_owned)
    });
    assert_eq!(named.collect::<BTreeSet<_>>(), real, "the documentation (left) and /metrics (right)");
}

#[test]
fn every_flag_and_variable_is_documented_and_no_other() {
    let text = read("docs/configuration.md");
    let command = Arguments::command();
    let commands = ["run", "check", "keycloak-setup", "drain"].map(|name| command.find_subcommand(name).expect(name));
    let flags = commands.into_iter().flat_map(clap::Command::get_arguments).filter(|flag| flag.get_id() != "help");
    let (mut long, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for flag in flags {
        long.insert(flag.get_long().expect("a long name").to_owned());
        variables.extend(flag.get_env().map(|name| name.to_str().expect("UTF-8").to_owned()));
    }
    assert_eq!(all(r"(?m)^\| `--([a-z-]+)`", &text), long, "docs/configuration.md (left) and the flags (right)");
    for variable in variables {
        assert!(text.contains(&format!("| `{variable}` |")), "docs/configuration.md: {variable}");
    }
}

#[test]
fn every_flag_of_the_report_is_documented() {
    let text = read("docs/standing.md");
    let command = Arguments::command();
    let report = command.find_subcommand("report").and_then(|report| report.find_subcommand("standing"));
    for flag in report.expect("report standing").get_arguments().filter(|flag| flag.get_id() != "help") {
        let name = flag.get_long().expect("a long name");
        assert!(text.contains(&format!("| `--{name}`")), "docs/standing.md: --{name}");
    }
}

#[test]
fn every_value_of_the_chart_is_documented() {
    let text = read("docs/configuration.md");
    let values: Value = serde_saphyr::from_str(&read("charts/hallpass/values.yaml")).expect("YAML");
    for (name, value) in values.as_object().expect("a mapping") {
        let inner = value.as_object().into_iter().flatten().map(|(key, _)| format!("`{name}.{key}`"));
        let mut names: Vec<String> = inner.filter(|_| name != "resources").collect();
        if names.is_empty() {
            names.push(format!("`{name}`"));
        }
        for name in names {
            assert!(text.contains(&name), "docs/configuration.md does not mention {name}");
        }
    }
}

#[test]
fn every_target_of_make_exists() {
    let makefile = read("Makefile");
    for file in files() {
        for target in all(r"(?m)(?:`|^    |\$ )make ([a-z-]+)", &read(&file)) {
            assert!(makefile.contains(&format!("\n{target}:")), "{file}: make {target}");
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let mut sources = String::new();
    for folder in ["tests/scenarios", "tests/domain", "tests/keycloak_client"] {
        for entry in fs::read_dir(project(folder)).expect("a folder") {
            sources.push_str(&read(entry.expect("an entry").path()));
        }
    }
    let text = read("docs/security.md");
    let table = text.split("| who tries |").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a table");
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert!(rows.len() > 20, "{rows:#?}");
    for row in rows {
        let named = all(r"`(\w+)`", row.rsplit('|').nth(1).expect("a last column"));
        assert!(!named.is_empty(), "no test shows: {row}");
        let missing: Vec<_> = named.iter().filter(|test| !sources.contains(&format!("fn {test}()"))).collect();
        assert!(missing.is_empty(), "there is no test {missing:?}: {row}");
    }
}

/// Said by kubectl, the API server, Keycloak or the system.
const FOREIGN: [&str; 9] = [
    "cannot create resource",
    "unchanged",
    "failed to find resource referenced by paramKind",
    "--overwrite is false",
    "no such file or directory",
    "401 unauthorized_client",
    "404 Realm does not exist",
    "invalid peer certificate",
    "connection refused",
];

/// Everything that the code and the chart can say, without line breaks and escapes.
fn said() -> String {
    let mut text = String::new();
    let mut folders =
        vec![project("src"), project("charts/hallpass/files/admission"), project("charts/hallpass/templates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text.push_str(&read(path));
            }
        }
    }
    let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "\\").collect();
    words.join(" ").replace("\\\"", "\"").replace(" + ", " ")
}

#[test]
fn every_message_in_troubleshooting_is_one_that_is_said() {
    let said = said();
    let (mut checked, mut unknown) = (0, Vec::new());
    for row in read("docs/troubleshooting.md").lines().filter(|line| line.starts_with("| `")) {
        let messages = row.split(" | ").next().expect("a column");
        for message in all(r"`([^`]+)`", messages) {
            if FOREIGN.iter().any(|foreign| message.contains(foreign)) {
                continue;
            }
            let parts = message.split('…').map(|part| part.trim_matches([' ', ':', ';', ',', '(', ')']));
            for part in parts.filter(|part| part.len() >= 8) {
                checked += 1;
                if !said.contains(part) {
                    unknown.push(part.to_owned());
                }
            }
        }
    }
    assert!(unknown.is_empty(), "docs/troubleshooting.md has what nothing says: {unknown:#?}");
    assert!(checked > 50, "{checked}");
}
