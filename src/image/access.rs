//! How registries are reached: what the command line says, joined with the configuration files.

use crate::failure::Explain;
use crate::image::auth::Credentials;
use crate::image::auth_file::AuthFiles;
use crate::image::conf::{Endpoint, EngineConf, Registries};
use crate::image::reference::Reference;
use crate::image::registry::{Options, Registry, Repository};
use crate::model::pull::Pull;
use anyhow::{Context, Result, anyhow};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Tries after the first, unless told otherwise; podman's number.
const RETRIES: u32 = 3;
/// Layers at once, unless told otherwise.
const PARALLEL: usize = 3;

/// What the command line says of registries.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--creds`.
    pub credentials: Option<Credentials>,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// `--tls-verify`; absent: as registries.conf says.
    pub tls_verify: Option<bool>,
    /// `--retry`.
    pub retry: Option<u32>,
    /// `--retry-delay`.
    pub retry_delay: Option<Duration>,
}

impl TryFrom<&Pull> for Access {
    type Error = anyhow::Error;

    fn try_from(pull: &Pull) -> Result<Access> {
        let Pull { policy: _, platform: _, authfile, creds, cert_dir, tls_verify, quiet: _, retry, retry_delay_ns } =
            pull;
        Ok(Access {
            authfile: authfile.as_ref().map(PathBuf::from),
            credentials: creds.as_deref().map(Credentials::parse).transpose()?,
            cert_dir: cert_dir.as_ref().map(PathBuf::from),
            tls_verify: *tls_verify,
            retry: *retry,
            retry_delay: retry_delay_ns.map(Duration::from_nanos),
        })
    }
}

/// The way to registries.
pub struct Network {
    /// registries.conf.
    pub registries: Registries,
    conf: EngineConf,
    access: Access,
    auth: AuthFiles,
}

impl Network {
    /// Read the configuration. `user`: the caller's uid outside of any namespace of ours.
    pub fn load(access: Access, user: u32) -> Result<Network> {
        let registries = Registries::load()?;
        let conf = EngineConf::load()?;
        if let Some(path) = &access.authfile
            && !path.exists()
        {
            return Err(anyhow!("checking authfile: stat {}: no such file or directory", path.display()))
                .hint("make one with `coracle login --authfile`");
        }
        let auth = AuthFiles::new(access.authfile.as_deref(), registries.credential_helpers.clone(), user);
        Ok(Network { registries, conf, access, auth })
    }

    /// The repository of an endpoint.
    pub fn connect(&self, endpoint: &Endpoint) -> Result<Repository> {
        let Endpoint { reference, insecure, mirror: _ } = endpoint;
        let registry = self.registry(&reference.registry, Some(&reference.repository), *insecure)?;
        Ok(Arc::new(registry).repository(&reference.repository))
    }

    /// The repository to push to: its own place, no mirror.
    pub fn target(&self, reference: &Reference) -> Result<Repository> {
        let endpoints = self.registries.endpoints(reference)?;
        let own = endpoints.into_iter().find(|endpoint| !endpoint.mirror);
        self.connect(&own.with_context(|| format!("{reference}: nowhere to send it"))?)
    }

    /// A registry as such; `insecure` is what registries.conf says of it.
    pub fn registry(&self, name: &str, repository: Option<&str>, insecure: bool) -> Result<Registry> {
        let credentials = match &self.access.credentials {
            Some(credentials) => Some(credentials.clone()),
            None => {
                let key = repository.map_or_else(|| name.to_owned(), |repository| format!("{name}/{repository}"));
                self.auth.find(&key).context("read credentials")?
            }
        };
        self.registry_with(name, insecure, credentials)
    }

    /// A registry with these credentials, whatever the files say (`login`).
    pub fn registry_as(&self, name: &str, insecure: bool, credentials: Credentials) -> Result<Registry> {
        self.registry_with(name, insecure, Some(credentials))
    }

    fn registry_with(&self, name: &str, insecure: bool, credentials: Option<Credentials>) -> Result<Registry> {
        let delay = match (&self.access.retry_delay, &self.conf.retry_delay) {
            (Some(delay), _) => Some(*delay),
            (None, Some(text)) => Some(parse_delay(text).context("read retry_delay of containers.conf")?),
            (None, None) => None,
        };
        Ok(Registry::new(
            name,
            Options {
                insecure: self.access.tls_verify.map_or(insecure, |verify| !verify),
                cert_dir: self.access.cert_dir.clone(),
                credentials,
                retries: self.access.retry.or(self.conf.retry).unwrap_or(RETRIES),
                retry_delay: delay,
            },
        ))
    }

    /// How many layers at once.
    pub fn parallel(&self) -> usize {
        self.conf.image_parallel_copies.filter(|number| *number > 0).unwrap_or(PARALLEL).min(16)
    }

    /// `gzip` or `zstd` for what is compressed anew, if containers.conf says so.
    pub fn compression_format(&self) -> Option<&str> {
        self.conf.compression_format.as_deref()
    }
}

/// A duration as Go writes it: `5s`, `1m30s`, `250ms`.
pub fn parse_delay(text: &str) -> Result<Duration> {
    let wrong = || anyhow!("`{text}` is not a duration such as `5s` or `1m30s`");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit_end = rest[end..].find(|letter: char| letter.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        let seconds = match &rest[end..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        for (text, expected) in [("5s", 5000), ("1m30s", 90_000), ("250ms", 250), ("1.5s", 1500), ("1h", 3_600_000)] {
            assert_eq!(parse_delay(text).unwrap().as_millis(), expected, "{text}");
        }
        for text in ["", "5", "s", "5x", "-1s", "1e400s"] {
            assert!(parse_delay(text).is_err(), "{text}");
        }
    }
}
