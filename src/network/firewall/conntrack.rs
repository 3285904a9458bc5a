//! Forgetting flows of datagrams. The kernel decides where a flow goes at its first datagram and remembers; a flow that
//! began before its port was published, or that led to a container that is gone, would go astray for as long as the
//! client keeps sending.

use crate::model::port::{Protocol, Publication};
use crate::network::message::{ACK, Attributes, Batch, DUMP};
use crate::sys::netlink::Socket;
use anyhow::{Context, Result};
use nix::libc;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const ZONE: u16 = 18;

/// Forget the flows to these UDP ports of the host; others are left alone.
pub fn forget(socket: &Socket, ports: &[Publication]) -> Result<()> {
    let ports: Vec<&Publication> = ports.iter().filter(|port| port.protocol == Protocol::Udp).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let mut dump = Batch::new();
    dump.message("list flows", GET, DUMP, &[libc::AF_UNSPEC as u8, 0, 0, 0], |_| {});
    let mut delete = Batch::new();
    for reply in socket.dump(dump.bytes()).context("list flows")? {
        let Some((family, attributes)) = reply.body.split_first().zip(reply.body.get(4..)) else { continue };
        let attributes = Attributes(attributes);
        let Some(tuple) = attributes.find(TUPLE_ORIGINAL) else { continue };
        if !ports.iter().any(|port| leads_to(tuple, port)) {
            continue;
        }
        delete.message("forget a flow", DELETE, ACK, &[*family.0, 0, 0, 0], |batch| {
            batch.nest(TUPLE_ORIGINAL, |batch| batch.raw(tuple));
            if let Some(zone) = attributes.find(ZONE) {
                batch.put(ZONE, zone);
            }
        });
    }
    if delete.is_empty() {
        return Ok(());
    }
    let (_, refusals) = delete.try_send(socket)?;
    // One that has ended by itself meanwhile is as good as forgotten.
    match refusals.into_iter().find(|refusal| refusal.errno != libc::ENOENT) {
        Some(refusal) => Err(refusal.into_error()),
        None => Ok(()),
    }
}

/// Whether a flow goes to a port of this family.
fn leads_to(tuple: &[u8], port: &Publication) -> bool {
    let tuple = Attributes(tuple);
    let part = |kind: u16| tuple.find(kind).map(Attributes);
    let (Some(addresses), Some(transport)) = (part(1), part(2)) else { return false };
    // CTA_IP_V4_DST, CTA_IP_V6_DST; CTA_PROTO_NUM, CTA_PROTO_DST_PORT
    let address = addresses.find(if port.target.is_ipv4() { 2 } else { 4 });
    let number = transport.find(3).and_then(|bytes| Some(u16::from_be_bytes(*bytes.first_chunk()?)));
    let bound = match (port.host, address) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(std::net::IpAddr::V4(host)), Some(address)) => host.octets() == address,
        (Some(std::net::IpAddr::V6(host)), Some(address)) => host.octets() == address,
    };
    bound
        && transport.find(1) == Some(&[libc::IPPROTO_UDP as u8])
        && number.is_some_and(|number| (port.port..=port.port + (port.length - 1)).contains(&number))
}
