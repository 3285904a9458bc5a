//! A network's documents: `network.json` and the leases in DATA, the members in RUN.
//!
//! ```text
//! DATA/networks/NAME/network.json       what was created
//!                    leases/ADDRESS  -> the container's id: making the link is taking the address
//! RUN/networks/NAME/members/ID.json     who is on the network now: for names, and for putting rules back
//!                   next             -> the address that was leased last; a cache, may vanish
//! RUN/firewall                          a lock: shared by who adds rules, exclusive by who writes all of them
//! ```

use crate::model::id::{Id, check_name};
use crate::model::port::Publication;
use crate::model::subnet::Subnet;
use crate::state::file::{self, Durability, fault};
use crate::state::layout::Layout;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;

/// The number in each of these documents.
pub const VERSION: u32 = 1;

/// What was created; immutable but for `network update`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Format of this document.
    pub version: u32,
    /// The name.
    pub name: String,
    /// The id.
    pub id: Id,
    /// What makes the links.
    pub driver: Driver,
    /// The bridge, or the parent of a macvlan or ipvlan (empty: that of the default route).
    #[serde(default)]
    pub interface: String,
    /// When, in nanoseconds since 1970.
    pub created_ns: i64,
    /// Where addresses come from; none: the network gives none.
    #[serde(default)]
    pub subnets: Vec<Pool>,
    /// Static routes inside.
    #[serde(default)]
    pub routes: Vec<StaticRoute>,
    /// `--ipv6`.
    #[serde(default)]
    pub ipv6: bool,
    /// `--internal`.
    #[serde(default)]
    pub internal: bool,
    /// Whether containers find each other by name.
    #[serde(default)]
    pub dns: bool,
    /// `--dns`: who answers what is not a container's name; empty: the host's resolvers.
    #[serde(default)]
    pub dns_servers: Vec<IpAddr>,
    /// `--label`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `--opt`, checked at create.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// `--ipam-driver`.
    #[serde(default)]
    pub ipam: Ipam,
}

/// What makes the links of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge on the host.
    #[default]
    Bridge,
    /// Links of their own hardware address on a parent.
    Macvlan,
    /// Links that share the parent's hardware address.
    Ipvlan,
}

impl Driver {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Macvlan => "macvlan",
            Driver::Ipvlan => "ipvlan",
        }
    }
}

/// Where addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipam {
    /// Leases in this store.
    #[default]
    HostLocal,
    /// None are given.
    None,
}

/// One subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The subnet, host part zero.
    pub subnet: Subnet,
    /// The host's address in it; absent: none (macvlan, or internal).
    pub gateway: Option<IpAddr>,
    /// `--ip-range`: first and last address to give.
    #[serde(default)]
    pub range: Option<(IpAddr, IpAddr)>,
}

/// `--route`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    /// Where to.
    pub destination: Subnet,
    /// Through whom.
    pub gateway: IpAddr,
    /// Its metric.
    pub metric: Option<u32>,
}

/// Who is on a network now; written by the container's supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Format of this document.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// All names it answers to on this network, lower case.
    pub names: Vec<String>,
    /// Name of its link inside.
    pub interface: String,
    /// Its hardware address.
    pub mac: String,
    /// Its addresses on this network, with the length of the network part.
    pub addresses: Vec<Subnet>,
    /// What it publishes through this network.
    pub ports: Vec<Publication>,
    /// The supervisor, to tell a stale file.
    pub supervisor_pid: u32,
}

/// Read a network's record; `None` when there is none of this name.
pub fn load(layout: &Layout, name: &str) -> Result<Option<NetworkRecord>> {
    if check_name(name).is_err() {
        return Ok(None);
    }
    let record: Option<NetworkRecord> = file::read_json(&layout.network(name).join("network.json"))?;
    if let Some(record) = &record {
        let version = record.version;
        ensure!(version <= VERSION, "network {name} has version {version}, this coracle knows {VERSION}");
    }
    Ok(record)
}

/// All networks, by name.
pub fn list(layout: &Layout) -> Result<Vec<NetworkRecord>> {
    let mut records = Vec::new();
    for name in names_in(&layout.networks())? {
        records.extend(load(layout, &name)?);
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

/// Make a network: its directory comes whole.
///
/// # Errors
/// An `io::Error` of kind `AlreadyExists` in the chain when the name is taken.
pub fn create(layout: &Layout, record: &NetworkRecord) -> Result<()> {
    let what = || format!("create network {}", record.name);
    std::fs::create_dir_all(layout.networks()).with_context(what)?;
    std::fs::create_dir_all(layout.tmp()).with_context(what)?;
    let staging = file::staging_name(&layout.tmp(), "network");
    fault::point("mkdir", &staging).with_context(what)?;
    std::fs::create_dir(&staging).with_context(what)?;
    let fill = || -> Result<()> {
        std::fs::create_dir(staging.join("leases"))?;
        file::replace_json(&staging.join("network.json"), record, Durability::Durable)?;
        file::rename_new(&staging, &layout.network(&record.name))?;
        file::sync_directory(&layout.networks())?;
        Ok(())
    };
    let result = fill();
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&staging);
    }
    // EEXIST and ENOTEMPTY both mean that somebody has the name.
    result.map_err(|error| match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(ErrorKind::DirectoryNotEmpty) => std::io::Error::from(ErrorKind::AlreadyExists).into(),
        _ => error,
    })
}

/// Write a changed record (`network update`).
pub fn save(layout: &Layout, record: &NetworkRecord) -> Result<()> {
    file::replace_json(&layout.network(&record.name).join("network.json"), record, Durability::Durable)
}

/// Remove a network's documents: out of sight at once, then for good.
pub fn remove(layout: &Layout, name: &str) -> Result<()> {
    std::fs::create_dir_all(layout.tmp()).context("make the staging directory")?;
    let aside = file::staging_name(&layout.tmp(), "network");
    fault::point("discard", &aside).with_context(|| format!("remove network {name}"))?;
    match std::fs::rename(layout.network(name), &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        result => result.with_context(|| format!("remove network {name}"))?,
    }
    let _ = std::fs::remove_dir_all(&aside);
    let _ = std::fs::remove_dir_all(layout.running_network(name));
    Ok(())
}

/// Who is on a network now, by id. Files that cannot be read are passed over: they are being written or removed.
pub fn members(layout: &Layout, network: &str) -> Result<Vec<Member>> {
    let directory = layout.members(network);
    let mut members = Vec::new();
    for name in names_in(&directory)?.into_iter().filter(|name| name.ends_with(".json") && !name.starts_with('.')) {
        if let Ok(Some(member)) = file::read_json::<Member>(&directory.join(name)) {
            members.push(member);
        }
    }
    members.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(members)
}

/// Say that a container is on a network.
pub fn enter(layout: &Layout, network: &str, member: &Member) -> Result<()> {
    let directory = layout.members(network);
    let path = directory.join(format!("{}.json", member.id));
    let content = serde_json::to_vec(member)?;
    match file::replace(&path, &content, Durability::Volatile) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
            file::replace(&path, &content, Durability::Volatile)
        }
        result => result,
    }
    .with_context(|| format!("write {}", path.display()))
}

/// Say that it is no more.
pub fn leave(layout: &Layout, network: &str, id: &str) -> Result<()> {
    let path = layout.members(network).join(format!("{id}.json"));
    file::fault::point("leave", &path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("remove a member's file"),
        _ => Ok(()),
    }
}

/// Names of a directory's entries; none if it is not there.
fn names_in(directory: &std::path::Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
