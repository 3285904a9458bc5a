//! How the container is connected: networks, ports, names.

use super::{Surroundings, csv, port};
use crate::model::container::{ContainerSpec, NamespaceMode};
use crate::model::network::{DEFAULT_NETWORK, Endpoint, Network as Wanted, NetworkMode};
use crate::model::port::PortMapping;
use crate::network::conf;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::net::IpAddr;

// The network. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Network {
    /// Network mode: bridge, none, host, private, container:NAME, ns:PATH, pasta, or NETWORK[:OPTIONS]; repeatable
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub network: Vec<String>,
    /// Add a network-scoped alias for the container
    #[arg(long, value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// Specify a static IPv4 address for the container
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// Specify a static IPv6 address for the container
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<String>,
    /// Container hardware address
    #[arg(long, value_name = "ADDRESS")]
    pub mac_address: Option<String>,
    /// Link-local addresses
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub link_local_ip: Vec<String>,
    /// Publish a port or range of ports: [[IP:]HOST:]CONTAINER[/PROTOCOL]
    #[arg(short, long, value_name = "PORT")]
    pub publish: Vec<String>,
    /// Publish all exposed ports to random ports of the host
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<String>,
    /// Set the container's host name
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Set custom DNS servers; `none` leaves /etc/resolv.conf alone
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// Set custom DNS options
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Add a line to the container's /etc/hosts: NAME[;NAME…]:ADDRESS
    #[arg(long, value_name = "HOST:IP")]
    pub add_host: Vec<String>,
    /// Do not make /etc/hosts within the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_hosts: Option<bool>,
    /// Do not make /etc/hostname within the container
    #[arg(long)]
    pub no_hostname: bool,
    /// Base file to make /etc/hosts of: a path, `image` or `none`
    #[arg(long, value_name = "FILE")]
    pub hosts_file: Option<String>,
}

impl Network {
    /// Into the spec. Namespaces must be there already: a host name needs a UTS namespace.
    pub fn apply(self, spec: &mut ContainerSpec, around: &Surroundings) -> Result<()> {
        super::refuse("--link-local-ip", !self.link_local_ip.is_empty())?;
        let mut wanted = Wanted { mode: mode(&self.network)?, ..Wanted::default() };
        self.endpoint_options(&mut wanted)?;
        wanted.publish = csv(&self.publish)?.iter().map(|word| port::publish(word)).collect::<Result<_>>()?;
        on_default_addresses(&mut wanted.publish, &conf::get()?.host_ips);
        wanted.publish_all = self.publish_all;
        wanted.expose = csv(&self.expose)?.iter().map(|word| port::expose(word)).collect::<Result<_>>()?;
        wanted.hostname = self.hostname.filter(|name| !name.is_empty());
        if let Some(name) = &wanted.hostname {
            check_hostname(name)?;
            ensure!(
                spec.namespaces.uts == NamespaceMode::Private,
                "cannot set hostname when running in the host UTS namespace: invalid configuration"
            );
        }
        let no_names = matches!(wanted.mode, Some(NetworkMode::None | NetworkMode::Container(_)));
        if no_names && !(self.dns.is_empty() && self.dns_option.is_empty() && self.dns_search.is_empty()) {
            let word = if wanted.mode == Some(NetworkMode::None) { "none" } else { "container" };
            bail!("conflicting options: dns and the network mode: {word}");
        }
        let servers = csv(&self.dns)?;
        if servers.iter().any(|server| server == "none") {
            ensure!(servers.len() == 1, "none is not allowed to be specified with other DNS ip addresses");
            wanted.dns_none = true;
        } else {
            wanted.dns = servers
                .iter()
                .map(|server| server.parse().map_err(|_| anyhow!("{server} is not an ip address")))
                .collect::<Result<_>>()?;
        }
        wanted.dns_options = csv(&self.dns_option)?;
        wanted.dns_search = csv(&self.dns_search)?;
        ensure!(
            wanted.dns_search.len() < 2 || !wanted.dns_search.iter().any(|domain| domain == "."),
            "cannot pass additional search domains when also specifying '.'"
        );
        for domain in wanted.dns_search.iter().filter(|domain| *domain != ".") {
            check_domain(domain)?;
        }
        for word in csv(&self.add_host)? {
            add_host(&word, &mut wanted.add_hosts)?;
        }
        let no_hosts = self.no_hosts.unwrap_or(false);
        ensure!(!no_hosts || wanted.add_hosts.is_empty(), "--no-hosts and --add-host cannot be set together");
        ensure!(!no_hosts || self.hosts_file.is_none(), "--no-hosts and --hosts-file cannot be set together");
        ensure!(
            wanted.add_hosts.is_empty() || !matches!(wanted.mode, Some(NetworkMode::Container(_))),
            "cannot set extra host entries when the container is joined to another containers network namespace: \
             invalid configuration"
        );
        wanted.no_hosts = no_hosts;
        wanted.no_hostname = self.no_hostname;
        wanted.hosts_file = self.hosts_file.filter(|file| !file.is_empty()).map(|file| match file.as_str() {
            "image" | "none" => file,
            _ => around.absolute(&file),
        });
        spec.network = wanted;
        Ok(())
    }

