//! Servers that stop answering, and admission policies that are weakened. Whatever a scenario breaks is whole again when
//! its guard is dropped, however the scenario ends.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::world::{Stack, World};

/// A server of the stack that hangs: its connections stay open, and nothing is answered.
pub struct Hanging {
    pid: String,
}

impl World {
    /// Lets a server of this stack hang, as `keycloak` or `kube-apiserver`.
    pub fn hang(&self, server: &str) -> Hanging {
        self.is_alone();
        let state = self.stack.dev.parent().and_then(Path::parent).expect("the stack's folder");
        let record = state.join("run").join(format!("{server}.json"));
        let record = fs::read(&record).unwrap_or_else(|error| panic!("{}: {error}", record.display()));
        let record: Value = serde_json::from_slice(&record).expect("JSON");
        let hanging = Hanging { pid: record["pid"].as_u64().expect("a process").to_string() };
        hanging.signal("-STOP");
        hanging
    }

    /// Changes the admission policies with kubectl as the administrator, until the guard is dropped.
    pub fn weaken(&self, arguments: &[&str]) -> Weakened {
        self.is_alone();
        let get = ["get", BINDINGS_AND_POLICIES, NAMES[0], NAMES[1], "--output=json"];
        let whole: Value = serde_json::from_str(&kubectl(&self.stack, &get, "")).expect("JSON");
        let weakened = Weakened { stack: self.stack.clone(), whole };
        kubectl(&self.stack, arguments, "");
        weakened
    }
}

impl Hanging {
    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.pid]).status();
        assert!(done.is_ok_and(|done| done.success()), "kill {signal} {}", self.pid);
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

const BINDINGS_AND_POLICIES: &str = "validatingadmissionpolicies,validatingadmissionpolicybindings";
const NAMES: [&str; 2] = ["hallpass-identity", "hallpass-policy"];

/// Admission policies that are not what they should be.
pub struct Weakened {
    stack: Stack,
    whole: Value,
}

impl Drop for Weakened {
    /// What is there gets its spec back; what is not there is made anew.
    fn drop(&mut self) {
        for object in self.whole["items"].as_array_mut().into_iter().flatten() {
            for key in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
                object["metadata"].as_object_mut().and_then(|metadata| metadata.remove(key));
            }
            let live = format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]));
            let there = !kubectl(&self.stack, &["get", &live, "--ignore-not-found", "--output=name"], "").is_empty();
            let verb = if there { "replace" } else { "create" };
            kubectl(&self.stack, &[verb, "--filename=-"], &object.to_string());
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// kubectl as the administrator, which must succeed; what it wrote.
fn kubectl(stack: &Stack, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(&stack.kubectl)
        .env("KUBECONFIG", &stack.kubeconfig)
        .args(["--context", "admin"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("kubectl runs");
    assert!(output.status.success(), "kubectl {arguments:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
