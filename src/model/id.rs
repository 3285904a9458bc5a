//! Names and ids of objects.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A container, image or exec id: 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// From 32 random bytes. Retried by the caller's policy never: 256 bits do not collide.
    pub fn from_random(bytes: [u8; 32]) -> Id {
        use fmt::Write;
        let mut text = String::with_capacity(64);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        // docker and podman forbid an all-decimal short id: it would be taken for a host name that is a number.
        if text[..12].bytes().all(|byte| byte.is_ascii_digit()) {
            text.replace_range(..1, "a");
        }
        Id(text)
    }

    /// Parse a whole id.
    pub fn parse(text: &str) -> Result<Id> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            Ok(Id(text.to_owned()))
        } else {
            bail!("`{text}` is not an id of 64 hexadecimal digits")
        }
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, as people see it.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Check a name of a container, volume, network or pod against podman's pattern `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
pub fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) && name.len() <= 253 {
        Ok(())
    } else {
        bail!("names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument")
    }
}
