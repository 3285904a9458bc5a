//! Trees away: by descriptor, never by path, with several threads where there is much.
//!
//! Most of the time goes into waiting: a file system mounted with `discard` tells the disk of each file that goes. So there
//! are more threads than processors, but none at all for a small tree. Not for what others may still change: a name
//! that appears meanwhile may stay, and then the directory does.
//!
//! Invariants: no link is followed; the number of open descriptors does not grow with the depth of the tree; what others
//! remove at the same time is no error.

use crate::storage::tree::open_directory;
use anyhow::{Context, Result};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::{Mode, fchmod, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Threads for a large tree.
const THREADS: usize = 8;
/// So much work must lie about before there are threads.
const MUCH: usize = 8;
/// Names one thread takes at once.
const BATCH: usize = 128;
/// Directories deeper than this are moved up before they are emptied.
const DEPTH_MAX: usize = 32;

const OPEN: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Remove a tree of the store by its path; nothing there is no error.
pub fn tree(path: &Path) -> Result<()> {
    let context = || format!("remove {}", path.display());
    let parent = match path.parent().map(open_directory) {
        Some(Ok(parent)) => parent,
        _ => return Ok(()),
    };
    let name = path.file_name().context("a path without a name").with_context(context)?;
    let name = CString::new(name.as_bytes()).with_context(context)?;
    entry(parent.as_fd(), &name).with_context(context)
}

/// Remove what is called `name` in `parent`, with all below it.
pub fn entry(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(error) => return Err(error),
    }
    let Some(directory) = open(parent, name)? else { return Ok(()) };
    empty(directory)?;
    remove_empty(parent, name)
}

