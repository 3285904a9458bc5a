//! The format's number: made on first use, checked on every other.

use crate::failure::{Explain, Kind};
use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use anyhow::{Context, Result, anyhow};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;

/// What this program writes.
pub const FORMAT: u32 = 1;

/// Make DATA's directories on first use, and refuse a store written by a newer program.
///
/// One read when the store is there: nothing else is looked at on the start path.
pub fn open(layout: &Layout) -> Result<()> {
    match std::fs::read_to_string(layout.format()) {
        Ok(text) => return check(&text, layout),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", layout.format().display())),
    }
    for directory in [
        layout.data().to_owned(),
        layout.tmp(),
        layout.blobs(),
        layout.layers(),
        layout.images(),
        layout.tags(),
        layout.containers(),
        layout.names(),
        layout.networks(),
        layout.volumes(),
        layout.events(),
    ] {
        // 0700 for all: another user must not even list it (CVE-2021-41091). A container reaches its root by file
        // descriptor and idmapped or own mounts, never through these names.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("make {}", directory.display()))?;
    }
    match file::create_new(&layout.lock(), b"", Durability::Volatile) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("make {}", layout.lock().display()));
        }
        _ => {}
    }
    match file::create_new(&layout.format(), format!("{FORMAT}\n").as_bytes(), Durability::Durable) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("write {}", layout.format().display()))
        }
        _ => Ok(()),
    }
}

fn check(text: &str, layout: &Layout) -> Result<()> {
    match text.trim().parse::<u32>() {
        Ok(number) if number <= FORMAT => Ok(()),
        Ok(number) => Err(anyhow!("{} has format {number}, this coracle knows {FORMAT}", layout.data().display()))
            .kind(Kind::Engine)
            .hint("install a newer coracle, or name another store with --root"),
        Err(_) => Err(anyhow!("{} is not the format file of a store", layout.format().display()))
            .hint(format!("if this is a store of coracle, write {FORMAT} into that file")),
    }
}
