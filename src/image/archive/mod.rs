//! Images as files: docker-archive, OCI archive and directory, docker's `dir`, and plain root file systems.
//!
//! What comes in is as hostile as what a registry sends: every digest and size is checked, names inside an archive are
//! looked up in an index and never on disk.

pub mod import;
pub mod load;
pub mod save;
pub mod source;

/// Whether this is the error of a writer whose reader went away: then the reader knows why.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.root_cause().downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}
