//! Compression of layers and archives: recognised by the first bytes, decoded by code of our own binary only
//! (CVE-2026-41567: never by a program found somewhere), with bounded memory.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Read, Write};

/// Largest zstd window a layer may ask for, as a power of two (32 MiB): memory of a decoder is the writer's choice.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, perhaps several members.
    Gzip,
    /// RFC 8878; zstd:chunked is read as this.
    Zstd,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// By the first bytes of a stream.
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
            _ => Compression::None,
        }
    }
}

/// A reader of the plain content of `source`, whatever its compression.
pub fn decompress<'a>(source: impl Read + Send + 'a) -> Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut start = [0u8; 6];
    let mut source = source;
    let mut filled = 0;
    while filled < start.len() {
        match source.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let compression = Compression::detect(&start[..filled]);
    let whole = std::io::Cursor::new(start[..filled].to_vec()).chain(source);
    let buffered = BufReader::with_capacity(128 << 10, whole);
    Ok((compression, decoder(compression, buffered)?))
}

fn decoder<'a>(compression: Compression, source: impl BufRead + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source).context("zstd")?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).context("zstd")?;
            Box::new(decoder)
        }
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, 64 << 10)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
    })
}

/// A writer that compresses into `target`; call [`Encoder::finish`] at the end.
pub enum Encoder<W: Write> {
    /// As it is.
    None(W),
    /// gzip.
    Gzip(flate2::write::GzEncoder<W>),
    /// zstd.
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Compress with this method at this level (absent: the method's usual one).
    ///
    /// # Errors
    /// xz and bzip2 are only read, never written.
    pub fn new(target: W, compression: Compression, level: Option<i32>) -> Result<Encoder<W>> {
        Ok(match compression {
            Compression::None => Encoder::None(target),
            Compression::Gzip => {
                let level = level
                    .map_or(flate2::Compression::default(), |level| flate2::Compression::new(level.clamp(1, 9) as u32));
                // No name and no time in the header: the same content gives the same digest.
                Encoder::Gzip(flate2::write::GzEncoder::new(target, level))
            }
            Compression::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(target, level.unwrap_or(3))?),
            Compression::Xz | Compression::Bzip2 => anyhow::bail!("writing {compression:?} is not supported"),
        })
    }

    /// Write what is left and give the target back.
    pub fn finish(self) -> std::io::Result<W> {
        match self {
            Encoder::None(target) => Ok(target),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        match self {
            Encoder::None(target) => target.write(buffer),
            Encoder::Gzip(encoder) => encoder.write(buffer),
            Encoder::Zstd(encoder) => encoder.write(buffer),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Encoder::None(target) => target.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}
