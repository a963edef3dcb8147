//! Durations as they are written in specs: `30s`, `1h30m`.

use std::time::Duration;

use jiff::Timestamp;

/// Parses `30s`, `45m`, `1h30m`. `None` if it is anything else or too large.
pub fn parse(text: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut digits = String::new();
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        let number: u64 = digits.parse().ok()?;
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        digits.clear();
    }
    (digits.is_empty() && !text.is_empty()).then(|| Duration::from_secs(seconds))
}

/// Writes a duration in the shortest form that [`parse`] reads.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".into() } else { text }
}

/// `time + duration`, or the end of time.
pub fn later(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Without the fraction of a second: the API stores whole seconds.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (text, seconds) in
            [("5s", 5), ("45m", 2700), ("1h30m", 5400), ("720h", 2_592_000), ("0s", 0), ("1h0m5s", 3605)]
        {
            let parsed = parse(text).expect(text);
            assert_eq!(parsed.as_secs(), seconds, "{text}");
            assert_eq!(parse(&format(parsed)), Some(parsed), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "5", "s", "1d", "-5s", "1.5h", "5 s", "99999999999999999999s", "18446744073709551615h", "٣s"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
