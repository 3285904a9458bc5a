//! Networks: make, find, show, change and remove them; join and leave them while a container lives.

use crate::engine::{Engine, remove};
use crate::failure::{self, Failure, Kind};
use crate::model::id::Id;
use crate::model::network::{Endpoint, NetworkMode};
use crate::network::attach::{DEFAULT_NETWORK, canonical_name};
use crate::network::create::{self, Wish};
use crate::network::host::Host;
use crate::network::{ipam, option};
use crate::state::container::{self, ContainerRecord};
use crate::state::event::{self, Event};
use crate::state::lock::{self, Mode, Rank};
use crate::state::network::{self, Member, NetworkRecord};
use crate::supervisor::client;
use crate::supervisor::message::Request;
use anyhow::{Context, Result};
use std::net::IpAddr;

/// Make a network. `ignore`: one of that name is as good.
pub fn create(engine: &Engine, wish: Wish, ignore: bool) -> Result<NetworkRecord> {
    if ignore
        && let Some(name) = &wish.name
        && let Some(record) = find_exact(engine, name)?
    {
        return Ok(record);
    }
    let record = create::create(&engine.layout, wish)?;
    tell(engine, &record, "create", "");
    Ok(record)
}

/// All networks by name, with the default one, which is made if it is not there yet.
pub fn list(engine: &Engine) -> Result<Vec<NetworkRecord>> {
    let mut records = network::list(&engine.layout)?;
    if !records.iter().any(|record| record.name == DEFAULT_NETWORK) {
        records.push(create::default(&engine.layout)?);
        records.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(records)
}

/// Find a network by name, or by the beginning of its id.
///
/// # Errors
/// Exit code 1 when there is none.
pub fn find(engine: &Engine, wanted: &str) -> Result<NetworkRecord> {
    if let Some(record) = find_exact(engine, wanted)? {
        return Ok(record);
    }
    let is_id = !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut matching = match is_id {
        true => list(engine)?.into_iter().filter(|record| record.id.as_str().starts_with(wanted)).collect(),
        false => Vec::new(),
    };
    match (matching.pop(), matching.is_empty()) {
        (Some(record), true) => Ok(record),
        (Some(_), false) => {
            Err(Failure::new(Kind::Engine, format!("more than one result for network ID {wanted}")).into())
        }
        (None, _) => {
            let message = format!("unable to find network with name or ID {wanted}: network not found");
            Err(Failure::new(Kind::Missing, message).into())
        }
    }
}

fn find_exact(engine: &Engine, wanted: &str) -> Result<Option<NetworkRecord>> {
    let name = canonical_name(wanted);
    match network::load(&engine.layout, name)? {
        None if name == DEFAULT_NETWORK => create::default(&engine.layout).map(Some),
        found => Ok(found),
    }
}

/// Who is on a network now.
pub fn members(engine: &Engine, record: &NetworkRecord) -> Result<Vec<Member>> {
    network::members(&engine.layout, &record.name)
}

/// The containers that name a network, running or not.
pub fn users(engine: &Engine, record: &NetworkRecord) -> Result<Vec<ContainerRecord>> {
    let mut users = Vec::new();
    for id in container::list(&engine.layout)? {
        // A container that is being made or removed right now is no user that can be told.
        if let Ok(container) = ContainerRecord::load(&engine.layout, &id)
            && joins(&container, &record.name)
        {
            users.push(container);
        }
    }
    Ok(users)
}

fn joins(container: &ContainerRecord, network: &str) -> bool {
    match &container.spec.network.mode {
        Some(NetworkMode::Networks(endpoints)) => {
            endpoints.iter().any(|endpoint| canonical_name(&endpoint.network) == network)
        }
        _ => false,
    }
}

/// Remove a network that nobody uses, with its bridge and rules.
///
/// # Errors
/// Exit code 2 when containers use it.
pub fn remove(engine: &Engine, record: &NetworkRecord) -> Result<()> {
    if record.name == DEFAULT_NETWORK {
        let message = format!("default network {} cannot be removed", shown_name(DEFAULT_NETWORK));
        return Err(Failure::new(Kind::Engine, message).into());
    }
    if !users(engine, record)?.is_empty() {
        let message = format!(
            "\"{}\" has associated containers with it. Use -f to forcefully delete containers and pods: network is being used",
            record.name
        );
        return Err(Failure::new(Kind::InUse, message).into());
    }
    let options = option::parse(record.driver, &record.options)?;
    // Without a bridge there is nothing in the kernel; an ordinary user has no right to ask either.
    if let Some(host) = Host::of_user(&engine.layout, engine.privilege.rootless)? {
        host.forget(&engine.layout, record, &options)?;
    }
    network::remove(&engine.layout, &record.name)?;
    tell(engine, record, "remove", "");
    Ok(())
}

/// `network rm --force`: remove the containers that use it. `time_s`: how long running ones may take to stop.
pub fn remove_users(engine: &Engine, record: &NetworkRecord, time_s: Option<i64>) -> Result<()> {
    let wish = remove::Wish { force: true, volumes: true, timeout_s: time_s, dependents: true };
    for user in users(engine, record)? {
        // One that went as another's dependent is as good as removed.
        if engine.layout.container(&user.id).exists() {
            remove::remove(engine, &user.id, wish)?;
        }
    }
    Ok(())
}

/// `network connect`: a running container joins at once, and from now on with each start.
pub fn connect(engine: &Engine, network: &str, container: &str, endpoint: Endpoint) -> Result<()> {
    let id = find_container(engine, container)?;
    let record = find(engine, network)?;
    let endpoint = Endpoint { network: record.name.clone(), ..endpoint };
    ipam::check_wanted(&record, &endpoint.addresses)?;
    let _guard = lock::lock(&engine.layout.container(&id), Rank::Container, Mode::Exclusive)?;
    let mut container = ContainerRecord::load(&engine.layout, &id)?;
    let name = container.name.clone();
    let endpoints = endpoints_of(&mut container)?;
    if endpoints.iter().any(|other| canonical_name(&other.network) == record.name) {
        let message =
            format!("container {} is already connected to network {:?}: network is already connected", id, record.name);
        return Err(Failure::new(Kind::Engine, message).into());
    }
    endpoints.push(endpoint.clone());
    if let Some(connection) = client::connect(&engine.layout, &id)? {
        connection
            .ask(&Request::Connect(endpoint), &[])
            .with_context(|| format!("connect {name} to {}", record.name))?;
    }
    container.save(&engine.layout)?;
    tell(engine, &record, "connect", id.as_str());
    Ok(())
}

/// `network disconnect`: the reverse of [`connect`]. `force`: it is no error if the container is gone.
pub fn disconnect(engine: &Engine, network: &str, container: &str, force: bool) -> Result<()> {
    let id = match find_container(engine, container) {
        Err(error) if force && failure::kind_of(&error) == Kind::Missing => return Ok(()),
        found => found?,
    };
    let record = find(engine, network)?;
    let _guard = lock::lock(&engine.layout.container(&id), Rank::Container, Mode::Exclusive)?;
    let mut container = ContainerRecord::load(&engine.layout, &id)?;
    let name = container.name.clone();
    let endpoints = endpoints_of(&mut container)?;
    let before = endpoints.len();
    endpoints.retain(|other| canonical_name(&other.network) != record.name);
    if endpoints.len() == before {
        let message =
            format!("container {} is not connected to network {:?}: network is not connected", id, record.name);
        return Err(Failure::new(Kind::Engine, message).into());
    }
    if let Some(connection) = client::connect(&engine.layout, &id)? {
        let request = Request::Disconnect(record.name.clone());
        connection.ask(&request, &[]).with_context(|| format!("disconnect {name} from {}", record.name))?;
    }
    container.save(&engine.layout)?;
    tell(engine, &record, "disconnect", id.as_str());
    Ok(())
}

fn find_container(engine: &Engine, name: &str) -> Result<Id> {
    container::find(&engine.layout, name)?.ok_or_else(|| {
        let message = format!("no container with name or ID \"{name}\" found: no such container");
        Failure::new(Kind::Missing, message).into()
    })
}

/// The networks of a container whose mode allows them to change.
fn endpoints_of(container: &mut ContainerRecord) -> Result<&mut Vec<Endpoint>> {
    let word = match &mut container.spec.network.mode {
        Some(NetworkMode::Networks(endpoints)) => return Ok(endpoints),
        Some(NetworkMode::Host) => "host",
        Some(NetworkMode::None) => "none",
        Some(NetworkMode::Pasta(_)) => "pasta",
        Some(NetworkMode::Container(_)) => "container",
        Some(NetworkMode::Path(_)) => "ns",
        None => "default",
    };
    Err(Failure::new(Kind::Engine, format!("\"{word}\" is not supported: invalid network mode"))
        .hint("containers that were created with `--network bridge` or with networks can join and leave others")
        .into())
}

/// Whether a network would be pruned: no container names it and it is not the default one.
pub fn is_unused(engine: &Engine, record: &NetworkRecord) -> Result<bool> {
    Ok(record.name != DEFAULT_NETWORK && users(engine, record)?.is_empty())
}

/// `network update`: other servers for what is no container's name.
pub fn update(engine: &Engine, record: &NetworkRecord, add: &[IpAddr], drop: &[IpAddr]) -> Result<NetworkRecord> {
    let mut record = record.clone();
    for server in drop {
        let Some(index) = record.dns_servers.iter().position(|known| known == server) else {
            let message = format!("DNS server {server} is not one of network {}", record.name);
            return Err(Failure::new(Kind::Engine, message).into());
        };
        record.dns_servers.remove(index);
    }
    for server in add {
        if !record.dns_servers.contains(server) {
            record.dns_servers.push(*server);
        }
    }
    network::save(&engine.layout, &record).with_context(|| format!("update network {}", record.name))?;
    for member in members(engine, &record)? {
        // One that ends at this moment needs no answer, and one that starts reads the new record.
        if let Ok(id) = Id::parse(&member.id)
            && let Ok(Some(connection)) = client::connect(&engine.layout, &id)
        {
            let _ = connection.ask(&Request::LookUpAgain, &[]);
        }
    }
    Ok(record)
}

/// Put back the rules of all networks. Returns the ids of the containers that are on one.
pub fn reload(engine: &Engine) -> Result<Vec<Id>> {
    if let Some(host) = Host::of_user(&engine.layout, engine.privilege.rootless)? {
        host.reload(&engine.layout)?;
    }
    let mut ids = Vec::new();
    for record in network::list(&engine.layout)? {
        for member in network::members(&engine.layout, &record.name)? {
            if let Ok(id) = Id::parse(&member.id)
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

/// The name under which a network is shown: who calls us `podman` knows the default network by that name.
pub fn shown_name(name: &str) -> &str {
    if name == DEFAULT_NETWORK && super::speaks_as_podman() { "podman" } else { name }
}

fn tell(engine: &Engine, record: &NetworkRecord, status: &str, container: &str) {
    // What happens to a container on a network is told of the container, all else of the network.
    let id = if container.is_empty() { record.id.as_str() } else { container };
    let driver = ("driver".to_owned(), record.driver.as_str().to_owned());
    event::record(
        &engine.layout,
        Event {
            kind: "network".to_owned(),
            status: status.to_owned(),
            id: id.to_owned(),
            name: record.name.clone(),
            network: record.name.clone(),
            attributes: container.is_empty().then_some(driver).into_iter().collect(),
            ..Event::default()
        },
    );
}
