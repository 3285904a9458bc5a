//! How a container is connected.

use crate::model::port::{PortMapping, Protocol};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `--network`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// A namespace with a loopback device only.
    None,
    /// That of the host.
    Host,
    /// That of another container, by id once created.
    Container(String),
    /// That at this path.
    Path(String),
    /// A namespace of its own that someone else configures (`private` without a network room, `slirp4netns`, `pasta`):
    /// the options after the colon as they were.
    Pasta(Vec<String>),
    /// Joined to these networks.
    Networks(Vec<Endpoint>),
}

/// One network a container is joined to: `NAME[:ip=,ip6=,mac=,alias=,interface_name=]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// The network's name (`bridge` and `podman` are resolved at the border to the default network).
    pub network: String,
    /// Static addresses.
    pub addresses: Vec<IpAddr>,
    /// Static hardware address, `xx:xx:xx:xx:xx:xx`.
    pub mac: Option<String>,
    /// Further names.
    pub aliases: Vec<String>,
    /// Name of the link inside.
    pub interface: Option<String>,
}

/// The network of containers that name none.
pub const DEFAULT_NETWORK: &str = "coracle";

impl Endpoint {
    /// One on the default network.
    pub fn of_default() -> Endpoint {
        Endpoint { network: DEFAULT_NETWORK.to_owned(), ..Endpoint::default() }
    }
}

/// Everything about the network that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The mode; absent: the default of root or user, decided at create.
    pub mode: Option<NetworkMode>,
    /// `-p`.
    #[serde(default)]
    pub publish: Vec<PortMapping>,
    /// `-P`.
    #[serde(default)]
    pub publish_all: bool,
    /// `--expose` and the image's, first and last port of each.
    #[serde(default)]
    pub expose: Vec<(u16, u16, Protocol)>,
    /// `--hostname`; absent: the short id.
    pub hostname: Option<String>,
    /// `--dns`.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// `--dns=none`: leave /etc/resolv.conf alone.
    #[serde(default)]
    pub dns_none: bool,
    /// `--dns-search`.
    #[serde(default)]
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    #[serde(default)]
    pub dns_options: Vec<String>,
    /// `--add-host`: names and the address, `host-gateway` kept as text.
    #[serde(default)]
    pub add_hosts: Vec<(String, String)>,
    /// `host_containers_internal_ip` of containers.conf: an address, or `none` for no such line in /etc/hosts.
    pub host_address: Option<String>,
    /// `--no-hosts`.
    #[serde(default)]
    pub no_hosts: bool,
    /// `--no-hostname`.
    #[serde(default)]
    pub no_hostname: bool,
    /// `--hosts-file`: a path, `image` or `none`.
    pub hosts_file: Option<String>,
    /// Driver options of `--network` that concern all of the namespace.
    #[serde(default)]
    pub options: Vec<String>,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            mode: None,
            publish: Vec::new(),
            publish_all: false,
            expose: Vec::new(),
            hostname: None,
            dns: Vec::new(),
            dns_none: false,
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            add_hosts: Vec::new(),
            host_address: None,
            no_hosts: false,
            no_hostname: false,
            hosts_file: None,
            options: Vec::new(),
        }
    }
}
