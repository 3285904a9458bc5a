//! Reading a tar stream entry by entry.
//!
//! Invariant: each byte of the stream is given out exactly once, either as content (through [`Reader::content`]) or to
//! the [`Raw`] sink, so that sink and contents together are the archive again.

use crate::storage::tar::{BLOCK, Entry, Kind};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, ErrorKind};

/// Longest name or link target: what the kernel takes, with room for prefixes that are stripped.
const PATH_MAX: usize = 8192;
/// Longest PAX header: a hundred extended attributes of 64 KiB would not fit the file system either.
const PAX_MAX: u64 = 4 << 20;
/// Most fragments of a sparse file.
const SPARSE_MAX: usize = 1 << 20;

/// Takes what is not content: headers, padding, the end.
pub trait Raw {
    /// The next bytes.
    fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

/// Throws it away.
pub struct NoRaw;

impl Raw for NoRaw {
    fn raw(&mut self, _bytes: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// A tar stream.
pub struct Reader<R, S> {
    source: R,
    /// Where the bytes between the contents go.
    pub sink: S,
    /// Content of the current entry not read yet.
    left: u64,
    /// Padding after it.
    padding: u64,
    /// Content goes to the sink too (sparse files).
    content_is_raw: bool,
}

/// Whether a stream that begins so (with its first [`BLOCK`] bytes, or all it has) is a tar. An empty one is, too.
pub fn is_archive(start: &[u8]) -> bool {
    match start.first_chunk::<BLOCK>() {
        Some(block) => block.iter().all(|byte| *byte == 0) || check_sum(block).is_ok(),
        None => start.is_empty(),
    }
}

impl<R: BufRead, S: Raw> Reader<R, S> {
    /// Read from this source.
    pub fn new(source: R, sink: S) -> Reader<R, S> {
        Reader { source, sink, left: 0, padding: 0, content_is_raw: false }
    }

    /// The next entry; `None` at the end, after which the source has been read to its end.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.finish_entry()?;
        let mut extended = Extended::default();
        loop {
            let mut block = [0u8; BLOCK];
            if !self.read_block(&mut block)? {
                ensure!(extended.is_empty(), "the archive ends after an extended header");
                return Ok(None);
            }
            if block.iter().all(|byte| *byte == 0) {
                ensure!(extended.is_empty(), "the archive ends after an extended header");
                self.drain()?;
                return Ok(None);
            }
            check_sum(&block)?;
            let size = number(&block[124..136]).context("size")?;
            match block[156] {
                b'x' => extended.pax(&self.read_extended(size)?)?,
                b'g' => drop(self.read_extended(size)?),
                b'L' => extended.path = Some(until_nul(&self.read_long(size)?).to_vec()),
                b'K' => extended.link = Some(until_nul(&self.read_long(size)?).to_vec()),
                _ => return self.entry(&block, size, extended).map(Some),
            }
        }
    }

    /// Content of the current entry that is at hand, empty at its end. Confirm with [`Reader::consume`].
    pub fn content(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let buffer = fill(&mut self.source)?;
        ensure!(!buffer.is_empty(), "the archive is cut off in the middle of a file");
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&buffer[..length])
    }

    /// So many bytes of what [`Reader::content`] gave have been used.
    pub fn consume(&mut self, count: usize) -> Result<()> {
        if self.content_is_raw {
            let buffer = fill(&mut self.source)?;
            self.sink.raw(&buffer[..count])?;
        }
        self.source.consume(count);
        self.left -= count as u64;
        Ok(())
    }

    /// All of the current entry's content, if it is not longer than this.
    #[cfg(test)]
    pub fn content_within(&mut self, limit: u64) -> Result<Vec<u8>> {
        ensure!(self.left <= limit, "a file of {} bytes where at most {limit} are expected", self.left);
        let mut content = Vec::with_capacity(self.left as usize);
        loop {
            let part = self.content()?;
            if part.is_empty() {
                return Ok(content);
            }
            content.extend_from_slice(part);
            let count = part.len();
            self.consume(count)?;
        }
    }

    /// Nothing more is read: the source is dropped, the sink is given back.
    pub fn into_sink(self) -> S {
        self.sink
    }

