//! Addresses: leased by making a link, given back by removing it. No allocator, no index.

use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::model::subnet::{from_number, number};
use crate::state::layout::Layout;
use crate::state::network::{Ipam, NetworkRecord, Pool};
use crate::state::{container, file};
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A leased address and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// Its pool.
    pub pool: Pool,
}

/// Lease one address of each subnet: the wanted one where `wanted` has one in it, else a free one.
///
/// # Errors
/// Names the container that has a wanted address, or the subnet that is exhausted. What was leased stays leased, and is
/// found again by [`release_all`].
pub fn lease(layout: &Layout, network: &NetworkRecord, id: &Id, wanted: &[IpAddr]) -> Result<Vec<Lease>> {
    if network.ipam == Ipam::None {
        return Ok(Vec::new());
    }
    check_wanted(network, wanted)?;
    let mut leases = Vec::new();
    for pool in &network.subnets {
        let fixed = wanted.iter().copied().find(|address| pool.subnet.contains(*address));
        let address = match fixed {
            Some(address) => take_fixed(layout, network, id, address)?,
            None => take_free(layout, network, id, pool)?,
        };
        leases.push(Lease { address, pool: *pool });
    }
    Ok(leases)
}

/// Whether each wanted address could be had at all.
pub fn check_wanted(network: &NetworkRecord, wanted: &[IpAddr]) -> Result<()> {
    for address in wanted {
        let Some(pool) = network.subnets.iter().find(|pool| pool.subnet.contains(*address)) else {
            let subnets: Vec<String> = network.subnets.iter().map(|pool| pool.subnet.to_string()).collect();
            let message = format!(
                "requested static ip {address} not in any subnet on network {} ({})",
                network.name,
                subnets.join(", ")
            );
            return Err(Failure::new(Kind::Engine, message).into());
        };
        if pool.gateway == Some(*address) {
            let message = format!("requested static ip {address} is the gateway of network {}", network.name);
            return Err(Failure::new(Kind::Engine, message).into());
        }
    }
    Ok(())
}

