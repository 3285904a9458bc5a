//! Inside a container: its resolver is asked at 127.0.0.11:53 but listens on other ports, so that a name server of the
//! container's own can have port 53 on every address.
//!
//! The ports of the packets are rewritten as they leave, both ways and without any state: no connection tracking, which
//! would cost every packet of the container. Nothing else of the container's packets is looked at beyond its address.

use super::expression as expr;
use crate::network::message::{APPEND, Batch, CREATE};
use crate::sys::netlink::{Family, Socket};
use anyhow::{Context, Result};
use nix::libc;
use std::net::Ipv4Addr;

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const TABLE: &str = "coracle-names";
const CHAIN: &str = "output";
/// Where the network header has its addresses, and the transport header its ports.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

/// A name server's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The one of UDP.
    pub udp: u16,
    /// The one of TCP.
    pub tcp: u16,
}

/// Make port 53 of this address lead to these ports, in the caller's network namespace.
pub fn redirect(address: Ipv4Addr, ports: Ports) -> Result<()> {
    let socket = Socket::open(Family::Netfilter).context("open a netfilter socket")?;
    batch(address, ports).send(&socket).context("lead questions about names to their server")?;
    Ok(())
}

fn batch(address: Ipv4Addr, ports: Ports) -> Batch {
    let mut batch = Batch::new();
    let frame = [0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];
    let header = [libc::NFPROTO_IPV4 as u8, 0, 0, 0];
    batch.message("begin", libc::NFNL_MSG_BATCH_BEGIN as u16, 0, &frame, |_| {});
    let kind = |kind: i32| SUBSYSTEM | kind as u16;
    batch.message("make a table", kind(libc::NFT_MSG_NEWTABLE), CREATE, &header, |batch| batch.put_text(1, TABLE));
    batch.message("make a chain", kind(libc::NFT_MSG_NEWCHAIN), CREATE, &header, |batch| {
        batch.put_text(1, TABLE);
        batch.put_text(3, CHAIN);
        batch.nest(4, |batch| {
            batch.put_be32(1, libc::NF_INET_LOCAL_OUT as u32);
            // Before all that may look at ports.
            batch.put_be32(2, -300i32 as u32);
        });
        batch.put_text(7, "filter");
    });
    for (protocol, checksum, port) in [(libc::IPPROTO_UDP, 6, ports.udp), (libc::IPPROTO_TCP, 16, ports.tcp)] {
        for (side, at, from, to) in [(DESTINATION, DESTINATION_PORT, 53, port), (SOURCE, SOURCE_PORT, port, 53)] {
            batch.message("make a rule", kind(libc::NFT_MSG_NEWRULE), CREATE | APPEND, &header, |batch| {
                batch.put_text(1, TABLE);
                batch.put_text(2, CHAIN);
                batch.nest(4, |batch| {
                    let is = |batch: &mut Batch, value: &[u8]| expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, value);
                    expr::payload(batch, libc::NFT_PAYLOAD_NETWORK_HEADER, side, 4, expr::R1);
                    is(batch, &address.octets());
                    expr::meta(batch, libc::NFT_META_L4PROTO, expr::R1);
                    is(batch, &[protocol as u8]);
                    expr::payload(batch, libc::NFT_PAYLOAD_TRANSPORT_HEADER, at, 2, expr::R1);
                    is(batch, &from.to_be_bytes());
                    expr::load(batch, expr::R1, &to.to_be_bytes());
                    expr::write_transport(batch, expr::Place { offset: at, length: 2, checksum }, expr::R1);
                });
            });
        }
    }
    batch.message("end", libc::NFNL_MSG_BATCH_END as u16, 0, &frame, |_| {});
    batch
}