    /// `--ip`, `--ip6`, `--mac-address`, `--network-alias`: of the one network there is.
    fn endpoint_options(&self, wanted: &mut Wanted) -> Result<()> {
        let single = [("ip", &self.ip), ("ip6", &self.ip6), ("mac-address", &self.mac_address)];
        let given = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
        let aliases = csv(&self.network_alias)?;
        if aliases.is_empty() && !single.iter().any(|(_, value)| given(value)) {
            return Ok(());
        }
        let endpoints = match wanted.mode.get_or_insert_with(|| NetworkMode::Networks(vec![Endpoint::of_default()])) {
            NetworkMode::Networks(endpoints) => endpoints,
            _ => {
                let option = single.iter().find(|(_, value)| given(value)).map_or("network-alias", |(name, _)| name);
                bail!("--{option} can only be set when the network mode is bridge: invalid argument");
            }
        };
        for (option, value) in single.iter().filter(|(_, value)| given(value)) {
            let [endpoint] = endpoints.as_mut_slice() else {
                bail!("--{option} can only be set for a single network: invalid argument");
            };
            let value = value.as_deref().unwrap_or_default();
            match *option {
                "mac-address" => endpoint.mac = Some(mac(value)?),
                _ => endpoint.addresses.push(address(option, value)?),
            }
        }
        for endpoint in endpoints {
            endpoint.aliases.extend(aliases.iter().cloned());
        }
        Ok(())
    }
}

/// What names no address is published on each of these, if there are any (containers.conf(5), default_host_ips).
fn on_default_addresses(ports: &mut Vec<PortMapping>, addresses: &[IpAddr]) {
    if addresses.is_empty() {
        return;
    }
    let on = |mapping: PortMapping| -> Vec<PortMapping> {
        match mapping.host_ip {
            Some(_) => vec![mapping],
            None => {
                addresses.iter().map(|address| PortMapping { host_ip: Some(*address), ..mapping.clone() }).collect()
            }
        }
    };
    *ports = std::mem::take(ports).into_iter().flat_map(on).collect();
}

fn address(option: &str, text: &str) -> Result<IpAddr> {
    let address: IpAddr = text.parse().map_err(|_| anyhow!("{text:?} is not an ip address"))?;
    ensure!(address.is_ipv6() || option != "ip6", "{text:?} is not an IPv6 address");
    Ok(address)
}

