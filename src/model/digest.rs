//! Digests of blobs. Not a hasher: `storage` computes, this only says what a well-formed digest is.
//!
//! Invariant: a [`Digest`] is `sha256:` and 64 lower-case hexadecimal digits, so that its digits
//! may be a file's name without a further check (CVE-2024-3727).

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The digest of a blob: `sha256:HEX`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Parse and check. Only sha256 is taken: it is what every registry and tool writes, and the store is named by it.
    pub fn parse(text: &str) -> Result<Digest> {
        let Some((algorithm, digits)) = text.split_once(':') else {
            bail!("`{text}` is not a digest: it has no algorithm");
        };
        if algorithm != "sha256" {
            bail!("digest `{text}`: algorithm `{algorithm}` is not supported, only sha256");
        }
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            Ok(Digest(text.to_owned()))
        } else {
            bail!("`{text}` is not a digest: after `sha256:` stand 64 lower-case hexadecimal digits")
        }
    }

    /// From the 64 digits alone.
    pub fn from_hex(digits: &str) -> Result<Digest> {
        Digest::parse(&format!("sha256:{digits}"))
    }

    /// The digest of these bytes.
    pub fn of(content: &[u8]) -> Digest {
        use sha2::Digest as _;
        Digest::from_sha256(&sha2::Sha256::digest(content))
    }

    /// From the bytes of a sha256.
    pub fn from_sha256(bytes: &[u8]) -> Digest {
        use fmt::Write;
        debug_assert_eq!(bytes.len(), 32);
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Digest(text)
    }

    /// The whole, `sha256:HEX`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits alone: a file's name.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first twelve digits, as people see them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Digest> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_digests() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Digest::parse(&good).unwrap().hex(), "0a".repeat(32));
        for bad in [
            String::new(),
            "sha256:".to_owned(),
            "sha256:../../../etc/passwd".to_owned(),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha256:{}/", "0a".repeat(32)),
            format!("sha256:sha256:{}", "0a".repeat(32)),
            format!("md5:{}", "0a".repeat(16)),
            format!("SHA256:{}", "0a".repeat(32)),
        ] {
            assert!(Digest::parse(&bad).is_err(), "{bad}");
            assert!(serde_json::from_value::<Digest>(serde_json::json!(bad)).is_err(), "{bad}");
        }
    }
}
