//! The keys that leave a container alone: `--detach-keys`.

use anyhow::{Result, bail};

/// A sequence of keys; empty: there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    sequence: Vec<u8>,
    matched: usize,
}

impl Default for Keys {
    /// `ctrl-p,ctrl-q`.
    fn default() -> Keys {
        Keys { sequence: vec![16, 17], matched: 0 }
    }
}

impl Keys {
    /// Parse `a`, `ctrl-a`, `ctrl-@`, `ctrl-[`, … separated by commas; empty for none.
    pub fn parse(text: &str) -> Result<Keys> {
        let mut sequence = Vec::new();
        if !text.is_empty() {
            for key in text.split(',') {
                sequence.push(parse_key(key)?);
            }
        }
        Ok(Keys { sequence, matched: 0 })
    }

    /// What of these bytes goes on to the container; and whether the sequence was completed in them. Keys that may yet
    /// become the sequence are held back.
    pub fn filter(&mut self, bytes: &[u8], through: &mut Vec<u8>) -> bool {
        if self.sequence.is_empty() {
            through.extend_from_slice(bytes);
            return false;
        }
        for &byte in bytes {
            while self.matched > 0 && self.sequence[self.matched] != byte {
                self.give_up_one(through);
            }
            if self.sequence[self.matched] == byte {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return true;
                }
            } else {
                through.push(byte);
            }
        }
        false
    }

    /// The held keys do not go on to the sequence: let go as many as needed for the rest to be a beginning of it again.
    fn give_up_one(&mut self, through: &mut Vec<u8>) {
        let held = self.matched;
        let shorter = (0..held).rev().find(|length| self.sequence[held - length..held] == self.sequence[..*length]);
        let keep = shorter.unwrap_or(0);
        through.extend_from_slice(&self.sequence[..held - keep]);
        self.matched = keep;
    }
}

fn parse_key(key: &str) -> Result<u8> {
    if let [byte] = key.as_bytes() {
        return Ok(*byte);
    }
    match key.strip_prefix("ctrl-").map(str::as_bytes) {
        Some(&[letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
        Some(&[letter @ b'A'..=b'Z']) => Ok(letter - b'A' + 1),
        Some(b"@") => Ok(0),
        Some(b"[") => Ok(27),
        Some(b"\\") => Ok(28),
        Some(b"]") => Ok(29),
        Some(b"^") => Ok(30),
        Some(b"_") => Ok(31),
        _ => bail!("invalid detach keys: unknown character: '{key}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(Keys::parse("ctrl-p,ctrl-q").unwrap(), Keys::default());
        assert_eq!(Keys::parse("a,ctrl-@,ctrl-_").unwrap().sequence, [b'a', 0, 31]);
        assert!(Keys::parse("").unwrap().sequence.is_empty());
        for text in ["ctrl-", "ctrl-1", "ab", ",", "ctrl-p,"] {
            assert!(Keys::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn found_over_reads_and_nothing_else_is_lost() {
        for (keys, reads, through, found) in [
            ("ctrl-p,ctrl-q", &[&b"ab\x10"[..], b"\x11c"][..], &b"ab"[..], true),
            ("ctrl-p,ctrl-q", &[b"a\x10b", b"\x11"], b"a\x10b\x11", false),
            ("a,a,b", &[b"aaaab"], b"aa", true),
            ("a,b,a,c", &[b"abab", b"ac"], b"ab", true),
            ("", &[b"\x10\x11"], b"\x10\x11", false),
        ] {
            let mut keys = Keys::parse(keys).unwrap();
            let mut out = Vec::new();
            let seen = reads.iter().any(|read| keys.filter(read, &mut out));
            assert_eq!((out.as_slice(), seen), (through, found));
        }
    }
}
