//! Moments as people write them (`--since`, `--until`) and as podman shows them.

use anyhow::{Result, bail};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

const SECOND_NS: i64 = 1_000_000_000;

/// A moment before or after now: Unix seconds (also with a fraction), RFC 3339, a date or a date with time in the local
/// zone, or a duration that is counted back from now. Nanoseconds since 1970.
pub fn parse(text: &str, now_ns: i64) -> Result<i64> {
    let text = text.trim();
    if let Some(moment) = unix_seconds(text) {
        return Ok(moment);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(nanoseconds(moment));
    }
    let sign = if text.starts_with('-') { 1 } else { -1 };
    if text.contains(['h', 'm', 's'])
        && let Ok(duration) = crate::model::unit::parse_duration_ns(text.trim_start_matches('-'))
    {
        return Ok(now_ns.saturating_add(sign * i64::try_from(duration).unwrap_or(i64::MAX)));
    }
    if let Some(moment) = local(text) {
        return Ok(moment);
    }
    bail!("invalid time {text:?}: write it as 10m, 2026-01-31, 2026-01-31T12:00:00Z or seconds since 1970")
}

fn unix_seconds(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(SECOND_NS)?.checked_add(fraction)
}

fn local(text: &str) -> Option<i64> {
    let moment = match text.replace(' ', "T") {
        text if text.contains('T') => text.parse::<civil::DateTime>().ok()?,
        text => text.parse::<civil::Date>().ok()?.to_datetime(civil::Time::midnight()),
    };
    Some(nanoseconds(moment.to_zoned_datetime(TimeZone::system()).ok()?.timestamp()))
}

fn nanoseconds(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_nanosecond()).unwrap_or(i64::MAX)
}

/// RFC 3339 with nanoseconds and the local zone's offset, as Go's JSON has it. 0 is Go's zero time.
pub fn rfc3339(time_ns: i64) -> String {
    rfc3339_in(time_ns, &TimeZone::system())
}

fn rfc3339_in(time_ns: i64, zone: &TimeZone) -> String {
    if time_ns == 0 {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    let Ok(moment) = Timestamp::from_nanosecond(i128::from(time_ns)) else { return String::new() };
    let moment = moment.to_zoned_datetime(zone.clone());
    let offset = match moment.offset().seconds() {
        0 => "Z".to_owned(),
        _ => moment.strftime("%:z").to_string(),
    };
    let fraction = format!("{:09}", time_ns.rem_euclid(SECOND_NS));
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}{offset}", moment.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// As Go prints a time: `2026-01-31 12:00:00.5 +0000 UTC`.
pub fn go(time_ns: i64) -> String {
    go_in(time_ns, &TimeZone::system())
}

/// The same of a time in RFC 3339; `None`: it is none.
pub fn go_of_rfc3339(text: &str) -> Option<String> {
    if text == "0001-01-01T00:00:00Z" {
        return Some("0001-01-01 00:00:00 +0000 UTC".to_owned());
    }
    text.parse::<Timestamp>().ok().map(|moment| go(nanoseconds(moment)))
}

fn go_in(time_ns: i64, zone: &TimeZone) -> String {
    let Ok(moment) = Timestamp::from_nanosecond(i128::from(time_ns)) else { return String::new() };
    let fraction = format!("{:09}", time_ns.rem_euclid(SECOND_NS));
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let moment = moment.to_zoned_datetime(zone.clone());
    format!("{}{point}{fraction} {}", moment.strftime("%Y-%m-%d %H:%M:%S"), moment.strftime("%z %Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let now = 1_800_000_000 * SECOND_NS;
        for (text, expected) in [
            ("10", 10 * SECOND_NS),
            ("10.5", 10 * SECOND_NS + SECOND_NS / 2),
            ("1970-01-01T00:00:01Z", SECOND_NS),
            ("1970-01-01T01:00:01.5+01:00", SECOND_NS + SECOND_NS / 2),
            ("10m", now - 600 * SECOND_NS),
            ("1h30m", now - 5400 * SECOND_NS),
            ("-5s", now + 5 * SECOND_NS),
        ] {
            assert_eq!(parse(text, now).unwrap(), expected, "{text}");
        }
        for text in ["2026-01-31", "2026-01-31T12:00:00", "2026-01-31 12:00"] {
            assert!(parse(text, now).is_ok(), "{text}");
        }
        for text in ["", "x", "10x", "2026-13-01", "1.2.3"] {
            assert!(parse(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!(rfc3339(0), "0001-01-01T00:00:00Z");
        assert_eq!(rfc3339_in(1_500_000_000, &TimeZone::UTC), "1970-01-01T00:00:01.5Z");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(rfc3339_in(SECOND_NS, &zone), "1970-01-01T02:00:01+02:00");
        assert_eq!(go_in(1_500_000_000, &TimeZone::UTC), "1970-01-01 00:00:01.5 +0000 UTC");
    }
}