    /// Where in the source the current entry's content begins, told by the source itself.
    pub fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// Pass over the current entry's content without reading it; `skip` moves the source.
    pub fn skip_content(&mut self, skip: impl FnOnce(&mut R, u64) -> std::io::Result<()>) -> Result<()> {
        let count = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        if count > 0 {
            skip(&mut self.source, count)?;
        }
        Ok(())
    }

    fn entry(&mut self, block: &[u8; BLOCK], size: u64, extended: Extended) -> Result<Entry> {
        let ustar = &block[257..262] == b"ustar";
        let prefix: &[u8] = if ustar && block[263..265] != *b" \0" { until_nul(&block[345..500]) } else { b"" };
        let mut path = until_nul(&block[..100]).to_vec();
        if !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let path = extended.path.unwrap_or(path);
        ensure!(path.len() <= PATH_MAX, "a name of {} bytes", path.len());
        let shown = || String::from_utf8_lossy(&path).into_owned();
        let kind = match block[156] {
            b'0' | 0 | b'7' | b'S' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::Link,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => bail!("{}: entry of unknown type {:?}", shown(), char::from(other)),
        };
        let link = extended.link.unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        ensure!(link.len() <= PATH_MAX, "{}: a link target of {} bytes", shown(), link.len());
        let size = extended.size.unwrap_or(size);
        // Links of some writers carry the target's size, and no content.
        let stored = if kind == Kind::File { size } else { 0 };
        if kind == Kind::Directory {
            ensure!(size == 0, "{}: a directory with content", shown());
        }
        let id = |extended: Option<u64>, field: &[u8], what| {
            let value = extended.map_or_else(|| number(field), Ok).with_context(|| format!("{}: {what}", shown()))?;
            u32::try_from(value)
                .ok()
                .filter(|id| *id != u32::MAX)
                .with_context(|| format!("{}: {what} {value}", shown()))
        };
        let (mtime_s, mtime_ns) = match extended.mtime {
            Some(time) => time,
            None => (signed_number(&block[136..148]).unwrap_or(0), 0),
        };
        let mut entry = Entry {
            kind,
            mode: (number(&block[100..108]).with_context(|| format!("{}: mode", shown()))? & 0o7777) as u32,
            uid: id(extended.uid, &block[108..116], "owner")?,
            gid: id(extended.gid, &block[116..124], "group")?,
            mtime_s,
            mtime_ns,
            size,
            stored,
            link,
            device: match kind {
                Kind::Char | Kind::Block => (number(&block[329..337])? as u32, number(&block[337..345])? as u32),
                _ => (0, 0),
            },
            xattrs: extended.xattrs,
            sparse: None,
            path,
        };
        self.left = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        self.content_is_raw = false;
        if block[156] == b'S' {
            self.gnu_sparse(block, &mut entry)?;
        } else if let Some(sparse) = extended.sparse {
            self.pax_sparse(sparse, &mut entry)?;
        }
        Ok(entry)
    }

    /// The old GNU format: a map of four fragments in the header, more in blocks that follow.
    fn gnu_sparse(&mut self, block: &[u8; BLOCK], entry: &mut Entry) -> Result<()> {
        entry.size = number(&block[483..495])?;
        let mut map = Vec::new();
        let mut fragments = |bytes: &[u8]| -> Result<()> {
            for pair in bytes.chunks_exact(24).filter(|pair| pair[0] != 0) {
                map.push((number(&pair[..12])?, number(&pair[12..])?));
            }
            ensure!(map.len() <= SPARSE_MAX, "a sparse file of more than {SPARSE_MAX} fragments");
            Ok(())
        };
        fragments(&block[386..482])?;
        let mut more = block[482] != 0;
        while more {
            let mut block = [0u8; BLOCK];
            ensure!(self.read_block(&mut block)?, "the archive is cut off in the map of a sparse file");
            fragments(&block[..504])?;
            more = block[504] != 0;
        }
        self.set_sparse(map, entry)
    }

