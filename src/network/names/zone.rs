//! What is known of containers' names: the members' files of some networks, read again when they change.

use crate::network::names::wire::{A, AAAA, ANY, Data, PTR, reverse};
use crate::state::layout::Layout;
use crate::state::network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The suffix under which the host knows containers.
pub const DOMAIN: &str = "coracle.internal";

/// Suffixes under which a container's name is known too: ours, and the one podman's users have written down.
const SUFFIXES: [&str; 2] = [".coracle.internal", ".dns.podman"];

/// File times have the grain of the kernel's tick: a change right after a read may leave the time as it was.
const GRAIN: Duration = Duration::from_millis(50);

/// The names of some networks.
#[derive(Debug)]
pub struct Zone {
    layout: Layout,
    networks: Vec<Cached>,
    /// Names that are no container's (`host.containers.internal`).
    fixed: HashMap<String, Vec<IpAddr>>,
}

#[derive(Debug)]
struct Cached {
    name: String,
    directory: PathBuf,
    /// The directory's time when it was read, if that was long enough after the change to be trusted.
    read: Option<SystemTime>,
    names: HashMap<String, Vec<IpAddr>>,
    addresses: HashMap<IpAddr, String>,
}

/// What a zone says of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The name is ours, with these records (none of this type is an answer too).
    Records(Vec<Data>),
    /// The name is not ours, but nobody else can know it.
    Nothing,
    /// Ask elsewhere.
    Foreign,
}

impl Zone {
    /// The zone of these networks.
    pub fn new(layout: &Layout, networks: &[String], fixed: HashMap<String, Vec<IpAddr>>) -> Zone {
        let mut zone = Zone { layout: layout.clone(), networks: Vec::new(), fixed };
        zone.set_networks(networks);
        zone
    }

    /// Other networks from now on (`network connect` and `disconnect`).
    pub fn set_networks(&mut self, networks: &[String]) {
        self.networks = networks
            .iter()
            .map(|name| Cached {
                name: name.clone(),
                directory: self.layout.members(name),
                read: None,
                names: HashMap::new(),
                addresses: HashMap::new(),
            })
            .collect();
    }

    /// Answer a question of this type for this name (lower case).
    pub fn look_up(&mut self, name: &str, kind: u16) -> Known {
        for network in &mut self.networks {
            network.refresh(&self.layout);
        }
        if let Some(address) = reverse(name) {
            return self.name_of(address, kind);
        }
        let suffix = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        let bare = suffix.unwrap_or(name);
        let mut found = false;
        let mut records = Vec::new();
        let scoped = suffix.and_then(|_| bare.rsplit_once('.'));
        let networks = self.networks.iter().filter_map(|network| match scoped {
            // NAME.NETWORK, where two networks have the name.
            Some((name, of)) if of == network.name => network.names.get(name),
            _ => network.names.get(bare),
        });
        for addresses in networks.chain(self.fixed.get(name)) {
            found = true;
            for address in addresses {
                let wanted = kind == ANY || kind == if address.is_ipv4() { A } else { AAAA };
                if wanted && !records.contains(&Data::Address(*address)) {
                    records.push(Data::Address(*address));
                }
            }
        }
        match (found, suffix) {
            (true, _) => Known::Records(records),
            (false, Some(_)) => Known::Nothing,
            (false, None) => Known::Foreign,
        }
    }

    fn name_of(&self, address: IpAddr, kind: u16) -> Known {
        match self.networks.iter().find_map(|network| network.addresses.get(&address)) {
            Some(name) if matches!(kind, PTR | ANY) => Known::Records(vec![Data::Name(name.clone())]),
            Some(_) => Known::Records(Vec::new()),
            None => Known::Foreign,
        }
    }
}

impl Cached {
    fn refresh(&mut self, layout: &Layout) {
        let changed = std::fs::metadata(&self.directory).and_then(|metadata| metadata.modified());
        let changed = changed.unwrap_or(SystemTime::UNIX_EPOCH);
        if self.read == Some(changed) {
            return;
        }
        let settled = changed.elapsed().is_ok_and(|elapsed| elapsed > GRAIN);
        self.read = settled.then_some(changed);
        self.names.clear();
        self.addresses.clear();
        for member in network::members(layout, &self.name).unwrap_or_default() {
            for subnet in &member.addresses {
                self.addresses.insert(subnet.address, member.name.clone());
            }
            for name in member.names {
                self.names.entry(name).or_default().extend(member.addresses.iter().map(|subnet| subnet.address));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::network::Member;

    fn member(id: &str, names: &[&str], addresses: &[&str]) -> Member {
        Member {
            id: id.to_owned(),
            name: names[0].to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.iter().map(|address| format!("{address}/24").parse().unwrap()).collect(),
            ..Member::default()
        }
    }

    #[test]
    fn scoped_by_network_and_followed() {
        let directory = std::env::temp_dir().join(format!("coracle-zone-{}", std::process::id()));
        let layout = Layout::new(directory.join("data"), directory.join("run"));
        network::enter(&layout, "a", &member("1", &["web", "www"], &["10.0.0.2", "fd00::2"])).unwrap();
        network::enter(&layout, "b", &member("2", &["db"], &["10.1.0.2"])).unwrap();
        let fixed = HashMap::from([("host.containers.internal".to_owned(), vec![IpAddr::from([10, 0, 0, 1])])]);
        let mut zone = Zone::new(&layout, &["a".to_owned()], fixed);
        let address = |text: &str| Data::Address(text.parse().unwrap());
        assert_eq!(zone.look_up("web", A), Known::Records(vec![address("10.0.0.2")]));
        assert_eq!(zone.look_up("www.coracle.internal", AAAA), Known::Records(vec![address("fd00::2")]));
        assert_eq!(zone.look_up("web.a.coracle.internal", A), Known::Records(vec![address("10.0.0.2")]));
        assert_eq!(zone.look_up("web.b.coracle.internal", A), Known::Nothing);
        assert_eq!(zone.look_up("www", 15), Known::Records(Vec::new()));
        assert_eq!(zone.look_up("2.0.0.10.in-addr.arpa", PTR), Known::Records(vec![Data::Name("web".to_owned())]));
        assert_eq!(zone.look_up("host.containers.internal", A), Known::Records(vec![address("10.0.0.1")]));
        assert_eq!(zone.look_up("db", A), Known::Foreign);
        assert_eq!(zone.look_up("db.coracle.internal", A), Known::Nothing);
        // Two members that share an alias are both told.
        network::enter(&layout, "a", &member("3", &["two", "www"], &["10.0.0.3"])).unwrap();
        assert_eq!(zone.look_up("www", A), Known::Records(vec![address("10.0.0.2"), address("10.0.0.3")]));
        network::leave(&layout, "a", "1").unwrap();
        assert_eq!(zone.look_up("web", A), Known::Foreign);
        zone.set_networks(&["b".to_owned()]);
        assert_eq!(zone.look_up("db", A), Known::Records(vec![address("10.1.0.2")]));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
