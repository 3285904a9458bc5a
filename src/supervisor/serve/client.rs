//! Somebody who is connected to a supervisor: what they wait for, and what they watch. The loop decides what they are told.

use crate::supervisor::message::{Attach, Connection, Reply};
use crate::supervisor::relay::Viewer;
use crate::sys::pipe;
use anyhow::{Context, Result};
use std::os::fd::{AsFd, OwnedFd};

/// Somebody who is connected.
pub struct Client {
    pub(super) connection: Connection,
    pub(super) viewer: Option<Viewer>,
    /// Wants to hear `Exited`.
    pub(super) waits: bool,
    /// Started the container and sits before it.
    pub(super) starter: bool,
    /// Wants to hear how the health check ends.
    pub(super) waits_for_check: bool,
    pub(super) gone: bool,
}

impl Client {
    /// A client on this connection.
    pub fn new(connection: Connection) -> Client {
        Client { connection, viewer: None, waits: false, starter: false, waits_for_check: false, gone: false }
    }

    /// The one who started the container, with what it wants to see.
    pub fn starter(connection: Connection, viewer: Option<Viewer>) -> Client {
        Client { connection, viewer, waits: true, starter: true, waits_for_check: false, gone: false }
    }

    /// Tell it something; who does not listen is forgotten.
    pub fn tell(&mut self, reply: &Reply, input: Option<&OwnedFd>) {
        let descriptors: Vec<_> = input.into_iter().map(AsFd::as_fd).collect();
        if self.connection.send(reply, &descriptors).is_err() {
            self.gone = true;
        }
    }
}

/// Make a viewer of what a client sent with its wish.
pub fn viewer(attach: &Attach, descriptors: &mut impl Iterator<Item = OwnedFd>) -> Result<Viewer> {
    let mut next = |wanted: bool| -> Result<Option<OwnedFd>> {
        if !wanted {
            return Ok(None);
        }
        let descriptor = descriptors.next().context("attach: a descriptor is missing")?;
        pipe::set_nonblocking(&descriptor)?;
        Ok(Some(descriptor))
    };
    let output = next(attach.output)?;
    let errors = next(attach.errors)?;
    Ok(Viewer::new(output, errors, attach.patient))
}