    /// PAX formats 0.0 and 0.1 have the map in the header, 1.0 before the content.
    fn pax_sparse(&mut self, sparse: Sparse, entry: &mut Entry) -> Result<()> {
        if let Some(name) = sparse.name {
            entry.path = name;
        }
        entry.size = sparse.size.context("a sparse file without its size")?;
        if sparse.major != 1 {
            return self.set_sparse(sparse.map, entry);
        }
        let mut line = || -> Result<u64> {
            let mut value = 0u64;
            for count in 0..21 {
                match self.sparse_byte()? {
                    b'\n' if count > 0 => return Ok(value),
                    digit @ b'0'..=b'9' => {
                        let more = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit - b'0')));
                        value = more.context("a sparse file with a wrong map")?;
                    }
                    _ => break,
                }
            }
            bail!("a sparse file with a wrong map")
        };
        let count = line()?;
        ensure!(count <= SPARSE_MAX as u64, "a sparse file of more than {SPARSE_MAX} fragments");
        let mut map = Vec::new();
        for _ in 0..count {
            map.push((line()?, line()?));
        }
        // The map fills whole blocks.
        while (entry.stored - self.left) % BLOCK as u64 != 0 {
            self.sparse_byte()?;
        }
        entry.stored = self.left;
        self.set_sparse(map, entry)
    }

    fn sparse_byte(&mut self) -> Result<u8> {
        let byte = *self.content()?.first().context("a sparse file with a wrong map")?;
        self.content_is_raw = true;
        self.consume(1)?;
        Ok(byte)
    }

    fn set_sparse(&mut self, map: Vec<(u64, u64)>, entry: &mut Entry) -> Result<()> {
        let mut end = 0u64;
        let mut stored = 0u64;
        for (offset, length) in &map {
            ensure!(*offset >= end, "a sparse file with fragments out of order");
            end = offset.checked_add(*length).context("a sparse file with a wrong map")?;
            stored = stored.checked_add(*length).context("a sparse file with a wrong map")?;
        }
        ensure!(end <= entry.size && stored == entry.stored, "a sparse file with a wrong map");
        self.content_is_raw = true;
        entry.sparse = Some(map);
        Ok(())
    }

    fn finish_entry(&mut self) -> Result<()> {
        while self.left > 0 {
            let count = self.content()?.len();
            // Content nobody asked for belongs to the rest.
            self.content_is_raw = true;
            self.consume(count)?;
        }
        while self.padding > 0 {
            let buffer = fill(&mut self.source)?;
            // Some writers end in the middle of the last padding.
            if buffer.is_empty() {
                self.padding = 0;
                break;
            }
            let count = (self.padding as usize).min(buffer.len());
            self.sink.raw(&buffer[..count])?;
            self.source.consume(count);
            self.padding -= count as u64;
        }
        Ok(())
    }

    /// One block; `false` at a clean end.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => bail!("the archive is cut off in the middle of a header"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.sink.raw(block)?;
        Ok(true)
    }

    fn read_long(&mut self, size: u64) -> Result<Vec<u8>> {
        ensure!(size <= PATH_MAX as u64, "a name of {size} bytes");
        self.read_extended(size)
    }

    fn read_extended(&mut self, size: u64) -> Result<Vec<u8>> {
        ensure!(size <= PAX_MAX, "an extended header of {size} bytes");
        let padded = size.next_multiple_of(BLOCK as u64) as usize;
        let mut content = vec![0; padded];
        match self.source.read_exact(&mut content) {
            Ok(()) => self.sink.raw(&content)?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => bail!("the archive is cut off in a header"),
            Err(error) => return Err(error.into()),
        }
        content.truncate(size as usize);
        Ok(content)
    }

    fn drain(&mut self) -> Result<()> {
        loop {
            let buffer = fill(&mut self.source)?;
            if buffer.is_empty() {
                return Ok(());
            }
            self.sink.raw(buffer)?;
            let count = buffer.len();
            self.source.consume(count);
        }
    }
}

