//! Durations and sizes as docker and podman tell them ("About an hour ago", "7.65 MB").

use std::time::{Duration, SystemTime};

/// "3 seconds", "About a minute", "2 weeks": the steps are docker's.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a moment was: "2 minutes ago". A moment in the future (a clock was set back) counts as now.
pub fn ago(moment: SystemTime) -> String {
    format!("{} ago", since(moment))
}

/// The same without the word: "Up " + `since(started)`.
pub fn since(moment: SystemTime) -> String {
    duration(SystemTime::now().duration_since(moment).unwrap_or_default())
}

/// A moment in nanoseconds since 1970 as Go prints times: "2026-11-30 09:03:17.5 +0000 UTC".
pub fn go_time(time_ns: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or_default();
    time.to_string().replace('T', " ").replace('Z', " +0000 UTC")
}

/// A size with three significant digits and decimal units, as in `images`: "7.65 MB".
pub fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], 3, " ")
}

/// The same without the blank, as in `stats` and `ps --size`: "7.65MB".
pub fn compact_size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], 3, "")
}

/// A size in powers of 1024: "7.297MiB".
pub fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4, "")
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize, gap: &str) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{gap}{}", significant(value, digits), units[unit])
}

/// C's `%.*g` for a number that is not tiny: so many digits, no zeros at the end.
pub(super) fn significant(value: f64, digits: usize) -> String {
    let digits = digits.max(1);
    let rounded = format!("{value:.*e}", digits - 1);
    let Some((mantissa, power)) = rounded.split_once('e') else { return rounded };
    let power: i32 = power.parse().unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
    };
    if power < -4 || power >= digits as i32 {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), power.abs());
    }
    trim(&format!("{value:.*}", (digits as i32 - 1 - power).max(0) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (86_400, "24 hours"),
            (2 * 86_400, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (2 * 365 * 86_400, "2 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn sizes() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (7_651_234, "7.65 MB"), (123_456_789, "123 MB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(compact_size(1_500_000), "1.5MB");
        assert_eq!(binary_size(1 << 20), "1MiB");
        assert_eq!(binary_size(1_234_567), "1.177MiB");
    }
}
