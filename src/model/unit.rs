//! Sizes and times as people write them.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A number of bytes. Written `512m`, `1.5g`, `64KiB`, `1048576`; units are powers of 1024 (docker's go-units
/// `RAMInBytes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<ByteSize> {
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => bail!("invalid size: '{text}'"),
        };
        let bytes = if number.contains('.') {
            let value: f64 = number.parse().map_err(|_| anyhow::anyhow!("invalid size: '{text}'"))?;
            let bytes = value * (1u64 << shift) as f64;
            if !bytes.is_finite() || bytes >= u64::MAX as f64 {
                bail!("invalid size: '{text}'");
            }
            bytes as u64
        } else {
            let value: u64 = number.parse().map_err(|_| anyhow::anyhow!("invalid size: '{text}'"))?;
            match value.checked_mul(1 << shift) {
                Some(bytes) => bytes,
                None => bail!("invalid size: '{text}'"),
            }
        };
        Ok(ByteSize(bytes))
    }
}

impl fmt::Display for ByteSize {
    /// As docker's `HumanSize`: decimal units, up to four significant digits (`12.3MB`).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1000.0 && unit < 5 {
            value /= 1000.0;
            unit += 1;
        }
        let unit = ["B", "kB", "MB", "GB", "TB", "PB"][unit];
        let digits = if value >= 100.0 {
            1
        } else if value >= 10.0 {
            2
        } else {
            3
        };
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        write!(formatter, "{text}{unit}")
    }
}

/// Parse Go's duration text (`1h30m`, `1.5s`, `300ms`) or a bare number of seconds, to nanoseconds.
pub fn parse_duration_ns(text: &str) -> Result<u64> {
    let wrong = || anyhow::anyhow!("invalid duration `{text}`: write it as 30s, 1m30s or 2h");
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1_000_000_000).ok_or_else(wrong);
    }
    let mut rest = text;
    let mut total = 0f64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let value: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        total += value * scale;
        rest = &rest[end..];
    }
    if total < u64::MAX as f64 { Ok(total as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("512m", 512 << 20), ("1.5g", 3 << 29), ("64KiB", 65536), ("10b", 10), ("1 k", 1024)]
        {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "m", "-1", "1x", "1..5k", "99999999999999999999", "20000p"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn human() {
        for (bytes, text) in [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.235MB"), (12_345_678, "12.35MB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration_ns("1m30s").unwrap(), 90_000_000_000);
        assert_eq!(parse_duration_ns("1.5s").unwrap(), 1_500_000_000);
        assert_eq!(parse_duration_ns("10").unwrap(), 10_000_000_000);
        for text in ["", "s", "1", "1m3"].iter().filter(|text| **text != "1") {
            assert!(parse_duration_ns(text).is_err(), "{text}");
        }
    }
}
