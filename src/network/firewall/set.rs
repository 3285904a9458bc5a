//! The sets and maps of the table `inet coracle`, and their elements: ports, addresses and bridges.

use super::expression as expr;
use super::table::{Transaction, message};
use super::{Isolation, Zone};
use crate::model::port::{Protocol, Publication};
use crate::model::subnet::Subnet;
use crate::network::message::CREATE;
use nix::libc;
use std::net::IpAddr;

/// An attribute has at most 65535 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;

// Attributes of linux/netfilter/nf_tables.h, in the order of its enums.
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_KEY_END: u16 = 10;

/// What happens to elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They come.
    Add,
    /// They go.
    Remove,
}

struct Set {
    name: &'static str,
    /// Data type as `nft` numbers it, and the lengths of its parts.
    key: &'static [(u32, u8)],
    /// The same of the value, for maps.
    value: &'static [(u32, u8)],
    intervals: bool,
}

const IPV4: (u32, u8) = (7, 4);
const IPV6: (u32, u8) = (8, 16);
const PROTOCOL: (u32, u8) = (12, 1);
const PORT: (u32, u8) = (13, 2);
const LINK: (u32, u8) = (41, 16);

const SETS: &[Set] = &[
    Set { name: "port4", key: &[IPV4, PROTOCOL, PORT], value: &[IPV4, PORT], intervals: false },
    Set { name: "port6", key: &[IPV6, PROTOCOL, PORT], value: &[IPV6, PORT], intervals: false },
    Set { name: "any4", key: &[PROTOCOL, PORT], value: &[IPV4, PORT], intervals: false },
    Set { name: "any6", key: &[PROTOCOL, PORT], value: &[IPV6, PORT], intervals: false },
    Set { name: "nat4", key: &[IPV4], value: &[], intervals: true },
    Set { name: "nat6", key: &[IPV6], value: &[], intervals: true },
    Set { name: "same4", key: &[IPV4, IPV4], value: &[], intervals: true },
    Set { name: "same6", key: &[IPV6, IPV6], value: &[], intervals: true },
    Set { name: "bridges", key: &[LINK], value: &[], intervals: false },
    Set { name: "internal", key: &[LINK], value: &[], intervals: false },
    Set { name: "isolated", key: &[LINK], value: &[], intervals: false },
    Set { name: "strict", key: &[LINK], value: &[], intervals: false },
    Set { name: "routed", key: &[LINK], value: &[], intervals: false },
    Set { name: "same", key: &[LINK, LINK], value: &[], intervals: false },
];

/// Make all sets, empty.
pub fn make_all(write: &mut Transaction<'_>) {
    for (index, set) in SETS.iter().enumerate() {
        make_set(write, set, index as u32 + 1);
    }
}

/// Type number and length of a concatenation: six bits a part, each part padded to four bytes.
fn concatenation(parts: &[(u32, u8)]) -> (u32, u32) {
    let kind = parts.iter().fold(0, |kind, (part, _)| kind << 6 | part);
    let length = match parts {
        [(_, only)] => u32::from(*only),
        parts => parts.iter().map(|(_, length)| u32::from(*length).next_multiple_of(4)).sum(),
    };
    (kind, length)
}

/// Make a set, empty.
fn make_set(write: &mut Transaction<'_>, set: &Set, id: u32) {
    message(write, &format!("make set {}", set.name), libc::NFT_MSG_NEWSET, CREATE, |batch| {
        batch.put_text(NFTA_SET_NAME, set.name);
        let concatenated = set.key.len() > 1;
        let mut flags = if set.intervals { libc::NFT_SET_INTERVAL } else { 0 };
        if !set.value.is_empty() {
            flags |= libc::NFT_SET_MAP;
        }
        // NFT_SET_CONCAT
        flags |= if set.key.len() > 1 { 0x80 } else { 0 };
        batch.put_be32(NFTA_SET_FLAGS, flags as u32);
        let (kind, length) = concatenation(set.key);
        batch.put_be32(NFTA_SET_KEY_TYPE, kind);
        batch.put_be32(NFTA_SET_KEY_LEN, length);
        if !set.value.is_empty() {
            let (kind, length) = concatenation(set.value);
            batch.put_be32(NFTA_SET_DATA_TYPE, kind);
            batch.put_be32(NFTA_SET_DATA_LEN, length);
        }
        batch.put_be32(NFTA_SET_ID, id);
        if set.key == [LINK] {
            // For `nft list` only, which would take the name for a big-endian number: key byte order, host's.
            batch.put(NFTA_SET_USERDATA, &[&[0, 4][..], &1u32.to_ne_bytes()].concat());
        }
        if concatenated {
            // NFTA_SET_DESC { NFTA_SET_DESC_CONCAT { { NFTA_SET_FIELD_LEN } … } }
            batch.nest(NFTA_SET_DESC, |batch| {
                batch.nest(2, |batch| {
                    for (_, length) in set.key {
                        batch.nest(expr::ELEMENT, |batch| batch.put_be32(1, u32::from(*length)));
                    }
                });
            });
        }
    });
}

