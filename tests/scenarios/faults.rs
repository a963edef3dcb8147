//! Servers that stop answering, and admission policies that are weakened. Whatever a scenario breaks is whole again when
//! its guard is dropped, however the scenario ends.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use hallpass::guard::OBJECTS;
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

    /// Changes admission policies or CRDs with kubectl as the administrator, until the guard is dropped.
    pub fn weaken(&self, arguments: &[&str]) -> Weakened {
        self.weaken_by(arguments, "")
    }

    /// The same, where kubectl reads this.
    pub fn weaken_by(&self, arguments: &[&str], input: &str) -> Weakened {
        self.is_alone();
        let weakened = Weakened { stack: self.stack.clone(), whole: installed(&self.stack) };
        kubectl(&self.stack, arguments, input);
        weakened
    }

    /// An admission policy, a binding or a CRD as it is, without what only the API server writes.
    pub fn installed(&self, kind: &str, name: &str) -> Value {
        let mut objects = installed(&self.stack).into_iter();
        let found = objects.find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
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

/// Admission policies or CRDs that are not what they should be.
pub struct Weakened {
    stack: Stack,
    whole: Vec<Value>,
}

impl Weakened {
    /// Puts everything back, and waits until the operator believes what is written again.
    pub async fn mended(self, w: &World) {
        let epoch = w.epoch().await;
        drop(self);
        w.another_epoch(epoch.as_ref()).await;
    }
}

impl Drop for Weakened {
    /// What is there gets its spec back; what is not there is made anew.
    fn drop(&mut self) {
        let now = installed(&self.stack);
        for object in &self.whole {
            let same = |other: &&Value| {
                other["kind"] == object["kind"] && other["metadata"]["name"] == object["metadata"]["name"]
            };
            let verb = match now.iter().find(same) {
                Some(live) if live["spec"] == object["spec"] => continue,
                Some(_) => "replace",
                None => "create",
            };
            kubectl(&self.stack, &[verb, "--filename=-"], &object.to_string());
        }
    }
}

/// All that the operator compares, and that is there.
fn installed(stack: &Stack) -> Vec<Value> {
    let objects = OBJECTS.map(|object| object.replace(' ', "/"));
    let mut arguments = vec!["get", "--ignore-not-found", "--output=json"];
    arguments.extend(objects.iter().map(String::as_str));
    let list: Value = serde_json::from_str(&kubectl(stack, &arguments, "")).expect("JSON");
    let mut items = list["items"].as_array().expect("items").clone();
    for object in &mut items {
        for key in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
            object["metadata"].as_object_mut().and_then(|metadata| metadata.remove(key));
        }
    }
    items
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