/// Give an address back, if it is this container's.
pub fn release(layout: &Layout, network: &str, id: &Id, address: IpAddr) -> Result<()> {
    let link = layout.leases(network).join(address.to_string());
    if holder(&link).as_deref() == Some(id.as_str()) {
        file::fault::point("release", &link)?;
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("release address {address}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Give back all that a container has of a network, without knowing what: after a kill between lease and record.
pub fn release_all(layout: &Layout, network: &str, id: &Id) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(layout.leases(network)) else { return Ok(()) };
    for entry in entries.flatten() {
        if holder(&entry.path()).as_deref() == Some(id.as_str())
            && let Ok(address) = entry.file_name().to_string_lossy().parse()
        {
            release(layout, network, id, address)?;
        }
    }
    Ok(())
}

fn holder(link: &Path) -> Option<String> {
    std::fs::read_link(link).ok().map(|target| target.to_string_lossy().into_owned())
}

/// Make the link. False: somebody has the address.
fn take(layout: &Layout, network: &NetworkRecord, id: &Id, address: IpAddr) -> Result<bool> {
    let link = layout.leases(&network.name).join(address.to_string());
    file::fault::point("lease", &link)?;
    match symlink(id.as_str(), &link) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(holder(&link).as_deref() == Some(id.as_str())),
        Err(error) => Err(error).with_context(|| format!("lease address {address} of network {}", network.name)),
    }
}

fn take_fixed(layout: &Layout, network: &NetworkRecord, id: &Id, address: IpAddr) -> Result<IpAddr> {
    for _ in 0..2 {
        if take(layout, network, id, address)? {
            return Ok(address);
        }
        if !reclaim(layout, network, address)? {
            break;
        }
    }
    let link = layout.leases(&network.name).join(address.to_string());
    let owner = holder(&link).and_then(|id| Id::parse(&id).ok());
    let name = owner.as_ref().map(|id| match container::ContainerRecord::load(layout, id) {
        Ok(record) => format!("container {}", record.name),
        Err(_) => format!("container {}", id.short()),
    });
    let message = format!("address {address} of network {} is taken by {}", network.name, name.unwrap_or_default());
    Err(Failure::new(Kind::Engine, message).hint("leave `--ip` out to get a free address").into())
}

fn take_free(layout: &Layout, network: &NetworkRecord, id: &Id, pool: &Pool) -> Result<IpAddr> {
    let (first, last) = bounds(pool);
    // One hint a family, beside the members: it may vanish with the next boot or lie, the links decide.
    let hint = layout.running_network(&network.name).join(if first.is_ipv4() { "next" } else { "next6" });
    let recent = holder(&hint).and_then(|text| text.parse::<IpAddr>().ok());
    let start = match recent {
        Some(recent) if recent >= first && recent < last => number(recent) + 1,
        _ => number(first),
    };
    for attempt in 0..2 {
        // A subnet of IPv6 has no end; nobody waits for 2^64 tries.
        let candidates = (start..=number(last)).chain(number(first)..start).take(1 << 20);
        for candidate in candidates {
            let address = from_number(candidate, first);
            if pool.gateway != Some(address) && take(layout, network, id, address)? {
                remember(&hint, address);
                return Ok(address);
            }
        }
        if attempt == 0 && !reclaim_all(layout, network)? {
            break;
        }
    }
    let message = format!("no free address in {first} to {last} of network {}", network.name);
    Err(Failure::new(Kind::Engine, message).hint("`coracle network create --subnet` makes a larger one").into())
}

/// First and last address that a container can get.
pub fn bounds(pool: &Pool) -> (IpAddr, IpAddr) {
    pool.range.unwrap_or_else(|| (pool.subnet.first_host(), pool.subnet.last_host()))
}

fn remember(hint: &Path, address: IpAddr) {
    let Some(parent) = hint.parent() else { return };
    let temporary = file::staging_name(parent, ".next");
    if symlink(address.to_string(), &temporary).is_ok() && std::fs::rename(&temporary, hint).is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
}

/// Take an address from a container that is gone or does not run. True: it is free, or free for a moment.
fn reclaim(layout: &Layout, network: &NetworkRecord, address: IpAddr) -> Result<bool> {
    let link = layout.leases(&network.name).join(address.to_string());
    let Some(holder) = holder(&link) else { return Ok(true) };
    let Ok(id) = Id::parse(&holder) else { return Ok(std::fs::remove_file(&link).is_ok()) };
    if container::is_alive(layout, &id)? {
        return Ok(false);
    }
    release(layout, &network.name, &id, address)?;
    Ok(true)
}

fn reclaim_all(layout: &Layout, network: &NetworkRecord) -> Result<bool> {
    let directory = layout.leases(&network.name);
    let entries = std::fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    let mut any = false;
    for entry in entries.flatten() {
        if let Ok(address) = entry.file_name().to_string_lossy().parse() {
            any |= reclaim(layout, network, address)?;
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::network::{Driver, VERSION};

    fn network(subnet: &str, range: Option<(&str, &str)>) -> NetworkRecord {
        let subnet: crate::model::subnet::Subnet = subnet.parse().unwrap();
        let range = range.map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap()));
        NetworkRecord {
            version: VERSION,
            name: "n".to_owned(),
            id: Id::from_random([1; 32]),
            driver: Driver::Bridge,
            interface: "n0".to_owned(),
            created_ns: 0,
            subnets: vec![Pool { subnet, gateway: Some(subnet.first_host()), range }],
            routes: Vec::new(),
            ipv6: false,
            internal: false,
            dns: true,
            dns_servers: Vec::new(),
            labels: Default::default(),
            options: Default::default(),
            ipam: Ipam::HostLocal,
        }
    }

    fn with_store(name: &str, test: impl FnOnce(&Layout)) {
        let directory = std::env::temp_dir().join(format!("coracle-ipam-{name}-{}", std::process::id()));
        let layout = Layout::new(directory.join("data"), directory.join("run"));
        std::fs::create_dir_all(layout.leases("n")).unwrap();
        std::fs::create_dir_all(layout.members("n")).unwrap();
        test(&layout);
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn one(layout: &Layout, network: &NetworkRecord, number: u8, wanted: &[&str]) -> Result<String> {
        let wanted: Vec<IpAddr> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        lease(layout, network, &Id::from_random([number; 32]), &wanted).map(|leases| leases[0].address.to_string())
    }

    /// Hold `alive` of a container, as its supervisor does.
    fn live(layout: &Layout, number: u8) -> std::fs::File {
        let id = Id::from_random([number; 32]);
        std::fs::create_dir_all(layout.running(&id)).unwrap();
        let file = std::fs::File::create(layout.alive(&id)).unwrap();
        assert!(crate::state::lock::hold(&file).unwrap());
        file
    }

    #[test]
    fn in_order_and_round() {
        with_store("order", |layout| {
            let network = network("10.1.0.0/29", None);
            let _alive: Vec<_> = (1..=6).map(|number| live(layout, number)).collect();
            for (number, expected) in [(1, "10.1.0.2"), (2, "10.1.0.3"), (3, "10.1.0.4")] {
                assert_eq!(one(layout, &network, number, &[]).unwrap(), expected);
            }
            // Not the one just given back: neighbours may still remember it.
            release(layout, "n", &Id::from_random([3; 32]), "10.1.0.4".parse().unwrap()).unwrap();
            assert_eq!(one(layout, &network, 4, &[]).unwrap(), "10.1.0.5");
            assert_eq!(one(layout, &network, 5, &[]).unwrap(), "10.1.0.6");
            assert_eq!(one(layout, &network, 3, &[]).unwrap(), "10.1.0.4");
            let error = one(layout, &network, 6, &[]).unwrap_err().to_string();
            assert_eq!(error, "no free address in 10.1.0.1 to 10.1.0.6 of network n");
        });
    }

    #[test]
    fn leases_of_the_dead_are_taken() {
        with_store("dead", |layout| {
            let network = network("10.1.0.0/30", None);
            assert_eq!(one(layout, &network, 1, &[]).unwrap(), "10.1.0.2");
            assert_eq!(one(layout, &network, 2, &[]).unwrap(), "10.1.0.2");
            assert_eq!(one(layout, &network, 3, &["10.1.0.2"]).unwrap(), "10.1.0.2");
            let _alive = live(layout, 3);
            assert!(one(layout, &network, 4, &["10.1.0.2"]).unwrap_err().to_string().contains("is taken by container"));
        });
    }

    #[test]
    fn wanted_ones() {
        with_store("wanted", |layout| {
            let network = network("10.1.0.0/24", Some(("10.1.0.9", "10.1.0.9")));
            assert_eq!(one(layout, &network, 1, &["10.1.0.77"]).unwrap(), "10.1.0.77");
            assert_eq!(one(layout, &network, 2, &[]).unwrap(), "10.1.0.9");
            assert!(one(layout, &network, 3, &["10.2.0.1"]).unwrap_err().to_string().contains("not in any subnet"));
            assert!(one(layout, &network, 3, &["10.1.0.1"]).unwrap_err().to_string().contains("is the gateway"));
            release_all(layout, "n", &Id::from_random([1; 32])).unwrap();
            assert_eq!(std::fs::read_dir(layout.leases("n")).unwrap().count(), 1);
        });
    }
}
