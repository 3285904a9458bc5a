//! What of containers.conf(5) concerns networks.

use crate::host::conf;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::Path;
use std::sync::OnceLock;

/// How published ports are reached: `publish` of the table `network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publish {
    /// By the forwarding rules of our own table: fast, and the client's address stays. A host firewall's rules for what
    /// comes *in* do not see these packets, as with podman and docker.
    #[default]
    Forward,
    /// As with any program that listens on the host: a host firewall's rules for what comes in hold. Our own process
    /// passes the bytes on, so containers see the bridge's address as the client's.
    Input,
}

/// The keys that are known here; others are somebody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// `network.publish`.
    pub publish: Publish,
    /// `network.default_host_ips`: where ports are published that name no address.
    pub host_ips: Vec<IpAddr>,
    /// `containers.dns_servers`.
    pub dns_servers: Vec<IpAddr>,
    /// `containers.dns_searches`.
    pub dns_searches: Vec<String>,
    /// `containers.dns_options`.
    pub dns_options: Vec<String>,
    /// `containers.base_hosts_file`: a path, `image` or `none`.
    pub hosts_file: Option<String>,
    /// `containers.host_containers_internal_ip`; `none` for no entry.
    pub host_address: Option<String>,
}

/// All files, a later one over an earlier; read once.
pub fn get() -> Result<&'static Conf> {
    static READ: OnceLock<Conf> = OnceLock::new();
    if let Some(conf) = READ.get() {
        return Ok(conf);
    }
    let mut found = Conf::default();
    for (path, text) in conf::read()? {
        found.merge(&text, &path)?;
    }
    Ok(READ.get_or_init(|| found))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    network: Network,
    containers: Containers,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Network {
    publish: Option<Publish>,
    default_host_ips: Option<Vec<IpAddr>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Containers {
    dns_servers: Option<Vec<IpAddr>>,
    dns_searches: Option<Vec<String>>,
    dns_options: Option<Vec<String>>,
    base_hosts_file: Option<String>,
    host_containers_internal_ip: Option<String>,
}

impl Conf {
    fn merge(&mut self, text: &str, path: &Path) -> Result<()> {
        let document: Document = toml::from_str(text)
            .map_err(|error| anyhow::anyhow!("{}", error.message()))
            .with_context(|| format!("read {}", path.display()))?;
        let Network { publish, default_host_ips } = document.network;
        let Containers { dns_servers, dns_searches, dns_options, base_hosts_file, host_containers_internal_ip } =
            document.containers;
        let Conf {
            publish: own,
            host_ips,
            dns_servers: servers,
            dns_searches: searches,
            dns_options: options,
            hosts_file,
            host_address,
        } = self;
        set(own, publish);
        set(host_ips, default_host_ips);
        set(servers, dns_servers);
        set(searches, dns_searches);
        set(options, dns_options);
        set(hosts_file, base_hosts_file.map(|file| Some(file).filter(|file| !file.is_empty())));
        set(host_address, host_containers_internal_ip.map(|address| Some(address).filter(|text| !text.is_empty())));
        Ok(())
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_go_over_earlier_ones() {
        let mut conf = Conf::default();
        let path = Path::new("x.conf");
        conf.merge("[network]\npublish = \"input\"\ndefault_subnet = \"10.1.0.0/16\"\n[containers]\ndns_servers = [\"1.1.1.1\"]\n", path)
            .unwrap();
        conf.merge("[containers]\ndns_servers = []\nbase_hosts_file = \"none\"\n", path).unwrap();
        assert_eq!((conf.publish, conf.dns_servers.len()), (Publish::Input, 0));
        assert_eq!(conf.hosts_file.as_deref(), Some("none"));
        let error = format!("{:#}", conf.merge("[network]\npublish = \"maybe\"\n", path).unwrap_err());
        assert!(error.contains("read x.conf") && error.contains("input"), "{error}");
    }
}
