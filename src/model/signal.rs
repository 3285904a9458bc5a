//! Signals by name and number.

use anyhow::{Result, bail};

/// Name without `SIG`, and number (Linux on x86 and arm).
const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The first and last real-time signals a program can use.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Parse `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-1`.
pub fn parse(text: &str) -> Result<i32> {
    let wrong = || anyhow::anyhow!("invalid signal: {text}");
    if let Ok(number) = text.parse::<i32>() {
        if (1..=RTMAX).contains(&number) {
            return Ok(number);
        }
        bail!("invalid signal: {text}");
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN + if rest.is_empty() { 0 } else { rest.strip_prefix('+').ok_or_else(wrong)?.parse::<i32>()? }
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        RTMAX - if rest.is_empty() { 0 } else { rest.strip_prefix('-').ok_or_else(wrong)?.parse::<i32>()? }
    } else {
        return Err(wrong());
    };
    if (RTMIN..=RTMAX).contains(&number) { Ok(number) } else { Err(wrong()) }
}

/// `SIGTERM` for 15; the number where there is no name.
pub fn name(number: i32) -> String {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None if number == RTMIN => "SIGRTMIN".to_owned(),
        None if (RTMIN..=RTMAX).contains(&number) => format!("SIGRTMIN+{}", number - RTMIN),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, number) in
            [("TERM", 15), ("sigkill", 9), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("RTMIN", 34)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "-1", "65", "NOPE", "RTMIN+99", "RTMIN-1"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(name(37), "SIGRTMIN+3");
        assert_eq!(name(15), "SIGTERM");
    }
}