fn fill<R: BufRead>(source: &mut R) -> Result<&[u8]> {
    // A loop with a borrow that is returned needs two calls; the second finds the buffer full.
    loop {
        match source.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(source.fill_buf()?)
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Option<Sparse>,
}

#[derive(Default)]
struct Sparse {
    major: u32,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    map: Vec<(u64, u64)>,
    offset: Option<u64>,
}

impl Extended {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.size.is_none() && self.xattrs.is_empty()
    }

    /// Lines of `LENGTH KEY=VALUE\n`.
    fn pax(&mut self, mut text: &[u8]) -> Result<()> {
        while !text.is_empty() {
            let space = text.iter().take(12).position(|byte| *byte == b' ').context("a wrong extended header")?;
            let length: usize = decimal(&text[..space]).context("a wrong extended header")? as usize;
            ensure!(length > space + 1 && length <= text.len(), "a wrong extended header");
            let (line, rest) = text.split_at(length);
            ensure!(line.ends_with(b"\n"), "a wrong extended header");
            let line = &line[space + 1..line.len() - 1];
            let equals = line.iter().position(|byte| *byte == b'=').context("a wrong extended header")?;
            self.pair(&line[..equals], &line[equals + 1..])?;
            text = rest;
        }
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let wrong = || format!("extended header {}", String::from_utf8_lossy(key));
        let parsed = || decimal(value).with_context(wrong);
        match key {
            b"path" => {
                ensure!(!value.contains(&0), "a name with a zero byte");
                self.path = Some(value.to_vec());
            }
            b"linkpath" => {
                ensure!(!value.contains(&0), "a link target with a zero byte");
                self.link = Some(value.to_vec());
            }
            b"size" => self.size = Some(parsed()?),
            b"uid" => self.uid = Some(parsed()?),
            b"gid" => self.gid = Some(parsed()?),
            b"mtime" => self.mtime = Some(time(value).with_context(wrong)?),
            b"GNU.sparse.major" => self.sparse().major = parsed()? as u32,
            b"GNU.sparse.name" => self.sparse().name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse().size = Some(parsed()?),
            b"GNU.sparse.offset" => self.sparse().offset = Some(parsed()?),
            b"GNU.sparse.numbytes" => {
                let length = parsed()?;
                let sparse = self.sparse();
                let offset = sparse.offset.take().with_context(wrong)?;
                sparse.map.push((offset, length));
                ensure!(sparse.map.len() <= SPARSE_MAX, "a sparse file of more than {SPARSE_MAX} fragments");
            }
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(decimal).collect();
                let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0).with_context(wrong)?;
                self.sparse().map = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    ensure!(!name.is_empty() && name.len() <= 255 && !name.contains(&0), "a wrong extended attribute");
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn sparse(&mut self) -> &mut Sparse {
        self.sparse.get_or_insert_default()
    }
}

fn check_sum(block: &[u8; BLOCK]) -> Result<()> {
    let wanted = number(&block[148..156]).context("this is no tar archive")?;
    // The field itself counts as blanks.
    let sum = |bytes: &[u8]| -> u64 { bytes.iter().map(|byte| u64::from(*byte)).sum() };
    let blanks = 8 * u64::from(b' ');
    if wanted == sum(block) - sum(&block[148..156]) + blanks {
        return Ok(());
    }
    // Some old writers summed signed bytes.
    let signed = |bytes: &[u8]| -> i64 { bytes.iter().map(|byte| i64::from(*byte as i8)).sum() };
    let found = signed(block) - signed(&block[148..156]) + blanks as i64;
    ensure!(i64::try_from(wanted) == Ok(found), "this is no tar archive: a header's checksum is wrong");
    Ok(())
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal text, or base 256 when the first bit is set.
fn number(field: &[u8]) -> Result<u64> {
    let value = signed_number(field)?;
    u64::try_from(value).map_err(|_| anyhow::anyhow!("a negative number in a header"))
}

fn signed_number(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| anyhow::anyhow!("a number in a header is out of range"));
    }
    let text = field.trim_ascii_start();
    let end = text.iter().position(|byte| *byte == 0 || *byte == b' ').unwrap_or(text.len());
    let mut value = 0i64;
    for byte in &text[..end] {
        ensure!((b'0'..=b'7').contains(byte), "a wrong number in a header");
        value = value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(byte - b'0')))
            .context("a number in a header is out of range")?;
    }
    Ok(value)
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `SECONDS[.FRACTION]`, perhaps negative.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let mut nanoseconds = 0u32;
    for index in 0..9 {
        let digit =
            fraction.as_bytes().get(index).map_or(Some(0), |byte| byte.is_ascii_digit().then(|| byte - b'0'))?;
        nanoseconds = nanoseconds * 10 + u32::from(digit);
    }
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds - 1, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}