/// `--network`, once or several times. `None`: the default of root or user.
pub fn mode(words: &[String]) -> Result<Option<NetworkMode>> {
    let Some((first, others)) = words.split_first() else { return Ok(None) };
    let (name, options) = match first.split_once(':') {
        Some((name, options)) => (name, Some(options)),
        None => (first.as_str(), None),
    };
    let words_of = |options: Option<&str>| -> Vec<String> {
        options.map_or_else(Vec::new, |options| options.split(',').map(str::to_owned).collect())
    };
    let mode = match (name, options) {
        ("" | "default" | "private", None) => {
            ensure!(
                others.is_empty(),
                "cannot set multiple networks without bridge network mode, selected mode private: invalid argument"
            );
            return Ok(None);
        }
        ("none", None) => NetworkMode::None,
        ("host", None) => NetworkMode::Host,
        ("pod", None) => bail!("network mode `pod` without --pod"),
        ("container", name) => NetworkMode::Container(value(name, "container")?),
        ("ns", path) => {
            let path = value(path, "path")?;
            ensure!(path.starts_with('/'), "namespace path {path:?}: must be absolute");
            NetworkMode::Path(path)
        }
        ("pasta" | "slirp4netns", options) => NetworkMode::Pasta(words_of(options)),
        ("", Some(_)) => bail!("network name cannot be empty"),
        (_, None) => {
            NetworkMode::Networks(name.split(',').map(|name| endpoint(name, None)).collect::<Result<Vec<_>>>()?)
        }
        (name, options) => NetworkMode::Networks(vec![endpoint(name, options)?]),
    };
    let NetworkMode::Networks(mut endpoints) = mode else {
        ensure!(
            others.is_empty(),
            "cannot set multiple networks without bridge network mode, selected mode {name}: invalid argument"
        );
        return Ok(Some(mode));
    };
    for word in others {
        let (name, options) = match word.split_once(':') {
            Some((name, options)) => (name, Some(options)),
            None => (word.as_str(), None),
        };
        ensure!(!name.is_empty(), "network name cannot be empty: invalid argument");
        let reserved = ["pasta", "slirp4netns", "pod", "none", "default", "private", "ns", "container", "host"];
        ensure!(
            !reserved.contains(&name),
            "can only set extra network names, selected mode {name} conflicts with bridge: invalid argument"
        );
        endpoints.push(endpoint(name, options)?);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        ensure!(
            !endpoints[..index].iter().any(|other| other.network == endpoint.network),
            "network {} is named twice",
            endpoint.network
        );
    }
    Ok(Some(NetworkMode::Networks(endpoints)))
}

fn value(text: Option<&str>, mode: &str) -> Result<String> {
    match text {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => bail!("namespace mode {mode} requires a value"),
    }
}

/// `NAME[:ip=,ip6=,mac=,alias=,interface_name=]`.
fn endpoint(name: &str, options: Option<&str>) -> Result<Endpoint> {
    let network = match name {
        "bridge" | "podman" | "default" => DEFAULT_NETWORK,
        name => {
            crate::model::id::check_name(name).with_context(|| format!("network {name:?}"))?;
            name
        }
    };
    let mut endpoint = Endpoint { network: network.to_owned(), ..Endpoint::default() };
    for option in options.unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let not_empty = || -> Result<String> {
            ensure!(!value.is_empty(), "{key} cannot be empty");
            Ok(value.to_owned())
        };
        match key {
            "ip" | "ip6" => {
                endpoint.addresses.push(value.parse().map_err(|_| anyhow!("invalid ip address {value:?}"))?);
            }
            "mac" => endpoint.mac = Some(mac(value)?),
            "alias" => endpoint.aliases.push(not_empty()?),
            "interface_name" => endpoint.interface = Some(not_empty()?),
            _ => bail!("invalid option for network {name}: {key:?} is not supported yet"),
        }
    }
    Ok(endpoint)
}

