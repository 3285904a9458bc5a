//! Whether and how a missing image is fetched.

use serde::{Deserialize, Serialize};

/// `--pull`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// When it is not in the store.
    #[default]
    Missing,
    /// Each time; an error when it cannot be.
    Always,
    /// Never.
    Never,
    /// When the registry has another one; no error when it cannot be asked and there is a local one.
    Newer,
}

/// Everything about fetching an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// When.
    pub policy: PullPolicy,
    /// `--platform OS/ARCH[/VARIANT]`, or made of `--os --arch --variant`.
    pub platform: Option<String>,
    /// `--authfile`.
    pub authfile: Option<String>,
    /// `--creds USER[:PASSWORD]`.
    pub creds: Option<String>,
    /// `--cert-dir`.
    pub cert_dir: Option<String>,
    /// `--tls-verify`; absent: as registries.conf says.
    pub tls_verify: Option<bool>,
    /// `--quiet`.
    pub quiet: bool,
    /// `--retry`.
    pub retry: Option<u32>,
    /// `--retry-delay`, nanoseconds.
    pub retry_delay_ns: Option<u64>,
}
