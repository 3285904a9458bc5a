//! Who answers a container's questions about names.

use super::join::Joining;
use super::{Attached, DEFAULT_NETWORK, Request};
use crate::model::network::Network;
use crate::network::conf;
use crate::network::names::zone::Zone;
use crate::network::names::{Server, Sockets, Upstream};
use crate::network::resolv::{self, Resolver};
use crate::state::network::NetworkRecord;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

/// Whether the container asks our server. On the default network alone `--dns` names the servers to ask, as in podman.
pub(super) fn serves_names(network: &Network, joining: &[Joining<'_>]) -> bool {
    if network.dns_none {
        return false;
    }
    let named = joining.iter().any(|one| one.record.dns);
    let only_default = joining.iter().all(|one| one.record.name == DEFAULT_NETWORK);
    if named && !(only_default && !network.dns.is_empty()) {
        return true;
    }
    // Nobody to name, but the host's resolver listens on its loopback only (systemd-resolved): we pass questions on.
    network.dns.is_empty() && !host_resolver().servers.iter().any(|server| resolv::is_reachable(server))
}

/// What the user asked for with what containers.conf says where the user said nothing; `None`: it says nothing either.
pub(super) fn configured(network: &Network) -> Result<Option<Network>> {
    let conf = conf::get()?;
    if conf.dns_servers.is_empty() && conf.dns_searches.is_empty() && conf.dns_options.is_empty() {
        return Ok(None);
    }
    let mut network = network.clone();
    if network.dns.is_empty() && !network.dns_none {
        network.dns.clone_from(&conf.dns_servers);
    }
    if network.dns_search.is_empty() {
        network.dns_search.clone_from(&conf.dns_searches);
    }
    if network.dns_options.is_empty() {
        network.dns_options.clone_from(&conf.dns_options);
    }
    Ok(Some(network))
}

/// Where containers find the host: containers.conf knows better than the networks.
pub(super) fn host_address(found: Option<IpAddr>) -> Result<Option<IpAddr>> {
    match conf::get()?.host_address.as_deref() {
        None => Ok(found),
        Some("none") => Ok(None),
        Some(text) => {
            text.parse().map(Some).with_context(|| format!("host_containers_internal_ip: `{text}` is no address"))
        }
    }
}

pub(super) fn host_resolver() -> Resolver {
    resolv::parse(&std::fs::read_to_string(HOST_RESOLV_CONF).unwrap_or_default())
}

pub(super) const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// What /etc/resolv.conf says. `servers`: ours; none: the user's, else those of the host that can be reached.
pub(super) fn resolver(network: &Network, servers: &[String], on_host: bool) -> Option<Resolver> {
    if network.dns_none {
        return None;
    }
    let host = host_resolver();
    let mut resolver = Resolver { servers: servers.to_vec(), search: host.search, options: host.options };
    if servers.is_empty() {
        resolver.servers = match network.dns.is_empty() {
            false => network.dns.iter().map(IpAddr::to_string).collect(),
            true => host.servers.into_iter().filter(|server| on_host || resolv::is_reachable(server)).collect(),
        };
    }
    if !network.dns_search.is_empty() {
        resolver.search.clone_from(&network.dns_search);
    }
    if !network.dns_options.is_empty() {
        resolver.options.clone_from(&network.dns_options);
    } else if !servers.is_empty() {
        // Names without a dot are containers' names first; they do not go out with the host's suffixes before.
        resolver.options.retain(|option| !option.starts_with("ndots:"));
        resolver.options.push("ndots:0".to_owned());
    }
    Some(resolver)
}

pub(super) fn start_names(
    request: &Request<'_>,
    joining: &[Joining<'_>],
    attached: &Attached,
    sockets: Sockets,
) -> Result<Server> {
    let networks: Vec<String> =
        joining.iter().filter(|one| one.record.dns).map(|one| one.record.name.clone()).collect();
    let host = attached.host_address.map(|address| vec![address]);
    let fixed: HashMap<String, Vec<IpAddr>> =
        resolv::HOST_NAMES.iter().filter_map(|name| Some(((*name).to_owned(), host.clone()?))).collect();
    let zone = Zone::new(request.layout, &networks, fixed);
    Server::new(sockets, zone, upstream(request.network, joining.iter().map(|one| &one.record)))
}

pub(super) fn upstream<'a>(network: &Network, records: impl IntoIterator<Item = &'a NetworkRecord>) -> Upstream {
    let records: Vec<&NetworkRecord> = records.into_iter().collect();
    // CVE-2024-29018: no question of an internal network leaves the host.
    if records.iter().all(|record| record.internal) {
        return Upstream::Nobody;
    }
    let of_networks: Vec<IpAddr> = records.iter().flat_map(|record| record.dns_servers.iter().copied()).collect();
    match (network.dns.is_empty(), of_networks.is_empty()) {
        (false, _) => Upstream::fixed(&network.dns),
        (true, false) => Upstream::fixed(&of_networks),
        (true, true) => Upstream::host(Path::new(HOST_RESOLV_CONF)),
    }
}
