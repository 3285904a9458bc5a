//! Containers' names for the host: a name server that runs for as long as somebody wants it.

use crate::engine::{Engine, network as networks};
use crate::failure::{Failure, Kind};
use crate::network::attach::DEFAULT_NETWORK;
use crate::network::host::Host;
use crate::network::names::zone::Zone;
use crate::network::names::{Server, Sockets, Upstream};
use crate::network::option;
use crate::state::network;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::SystemTime;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: SocketAddr,
    /// The link through which a resolver reaches it, where it is one of ours.
    pub link: Option<String>,
}

/// The port of an ordinary user's server, who may not have 53.
const USERS_PORT: u16 = 5354;

/// Where to listen: where it was asked for, else as root at the default network's gateway, else on the loopback.
pub fn place(engine: &Engine, listen: Option<SocketAddr>) -> Result<Place> {
    if let Some(address) = listen {
        return Ok(Place { address, link: None });
    }
    if engine.privilege.rootless {
        return Ok(Place { address: SocketAddr::from(([127, 0, 0, 1], USERS_PORT)), link: None });
    }
    let record = networks::find(engine, DEFAULT_NETWORK)?;
    let gateway = record.subnets.first().and_then(|pool| pool.gateway);
    let gateway = gateway.context("the default network has no gateway to listen on: name an address with --listen")?;
    let options = option::parse(record.driver, &record.options)?;
    Host::open(None, &engine.layout)?.bridge(&engine.layout, &record, &options)?;
    Ok(Place { address: SocketAddr::new(gateway, 53), link: Some(record.interface) })
}

/// Serve until the process ends. `ready` is called when questions are taken.
pub fn serve(engine: &Engine, address: SocketAddr, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let sockets = Sockets::at(address).map_err(explain)?;
    let zone = Zone::new(&engine.layout, &[], HashMap::new());
    let mut server = Server::new(sockets, zone, Upstream::Others)?;
    ready()?;
    let mut known = None;
    loop {
        let mut files = [PollFd::new(server.fd(), PollFlags::POLLIN)];
        match poll(&mut files, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.context("wait for questions")?,
        };
        // Networks come and go; their members are followed by the zone itself.
        let changed: Option<SystemTime> =
            std::fs::metadata(engine.layout.networks()).and_then(|metadata| metadata.modified()).ok();
        if changed.is_none() || changed != known {
            let names: Vec<String> = network::list(&engine.layout)?.into_iter().map(|record| record.name).collect();
            server.set_networks(&names, Upstream::Others);
            known = changed;
        }
        server.ready();
    }
}

fn explain(error: anyhow::Error) -> anyhow::Error {
    let errno = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error).map(Errno::from_raw);
    let hint = match errno {
        Some(Errno::EADDRINUSE) => "another name server has that address: name a free one with --listen",
        Some(Errno::EACCES) => "ordinary users listen on ports from 1024 on: name one with --listen",
        _ => return error,
    };
    error.context(Failure::new(Kind::Engine, "listen for questions").hint(hint))
}
