//! Every block of YAML in the documentation does what it says: the API server takes the objects, the operator the realms
//! files, the chart the values. Nothing is left behind: objects are only sent as dry runs.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use hallpass::config::Config;
use serde_json::{Value, json};

use crate::documentation::{Block, Sort, blocks, project};

fn stack() -> Value {
    let file = std::env::var("HALLPASS_STACK").expect("HALLPASS_STACK is the stack.json of running servers");
    serde_json::from_str(&fs::read_to_string(file).expect("stack.json")).expect("JSON")
}

/// Runs a tool of the stack with this standard input; panics with what it said unless it succeeds.
fn run(block: &Block, tool: &str, arguments: &[&str], input: &str) {
    let stack = stack();
    let program = stack[tool].as_str().expect("a path in stack.json");
    let mut child = Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", stack["kubeconfig"].as_str().expect("a path in stack.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect(program);
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("standard input");
    let output = child.wait_with_output().expect(program);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}: {tool} {}\n{said}", arguments.join(" "));
}

#[tokio::test]
async fn the_api_server_takes_every_object_of_the_documentation() {
    let mut kinds = Vec::new();
    for block in blocks() {
        let Sort::Object(mut object) = block.sort() else { continue };
        kinds.push(object["kind"].as_str().expect("a kind").to_owned());
        // Under a name of its own: other scenarios may have one of this name.
        if object["metadata"]["name"].is_string() {
            let name = object["metadata"].as_object_mut().expect("metadata").remove("name");
            object["metadata"]["generateName"] =
                json!(format!("{}-", name.as_ref().and_then(Value::as_str).expect("a name")));
        }
        let mut arguments = vec!["create", "--dry-run=server", "--validate=strict", "--filename=-"];
        // A request is taken only from who submits it, or asks.
        let said = |field: &str| object["spec"][field].as_str();
        let caller = said("submittedBy").or(said("requester")).unwrap_or("oidc:alice").to_owned();
        if object["kind"] == "AccessRequest" {
            arguments.extend(["--as", &caller, "--as-group", "oidc:everybody", "--as-group", "oidc:/payments"]);
        }
        run(&block, "kubectl", &arguments, &object.to_string());
    }
    for kind in ["AccessPolicy", "AccessRequest"] {
        assert!(kinds.iter().any(|other| other == kind), "the documentation shows no {kind}");
    }
}

#[tokio::test]
async fn the_chart_takes_all_values_of_the_documentation() {
    let chart = project("charts/hallpass");
    let complete = project("examples/helm-values.yaml");
    let mut found = 0;
    for block in blocks() {
        let Sort::Values(values) = block.sort() else { continue };
        found += 1;
        let mut arguments = vec!["template", "docs", chart.to_str().expect("UTF-8"), "--namespace", "hallpass-system"];
        if values["realms"].is_null() {
            arguments.extend(["--values", complete.to_str().expect("UTF-8")]);
        }
        arguments.extend(["--values", "-"]);
        run(&block, "helm", &arguments, &block.text);
    }
    assert!(found > 0, "the documentation shows no values");
}

#[tokio::test]
async fn the_operator_takes_every_realms_file_of_the_documentation() {
    let folder = std::env::temp_dir().join(format!("hallpass-docs-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("hallpass.yaml");
    let mut found = 0;
    for block in blocks() {
        let Sort::RealmsFile = block.sort() else { continue };
        found += 1;
        fs::write(&file, &block.text).expect("a file");
        let config = Config::load(&file)
            .unwrap_or_else(|error| panic!("{block}: {error}: {:?}", std::error::Error::source(&error)));
        assert!(!config.realms.is_empty(), "{block}");
    }
    fs::remove_dir_all(&folder).expect("removed");
    assert!(found > 0, "the documentation shows no realms file");
}
