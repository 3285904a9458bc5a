//! The messages that make the table `inet coracle` with its chains and rules. What each rule is for: see the drawing above.

use super::expression as expr;
use super::{Uplink, set};
use crate::network::message::{APPEND, Batch, CREATE};
use crate::sys::netlink::Socket;
use anyhow::Result;
use nix::libc;

/// The table's user data: `nft` shows it as a comment, we know by it that the rules are those of this program. A kind (0,
/// a comment), a length, a C string; `nft` crashes on anything else.
const COMMENT: &[u8] = b"\x00\x1bkept by coracle, version 2\x00";

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;

// Attributes of linux/netfilter/nf_tables.h, in the order of its enums.
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
/// A connection whose destination was translated (linux/netfilter/nf_conntrack_common.h).
const IPS_DST_NAT: u32 = 1 << 5;

/// A batch about one table.
pub struct Transaction<'a> {
    table: &'a str,
    batch: Batch,
}

/// One message about the table.
pub fn message(write: &mut Transaction<'_>, label: &str, kind: i32, flags: u16, fill: impl FnOnce(&mut Batch)) {
    let header = [libc::NFPROTO_INET as u8, 0, 0, 0];
    write.batch.message(label, SUBSYSTEM | kind as u16, flags, &header, |batch| {
        // Each kind of message names its table in its first attribute.
        batch.put_text(1, write.table);
        fill(batch);
    });
}

/// A transaction: the kernel takes all of it, or nothing.
pub fn transaction(table: &str, fill: impl FnOnce(&mut Transaction<'_>)) -> Batch {
    let header = [0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];
    let mut write = Transaction { table, batch: Batch::new() };
    write.batch.message("begin", libc::NFNL_MSG_BATCH_BEGIN as u16, 0, &header, |_| {});
    fill(&mut write);
    write.batch.message("end", libc::NFNL_MSG_BATCH_END as u16, 0, &header, |_| {});
    write.batch
}

/// Whether the table is there with the rules of this program.
pub fn is_there(socket: &Socket, table: &str) -> Result<bool> {
    let mut write = Transaction { table, batch: Batch::new() };
    message(&mut write, &format!("find table {table}"), libc::NFT_MSG_GETTABLE, 0, |_| {});
    let (replies, refusals) = write.batch.try_send(socket)?;
    match refusals.into_iter().next() {
        Some(refusal) if refusal.errno == libc::ENOENT => Ok(false),
        Some(refusal) => Err(refusal.into_error()),
        None => Ok(replies.iter().any(|reply| {
            let attributes = crate::network::message::Attributes(reply.body.get(4..).unwrap_or_default());
            attributes.find(6) == Some(COMMENT)
        })),
    }
}

/// Remove the table.
pub fn delete(write: &mut Transaction<'_>) {
    message(write, "remove the table", libc::NFT_MSG_DELTABLE, 0, |_| {});
}

/// Make the table with its sets, chains and rules in place of whatever is there.
pub fn replace(write: &mut Transaction<'_>, uplink: Option<&Uplink>) {
    let make = |write: &mut Transaction<'_>| {
        message(write, "make the table", libc::NFT_MSG_NEWTABLE, CREATE, |batch| {
            batch.put(6, COMMENT);
        });
    };
    // Made first so that removing it never fails.
    make(write);
    delete(write);
    make(write);
    set::make_all(write);
    chain(write, "raw", Some(("filter", libc::NF_INET_PRE_ROUTING, -300)));
    chain(write, "publish", None);
    chain(write, "prerouting", Some(("nat", libc::NF_INET_PRE_ROUTING, -100)));
    chain(write, "output", Some(("nat", libc::NF_INET_LOCAL_OUT, -100)));
    chain(write, "postrouting", Some(("nat", libc::NF_INET_POST_ROUTING, 100)));
    chain(write, "forward", Some(("filter", libc::NF_INET_FORWARD, 0)));
    raw_rules(write);
    publish_rules(write);
    postrouting_rules(write);
    forward_rules(write);
    if let Some(uplink) = uplink {
        chain(write, "uplink", Some(("filter", libc::NF_INET_PRE_ROUTING, -150)));
        uplink_rules(write, uplink);
    }
}

fn chain(write: &mut Transaction<'_>, name: &str, hook: Option<(&str, i32, i32)>) {
    message(write, &format!("make chain {name}"), libc::NFT_MSG_NEWCHAIN, CREATE, |batch| {
        batch.put_text(NFTA_CHAIN_NAME, name);
        if let Some((kind, hook, priority)) = hook {
            batch.nest(NFTA_CHAIN_HOOK, |batch| {
                batch.put_be32(1, hook as u32);
                batch.put_be32(2, priority as u32);
            });
            batch.put_be32(NFTA_CHAIN_POLICY, libc::NF_ACCEPT as u32);
            batch.put_text(NFTA_CHAIN_TYPE, kind);
        }
    });
}

