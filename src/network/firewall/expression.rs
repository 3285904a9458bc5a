//! The expressions of nf_tables rules, as attributes. Each function appends one expression.
//!
//! Registers: 1 is the first of four of 16 bytes; 8 and up are the same memory in steps of four bytes, so register 8 is
//! where register 1 begins.

use crate::network::message::Batch;
use nix::libc;

/// `NFTA_LIST_ELEM`.
pub const ELEMENT: u16 = 1;

/// The first register.
pub const R1: u32 = 1;
/// `NFT_REG32_00 + n`.
pub const fn word(n: u32) -> u32 {
    8 + n
}

fn expression(batch: &mut Batch, name: &str, data: impl FnOnce(&mut Batch)) {
    batch.nest(ELEMENT, |batch| {
        batch.put_text(1, name);
        batch.nest(2, data);
    });
}

/// Load a fact about the packet.
pub fn meta(batch: &mut Batch, key: i32, register: u32) {
    expression(batch, "meta", |batch| {
        batch.put_be32(2, key as u32);
        batch.put_be32(1, register);
    });
}

/// Load a fact about the connection.
pub fn ct(batch: &mut Batch, key: i32, register: u32) {
    expression(batch, "ct", |batch| {
        batch.put_be32(1, register);
        batch.put_be32(2, key as u32);
    });
}

/// Load bytes of a header.
pub fn payload(batch: &mut Batch, base: i32, offset: u32, length: u32, register: u32) {
    expression(batch, "payload", |batch| {
        batch.put_be32(1, register);
        batch.put_be32(2, base as u32);
        batch.put_be32(3, offset);
        batch.put_be32(4, length);
    });
}

/// Bytes of a transport header, and where that has its checksum.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// From the header's beginning.
    pub offset: u32,
    /// How many bytes.
    pub length: u32,
    /// Where the checksum is.
    pub checksum: u32,
}

/// Write a register into a transport header.
pub fn write_transport(batch: &mut Batch, place: Place, register: u32) {
    expression(batch, "payload", |batch| {
        batch.put_be32(5, register);
        batch.put_be32(2, libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32);
        batch.put_be32(3, place.offset);
        batch.put_be32(4, place.length);
        // NFT_PAYLOAD_CSUM_INET
        batch.put_be32(6, 1);
        batch.put_be32(7, place.checksum);
    });
}

/// Go on only if the register equals (or, with `NFT_CMP_NEQ`, differs from) these bytes.
pub fn compare(batch: &mut Batch, operator: i32, register: u32, value: &[u8]) {
    expression(batch, "cmp", |batch| {
        batch.put_be32(1, register);
        batch.put_be32(2, operator as u32);
        batch.nest(3, |batch| batch.put(1, value));
    });
}

/// `register & mask`.
pub fn and(batch: &mut Batch, register: u32, mask: &[u8]) {
    expression(batch, "bitwise", |batch| {
        batch.put_be32(1, register);
        batch.put_be32(2, register);
        batch.put_be32(3, mask.len() as u32);
        batch.nest(4, |batch| batch.put(1, mask));
        batch.nest(5, |batch| batch.put(1, &vec![0; mask.len()]));
    });
}

/// Go on only if the register is in the set.
pub fn in_set(batch: &mut Batch, set: &str, register: u32) {
    lookup(batch, set, register, None, false);
}

/// Go on only if the register is not in the set.
pub fn not_in_set(batch: &mut Batch, set: &str, register: u32) {
    lookup(batch, set, register, None, true);
}

/// Go on only if the register is in the map, with the value in register 1.
pub fn in_map(batch: &mut Batch, map: &str, register: u32) {
    lookup(batch, map, register, Some(R1), false);
}

fn lookup(batch: &mut Batch, set: &str, register: u32, value: Option<u32>, inverted: bool) {
    expression(batch, "lookup", |batch| {
        batch.put_text(1, set);
        batch.put_be32(2, register);
        if let Some(value) = value {
            batch.put_be32(3, value);
        }
        if inverted {
            batch.put_be32(5, 1);
        }
    });
}

/// Load the kind of the destination address (`RTN_LOCAL`: one of this host's).
pub fn destination_kind(batch: &mut Batch, register: u32) {
    expression(batch, "fib", |batch| {
        batch.put_be32(1, register);
        // NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR
        batch.put_be32(2, 3);
        batch.put_be32(3, 2);
    });
}

/// Send the packet to the address in register 1 and the port in the word at `port`.
pub fn dnat(batch: &mut Batch, family: i32, port: u32) {
    expression(batch, "nat", |batch| {
        batch.put_be32(1, libc::NFT_NAT_DNAT as u32);
        batch.put_be32(2, family as u32);
        batch.put_be32(3, R1);
        batch.put_be32(5, port);
    });
}

/// Load the name of the link by which the destination is reached.
pub fn destination_link(batch: &mut Batch, register: u32) {
    expression(batch, "fib", |batch| {
        batch.put_be32(1, register);
        // NFT_FIB_RESULT_OIFNAME, NFTA_FIB_F_DADDR
        batch.put_be32(2, 2);
        batch.put_be32(3, 2);
    });
}

/// Load whether the packet belongs to a socket that may have any address (IP_TRANSPARENT).
pub fn transparent_socket(batch: &mut Batch, register: u32) {
    expression(batch, "socket", |batch| {
        // NFT_SOCKET_TRANSPARENT
        batch.put_be32(1, 0);
        batch.put_be32(2, register);
    });
}

/// Put bytes into a register.
pub fn load(batch: &mut Batch, register: u32, value: &[u8]) {
    expression(batch, "immediate", |batch| {
        batch.put_be32(1, register);
        batch.nest(2, |batch| batch.put(1, value));
    });
}

/// Mark the packet with the register.
pub fn set_mark(batch: &mut Batch, register: u32) {
    expression(batch, "meta", |batch| {
        batch.put_be32(2, libc::NFT_META_MARK as u32);
        batch.put_be32(3, register);
    });
}

/// Give the packet to the socket that listens on the port in the register.
pub fn tproxy(batch: &mut Batch, port: u32) {
    expression(batch, "tproxy", |batch| {
        batch.put_be32(1, 0);
        batch.put_be32(3, port);
    });
}

/// Give the packet the address of the link it leaves by.
pub fn masquerade(batch: &mut Batch) {
    expression(batch, "masq", |_| {});
}

/// `NF_ACCEPT`, `NF_DROP` or, with a chain, `NFT_JUMP`.
pub fn verdict(batch: &mut Batch, code: i32, chain: Option<&str>) {
    expression(batch, "immediate", |batch| {
        batch.put_be32(1, 0);
        batch.nest(2, |batch| {
            batch.nest(2, |batch| {
                batch.put_be32(1, code as u32);
                if let Some(chain) = chain {
                    batch.put_text(2, chain);
                }
            });
        });
    });
}
