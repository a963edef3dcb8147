//! The operator as a process: what it holds, what it has used, and what it says of its calls.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::world::Stack;

/// Ticks of a processor's time in a second (Linux, `USER_HZ`).
const TICKS: f64 = 100.0;

/// The running operator of the stack.
pub struct Process {
    folder: PathBuf,
}

impl Process {
    pub fn of(stack: &Stack) -> Self {
        let file = stack.operator.config.with_file_name("run").join("hallpass.json");
        let process: Value = serde_json::from_slice(&fs::read(&file).expect("the operator runs")).expect("JSON");
        Self { folder: PathBuf::from(format!("/proc/{}", process["pid"])) }
    }

    fn status(&self, key: &str) -> f64 {
        let text = fs::read_to_string(self.folder.join("status")).expect("the operator runs");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("Linux says it");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().expect("a number")
    }

    /// Resident memory in MiB.
    pub fn resident(&self) -> f64 {
        self.status("VmRSS") / 1024.0
    }

    /// The most that was resident since the start, in MiB.
    pub fn peak(&self) -> f64 {
        self.status("VmHWM") / 1024.0
    }

    /// The processor's time that was used since the start.
    pub fn used(&self) -> Duration {
        let text = fs::read_to_string(self.folder.join("stat")).expect("the operator runs");
        // What comes before is its name, which may have anything in it.
        let (_, rest) = text.rsplit_once(')').expect("a name");
        let ticks = rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
        Duration::from_secs_f64(ticks.sum::<f64>() / TICKS)
    }
}

/// How many calls to Keycloak the operator has counted since its start.
pub async fn calls_to_keycloak(stack: &Stack) -> f64 {
    let (_, text) = stack.ask_operator("/metrics").await.expect("the operator answers");
    let count =
        |line: &str| line.strip_prefix("hallpass_keycloak_call_seconds_count")?.rsplit(' ').next()?.parse::<f64>().ok();
    text.lines().filter_map(count).sum::<f64>()
}

/// How many requests of the operator are in the API server's audit log.
pub fn calls_to_api_server(stack: &Stack) -> usize {
    let text = fs::read(&stack.audit_log).expect("an audit log");
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| line.contains("\"userAgent\":\"hallpass/") && !line.contains("RequestReceived")).count()
}