/// An element: its key, the end of its interval if it has one, its value.
struct Element {
    key: Vec<u8>,
    end: Option<Vec<u8>>,
    value: Vec<u8>,
    /// The element that closes an interval in a set of plain keys.
    closes: bool,
}

fn elements(write: &mut Transaction<'_>, set: &str, list: &[Element], change: Change) {
    let (kind, flags, verb) = match change {
        Change::Add => (libc::NFT_MSG_NEWSETELEM, CREATE, "add to"),
        Change::Remove => (libc::NFT_MSG_DELSETELEM, 0, "remove from"),
    };
    for part in list.chunks(ELEMENTS_PER_MESSAGE) {
        message(write, &format!("{verb} set {set}"), kind, flags, |batch| {
            batch.put_text(NFTA_SET_ELEM_LIST_SET, set);
            batch.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |batch| {
                for element in part {
                    batch.nest(expr::ELEMENT, |batch| {
                        if element.closes {
                            batch.put_be32(NFTA_SET_ELEM_FLAGS, libc::NFT_SET_ELEM_INTERVAL_END as u32);
                        }
                        batch.nest(NFTA_SET_ELEM_KEY, |batch| batch.put(1, &element.key));
                        if let Some(end) = &element.end {
                            batch.nest(NFTA_SET_ELEM_KEY_END, |batch| batch.put(1, end));
                        }
                        if !element.value.is_empty() {
                            batch.nest(NFTA_SET_ELEM_DATA, |batch| batch.put(1, &element.value));
                        }
                    });
                }
            });
        });
    }
}

fn plain(key: Vec<u8>) -> Element {
    Element { key, end: None, value: Vec::new(), closes: false }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A link's name in the sixteen bytes of `ifname`.
pub fn link(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Elements of the port maps.
pub fn ports(write: &mut Transaction<'_>, ports: &[Publication], change: Change) {
    let mut lists: [Vec<Element>; 4] = Default::default();
    for port in ports {
        let list = usize::from(port.host.is_none()) * 2 + usize::from(port.target.is_ipv6());
        for (outside, inside) in port.singles() {
            let mut key = port.host.map(bytes).unwrap_or_default();
            key.extend([protocol_number(port.protocol), 0, 0, 0]);
            key.extend(outside.to_be_bytes());
            key.extend([0, 0]);
            let mut value = Vec::new();
            if change == Change::Add {
                value = bytes(port.target);
                value.extend(inside.to_be_bytes());
                value.extend([0, 0]);
            }
            lists[list].push(Element { key, end: None, value, closes: false });
        }
    }
    for (list, set) in lists.iter().zip(["port4", "port6", "any4", "any6"]) {
        elements(write, set, list, change);
    }
}

fn protocol_number(protocol: Protocol) -> u8 {
    (match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => libc::IPPROTO_SCTP,
    }) as u8
}

/// Elements of one network.
pub fn zone(write: &mut Transaction<'_>, zone: &Zone, change: Change) {
    let name = link(&zone.bridge);
    elements(write, "bridges", &[plain(name.clone())], change);
    elements(write, "same", &[plain([name.clone(), name.clone()].concat())], change);
    for (set, wanted) in [
        ("internal", zone.internal),
        ("isolated", zone.isolation != Isolation::Open),
        ("strict", zone.isolation == Isolation::Strict),
        ("routed", zone.routed),
    ] {
        if wanted {
            elements(write, set, &[plain(name.clone())], change);
        }
    }
    for subnet in &zone.subnets {
        let suffix = if subnet.address.is_ipv4() { "4" } else { "6" };
        if zone.masquerade && !zone.internal {
            elements(write, &format!("nat{suffix}"), &interval(*subnet), change);
        }
        let (first, last) = (bytes(subnet.network().address), bytes(subnet.last()));
        let pair = Element {
            key: [first.clone(), first].concat(),
            end: Some([last.clone(), last].concat()),
            value: Vec::new(),
            closes: false,
        };
        elements(write, &format!("same{suffix}"), &[pair], change);
    }
}

/// In a set of plain keys an interval is two elements: its first address and the first after it.
fn interval(subnet: Subnet) -> Vec<Element> {
    let mut list = vec![plain(bytes(subnet.network().address))];
    let mut after = bytes(subnet.last());
    for byte in after.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            list.push(Element { key: after, end: None, value: Vec::new(), closes: true });
            break;
        }
    }
    list
}
