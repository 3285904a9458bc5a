//! About an image that has to be fetched first.

use crate::model::pull::{Pull, PullPolicy};
use crate::model::unit::parse_duration_ns;
use anyhow::{Result, bail, ensure};

// The image. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Image {
    /// Pull policy: missing, always, never or newer
    #[arg(long, value_name = "POLICY")]
    pub pull: Option<String>,
    /// Platform of the image: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Architecture of the image
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Operating system of the image
    #[arg(long, value_name = "OS")]
    pub os: Option<String>,
    /// Variant of the image's architecture
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<String>,
    /// Path of the authentication file
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<String>,
    /// Credentials for the registry: USER[:PASSWORD]
    #[arg(long, value_name = "CREDENTIALS")]
    pub creds: Option<String>,
    /// Directory of TLS certificates and keys
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<String>,
    /// Require HTTPS and verify certificates of registries
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// How often a failed transfer is tried again
    #[arg(long, value_name = "NUMBER")]
    pub retry: Option<u32>,
    /// Delay between two tries
    #[arg(long, value_name = "DURATION")]
    pub retry_delay: Option<String>,
    /// Show no progress of pulling
    #[arg(short, long)]
    pub quiet: bool,
    /// Key to decrypt an image
    #[arg(long, value_name = "KEY", hide = true)]
    pub decryption_key: Vec<String>,
    /// Accepted for docker's sake, without effect
    #[arg(long, hide = true)]
    pub disable_content_trust: bool,
    /// File of the signature policy
    #[arg(long, value_name = "FILE", hide = true)]
    pub signature_policy: Option<String>,
}

impl Image {
    /// What the engine is told about pulling.
    pub fn into_pull(self) -> Result<Pull> {
        super::refuse("--decryption-key", !self.decryption_key.is_empty())?;
        super::refuse("--signature-policy", self.signature_policy.is_some())?;
        Ok(Pull {
            policy: policy(self.pull.as_deref().unwrap_or_default())?,
            platform: platform(self.platform, self.os, self.arch, self.variant)?,
            authfile: authfile(self.authfile)?,
            creds: self.creds.filter(|creds| !creds.is_empty()),
            cert_dir: self.cert_dir.filter(|directory| !directory.is_empty()),
            tls_verify: self.tls_verify,
            quiet: self.quiet,
            retry: self.retry,
            retry_delay_ns: self.retry_delay.map(|delay| parse_duration_ns(&delay)).transpose()?,
        })
    }
}

/// `--pull`; booleans are those of `podman build`.
pub fn policy(text: &str) -> Result<PullPolicy> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "" | "missing" | "ifmissing" | "ifnotpresent" | "false" => PullPolicy::Missing,
        "always" | "true" => PullPolicy::Always,
        "never" => PullPolicy::Never,
        "newer" | "ifnewer" => PullPolicy::Newer,
        _ => bail!("unsupported pull policy {text:?}"),
    })
}

/// `OS/ARCH[/VARIANT]` of the four options; `None` if none was given.
pub fn platform(
    platform: Option<String>,
    os: Option<String>,
    arch: Option<String>,
    variant: Option<String>,
) -> Result<Option<String>> {
    if let Some(platform) = platform.filter(|platform| !platform.is_empty()) {
        ensure!(os.is_none() && arch.is_none(), "--platform option can not be specified with --arch or --os");
        let parts = platform.split('/').count();
        ensure!(
            parts <= 3 && platform.split('/').all(|part| !part.is_empty()),
            "--platform {platform:?}: write it as OS/ARCH[/VARIANT]"
        );
        return Ok(Some(platform));
    }
    if os.is_none() && arch.is_none() && variant.is_none() {
        return Ok(None);
    }
    let arch = arch.unwrap_or_else(|| host_architecture().to_owned());
    let base = format!("{}/{arch}", os.as_deref().unwrap_or("linux"));
    Ok(Some(match variant {
        Some(variant) => format!("{base}/{variant}"),
        None => base,
    }))
}

/// Go's word for this machine's architecture.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// A file that was named must be there.
fn authfile(file: Option<String>) -> Result<Option<String>> {
    let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(None) };
    if let Err(error) = std::fs::metadata(&file) {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let cause = if missing { "no such file or directory".to_owned() } else { error.to_string() };
        bail!("credential file is not accessible: faccessat {file}: {cause}");
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(platform(own("linux/arm64/v8"), None, None, None).unwrap(), own("linux/arm64/v8"));
        assert_eq!(platform(None, None, own("arm"), own("v7")).unwrap(), own("linux/arm/v7"));
        assert_eq!(platform(None, None, None, None).unwrap(), None);
        assert!(platform(own("linux/arm64"), own("linux"), None, None).is_err());
        assert!(platform(own("linux//x"), None, None, None).is_err());
    }

    #[test]
    fn policies() {
        assert_eq!(policy("").unwrap(), PullPolicy::Missing);
        assert_eq!(policy("newer").unwrap(), PullPolicy::Newer);
        assert!(policy("bogus").is_err());
    }
}
