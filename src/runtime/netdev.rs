//! `linux.netDevices`: interfaces of the runtime's network namespace become the container's, with their global
//! addresses, under the name asked for, and up.

use crate::sys::netlink::{self, Family, Reply, Socket};
use anyhow::{Context, Result, bail};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_LOCAL: u16 = 2;
const IFA_ADDRESS: u16 = 1;
const IFF_UP: u32 = 1;

/// An address as the kernel tells it: the fixed part and the attributes to give back.
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// Move the device `host` to the network namespace of process `pid`, as `name`.
pub fn move_device(host: &str, name: &str, pid: i32) -> Result<()> {
    let what = || format!("linux.netDevices[{host}]");
    let index = nix::net::if_::if_nametoindex(host).map_err(io::Error::from).with_context(what)?;
    let target = std::fs::File::open(format!("/proc/{pid}/ns/net")).with_context(what)?;
    let socket = Socket::open(Family::Route).context("open a netlink socket")?;
    let addresses = addresses_of(&socket, index).with_context(what)?;
    let number = (target.as_raw_fd() as u32).to_ne_bytes();
    let moved = message(
        RTM_NEWLINK,
        ACK,
        &link(index, 0, 0),
        &[(IFLA_NET_NS_FD, number.to_vec()), (IFLA_IFNAME, zero_ended(name)?)],
    );
    acknowledged(&socket.exchange(&moved).with_context(what)?).with_context(what)?;
    netlink::within(target.as_fd(), || set_up(name, &addresses))
        .context("enter the container's network")?
        .with_context(what)
}

fn set_up(name: &str, addresses: &[Address]) -> Result<()> {
    let socket = Socket::open(Family::Route)?;
    let index = nix::net::if_::if_nametoindex(name).map_err(io::Error::from)?;
    acknowledged(&socket.exchange(&message(RTM_NEWLINK, ACK, &link(index, IFF_UP, IFF_UP), &[]))?)
        .context("set it up")?;
    for address in addresses {
        let mut head = vec![address.family, address.prefix, 0, 0];
        head.extend(index.to_ne_bytes());
        let request = message(RTM_NEWADDR, ACK | CREATE, &head, &address.attributes);
        acknowledged(&socket.exchange(&request)?).context("give its address back")?;
    }
    Ok(())
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

fn zero_ended(name: &str) -> Result<Vec<u8>> {
    // IFNAMSIZ with its zero.
    if name.is_empty()
        || name.len() > 15
        || name.bytes().any(|byte| byte == 0 || byte == b'/' || byte.is_ascii_whitespace())
    {
        bail!("name: {name:?} is no name of an interface");
    }
    Ok([name.as_bytes(), b"\0"].concat())
}

fn message(kind: u16, flags: u16, head: &[u8], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = head.to_vec();
    for (kind, value) in attributes {
        body.extend(((value.len() + 4) as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = ((body.len() + 16) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | REQUEST).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

fn acknowledged(replies: &[Reply]) -> io::Result<()> {
    for reply in replies.iter().filter(|reply| reply.kind == NLMSG_ERROR) {
        let code = reply.body.first_chunk::<4>().map_or(-libc::EIO, |bytes| i32::from_ne_bytes(*bytes));
        if code != 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
    }
    Ok(())
}

/// The addresses of global scope.
fn addresses_of(socket: &Socket, index: u32) -> Result<Vec<Address>> {
    let replies = socket.dump(&message(RTM_GETADDR, DUMP, &[0; 8], &[]))?;
    Ok(replies
        .iter()
        .filter(|reply| reply.kind == RTM_NEWADDR)
        .filter_map(|reply| address(&reply.body, index))
        .collect())
}

/// One `struct ifaddrmsg` with its attributes, if it is this device's.
fn address(body: &[u8], index: u32) -> Option<Address> {
    const SCOPE_UNIVERSE: u8 = 0;
    let (head, mut rest) = body.split_first_chunk::<8>()?;
    let [family, prefix, _, scope, number @ ..] = *head;
    if u32::from_ne_bytes(number) != index || scope != SCOPE_UNIVERSE {
        return None;
    }
    let mut attributes = Vec::new();
    while let Some((bytes, _)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
        let value = rest.get(4..length)?;
        if matches!(kind, IFA_LOCAL | IFA_ADDRESS) {
            attributes.push((kind, value.to_vec()));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Address { family, prefix, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_a_torn_one_is_none() {
        let body = [2, 24, 0, 0, 7, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 1, 8, 0, 2, 0, 10, 0, 0, 1];
        let found = address(&body, u32::from_ne_bytes([7, 0, 0, 0])).unwrap();
        assert_eq!((found.family, found.prefix, found.attributes.len()), (2, 24, 2));
        assert!(address(&body, 8).is_none());
        assert!(address(&body[..14], 7).is_none());
        assert!(address(&[0; 3], 7).is_none());
    }

    #[test]
    fn names_of_interfaces() {
        zero_ended("eth0").unwrap();
        for wrong in ["", "a b", "a/b", "sixteen-letters-"] {
            assert!(zero_ended(wrong).is_err(), "{wrong}");
        }
    }
}
