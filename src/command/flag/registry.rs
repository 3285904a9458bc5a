//! Options of all commands that talk to registries. The groups bear no doc comments: clap would take them for the verb's.

use crate::image::access::{Access, parse_delay};
use crate::image::auth::Credentials;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

// How to reach a registry and who to be there.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Registry {
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Credentials (USERNAME:PASSWORD) to use for authenticating to a registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,
    /// Directory with certificates and keys for the registry
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    #[command(flatten)]
    pub tls: Tls,
    #[command(flatten)]
    pub retry: Retry,
}

#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Tls {
    /// Require HTTPS and verify certificates when contacting registries (default: as registries.conf says)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = boolean)]
    pub tls_verify: Option<bool>,
}

#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Retry {
    /// Number of times to retry in case of failure
    #[arg(long, value_name = "N")]
    pub retry: Option<u32>,
    /// Delay between retries (default: 1s, doubled each time)
    #[arg(long, value_name = "DURATION", value_parser = parse_delay)]
    pub retry_delay: Option<Duration>,
}

impl Registry {
    /// As the image room wants it.
    pub fn access(&self) -> Result<Access> {
        let Registry { authfile, creds, cert_dir, tls: Tls { tls_verify }, retry: Retry { retry, retry_delay } } = self;
        Ok(Access {
            authfile: authfile.clone(),
            credentials: creds.as_deref().map(Credentials::parse).transpose()?,
            cert_dir: cert_dir.clone(),
            tls_verify: *tls_verify,
            retry: *retry,
            retry_delay: *retry_delay,
        })
    }
}

/// A truth value as Go's programs take it.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is neither `true` nor `false`".to_owned()),
    }
}
