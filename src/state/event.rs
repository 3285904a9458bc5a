//! Events: one JSON line each, in one file a day, appended by whoever did the thing.

use crate::state::file;
use crate::state::layout::Layout;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One event. Field names are podman's (`podman events --format json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_ns: i64,
    /// `container`, `image`, `network`, `volume`, `pod`, `system`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `died`, `remove`, …
    #[serde(rename = "Status")]
    pub status: String,
    /// Id of the object.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    #[serde(rename = "Name")]
    pub name: String,
    /// Its image, for containers.
    #[serde(rename = "Image")]
    pub image: String,
    /// Exit code, for `died` and `exec_died`.
    #[serde(rename = "ContainerExitCode", skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Health, for `health_status`.
    #[serde(rename = "health_status", skip_serializing_if = "String::is_empty")]
    pub health: String,
    /// Failed checks in a row, for `health_status`.
    #[serde(rename = "health_failing_streak", skip_serializing_if = "Option::is_none")]
    pub health_failing: Option<u32>,
    /// What the check said, where it is to be kept here (`--health-log-destination events_logger`).
    #[serde(rename = "health_log", skip_serializing_if = "String::is_empty")]
    pub health_log: String,
    /// The network, for network events.
    #[serde(rename = "Network", skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Labels of the object.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Append an event. A full disk loses the event, never the command that made it.
pub fn record(layout: &Layout, mut event: Event) {
    if event.time_ns == 0 {
        event.time_ns = now_ns();
    }
    let Ok(mut line) = serde_json::to_vec(&event) else { return };
    line.push(b'\n');
    let _ = file::append(&day_file(layout, event.time_ns), &line);
}

/// The file an event of this time is in.
pub fn day_file(layout: &Layout, time_ns: i64) -> std::path::PathBuf {
    let days = time_ns.div_euclid(86_400_000_000_000);
    let (year, month, day) = civil(days);
    layout.events().join(format!("{year:04}-{month:02}-{day:02}.jsonl"))
}

/// Days since 1970 to year, month, day (Howard Hinnant's algorithm), so that naming a file loads no time zone data.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// Year, month, day to days since 1970; the reverse of [`civil`].
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar() {
        for number in [-1, 0, 11_016, 20_787, 11_017, 40_000] {
            let (year, month, day) = civil(number);
            assert_eq!(days(year, month, day), number);
        }
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(20_787), (2026, 11, 30));
        assert_eq!(civil(11_016), (2000, 2, 29));
    }
}