fn remove_empty(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A directory that is to be emptied; `None`: somebody else removed it.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<Option<OwnedFd>> {
    match nix::fcntl::openat(parent, name, OPEN, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::EACCES) => {
            // Ours, but its mode forbids even us to look (a user without CAP_DAC_OVERRIDE).
            fchmodat(parent, name, Mode::S_IRWXU, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
            nix::fcntl::openat(parent, name, OPEN, Mode::empty()).map(Some)
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Remove all that is in a directory.
fn empty(directory: OwnedFd) -> nix::Result<()> {
    let top = Arc::new(Doomed { above: None, fd: directory, depth: 0, left: AtomicUsize::new(1) });
    let work = Work { top: Arc::clone(&top), queue: Mutex::new(Queue::default()), change: Condvar::new() };
    work.give(vec![Task::List(top)]);
    std::thread::scope(|scope| {
        let mut alone = true;
        while let Some(task) = work.take() {
            work.done(task.run(&work));
            if alone && work.lock().tasks.len() >= MUCH {
                alone = false;
                for _ in 1..THREADS {
                    // Where no more threads may be, fewer do it.
                    let helper = std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, || {
                        while let Some(task) = work.take() {
                            work.done(task.run(&work));
                        }
                    });
                    drop(helper);
                }
            }
        }
    });
    let failed = work.lock().failed;
    failed.map_or(Ok(()), Err)
}

/// A directory that goes when it is listed and all below it is gone.
struct Doomed {
    /// Where it is, and its name there; absent: the directory to be emptied.
    above: Option<(Arc<Doomed>, CString)>,
    fd: OwnedFd,
    depth: usize,
    /// Tasks under way inside; its own listing is one.
    left: AtomicUsize,
}

impl Doomed {
    /// A task inside is done: the last one takes the directory, and perhaps those above it.
    fn release(self: Arc<Doomed>) -> nix::Result<()> {
        let mut directory = self;
        while directory.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let Some((above, name)) = &directory.above else { return Ok(()) };
            remove_empty(above.fd.as_fd(), name)?;
            let above = Arc::clone(above);
            directory = above;
        }
        Ok(())
    }
}

enum Task {
    /// See what is in it.
    List(Arc<Doomed>),
    /// Open what has this name in it, and list that.
    Enter(Arc<Doomed>, CString),
    /// Remove these of its names.
    Remove(Arc<Doomed>, Vec<CString>),
}

impl Task {
    fn run(self, work: &Work) -> nix::Result<()> {
        match self {
            Task::List(directory) => {
                list(&directory, work)?;
                directory.release()
            }
            Task::Enter(above, name) => {
                let Some(fd) = open(above.fd.as_fd(), &name)? else { return above.release() };
                let depth = above.depth + 1;
                let left = AtomicUsize::new(1);
                Task::List(Arc::new(Doomed { above: Some((above, name)), fd, depth, left })).run(work)
            }
            Task::Remove(directory, names) => {
                for name in names {
                    remove_name(&directory, name, work)?;
                }
                directory.release()
            }
        }
    }
}

fn list(directory: &Arc<Doomed>, work: &Work) -> nix::Result<()> {
    let mut stream = Dir::from_fd(directory.fd.try_clone().map_err(|_| Errno::EMFILE)?)?;
    let mut names = Vec::new();
    for entry in stream.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() == Some(Type::Directory) {
            enter(directory, name.to_owned(), work)?;
            continue;
        }
        names.push(name.to_owned());
        if names.len() == BATCH {
            directory.left.fetch_add(1, Ordering::AcqRel);
            work.give(vec![Task::Remove(Arc::clone(directory), std::mem::take(&mut names))]);
        }
    }
    names.into_iter().try_for_each(|name| remove_name(directory, name, work))
}

fn remove_name(directory: &Arc<Doomed>, name: CString, work: &Work) -> nix::Result<()> {
    let mut result = unlinkat(&directory.fd, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
    if result == Err(Errno::EACCES) {
        fchmod(&directory.fd, Mode::S_IRWXU)?;
        result = unlinkat(&directory.fd, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
    }
    match result {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // Some file systems do not tell what an entry is.
        Err(Errno::EISDIR | Errno::EPERM) => enter(directory, name, work),
        Err(error) => Err(error),
    }
}

/// A directory inside another becomes a task.
fn enter(directory: &Arc<Doomed>, name: CString, work: &Work) -> nix::Result<()> {
    let (mut above, mut name) = (directory, name);
    if directory.depth >= DEPTH_MAX {
        // Each level holds a descriptor as long as something is below it.
        let moved = CString::new(work.new_name()).map_err(|_| Errno::EINVAL)?;
        let (from, to) = (&directory.fd, &work.top.fd);
        match renameat(from, name.as_c_str(), to, moved.as_c_str()) {
            Ok(()) => (above, name) = (&work.top, moved),
            Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EACCES) => {
                // A directory that moves gets another parent, which is a change of itself.
                for (directory, name) in [(from, c"."), (from, name.as_c_str())] {
                    let _ = fchmodat(directory, name, Mode::S_IRWXU, nix::sys::stat::FchmodatFlags::FollowSymlink);
                }
                renameat(from, name.as_c_str(), to, moved.as_c_str())?;
                (above, name) = (&work.top, moved);
            }
            Err(error) => return Err(error),
        }
    }
    above.left.fetch_add(1, Ordering::AcqRel);
    work.give(vec![Task::Enter(Arc::clone(above), name)]);
    Ok(())
}

/// What is to be done, shared by all threads.
struct Work {
    top: Arc<Doomed>,
    queue: Mutex<Queue>,
    change: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The last is taken first: deep before wide, so that few directories are open.
    tasks: Vec<Task>,
    running: usize,
    moved: u64,
    failed: Option<Errno>,
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, tasks: Vec<Task>) {
        self.lock().tasks.extend(tasks);
        self.change.notify_one();
    }

    /// The next task; `None`: all is done, or something failed.
    fn take(&self) -> Option<Task> {
        let mut queue = self.lock();
        loop {
            if queue.failed.is_some() {
                return None;
            }
            if let Some(task) = queue.tasks.pop() {
                queue.running += 1;
                return Some(task);
            }
            if queue.running == 0 {
                return None;
            }
            queue = self.change.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, result: nix::Result<()>) {
        let mut queue = self.lock();
        queue.running -= 1;
        if let Err(error) = result {
            queue.failed.get_or_insert(error);
        }
        if queue.failed.is_some() || (queue.running == 0 && queue.tasks.is_empty()) {
            self.change.notify_all();
        }
    }

    /// A name that is not in the top directory yet: nothing of ours begins so.
    fn new_name(&self) -> String {
        let mut queue = self.lock();
        queue.moved += 1;
        format!(".removed.{}.{}", std::process::id(), queue.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("coracle-remove-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn wide_trees_go() {
        let path = scratch("wide");
        for number in 0..30 {
            let below = path.join(format!("d{number}/e"));
            fs::create_dir_all(&below).unwrap();
            for file in 0..20 {
                fs::write(below.join(format!("f{file}")), b"x").unwrap();
            }
        }
        for file in 0..1000 {
            fs::write(path.join(format!("f{file}")), b"x").unwrap();
        }
        tree(&path).unwrap();
        assert!(!path.exists());
        tree(&path).unwrap();
    }

    #[test]
    fn links_are_not_followed() {
        let path = scratch("link");
        let other = scratch("linked");
        fs::write(other.join("kept"), b"x").unwrap();
        std::os::unix::fs::symlink(&other, path.join("link")).unwrap();
        tree(&path).unwrap();
        assert!(other.join("kept").exists());
        tree(&other).unwrap();
    }

    #[test]
    fn deep_trees_go() {
        let path = scratch("deep");
        let mut directory = open_directory(&path).unwrap();
        // Deeper than a path may be long and than descriptors may be open.
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&directory, c"dd", Mode::S_IRWXU).unwrap();
            directory = nix::fcntl::openat(&directory, c"dd", OPEN, Mode::empty()).unwrap();
        }
        nix::sys::stat::mkdirat(&directory, c"leaf", Mode::empty()).unwrap();
        drop(directory);
        tree(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn forbidden_directories_go() {
        use std::os::unix::fs::PermissionsExt;
        let path = scratch("forbidden");
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/f"), b"x").unwrap();
        for name in ["a/b", "a"] {
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(0)).unwrap();
        }
        tree(&path).unwrap();
        assert!(!path.exists());
    }
}