fn rule(write: &mut Transaction<'_>, chain: &str, fill: impl FnOnce(&mut Batch)) {
    message(write, &format!("make rule in {chain}"), libc::NFT_MSG_NEWRULE, CREATE | APPEND, |batch| {
        batch.put_text(NFTA_RULE_CHAIN, chain);
        batch.nest(NFTA_RULE_EXPRESSIONS, fill);
    });
}

fn is_ipv4(batch: &mut Batch) {
    expr::meta(batch, libc::NFT_META_NFPROTO, expr::R1);
    expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &[libc::NFPROTO_IPV4 as u8]);
}

fn is_ipv6(batch: &mut Batch) {
    expr::meta(batch, libc::NFT_META_NFPROTO, expr::R1);
    expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &[libc::NFPROTO_IPV6 as u8]);
}

/// The network header's addresses: offset and length of source and destination.
struct Addresses {
    source: u32,
    destination: u32,
    length: u32,
}

const V4: Addresses = Addresses { source: 12, destination: 16, length: 4 };
const V6: Addresses = Addresses { source: 8, destination: 24, length: 16 };
const NETWORK: i32 = libc::NFT_PAYLOAD_NETWORK_HEADER;
const TRANSPORT: i32 = libc::NFT_PAYLOAD_TRANSPORT_HEADER;

fn raw_rules(write: &mut Transaction<'_>) {
    for offset in [V4.destination, V4.source] {
        rule(write, "raw", |batch| {
            expr::meta(batch, libc::NFT_META_IIFNAME, expr::R1);
            expr::in_set(batch, "bridges", expr::R1);
            is_ipv4(batch);
            expr::payload(batch, NETWORK, offset, 1, expr::R1);
            expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &[127]);
            expr::verdict(batch, libc::NF_DROP, None);
        });
    }
}

fn uplink_rules(write: &mut Transaction<'_>, uplink: &Uplink) {
    let to_socket = |batch: &mut Batch| {
        expr::load(batch, expr::R1, &uplink.mark.to_ne_bytes());
        expr::set_mark(batch, expr::R1);
        expr::verdict(batch, libc::NF_ACCEPT, None);
    };
    let protocol = |batch: &mut Batch, protocol: i32| {
        expr::meta(batch, libc::NFT_META_L4PROTO, expr::R1);
        expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &[protocol as u8]);
    };
    let from = |batch: &mut Batch, operator: i32| {
        expr::meta(batch, libc::NFT_META_IIFNAME, expr::R1);
        expr::compare(batch, operator, expr::R1, &set::link(uplink.link));
    };
    rule(write, "uplink", |batch| {
        expr::meta(batch, libc::NFT_META_IIFNAME, expr::R1);
        expr::in_set(batch, "internal", expr::R1);
        expr::verdict(batch, libc::NF_ACCEPT, None);
    });
    for number in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
        rule(write, "uplink", |batch| {
            protocol(batch, number);
            expr::transparent_socket(batch, expr::R1);
            expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &[1]);
            to_socket(batch);
        });
    }
    rule(write, "uplink", |batch| {
        protocol(batch, libc::IPPROTO_TCP);
        from(batch, libc::NFT_CMP_EQ);
        // Flags: SYN without ACK and RST.
        expr::payload(batch, TRANSPORT, 13, 1, expr::R1);
        expr::and(batch, expr::R1, &[0x16]);
        expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &[0x02]);
        expr::load(batch, expr::R1, &uplink.port.to_be_bytes());
        expr::tproxy(batch, expr::R1);
        to_socket(batch);
    });
    rule(write, "uplink", |batch| {
        protocol(batch, libc::IPPROTO_UDP);
        from(batch, libc::NFT_CMP_NEQ);
        expr::destination_link(batch, expr::R1);
        expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &set::link(uplink.link));
        expr::load(batch, expr::R1, &uplink.port.to_be_bytes());
        expr::tproxy(batch, expr::R1);
        to_socket(batch);
    });
}

fn publish_rules(write: &mut Transaction<'_>) {
    // `::1` is routed nowhere, whatever the destination becomes: the supervisor itself answers there.
    rule(write, "output", |batch| {
        is_ipv6(batch);
        expr::payload(batch, NETWORK, V6.destination, V6.length, expr::R1);
        expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &std::net::Ipv6Addr::LOCALHOST.octets());
        expr::verdict(batch, libc::NF_ACCEPT, None);
    });
    for chain in ["prerouting", "output"] {
        rule(write, chain, |batch| {
            expr::destination_kind(batch, expr::R1);
            expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &u32::from(libc::RTN_LOCAL).to_ne_bytes());
            expr::verdict(batch, libc::NFT_JUMP, Some("publish"));
        });
    }
    for (is_family, addresses, family, bound, any) in [
        (is_ipv4 as fn(&mut Batch), V4, libc::NFPROTO_IPV4, "port4", "any4"),
        (is_ipv6 as fn(&mut Batch), V6, libc::NFPROTO_IPV6, "port6", "any6"),
    ] {
        let words = addresses.length / 4;
        rule(write, "publish", |batch| {
            is_family(batch);
            expr::payload(batch, NETWORK, addresses.destination, addresses.length, expr::R1);
            expr::meta(batch, libc::NFT_META_L4PROTO, expr::word(words));
            expr::payload(batch, TRANSPORT, 2, 2, expr::word(words + 1));
            expr::in_map(batch, bound, expr::R1);
            expr::dnat(batch, family, expr::word(words));
        });
        rule(write, "publish", |batch| {
            is_family(batch);
            expr::meta(batch, libc::NFT_META_L4PROTO, expr::word(0));
            expr::payload(batch, TRANSPORT, 2, 2, expr::word(1));
            expr::in_map(batch, any, expr::R1);
            expr::dnat(batch, family, expr::word(words));
        });
    }
}

