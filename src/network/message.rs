//! Writing and reading netlink messages: bytes only, no sockets.
//!
//! A [`Batch`] numbers its messages from 1 in `nlmsg_seq`; that is how an error finds its message again.

use crate::state::file::fault;
use crate::sys::netlink::{Reply, Socket};
use anyhow::{Context, Result};
use std::io;
use std::path::Path;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;

const NESTED: u16 = 1 << 15;
const NLMSG_ERROR: u16 = 2;

/// Messages one after the other in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the open message begins.
    start: usize,
    labels: Vec<String>,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Whether nothing was said yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One message: its kind, flags (`REQUEST` is added), fixed header, and what `fill` adds. `label` is what an error
    /// says was tried.
    pub fn message(&mut self, label: &str, kind: u16, flags: u16, header: &[u8], fill: impl FnOnce(&mut Batch)) {
        self.start = self.bytes.len();
        self.labels.push(label.to_owned());
        let sequence = self.labels.len() as u32;
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(header);
        self.pad();
        fill(self);
        let length = (self.bytes.len() - self.start) as u32;
        let start = self.start;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// An attribute of raw bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// An attribute with a C string.
    pub fn put_text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// A 32-bit number in host order, as rtnetlink has it.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// A 32-bit number in network order, as nf_tables has it.
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// An attribute of attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Batch)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        // An attribute's length has 16 bits; who nests lists splits them first.
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Raw bytes in place of attributes (`ifinfomsg` inside VETH_INFO_PEER).
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        while !(self.bytes.len() - self.start).is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    /// Send all and say what the kernel refused, by its own words and ours. Returns the answers that are no errors.
    pub fn send(&self, socket: &Socket) -> Result<Vec<Reply>> {
        let (replies, mut refusals) = self.try_send(socket)?;
        match refusals.is_empty() {
            true => Ok(replies),
            false => Err(refusals.swap_remove(0).into_error()),
        }
    }

    /// Send all; refusals are returned, in order, for who can live with some.
    pub fn try_send(&self, socket: &Socket) -> Result<(Vec<Reply>, Vec<Refusal>)> {
        fault::point("netlink", Path::new(self.labels.first().map_or("", String::as_str)))?;
        if self.bytes.len() > 128 << 10 {
            socket.reserve(self.bytes.len() * 2).context("make room for a netlink batch")?;
        }
        let replies = socket.exchange(&self.bytes).context("send to netlink")?;
        let mut good = Vec::new();
        let mut refusals = Vec::new();
        for reply in replies {
            match reply.kind {
                NLMSG_ERROR => refusals.extend(self.refusal(&reply)),
                _ => good.push(reply),
            }
        }
        Ok((good, refusals))
    }

    fn refusal(&self, reply: &Reply) -> Option<Refusal> {
        let errno = i32::from_ne_bytes(reply.body.get(..4)?.try_into().ok()?);
        // With CAP_ACK the error is followed by the request's header and then the extended answer.
        let text = Attributes(reply.body.get(20..).unwrap_or_default()).find(1);
        let text = text.map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        let index = (reply.sequence as usize).checked_sub(1)?;
        let label = self.labels.get(index).cloned().unwrap_or_default();
        (errno != 0).then_some(Refusal { index, label, errno: -errno, text })
    }
}

/// One message that the kernel did not carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which message of the batch, from 0.
    pub index: usize,
    /// What was tried.
    pub label: String,
    /// The error number.
    pub errno: i32,
    /// The kernel's own explanation.
    pub text: Option<String>,
}

impl Refusal {
    /// As an error with its cause; the cause is an `io::Error`.
    pub fn into_error(self) -> anyhow::Error {
        let error = anyhow::Error::from(io::Error::from_raw_os_error(self.errno));
        match self.text {
            Some(text) if !text.is_empty() => error.context(text).context(self.label),
            _ => error.context(self.label),
        }
    }
}

/// Reading attributes: an iterator of kind and value that stops at the first that does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first of this kind.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The first of this kind as a 32-bit number in host order.
    pub fn u32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.get(..4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// The first of this kind as text.
    pub fn text(self, kind: u16) -> Option<String> {
        self.find(kind).map(|value| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & !(NESTED | 1 << 14);
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_padding() {
        let mut batch = Batch::new();
        batch.message("a", 16, ACK, &[9; 3], |batch| {
            batch.put_text(1, "lo");
            batch.nest(2, |batch| batch.put(3, &[7]));
        });
        batch.message("b", 17, 0, &[], |_| {});
        let bytes = batch.bytes();
        assert_eq!(bytes[..4], 40u32.to_ne_bytes());
        assert_eq!(bytes[4..8], [16, 0, 5, 0]);
        assert_eq!(bytes[16..20], [9, 9, 9, 0]);
        assert_eq!(bytes[20..28], [7, 0, 1, 0, b'l', b'o', 0, 0]);
        assert_eq!(bytes[28..40], [12, 0, 2, 0x80, 5, 0, 3, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[40..56], [16, 0, 0, 0, 17, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        let attributes = Attributes(&bytes[20..40]);
        assert_eq!(attributes.text(1).as_deref(), Some("lo"));
        assert_eq!(Attributes(attributes.find(2).unwrap()).find(3), Some(&[7u8][..]));
    }

    #[test]
    fn garbage_is_read_as_nothing() {
        for length in 0..8u8 {
            let bytes = vec![length; usize::from(length)];
            assert!(Attributes(&bytes).count() <= 1);
        }
        assert_eq!(Attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes(&[0, 0, 1, 0]).count(), 0);
    }
}
