//! One nf_tables table, `inet coracle`: fixed rules, and sets and maps whose elements are ports, addresses and bridges.
//!
//! Publishing a port adds an element, so it costs the same with one and with a thousand containers. Every change is one
//! batch, which the kernel takes whole or not at all. A start that finds the table gone (a firewall's reload flushed it)
//! puts all of it back from the members' files.
//!
//! ```text
//! raw prerouting     from a bridge to or from 127.0.0.0/8: drop         (what route_localnet would let in)
//! mangle prerouting  an ordinary user's only: of a forwarder's connection: to its socket
//!                    a first TCP packet that comes back in by the uplink, UDP on its way out: to the forwarder
//! nat prerouting     to an address of this host: publish
//! nat output         the same, for the host's own connections
//!     publish        address . protocol . port @port4|@port6, then protocol . port @any4|@any6: dnat
//! nat postrouting    from @nat4|@nat6 to no bridge of ours: masquerade
//!                    by a published port back into its own subnet (@same4|@same6): masquerade, or the answer goes astray
//!                    from 127.0.0.0/8 into a bridge: masquerade
//! filter forward     within one bridge: accept (br_netfilter)          @same
//!                    answers: accept
//!                    from or to @internal: drop
//!                    @isolated to @isolated, @strict to or from any of ours: drop
//!                    from elsewhere into a bridge without a published port: drop, unless the bridge is @routed
//! ```

mod conntrack;
mod expression;
mod foreign;
pub mod redirect;
mod set;
mod table;

use crate::model::port::Publication;
use crate::model::subnet::Subnet;
use crate::sys::netlink::{Family, Socket};
use anyhow::{Context, Result};
use set::Change;
use table::Transaction;

/// One bridge network as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The bridge.
    pub bridge: String,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// Whether addresses are translated on the way out.
    pub masquerade: bool,
    /// Nothing leaves and nothing comes in.
    pub internal: bool,
    /// Which other networks it may talk to.
    pub isolation: Isolation,
    /// Whether others may come in without a published port (`-o mode=unmanaged` and docker's `routed`).
    pub routed: bool,
}

/// `-o isolate=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All but internal ones.
    #[default]
    Open,
    /// Not to others that are isolated too.
    Isolated,
    /// To no other.
    Strict,
}

/// How an ordinary user's networks lead out: to the forwarder's sockets, through this link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The link.
    pub link: &'static str,
    /// The port the forwarder listens on.
    pub port: u16,
    /// The mark by which packets are routed to sockets of foreign addresses.
    pub mark: u32,
}

/// The way to one table of one network namespace.
#[derive(Debug)]
pub struct Firewall {
    socket: Socket,
    table: String,
    uplink: Option<Uplink>,
}

impl Firewall {
    /// Open it in the caller's network namespace.
    pub fn open(table: &str, uplink: Option<Uplink>) -> Result<Firewall> {
        let socket = Socket::open(Family::Netfilter).context("open a netfilter socket")?;
        Ok(Firewall { socket, table: table.to_owned(), uplink })
    }

    /// Whether our table is there, and of this version.
    pub fn is_there(&self) -> Result<bool> {
        table::is_there(&self.socket, &self.table)
    }

    /// Put everything in place: the rules, these zones and these ports. Replaces a table that is there.
    pub fn establish(&self, zones: &[Zone], ports: &[Publication]) -> Result<()> {
        self.send(|write| {
            table::replace(write, self.uplink.as_ref());
            for zone in zones {
                set::zone(write, zone, Change::Add);
            }
            set::ports(write, ports, Change::Add);
        })
    }

    /// Add zones and ports to a table that is there. An element that is there already stays.
    pub fn add(&self, zones: &[Zone], ports: &[Publication]) -> Result<()> {
        if zones.is_empty() && ports.is_empty() {
            return Ok(());
        }
        self.send(|write| {
            for zone in zones {
                set::zone(write, zone, Change::Add);
            }
            set::ports(write, ports, Change::Add);
        })
    }

    /// Take ports out. Those that are not there (another tool flushed them) are passed over.
    pub fn withdraw(&self, ports: &[Publication]) -> Result<()> {
        if ports.is_empty() || self.remove(|write| set::ports(write, ports, Change::Remove))? {
            return Ok(());
        }
        // One is missing, so the kernel took none: each by itself.
        for port in ports {
            self.remove(|write| set::ports(write, std::slice::from_ref(port), Change::Remove))?;
        }
        Ok(())
    }

    /// Let go of what the kernel remembers of flows to these ports: a datagram of a known flow sees no rule.
    pub fn forget_flows(&self, ports: &[Publication]) -> Result<()> {
        conntrack::forget(&self.socket, ports).context("forget flows of published ports")
    }

    /// Take a zone out.
    pub fn forget(&self, zone: &Zone) -> Result<()> {
        self.remove(|write| set::zone(write, zone, Change::Remove)).map(|_| ())
    }

    /// See that other tools' chains let the packets of these bridges through.
    pub fn admit(&self, bridges: &[&str]) -> Result<()> {
        foreign::admit(&self.socket, bridges).context("open another firewall for containers")
    }

    /// Take back what [`Firewall::admit`] did for a bridge.
    pub fn expel(&self, bridge: &str) -> Result<()> {
        foreign::expel(&self.socket, bridge).context("take our rules out of another firewall")
    }

    fn send(&self, fill: impl FnOnce(&mut Transaction<'_>)) -> Result<()> {
        table::transaction(&self.table, fill).send(&self.socket).context("write the firewall rules")?;
        Ok(())
    }

    /// False when something was not there.
    fn remove(&self, fill: impl FnOnce(&mut Transaction<'_>)) -> Result<bool> {
        let (_, refusals) = table::transaction(&self.table, fill).try_send(&self.socket)?;
        match refusals.iter().position(|refusal| refusal.errno != nix::libc::ENOENT) {
            Some(index) => {
                let refusal = refusals.into_iter().nth(index);
                refusal.map_or(Ok(false), |refusal| Err(refusal.into_error().context("change the firewall rules")))
            }
            None => Ok(refusals.is_empty()),
        }
    }
}