fn postrouting_rules(write: &mut Transaction<'_>) {
    for (is_family, addresses, nat, same) in
        [(is_ipv4 as fn(&mut Batch), V4, "nat4", "same4"), (is_ipv6 as fn(&mut Batch), V6, "nat6", "same6")]
    {
        rule(write, "postrouting", |batch| {
            is_family(batch);
            expr::payload(batch, NETWORK, addresses.source, addresses.length, expr::R1);
            expr::in_set(batch, nat, expr::R1);
            expr::meta(batch, libc::NFT_META_OIFNAME, expr::R1);
            expr::not_in_set(batch, "bridges", expr::R1);
            expr::masquerade(batch);
        });
        rule(write, "postrouting", |batch| {
            is_family(batch);
            has_status(batch, IPS_DST_NAT);
            expr::payload(batch, NETWORK, addresses.source, addresses.length, expr::R1);
            expr::payload(batch, NETWORK, addresses.destination, addresses.length, expr::word(addresses.length / 4));
            expr::in_set(batch, same, expr::R1);
            expr::masquerade(batch);
        });
    }
    rule(write, "postrouting", |batch| {
        is_ipv4(batch);
        expr::payload(batch, NETWORK, V4.source, 1, expr::R1);
        expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &[127]);
        expr::meta(batch, libc::NFT_META_OIFNAME, expr::R1);
        expr::in_set(batch, "bridges", expr::R1);
        expr::masquerade(batch);
    });
}

fn has_status(batch: &mut Batch, bit: u32) {
    expr::ct(batch, libc::NFT_CT_STATUS, expr::R1);
    expr::and(batch, expr::R1, &bit.to_ne_bytes());
    expr::compare(batch, libc::NFT_CMP_NEQ, expr::R1, &0u32.to_ne_bytes());
}

fn forward_rules(write: &mut Transaction<'_>) {
    const FROM: i32 = libc::NFT_META_IIFNAME;
    const TO: i32 = libc::NFT_META_OIFNAME;
    let member = |batch: &mut Batch, key: i32, set: &str| {
        expr::meta(batch, key, expr::R1);
        expr::in_set(batch, set, expr::R1);
    };
    rule(write, "forward", |batch| {
        expr::meta(batch, FROM, expr::R1);
        expr::meta(batch, TO, expr::word(4));
        expr::in_set(batch, "same", expr::R1);
        expr::verdict(batch, libc::NF_ACCEPT, None);
    });
    for key in [FROM, TO] {
        rule(write, "forward", |batch| {
            member(batch, key, "internal");
            expr::verdict(batch, libc::NF_DROP, None);
        });
    }
    rule(write, "forward", |batch| {
        expr::ct(batch, libc::NFT_CT_STATE, expr::R1);
        // NF_CT_STATE_BIT(IP_CT_ESTABLISHED | IP_CT_RELATED)
        expr::and(batch, expr::R1, &6u32.to_ne_bytes());
        expr::compare(batch, libc::NFT_CMP_NEQ, expr::R1, &0u32.to_ne_bytes());
        expr::verdict(batch, libc::NF_ACCEPT, None);
    });
    for (from, to) in [("isolated", "isolated"), ("strict", "bridges"), ("bridges", "strict")] {
        rule(write, "forward", |batch| {
            member(batch, FROM, from);
            member(batch, TO, to);
            expr::verdict(batch, libc::NF_DROP, None);
        });
    }
    rule(write, "forward", |batch| {
        member(batch, TO, "bridges");
        expr::not_in_set(batch, "routed", expr::R1);
        expr::meta(batch, FROM, expr::R1);
        expr::not_in_set(batch, "bridges", expr::R1);
        has_status(batch, IPS_DST_NAT);
        expr::verdict(batch, libc::NF_ACCEPT, None);
    });
    rule(write, "forward", |batch| {
        member(batch, TO, "bridges");
        expr::not_in_set(batch, "routed", expr::R1);
        expr::meta(batch, FROM, expr::R1);
        expr::not_in_set(batch, "bridges", expr::R1);
        expr::verdict(batch, libc::NF_DROP, None);
    });
}
