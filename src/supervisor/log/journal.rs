//! The journal of systemd, spoken to in its own protocol: one datagram an entry.

use super::{Owner, PART_MAX, Stream};
use crate::failure::Explain;
use crate::model::container::Log as Wish;
use anyhow::{Context, Result};
use std::io::BufRead;
use std::os::unix::net::UnixDatagram;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// syslog's priorities.
const PRIORITY: [u8; 2] = [b'6', b'3'];

/// An open way to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    /// The fields that are the same in all entries.
    fields: Vec<u8>,
    /// Lines whose end has not come yet.
    parts: [Vec<u8>; 2],
}

impl Journal {
    pub(super) fn open(wish: &Wish, owner: Owner<'_>) -> Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket
            .connect(SOCKET)
            .with_context(|| format!("connect to {SOCKET}"))
            .hint("this host has no journal: choose another driver with --log-driver")?;
        let mut fields = Vec::new();
        let short = &owner.id[..owner.id.len().min(12)];
        let tag = wish.tag.as_deref().unwrap_or(short);
        for (name, value) in [
            ("CONTAINER_ID", short),
            ("CONTAINER_ID_FULL", owner.id),
            ("CONTAINER_NAME", owner.name),
            ("CONTAINER_TAG", wish.tag.as_deref().unwrap_or_default()),
            ("IMAGE_NAME", owner.image),
            ("SYSLOG_IDENTIFIER", tag),
        ] {
            if !value.is_empty() {
                field(&mut fields, name, value.as_bytes());
            }
        }
        Ok(Journal { socket, fields, parts: [Vec::new(), Vec::new()] })
    }

    pub(super) fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut part = std::mem::take(&mut self.parts[stream as usize]);
            let room = PART_MAX.saturating_sub(part.len()).min(bytes.len());
            let mut head = &bytes[..room];
            let taken = head.read_until(b'\n', &mut part).unwrap_or(room);
            bytes = &bytes[taken..];
            if part.last() == Some(&b'\n') {
                self.send(stream, &part[..part.len() - 1], false);
                part.clear();
            } else if part.len() >= PART_MAX {
                self.send(stream, &part, true);
                part.clear();
            }
            self.parts[stream as usize] = part;
        }
    }

    pub(super) fn finish(&mut self) {
        for stream in [Stream::Output, Stream::Errors] {
            let part = std::mem::take(&mut self.parts[stream as usize]);
            if !part.is_empty() {
                self.send(stream, &part, true);
            }
        }
    }

    /// A journal that is down loses the entry: the container must not stand still for its log.
    fn send(&self, stream: Stream, text: &[u8], partial: bool) {
        let _ = self.socket.send(&entry(&self.fields, stream, text, partial));
    }
}

fn entry(fields: &[u8], stream: Stream, text: &[u8], partial: bool) -> Vec<u8> {
    let mut entry = Vec::with_capacity(fields.len() + text.len() + 80);
    field(&mut entry, "MESSAGE", text);
    field(&mut entry, "PRIORITY", &PRIORITY[stream as usize..=stream as usize]);
    if partial {
        field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    entry.extend_from_slice(fields);
    entry
}

/// `NAME=VALUE`, or for a value of several lines `NAME`, its length in 8 bytes, and the value.
fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let mut fields = Vec::new();
        field(&mut fields, "A", b"b\nc");
        assert_eq!(fields, b"A\n\x03\0\0\0\0\0\0\0b\nc\n");
        let bytes = entry(b"X=y\n", Stream::Errors, b"oh", true);
        assert_eq!(bytes, b"MESSAGE=oh\nPRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\nX=y\n");
    }
}
