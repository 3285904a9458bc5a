//! Locks on objects: a `flock` on the object's own file or directory, that dies with its holder; and `alive`, which is
//! held in another way ([`hold`]).
//!
//! Order: store < pod < container < network < volume < image. A guard remembers its rank, and debug builds assert that
//! no lock of a lower rank is taken while one of a higher is held. Never held over the network or while waiting for a
//! process.

use crate::state::file::fault;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The rank of a lock in the order of taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The whole store.
    Store,
    /// A pod.
    #[expect(dead_code, reason = "there are no pods yet, but this is their place in the order")]
    Pod,
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// An image or layer.
    Image,
}

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With other readers.
    Shared,
    /// Alone.
    Exclusive,
}

/// A held lock; dropping it releases.
#[derive(Debug)]
pub struct Guard {
    _file: Flock<File>,
    rank: Rank,
}

thread_local! {
    static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Guard {
    fn drop(&mut self) {
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            if let Some(index) = held.iter().rposition(|rank| *rank == self.rank) {
                held.remove(index);
            }
        });
    }
}

/// Take a lock, waiting for it; after a second of waiting says on standard error for what and for whom.
///
/// `path` is an existing file or directory. When it was removed while we waited, that is an error ("is gone").
pub fn lock(path: &Path, rank: Rank, mode: Mode) -> Result<Guard> {
    assert_order(rank);
    let what = || format!("lock {}", path.display());
    fault::point("lock", path).with_context(what)?;
    let file = File::open(path).with_context(what)?;
    let flock = match Flock::lock(file, argument(mode, false)) {
        Ok(flock) => flock,
        Err((file, nix::errno::Errno::EWOULDBLOCK)) => wait_for(file, path, mode).with_context(what)?,
        Err((_, error)) => return Err(error).with_context(what),
    };
    // jj's lesson: whoever removed the object may have held the lock we waited for.
    if flock.metadata()?.nlink() == 0 || !path.exists() {
        bail!("{} is gone", path.display());
    }
    HELD.with(|held| held.borrow_mut().push(rank));
    Ok(Guard { _file: flock, rank })
}

/// Take a lock if it is free now; `None` when somebody holds it.
pub fn try_lock(path: &Path, rank: Rank, mode: Mode) -> Result<Option<Guard>> {
    let file = File::open(path).with_context(|| format!("lock {}", path.display()))?;
    match Flock::lock(file, argument(mode, false)) {
        Ok(flock) => {
            HELD.with(|held| held.borrow_mut().push(rank));
            Ok(Some(Guard { _file: flock, rank }))
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// Lock a file for as long as this descriptor, or a copy of it, is open; `false`: somebody else has.
///
/// A lock of the open file description (fcntl_locking(2)) and not a `flock`: of these one can be told of without taking
/// it, so that whoever looks is never in the way of whoever takes.
pub fn hold(file: &File) -> std::io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether somebody else [`hold`]s the file.
pub fn is_held(file: &File) -> std::io::Result<bool> {
    let mut found = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    Ok(found.l_type != libc::F_UNLCK as libc::c_short)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        // Must be zero for this kind of lock.
        l_pid: 0,
    }
}

fn argument(mode: Mode, wait: bool) -> FlockArg {
    match (mode, wait) {
        (Mode::Shared, true) => FlockArg::LockShared,
        (Mode::Shared, false) => FlockArg::LockSharedNonblock,
        (Mode::Exclusive, true) => FlockArg::LockExclusive,
        (Mode::Exclusive, false) => FlockArg::LockExclusiveNonblock,
    }
}

fn wait_for(file: File, path: &Path, mode: Mode) -> Result<Flock<File>> {
    // The lock is waited for in the kernel; a thread says so after a second, for flock(2) knows no time-out.
    let (done, watch) = std::sync::mpsc::channel::<()>();
    let shown = path.to_owned();
    let inode = file.metadata()?.ino();
    let teller = std::thread::spawn(move || {
        if watch.recv_timeout(std::time::Duration::from_secs(1)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let holder = holder_of(inode).map(|holder| format!(", held by {holder}")).unwrap_or_default();
            eprintln!("coracle: waiting for {}{holder}", shown.display());
        }
    });
    let result = Flock::lock(file, argument(mode, true)).map_err(|(_, error)| error);
    drop(done);
    let _ = teller.join();
    Ok(result?)
}

/// Pid and command of whoever holds a lock on this inode, from /proc/locks.
fn holder_of(inode: u64) -> Option<String> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let suffix = format!(":{inode}");
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let held = fields.get(1) == Some(&"FLOCK") && fields.get(5)?.ends_with(&suffix);
        held.then(|| fields[4].to_owned())
    })?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&str> = command.split('\0').filter(|word| !word.is_empty()).take(2).collect();
    Some(format!("pid {pid} ({})", words.join(" ")))
}

fn assert_order(rank: Rank) {
    HELD.with(|held| {
        debug_assert!(
            held.borrow().iter().all(|other| *other <= rank),
            "lock order: {rank:?} after {:?}",
            held.borrow()
        );
    });
}