/// `xx:xx:xx:xx:xx:xx`, also with hyphens or as three groups with dots, in lower case.
pub fn mac(text: &str) -> Result<String> {
    let wrong = || anyhow!("address {text}: invalid MAC address");
    let groups: Vec<&str> = text.split([':', '-']).collect();
    let digits = match groups.len() {
        6 if groups.iter().all(|group| group.len() == 2) => groups.concat(),
        1 if text.split('.').count() == 3 && text.split('.').all(|group| group.len() == 4) => text.replace('.', ""),
        _ => return Err(wrong()),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let digits = digits.to_ascii_lowercase();
    Ok((0..6).map(|index| &digits[2 * index..2 * index + 2]).collect::<Vec<_>>().join(":"))
}

/// `NAME[;NAME…]:ADDRESS` (docker also writes `NAME=ADDRESS`).
fn add_host(word: &str, hosts: &mut Vec<(String, String)>) -> Result<()> {
    let wrong = || anyhow!("bad format for add-host: {word:?}");
    let split = word.find([':', '=']).ok_or_else(wrong)?;
    let (names, address) = (&word[..split], &word[split + 1..]);
    ensure!(!names.is_empty() && !address.is_empty(), wrong());
    let address = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
        bail!("invalid IP address in add-host: {address:?}");
    }
    for name in names.split(';') {
        ensure!(!name.is_empty() && !name.contains(char::is_whitespace), wrong());
        hosts.push((name.to_owned(), address.to_owned()));
    }
    Ok(())
}

fn check_hostname(name: &str) -> Result<()> {
    let fits = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    ensure!(fits, "hostname {name:?}: at most 64 printable characters without `/`");
    Ok(())
}

fn check_domain(domain: &str) -> Result<()> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    ensure!(domain.len() <= 255 && domain.split('.').all(label), "{domain} is not a valid domain");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(words: &[&str]) -> Result<Option<NetworkMode>> {
        mode(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn single_modes() {
        assert_eq!(modes(&[]).unwrap(), None);
        assert_eq!(modes(&["private"]).unwrap(), None);
        assert_eq!(modes(&["none"]).unwrap(), Some(NetworkMode::None));
        assert_eq!(modes(&["host"]).unwrap(), Some(NetworkMode::Host));
        assert_eq!(modes(&["container:a"]).unwrap(), Some(NetworkMode::Container("a".into())));
        assert_eq!(modes(&["ns:/n"]).unwrap(), Some(NetworkMode::Path("/n".into())));
        assert_eq!(modes(&["pasta:-T,80"]).unwrap(), Some(NetworkMode::Pasta(vec!["-T".into(), "80".into()])));
        for words in
            [&["container:"][..], &["ns:x"], &[":ip=1.2.3.4"], &["a:ip=x"], &["a:mac=1"], &["../a"], &["a:x=1"]]
        {
            assert!(modes(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn several_networks() {
        let names = |words: &[&str]| match modes(words) {
            Ok(Some(NetworkMode::Networks(endpoints))) => {
                Ok(endpoints.iter().map(|endpoint| endpoint.network.clone()).collect::<Vec<_>>().join(" "))
            }
            other => Err(format!("{other:?}")),
        };
        assert_eq!(names(&["bridge"]).unwrap(), "coracle");
        assert_eq!(names(&["a,b"]).unwrap(), "a b");
        assert_eq!(names(&["a:alias=x,alias=y", "b"]).unwrap(), "a b");
        for words in [&["none", "a"][..], &["a", "host"], &["a", "a"], &["a", ""], &["bridge", "podman"]] {
            assert!(names(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn macs() {
        for text in ["AA:bb:cc:00:11:22", "aa-bb-cc-00-11-22", "aabb.cc00.1122"] {
            assert_eq!(mac(text).unwrap(), "aa:bb:cc:00:11:22", "{text}");
        }
        for text in ["", "aa:bb", "zz:bb:cc:00:11:22", "aabbcc001122"] {
            assert!(mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts() {
        let hosts = |word: &str| {
            let mut hosts = Vec::new();
            add_host(word, &mut hosts).map(|()| hosts)
        };
        assert_eq!(hosts("a;b:1.2.3.4").unwrap().len(), 2);
        assert_eq!(hosts("a:::1").unwrap(), [("a".into(), "::1".into())]);
        assert_eq!(hosts("a=host-gateway").unwrap(), [("a".into(), "host-gateway".into())]);
        for word in ["a", "a:", ":1.2.3.4", "a:b", "a;;b:1.2.3.4"] {
            assert!(hosts(word).is_err(), "{word}");
        }
    }
}
