//! The pipeline from compressed bytes to plain ones: one thread reads, hashes and decompresses, one hashes what came
//! out, the caller consumes. A handful of chunks are under way, so memory does not grow with the stream.

use crate::storage::compress::{self, Compression};
use anyhow::Result;
use sha2::{Digest, Sha256};
use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

/// Bytes in a chunk.
const CHUNK: usize = 256 << 10;
/// Chunks waiting at each stage.
const DEPTH: usize = 6;

/// sha256 of nothing.
const EMPTY_SHA256: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

type Chunk = Arc<Vec<u8>>;

/// What the first thread found out.
pub struct Source {
    /// How it was compressed.
    pub compression: Compression,
    /// sha256 of the stream as it came.
    pub hash: [u8; 32],
    /// Its length.
    pub size: u64,
    /// Length of the plain bytes.
    pub plain_size: u64,
}

/// The threads of a running pipeline.
pub struct Pipe<'scope> {
    source: std::thread::ScopedJoinHandle<'scope, Result<Source>>,
    hasher: std::thread::ScopedJoinHandle<'scope, Option<[u8; 32]>>,
}

/// The consumer went away before the end; what it has to say is more telling.
#[derive(Debug)]
pub struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("nobody reads any more")
    }
}

impl std::error::Error for Stopped {}

/// The consumer's end.
pub struct Plain {
    chunks: Receiver<std::io::Result<Chunk>>,
    current: Chunk,
    position: usize,
    ended: bool,
}

/// Start the threads on a source.
pub fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    reader: Box<dyn Read + Send + 'env>,
) -> (Plain, Pipe<'scope>) {
    let (to_consumer, chunks) = sync_channel(DEPTH);
    let (to_hasher, to_hash) = sync_channel::<Chunk>(DEPTH);
    let source = scope.spawn(move || read(reader, &to_consumer, to_hasher));
    let hasher = scope.spawn(move || {
        let mut hash = Sha256::new();
        let mut any = false;
        while let Ok(chunk) = to_hash.recv() {
            any = true;
            hash.update(chunk.as_slice());
        }
        any.then(|| hash.finalize().into())
    });
    let plain = Plain { chunks, current: Chunk::default(), position: 0, ended: false };
    (plain, Pipe { source, hasher })
}

impl Pipe<'_> {
    /// After [`Plain`] was read to its end or dropped: what the stream was, and the sha256 of the plain bytes.
    pub fn finish(self) -> Result<(Source, [u8; 32])> {
        let source = self.source.join().map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
        let hash = self.hasher.join().map_err(|_| anyhow::anyhow!("the hashing thread panicked"))?;
        let source = source?;
        // What was not compressed was hashed as it came.
        let hash = hash.unwrap_or(if source.compression == Compression::None { source.hash } else { EMPTY_SHA256 });
        Ok((source, hash))
    }
}

fn read(
    reader: Box<dyn Read + Send + '_>,
    to_consumer: &SyncSender<std::io::Result<Chunk>>,
    to_hasher: SyncSender<Chunk>,
) -> Result<Source> {
    let mut hashing = HashingReader::new(reader);
    let result = forward(&mut hashing, to_consumer, &to_hasher);
    drop(to_hasher);
    match result {
        Ok((compression, plain_size)) => {
            // What follows the compressed stream belongs to the blob all the same.
            std::io::copy(&mut hashing, &mut std::io::sink())?;
            let (hash, size) = hashing.finish();
            Ok(Source { compression, hash, size, plain_size })
        }
        Err(error) => {
            let copy = std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string());
            let _ = to_consumer.send(Err(copy));
            Err(error)
        }
    }
}

fn forward(
    source: &mut HashingReader<Box<dyn Read + Send + '_>>,
    to_consumer: &SyncSender<std::io::Result<Chunk>>,
    to_hasher: &SyncSender<Chunk>,
) -> Result<(Compression, u64)> {
    let (compression, mut decoder) = compress::decompress(source)?;
    let mut plain_size = 0;
    let hashed_already = compression == Compression::None;
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        while filled < CHUNK {
            match decoder.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if filled == 0 {
            return Ok((compression, plain_size));
        }
        chunk.truncate(filled);
        plain_size += filled as u64;
        let chunk = Arc::new(chunk);
        // A consumer that stopped has an error of its own to tell.
        let sent =
            to_consumer.send(Ok(Arc::clone(&chunk))).is_ok() && (hashed_already || to_hasher.send(chunk).is_ok());
        if !sent {
            return Err(Stopped.into());
        }
    }
}

/// Hashes what is read.
pub struct HashingReader<R> {
    reader: R,
    hash: Sha256,
    size: u64,
}

impl<R> HashingReader<R> {
    /// Read from this.
    pub fn new(reader: R) -> HashingReader<R> {
        HashingReader { reader, hash: Sha256::new(), size: 0 }
    }

    /// sha256 and length of what was read.
    pub fn finish(self) -> ([u8; 32], u64) {
        (self.hash.finalize().into(), self.size)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

impl BufRead for Plain {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.position == self.current.len() && !self.ended {
            match self.chunks.recv() {
                Ok(chunk) => {
                    self.current = chunk?;
                    self.position = 0;
                }
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
