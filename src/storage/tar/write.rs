//! Writing a tar stream: ustar, with PAX headers where ustar has no room.

use crate::storage::tar::{BLOCK, Entry, Kind};
use std::io::{Result, Write};

/// Writes entries to a stream.
pub struct Writer<W: Write> {
    target: W,
    /// Content and padding the current entry still owes.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Write to this stream.
    pub fn new(target: W) -> Writer<W> {
        Writer { target, left: 0, padding: 0 }
    }

    /// Begin an entry; `entry.stored` bytes of content must follow by [`Write`].
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.close()?;
        let extended = pax(entry);
        if !extended.is_empty() {
            let header = Entry { path: b"PaxHeaders/x".to_vec(), stored: extended.len() as u64, ..Entry::default() };
            self.target.write_all(&header_block(&header, b'x'))?;
            self.target.write_all(&extended)?;
            let padding = (BLOCK - extended.len() % BLOCK) % BLOCK;
            self.target.write_all(&[0; BLOCK][..padding])?;
        }
        let kind = match entry.kind {
            Kind::File => b'0',
            Kind::Link => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.target.write_all(&header_block(entry, kind))?;
        self.left = entry.stored;
        self.padding = ((BLOCK as u64 - entry.stored % BLOCK as u64) % BLOCK as u64) as usize;
        Ok(())
    }

    /// A regular file with its content in hand.
    pub fn file(&mut self, entry: &Entry, content: &[u8]) -> Result<()> {
        self.entry(&Entry { stored: content.len() as u64, ..entry.clone() })?;
        self.write_all(content)
    }

    /// Write the end and give the stream back.
    pub fn finish(mut self) -> Result<W> {
        self.close()?;
        self.target.write_all(&[0; 2 * BLOCK])?;
        self.target.flush()?;
        Ok(self.target)
    }

    /// A file that shrank while it was read is filled up with zeros: its header has promised a length.
    fn close(&mut self) -> Result<()> {
        while self.left > 0 {
            let count = self.left.min(BLOCK as u64) as usize;
            self.target.write_all(&[0; BLOCK][..count])?;
            self.left -= count as u64;
        }
        self.target.write_all(&[0; BLOCK][..self.padding])?;
        self.padding = 0;
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    /// Content of the current entry; what is more than it promised is dropped (a file that grew while it was read).
    fn write(&mut self, buffer: &[u8]) -> Result<usize> {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if count == 0 {
            return Ok(buffer.len());
        }
        let written = self.target.write(&buffer[..count])?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        self.target.flush()
    }
}

/// Largest number of an octal field with this many digits.
const fn octal_max(digits: u32) -> u64 {
    (1 << (3 * digits)) - 1
}

/// The extended header an entry needs; empty: none.
fn pax(entry: &Entry) -> Vec<u8> {
    let mut text = Vec::new();
    if split_name(&entry.path).is_none() {
        pair(&mut text, b"path", &entry.path);
    }
    if entry.link.len() > 100 {
        pair(&mut text, b"linkpath", &entry.link);
    }
    if entry.stored > octal_max(11) {
        pair(&mut text, b"size", entry.stored.to_string().as_bytes());
    }
    if u64::from(entry.uid) > octal_max(7) {
        pair(&mut text, b"uid", entry.uid.to_string().as_bytes());
    }
    if u64::from(entry.gid) > octal_max(7) {
        pair(&mut text, b"gid", entry.gid.to_string().as_bytes());
    }
    if entry.mtime_ns != 0 || u64::try_from(entry.mtime_s).is_ok_and(|time| time > octal_max(11)) || entry.mtime_s < 0 {
        pair(&mut text, b"mtime", pax_time(entry).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        pair(&mut text, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    text
}

fn pax_time(entry: &Entry) -> String {
    // -1.5 s is stored as -2 s and 500000000 ns.
    let (sign, seconds, nanoseconds) = match (entry.mtime_s, entry.mtime_ns) {
        (seconds, nanoseconds) if seconds < 0 && nanoseconds > 0 => ("-", -(seconds + 1), 1_000_000_000 - nanoseconds),
        (seconds, nanoseconds) if seconds < 0 => ("-", -seconds, nanoseconds),
        (seconds, nanoseconds) => ("", seconds, nanoseconds),
    };
    let fraction = format!("{nanoseconds:09}");
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{seconds}{dot}{fraction}")
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn pair(text: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    text.extend_from_slice(length.to_string().as_bytes());
    text.push(b' ');
    text.extend_from_slice(key);
    text.push(b'=');
    text.extend_from_slice(value);
    text.push(b'\n');
}

/// Prefix and name, if ustar has room for the path and every reader would read it alike.
fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The last slash that leaves at most 155 bytes before it; a directory's closing slash is none.
    let end = path.len() - 1;
    let slash = path[..end.min(156)].iter().rposition(|byte| *byte == b'/')?;
    (path.len() - slash - 1 <= 100 && slash > 0).then(|| (&path[..slash], &path[slash + 1..]))
}

fn header_block(entry: &Entry, kind: u8) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    match split_name(&entry.path) {
        Some((prefix, name)) => {
            block[..name.len()].copy_from_slice(name);
            block[345..345 + prefix.len()].copy_from_slice(prefix);
        }
        None => {
            // For old readers; the extended header has the whole.
            let count = entry.path.len().min(100);
            block[..count].copy_from_slice(&entry.path[..count]);
        }
    }
    octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
    octal(&mut block[108..116], u64::from(entry.uid));
    octal(&mut block[116..124], u64::from(entry.gid));
    octal(&mut block[124..136], entry.stored);
    octal(&mut block[136..148], u64::try_from(entry.mtime_s).unwrap_or(0));
    block[156] = kind;
    let count = entry.link.len().min(100);
    block[157..157 + count].copy_from_slice(&entry.link[..count]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    if matches!(entry.kind, Kind::Char | Kind::Block) {
        octal(&mut block[329..337], u64::from(entry.device.0));
        octal(&mut block[337..345], u64::from(entry.device.1));
    }
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    block[154] = 0;
    block
}

/// Octal with a closing zero byte; what does not fit stands in the extended header.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{:0digits$o}", value & octal_max(digits as u32));
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
}
