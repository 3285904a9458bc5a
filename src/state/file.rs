//! The three write primitives. Nothing else in the program opens a file of the store for writing.
//!
//! What they promise after a crash: the old content or the new, never a part. [`Durability::Volatile`] gives up that the
//! new content outlives a power cut (for RUN, and for containers that go with their process), not that it is whole.

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a document rarely exceeds.
const SMALL: usize = 8192;

/// Whether a write must outlive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Data and directory are synced before the call returns.
    Durable,
    /// Only atomic.
    Volatile,
}

/// Make a file that must not exist yet.
///
/// # Errors
/// `AlreadyExists` when the name is taken; the file is then untouched.
pub fn create_new(path: &Path, content: &[u8], durability: Durability) -> std::io::Result<()> {
    fault::point("create", path)?;
    // A temporary name and link(2) instead of O_TMPFILE: the latter is not had on every file system (overlay, NFS).
    let temporary = write_temporary(path, content, durability)?;
    let result = std::fs::hard_link(&temporary, path);
    let _ = std::fs::remove_file(&temporary);
    result?;
    sync_parent(path, durability)
}

/// Write a file in a directory of staging, which nobody else sees yet: its name comes to be with the directory's.
pub fn write_staged(path: &Path, content: &[u8], durability: Durability) -> std::io::Result<()> {
    fault::point("write", path)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    if durability == Durability::Durable { file.sync_data() } else { Ok(()) }
}

/// Put this content in the place of whatever is there.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> std::io::Result<()> {
    fault::point("replace", path)?;
    let temporary = write_temporary(path, content, durability)?;
    if let Err(error) = std::fs::rename(&temporary, path) {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_parent(path, durability)
}

/// Write a file where it is, for one that is bound into a container by its inode. Not whole or absent: for RUN only, and
/// for readers that read again.
pub fn rewrite(path: &Path, content: &[u8]) -> std::io::Result<()> {
    fault::point("rewrite", path)?;
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(content)
}

/// Add one record to a file, making it if need be: one `write` at the end, so that records of several writers never mix.
pub fn append(path: &Path, record: &[u8]) -> std::io::Result<()> {
    fault::point("append", path)?;
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(record)
}

/// [`replace`] of a document as JSON.
pub fn replace_json<T: Serialize>(path: &Path, document: &T, durability: Durability) -> Result<()> {
    let content = serde_json::to_vec(document)?;
    replace(path, &content, durability).with_context(|| format!("write {}", path.display()))
}

/// Read a JSON document; `None` when it is not there.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let content = match read_small(path) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    serde_json::from_slice(&content).map(Some).with_context(|| format!("read {}", path.display()))
}

/// `fs::read` for what is mostly a few kilobytes: no question for the size, and no second read to learn of the end.
fn read_small(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut content = vec![0; SMALL];
    let length = file.read(&mut content)?;
    content.truncate(length);
    if length == SMALL {
        file.read_to_end(&mut content)?;
    }
    Ok(content)
}

/// Rename a directory made in staging to its place: whole or absent.
///
/// # Errors
/// `AlreadyExists` or `DirectoryNotEmpty` when something is there.
pub fn rename_new(source: &Path, target: &Path) -> std::io::Result<()> {
    fault::point("rename", target)?;
    nix::fcntl::renameat2(
        nix::fcntl::AT_FDCWD,
        source,
        nix::fcntl::AT_FDCWD,
        target,
        nix::fcntl::RenameFlags::RENAME_NOREPLACE,
    )
    .map_err(std::io::Error::from)
}

/// A name in staging that nobody else uses.
pub fn staging_name(tmp: &Path, prefix: &str) -> PathBuf {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    tmp.join(format!("{prefix}.{}.{number}.{:x}", std::process::id(), time.as_nanos() as u64))
}

/// Make the entries of a directory durable.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn write_temporary(path: &Path, content: &[u8], durability: Durability) -> std::io::Result<PathBuf> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = staging_name(parent, &format!(".{name}"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let mut write = || {
        file.write_all(content)?;
        if durability == Durability::Durable { file.sync_data() } else { Ok(()) }
    };
    if let Err(error) = write() {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(temporary)
}

fn sync_parent(path: &Path, durability: Durability) -> std::io::Result<()> {
    match (durability, path.parent()) {
        (Durability::Durable, Some(parent)) => sync_directory(parent),
        _ => Ok(()),
    }
}

/// The crash walk: debug builds number every write, rename, acquire and sync point, and end or fail at the n-th.
pub mod fault {
    use std::path::Path;

    /// One numbered point. With `CORACLE_FAULT=KIND@N` (KIND: `kill`, `EIO`, `ENOSPC`) the N-th point of the process
    /// ends it by SIGKILL or fails; with `CORACLE_FAULT_COUNT=FILE` each point is appended to that file.
    #[cfg(debug_assertions)]
    pub fn point(what: &str, path: &Path) -> std::io::Result<()> {
        use std::io::Write;
        use std::sync::atomic::{AtomicU32, Ordering};
        static REACHED: AtomicU32 = AtomicU32::new(0);
        let reached = REACHED.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(file) = std::env::var_os("CORACLE_FAULT_COUNT") {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file)?;
            let _ = writeln!(file, "{} {reached} {what} {}", std::process::id(), path.display());
        }
        let Ok(wish) = std::env::var("CORACLE_FAULT") else { return Ok(()) };
        let Some((kind, number)) = wish.split_once('@') else { return Ok(()) };
        if number.parse() != Ok(reached) {
            return Ok(());
        }
        match kind {
            "EIO" => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            "ENOSPC" => Err(std::io::Error::from_raw_os_error(libc::ENOSPC)),
            _ => {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
                Ok(())
            }
        }
    }

    /// Nothing in release builds.
    #[cfg(not(debug_assertions))]
    #[inline(always)]
    pub fn point(_what: &str, _path: &Path) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_or_untouched() {
        let directory = std::env::temp_dir().join(format!("coracle-file-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("a");
        create_new(&path, b"one", Durability::Durable).unwrap();
        assert_eq!(create_new(&path, b"two", Durability::Volatile).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        replace(&path, b"three", Durability::Volatile).unwrap();
        append(&path, b"!").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three!");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
