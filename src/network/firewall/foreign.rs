//! Getting along with ufw, Docker and firewalld: what our own table accepts, a chain of theirs may still drop.
//!
//! In nf_tables each table has its say, and one drop is enough. Those three drop or reject what is forwarded and not
//! theirs, in chains of known names; there each of our bridges gets two rules that accept what comes from it and what goes
//! to it. What may really pass is decided by our table all the same. Rules in Docker's chain for users come before ours.
//! Other chains are somebody's own: they are left alone.
//!
//! A firewalld that owns its table (NFT_TABLE_F_OWNER) is asked over D-Bus to trust the bridge instead.

use super::expression as expr;
use crate::host::bus::{self, Body, Bus, Method};
use crate::network::message::{APPEND, Attributes, Batch, CREATE, DUMP};
use crate::sys::netlink::Socket;
use anyhow::{Context, Result};
use nix::libc;

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const USERDATA: u16 = 7;

/// A chain of another tool through which forwarded packets go.
struct Chain {
    family: u8,
    table: String,
    name: String,
}

/// A rule of such a chain.
struct Rule {
    handle: u64,
    /// The bridge, if the rule is one of ours.
    bridge: Option<String>,
    /// It leads to Docker's chain for users.
    to_users: bool,
}

/// Add the rules that are missing.
pub fn admit(socket: &Socket, bridges: &[&str]) -> Result<()> {
    if bridges.is_empty() {
        return Ok(());
    }
    for chain in chains(socket)? {
        let rules = rules(socket, &chain)?;
        let missing = |bridge: &&&str| rules.iter().filter(|rule| rule.bridge.as_deref() == Some(bridge)).count() < 2;
        let missing: Vec<&str> = bridges.iter().filter(missing).copied().collect();
        if missing.is_empty() {
            continue;
        }
        let after = rules.iter().find(|rule| rule.to_users).map(|rule| rule.handle);
        let written = transaction(|batch| {
            for bridge in &missing {
                for rule in rules.iter().filter(|rule| rule.bridge.as_deref() == Some(bridge)) {
                    delete(batch, &chain, rule.handle);
                }
                accept(batch, &chain, bridge, after);
            }
        })
        .send(socket);
        match written {
            Err(error) if is_owned(&error) => missing.iter().for_each(|bridge| trust(bridge, true)),
            Err(error) => return Err(error.context(format!("add rules to chain {} {}", chain.table, chain.name))),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Remove a bridge's rules.
pub fn expel(socket: &Socket, bridge: &str) -> Result<()> {
    for chain in chains(socket)? {
        let ours: Vec<u64> = rules(socket, &chain)?
            .iter()
            .filter(|rule| rule.bridge.as_deref() == Some(bridge))
            .map(|rule| rule.handle)
            .collect();
        if ours.is_empty() {
            if chain.table == FIREWALLD {
                trust(bridge, false);
            }
            continue;
        }
        let batch = transaction(|batch| ours.iter().for_each(|handle| delete(batch, &chain, *handle)));
        let (_, refusals) = batch.try_send(socket)?;
        if let Some(refusal) = refusals.into_iter().find(|refusal| refusal.errno != libc::ENOENT) {
            return Err(refusal.into_error());
        }
    }
    Ok(())
}

const FIREWALLD: &str = "firewalld";

/// The chains of iptables (which ufw and Docker use) and of firewalld that see what is forwarded.
fn chains(socket: &Socket) -> Result<Vec<Chain>> {
    let mut batch = Batch::new();
    let kind = SUBSYSTEM | libc::NFT_MSG_GETCHAIN as u16;
    batch.message("list chains", kind, DUMP, &[libc::NFPROTO_UNSPEC as u8, 0, 0, 0], |_| {});
    let replies = socket.dump(batch.bytes()).context("list chains")?;
    let chain = |body: &[u8]| -> Option<Chain> {
        let family = *body.first()?;
        let attributes = Attributes(body.get(4..)?);
        let (table, name) = (attributes.text(1)?, attributes.text(3)?);
        let inet = i32::from(family) == libc::NFPROTO_INET;
        let known = (table == "filter" && name == "FORWARD" && !inet)
            || (table == FIREWALLD && name == "filter_FORWARD" && inet);
        // A chain of that name that hangs nowhere sees no packets.
        (known && attributes.find(4).is_some()).then_some(Chain { family, table, name })
    };
    Ok(replies.iter().filter_map(|reply| chain(&reply.body)).collect())
}

fn rules(socket: &Socket, chain: &Chain) -> Result<Vec<Rule>> {
    let mut batch = Batch::new();
    let kind = SUBSYSTEM | libc::NFT_MSG_GETRULE as u16;
    batch.message("list rules", kind, DUMP, &[chain.family, 0, 0, 0], |batch| {
        batch.put_text(1, &chain.table);
        batch.put_text(2, &chain.name);
    });
    let replies = socket.dump(batch.bytes()).with_context(|| format!("list rules of {}", chain.name))?;
    let rule = |body: &[u8]| -> Option<Rule> {
        let attributes = Attributes(body.get(4..)?);
        let handle = u64::from_be_bytes(attributes.find(3)?.try_into().ok()?);
        let bridge = attributes.find(USERDATA).and_then(bridge_of);
        let expressions = attributes.find(4).unwrap_or_default();
        let to_users = expressions.windows(USERS.len()).any(|part| part == USERS);
        Some(Rule { handle, bridge, to_users })
    };
    Ok(replies.iter().filter_map(|reply| rule(&reply.body)).collect())
}

/// Docker's chain for rules that users want before its own, as a jump names it.
const USERS: &[u8] = b"DOCKER-USER\0";
/// What our rules' comments begin with.
const COMMENT: &str = "coracle network on ";

fn bridge_of(userdata: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(userdata.get(2..)?).into_owned();
    text.trim_end_matches('\0').strip_prefix(COMMENT).map(str::to_owned)
}

fn transaction(fill: impl FnOnce(&mut Batch)) -> Batch {
    let header = [0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];
    let mut batch = Batch::new();
    batch.message("begin", libc::NFNL_MSG_BATCH_BEGIN as u16, 0, &header, |_| {});
    fill(&mut batch);
    batch.message("end", libc::NFNL_MSG_BATCH_END as u16, 0, &header, |_| {});
    batch
}

/// Two rules, before all others of the chain or behind the one of that handle.
fn accept(batch: &mut Batch, chain: &Chain, bridge: &str, after: Option<u64>) {
    for key in [libc::NFT_META_IIFNAME, libc::NFT_META_OIFNAME] {
        let kind = SUBSYSTEM | libc::NFT_MSG_NEWRULE as u16;
        let flags = CREATE | if after.is_some() { APPEND } else { 0 };
        batch.message("accept what containers send", kind, flags, &[chain.family, 0, 0, 0], |batch| {
            batch.put_text(1, &chain.table);
            batch.put_text(2, &chain.name);
            batch.nest(4, |batch| {
                expr::meta(batch, key, expr::R1);
                let mut name = bridge.as_bytes().to_vec();
                name.push(0);
                expr::compare(batch, libc::NFT_CMP_EQ, expr::R1, &name);
                expr::verdict(batch, libc::NF_ACCEPT, None);
            });
            if let Some(handle) = after {
                batch.put(6, &handle.to_be_bytes());
            }
            // A kind (0, a comment), a length, a C string: shown by `nft` and by `iptables`.
            let mut userdata = vec![0, (COMMENT.len() + bridge.len() + 1) as u8];
            userdata.extend(COMMENT.bytes().chain(bridge.bytes()));
            userdata.push(0);
            batch.put(USERDATA, &userdata);
        });
    }
}

fn delete(batch: &mut Batch, chain: &Chain, handle: u64) {
    let kind = SUBSYSTEM | libc::NFT_MSG_DELRULE as u16;
    batch.message("remove a rule", kind, 0, &[chain.family, 0, 0, 0], |batch| {
        batch.put_text(1, &chain.table);
        batch.put_text(2, &chain.name);
        batch.put(3, &handle.to_be_bytes());
    });
}

/// Whether another process owns the table.
fn is_owned(error: &anyhow::Error) -> bool {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.raw_os_error() == Some(libc::EPERM))
}

/// Put a bridge into firewalld's zone for trusted links, or take it out. One that does not answer is as good as none: the
/// container starts, and the firewall does what its owner set.
fn trust(bridge: &str, add: bool) {
    let Ok(mut bus) = Bus::connect(&bus::system_path()) else { return };
    let method = Method {
        service: "org.fedoraproject.FirewallD1",
        path: "/org/fedoraproject/FirewallD1",
        interface: "org.fedoraproject.FirewallD1.zone",
        name: if add { "changeZoneOfInterface" } else { "removeInterface" },
    };
    let mut body = Body::default();
    body.text("trusted").text(bridge);
    let _ = bus.call(method, "ss", &body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_rules_are_known_by_their_comment() {
        assert_eq!(bridge_of(b"\x00\x1ccoracle network on coracle0\0").as_deref(), Some("coracle0"));
        assert_eq!(bridge_of(b"\x00\x06other\0"), None);
        assert_eq!(bridge_of(b""), None);
    }
}
