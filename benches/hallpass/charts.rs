//! A chart of each benchmark: a pair of bars for each measure that has a reference, Hallpass above it. Made from the report in JSON.

use std::fmt::Write;

use serde_json::Value;

const WIDTH: f64 = 860.0;
/// Where bars begin and the longest one ends.
const BARS: (f64, f64) = (20.0, 600.0);
const ROW: f64 = 78.0;
const HEAD: f64 = 46.0;

/// The benchmarks of a report that have a reference, each with its chart as SVG.
pub fn of(report: &Value) -> Vec<(String, String)> {
    let rows: Vec<&Value> = report["rows"].as_array().into_iter().flatten().collect();
    let compared = |row: &&&Value| row["reference"].is_object();
    let mut names: Vec<&str> = rows.iter().filter(compared).filter_map(|row| row["benchmark"].as_str()).collect();
    names.dedup();
    let chart = |name: &str| {
        let of_it: Vec<&Value> = rows.iter().filter(compared).filter(|row| row["benchmark"] == name).copied().collect();
        (name.replace(' ', "-").to_lowercase(), chart(name, report, &of_it))
    };
    names.into_iter().map(chart).collect()
}

fn chart(name: &str, report: &Value, rows: &[&Value]) -> String {
    let height = HEAD + ROW * rows.len() as f64 + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut line = |text: String| svg.push_str(&(text + "\n"));
    line(format!("<text x=\"{}\" y=\"26\" font-size=\"17\" font-weight=\"bold\">{}</text>", BARS.0, escaped(name)));
    for (i, row) in rows.iter().enumerate() {
        let top = HEAD + ROW * i as f64;
        let (ours, theirs) = (number(&row["median"]), number(&row["reference"]["median"]));
        let most = ours.max(theirs).max(f64::MIN_POSITIVE);
        let unit = row["unit"].as_str().unwrap_or_default();
        line(format!("<text x=\"{}\" y=\"{}\">{}</text>", BARS.0, top + 12.0, text(&row["measure"])));
        for (j, (value, words, colour)) in [
            (ours, format!("Hallpass {}", amount(ours, unit)), "#1f6feb"),
            (theirs, format!("{} {}", text(&row["reference"]["what"]), amount(theirs, unit)), "#b6bec9"),
        ]
        .into_iter()
        .enumerate()
        {
            let y = top + 20.0 + 22.0 * j as f64;
            let long = (BARS.1 - BARS.0) * 0.75 * value / most;
            line(format!(
                "<rect x=\"{}\" y=\"{y}\" width=\"{long:.1}\" height=\"18\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"12\">{words}</text>",
                BARS.0,
                BARS.0 + long + 6.0,
                y + 13.0
            ));
        }
    }
    line(format!(
        "<text x=\"{}\" y=\"{}\" font-size=\"11\" fill=\"#666\">{}; {}</text>\n</svg>",
        BARS.0,
        height - 10.0,
        text(&report["versions"]),
        text(&report["machine"])
    ));
    svg
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn amount(value: f64, unit: &str) -> String {
    let mut text = String::new();
    let _ = if value >= 100.0 { write!(text, "{value:.0}") } else { write!(text, "{value:.2}") };
    match unit {
        "1/s" => text + "/s",
        _ => format!("{text} {unit}").trim_end().to_owned(),
    }
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
