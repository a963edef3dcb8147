//! What was measured, and how it is told: a line for each measure while the run goes on, and a report in Markdown and JSON, with charts.

use std::{fmt::Write, fs, path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

/// What a measure is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "1/s")]
    PerSecond,
    MiB,
    KiB,
    #[serde(rename = "")]
    Number,
}

/// What is aimed at, on an idle machine with 2 cores.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Aim {
    AtMost(f64),
    /// The same of the ratio to the reference.
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

/// The values of several rounds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Values(Vec<f64>);

impl FromIterator<f64> for Values {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl Values {
    /// Times in milliseconds.
    pub fn of_times(times: &[Duration]) -> Self {
        times.iter().map(|time| time.as_secs_f64() * 1000.0).collect()
    }

    /// The value that so many in a hundred do not exceed.
    pub fn percentile(&self, percent: usize) -> f64 {
        let last = self.0.len().checked_sub(1).expect("something was measured");
        self.0[(self.0.len() * percent / 100).min(last)]
    }

    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    fn spread(&self) -> String {
        let (first, last) = (self.percentile(0), self.percentile(100));
        if self.0.len() == 1 { String::new() } else { format!(" ({}–{})", number(first), number(last)) }
    }
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    benchmark: &'static str,
    measure: String,
    unit: Unit,
    hallpass: Values,
    median: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<Aim>,
}

/// What Hallpass is compared with.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    what: String,
    values: Values,
    median: f64,
    /// Hallpass's median divided by this one.
    ratio: f64,
}

impl Row {
    pub fn new(benchmark: &'static str, measure: impl Into<String>, unit: Unit, hallpass: Values) -> Self {
        let median = hallpass.median();
        Self { benchmark, measure: measure.into(), unit, median, hallpass, reference: None, aim: None }
    }

    /// The same as somebody else does it.
    pub fn beside(mut self, what: &str, values: Values) -> Self {
        let median = values.median();
        self.reference = Some(Reference { what: what.into(), median, ratio: self.median / median, values });
        self
    }

    pub fn aims(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        self
    }

    /// Whether the aim is reached; nothing if there is none.
    fn is_reached(&self) -> Option<bool> {
        let ratio = self.reference.as_ref().map_or(f64::NAN, |reference| reference.ratio);
        Some(match self.aim? {
            Aim::AtMost(most) => self.median <= most,
            Aim::RatioAtLeast(least) => ratio >= least,
            Aim::RatioAtMost(most) => ratio <= most,
        })
    }

    fn aim_in_words(&self) -> String {
        let words = match self.aim {
            None => return String::new(),
            Some(Aim::AtMost(most)) => format!("≤ {}", number(most)),
            Some(Aim::RatioAtLeast(least)) => format!("ratio ≥ {}", number(least)),
            Some(Aim::RatioAtMost(most)) => format!("ratio ≤ {}", number(most)),
        };
        format!("{words}: {}", if self.is_reached() == Some(true) { "reached" } else { "missed" })
    }

    fn unit(&self) -> &'static str {
        match self.unit {
            Unit::Milliseconds => " ms",
            Unit::Seconds => " s",
            Unit::PerSecond => "/s",
            Unit::MiB => " MiB",
            Unit::KiB => " KiB",
            Unit::Number => "",
        }
    }

    fn cells(&self) -> [String; 5] {
        let value = |values: &Values| format!("{}{}{}", number(values.median()), self.unit(), values.spread());
        let (beside, ratio) = self.reference.as_ref().map_or_else(Default::default, |reference| {
            (format!("{}: {}", reference.what, value(&reference.values)), number(reference.ratio))
        });
        [self.measure.clone(), value(&self.hallpass), beside, ratio, self.aim_in_words()]
    }
}

/// Three digits that matter.
fn number(value: f64) -> String {
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

/// All that was measured, and where.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    started: String,
    machine: String,
    versions: String,
    smoke: bool,
    rows: Vec<Row>,
}

impl Results {
    pub fn new(smoke: bool, versions: String) -> Self {
        Self { started: Timestamp::now().to_string(), machine: machine(), versions, smoke, rows: Vec::new() }
    }

    pub fn add(&mut self, row: Row) {
        let [measure, value, beside, ratio, aim] = row.cells();
        let more = [beside, if ratio.is_empty() { ratio } else { format!("ratio {ratio}") }, aim];
        let more: Vec<String> = more.into_iter().filter(|more| !more.is_empty()).collect();
        println!("{measure}: {value}{}{}", if more.is_empty() { "" } else { "; " }, more.join("; "));
        self.rows.push(row);
    }

    /// Writes the report as it is now.
    pub fn save(&self) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
        fs::create_dir_all(&folder).expect("a folder");
        let file = |end: &str| folder.join(format!("{}.{end}", if self.smoke { "smoke" } else { "report" }));
        let report = serde_json::to_value(self).expect("JSON");
        fs::write(file("json"), serde_json::to_string_pretty(&report).expect("JSON")).expect("a file");
        if !self.smoke {
            for (name, chart) in crate::charts::of(&report) {
                fs::write(folder.join(format!("{name}.svg")), chart).expect("a file");
            }
        }
        fs::write(file("md"), self.markdown()).expect("a file");
        println!("so far: {}", file("md").display());
    }

    fn markdown(&self) -> String {
        let Self { started, machine, versions, smoke, rows } = self;
        let mut text = format!("# Benchmarks\n\n{started}, {machine}; {versions}.\n");
        if *smoke {
            text += "\nA smoke test with small numbers: it says nothing of speed.\n";
        }
        text += "\nMedians, with the least and the greatest of several rounds.\n";
        let mut benchmark = "";
        for row in rows {
            if row.benchmark != benchmark {
                benchmark = row.benchmark;
                let _ = write!(
                    text,
                    "\n## {benchmark}\n\n| measure | Hallpass | beside | ratio | aim |\n|---|---|---|---|---|\n"
                );
            }
            let _ = writeln!(text, "| {} |", row.cells().join(" | "));
        }
        text
    }
}

fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let memory =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    let gib = memory.unwrap_or(0.0_f64) / 1024.0 / 1024.0;
    format!("{cores} cores ({}), {gib:.0} GiB", model.unwrap_or("unknown"))
}
