//! One line of a log file, in either format.

use super::Record;
use crate::supervisor::log::Stream;

/// `TIME STREAM F|P TEXT`. A line that is none (garbage, a torn write) is no record.
pub(super) fn kubernetes(line: &[u8]) -> Option<Record> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, flag) = (fields.next()?, fields.next()?, fields.next()?);
    let text = fields.next().unwrap_or_default();
    Some(Record { time_ns: moment(time)?, stream: stream_of(stream)?, text: text.to_vec(), whole: flag == b"F" })
}

/// Docker's JSON lines.
pub(super) fn json(line: &[u8]) -> Option<Record> {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        log: String,
        stream: String,
        time: String,
    }
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let mut text = entry.log.into_bytes();
    let whole = text.last() == Some(&b'\n');
    if whole {
        text.pop();
    }
    Some(Record { time_ns: moment(entry.time.as_bytes())?, stream: stream_of(entry.stream.as_bytes())?, text, whole })
}

fn stream_of(name: &[u8]) -> Option<Stream> {
    match name {
        b"stdout" => Some(Stream::Output),
        b"stderr" => Some(Stream::Errors),
        _ => None,
    }
}

fn moment(text: &[u8]) -> Option<i64> {
    quick_moment(text).or_else(|| {
        let time: jiff::Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
        i64::try_from(time.as_nanosecond()).ok()
    })
}

/// What we write ourselves, `YYYY-MM-DDTHH:MM:SS.NNNNNNNNN` in UTC, without a general parser.
fn quick_moment(text: &[u8]) -> Option<i64> {
    let (digits, zone) = text.split_at_checked(29)?;
    if zone != b"+00:00" && zone != b"Z" {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        digits[from..to]
            .iter()
            .try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let days = crate::state::event::days(number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let seconds = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(seconds * 1_000_000_000 + number(20, 29)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = b"2026-11-30T08:27:03.000000042+00:00 stdout F a  b ";
        let record = kubernetes(line).unwrap();
        assert_eq!(record.time_ns, 1_796_027_223_000_000_042);
        assert_eq!((record.text.as_slice(), record.whole), (&b"a  b "[..], true));
        let record = kubernetes(b"2026-11-30T10:27:03.5+02:00 stderr P x").unwrap();
        assert_eq!((record.time_ns, record.whole, record.stream), (1_796_027_223_500_000_000, false, Stream::Errors));
        assert!(kubernetes(b"2026-11-30T08:27:03.000000042+00:00 stdout F").unwrap().text.is_empty());
        for garbage in
            [&b""[..], b"x", b"2026 stdout F x", b"2026-11-30T08:27:03.000000042+00:00 nope F x", &[0xff; 40]]
        {
            assert!(kubernetes(garbage).is_none());
        }
        let record = json(br#"{"log":"a\"\n","stream":"stderr","time":"2026-11-30T08:27:03.000000042Z"}"#).unwrap();
        assert_eq!((record.text.as_slice(), record.whole, record.stream), (&b"a\""[..], true, Stream::Errors));
        assert!(json(b"{").is_none());
    }
}
