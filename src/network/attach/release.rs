//! Giving back what a container had.

use super::Attached;
use crate::network::host::Host;
use crate::network::ipam;
use crate::state::layout::Layout;
use crate::state::network;
use anyhow::Result;

/// Release what a document says. Does all it can and gives the first error; may be called again.
pub fn down(attached: &Attached, layout: &Layout) -> Result<()> {
    let Some(id) = &attached.id else { return Ok(()) };
    let mut first = Ok(());
    let mut note = |result: Result<()>| {
        if first.is_ok() {
            first = result;
        }
    };
    for interface in &attached.interfaces {
        note(network::leave(layout, &interface.network, id.as_str()));
    }
    if !attached.publications.is_empty() {
        note(withdraw(attached, layout));
    }
    for interface in &attached.interfaces {
        if interface.addresses.is_empty() {
            // Killed between the intent and the lease: only the links know.
            note(ipam::release_all(layout, &interface.network, id));
        }
        for subnet in &interface.addresses {
            note(ipam::release(layout, &interface.network, id, subnet.address));
        }
    }
    first
}

fn withdraw(attached: &Attached, layout: &Layout) -> Result<()> {
    let opened;
    let host = match &attached.held.host {
        Some(host) => host,
        None => {
            opened = Host::open(None, layout)?;
            &opened
        }
    };
    host.withdraw(&attached.publications)
}
