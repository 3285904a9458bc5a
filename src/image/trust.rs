//! Whom to trust on the way to a registry: certificate authorities, client keys of `certs.d`, proxies.
//!
//! Layout of a directory of `certs.d` (containers-certs.d(5)): `*.crt` are authorities; `NAME.cert` with `NAME.key` is
//! our own certificate.

use crate::image::http::Origin;
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts};

/// What a registry's `certs.d` directories say.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    authority: String,
    directories: Vec<PathBuf>,
}

impl Trust {
    /// For a registry `host[:port]`: `--cert-dir`, or the directories of the user and the system.
    pub fn new(authority: &str, cert_dir: Option<&Path>) -> Trust {
        let directories = match cert_dir {
            Some(directory) => vec![directory.to_owned()],
            None => default_directories(authority),
        };
        Trust { authority: authority.to_owned(), directories }
    }

    /// Whether an origin is the registry itself.
    pub fn is_for(&self, origin: &Origin) -> bool {
        Origin::new(origin.secure, &self.authority).is_ok_and(|own| own == *origin)
    }

    /// The host's certificate authorities and the registry's own; Mozilla's list where the host has none.
    pub fn roots(&self) -> Result<RootCerts> {
        let mut certificates = system_authorities();
        let system = !certificates.is_empty();
        for directory in &self.directories {
            for path in files(directory, "crt")? {
                let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                let found = certificates_of(&text);
                anyhow::ensure!(!found.is_empty(), "{}: no certificate in it", path.display());
                certificates.extend(found);
            }
        }
        if certificates.is_empty() || !system && self.directories.is_empty() {
            return Ok(RootCerts::WebPki);
        }
        Ok(RootCerts::new_with_certs(&certificates))
    }

    /// Our certificate for the registry, if it wants one.
    pub fn client_certificate(&self) -> Result<Option<ClientCert>> {
        for directory in &self.directories {
            if let Some(path) = files(directory, "cert")?.into_iter().next() {
                let key_path = path.with_extension("key");
                if !key_path.exists() {
                    bail!("{}: the key {} is missing", path.display(), key_path.display());
                }
                let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                let chain = certificates_of(&text);
                let text = fs::read(&key_path).with_context(|| format!("read {}", key_path.display()))?;
                let key =
                    PrivateKey::from_pem(&text).map_err(|error| anyhow!("read {}: {error}", key_path.display()))?;
                return Ok(Some(ClientCert::new_with_certs(&chain, key)));
            }
        }
        Ok(None)
    }
}

fn default_directories(authority: &str) -> Vec<PathBuf> {
    let user = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    user.map(|user| user.join("containers/certs.d"))
        .into_iter()
        .chain(["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()])
        .map(|directory| directory.join(authority))
        .filter(|directory| directory.is_dir())
        .collect()
}

fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    Ok(found)
}

fn system_authorities() -> Vec<Certificate<'static>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundles = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    named
        .into_iter()
        .chain(bundles.map(PathBuf::from))
        .filter_map(|path| fs::read(path).ok())
        .map(|text| certificates_of(&text))
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn certificates_of(pem: &[u8]) -> Vec<Certificate<'static>> {
    ureq::tls::parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}

/// The proxy to reach an origin by: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` but for hosts of `NO_PROXY` and for this
/// machine, as Go's programs read them.
pub fn proxy(origin: &Origin) -> Result<Option<ureq::Proxy>> {
    let variable = |name: &str| {
        [name.to_uppercase(), name.to_lowercase()]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let chosen = variable(if origin.secure { "https_proxy" } else { "http_proxy" }).or_else(|| variable("all_proxy"));
    let Some(chosen) = chosen else { return Ok(None) };
    if bypass(&variable("no_proxy").unwrap_or_default(), origin) {
        return Ok(None);
    }
    ureq::Proxy::new(&chosen).map(Some).map_err(|error| anyhow!("read the proxy from the environment: {error}"))
}

fn bypass(no_proxy: &str, origin: &Origin) -> bool {
    let host = origin.host.trim_matches(['[', ']']);
    let address: Option<std::net::IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    no_proxy.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| {
        let (entry, port) = match entry.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') => (name, port.parse::<u16>().ok()),
            _ => (entry, None),
        };
        if port.is_some_and(|port| port != origin.port) {
            return false;
        }
        match (address, entry.split_once('/')) {
            _ if entry == "*" => true,
            (Some(address), Some((network, length))) => in_network(address, network, length),
            (Some(address), None) => entry.trim_matches(['[', ']']).parse() == Ok(address),
            (None, _) => {
                let domain = entry.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
                host == domain && !entry.starts_with('.') || host.ends_with(&format!(".{domain}"))
            }
        }
    })
}

fn in_network(address: std::net::IpAddr, network: &str, length: &str) -> bool {
    use std::net::IpAddr;
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) if length <= 32 => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            u32::from(one) & mask == u32::from(other) & mask
        }
        (IpAddr::V6(one), IpAddr::V6(other)) if length <= 128 => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            u128::from(one) & mask == u128::from(other) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_as_go_reads_it() {
        let list = "corp.test,.dot.test,192.0.2.0/24,198.51.100.7,x.test:5000";
        for (url, expected) in [
            ("https://localhost:5000", true),
            ("http://127.0.0.9", true),
            ("https://corp.test", true),
            ("https://r.corp.test", true),
            ("https://notcorp.test", false),
            ("https://dot.test", false),
            ("https://a.dot.test", true),
            ("https://192.0.2.200", true),
            ("https://192.0.3.1", false),
            ("https://198.51.100.7", true),
            ("http://x.test:5000", true),
            ("http://x.test:5001", false),
        ] {
            assert_eq!(bypass(list, &Origin::of(url).unwrap()), expected, "{url}");
        }
        assert!(bypass("*", &Origin::of("https://any.test").unwrap()));
    }
}
