//! fork(2) for a process that knows it is single-threaded.

use nix::unistd::{ForkResult, Pid};
use std::io;

/// Run `work` in a child that ends with the code it returns, and give the child's pid.
///
/// # Panics
/// When the process has more than one thread: locks held by the others would stay locked for ever in the child.
pub fn in_child(work: impl FnOnce() -> i32) -> io::Result<Pid> {
    assert!(is_single_threaded(), "fork with threads");
    // SAFETY: the process has one thread (asserted above), so the child's copy of every lock and of the allocator is in
    // the state this thread left it in, and the child may go on as any program.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = work();
            // SAFETY: _exit is always allowed; it skips atexit handlers and buffers, which are the parent's.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Whether this process has one thread only.
pub fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(true, |tasks| tasks.count() <= 1)
}
