//! Memory of this process that nobody needs any more, back to the kernel.

use std::ffi::c_void;

/// Stack below the running function is dead, but its pages stay ours: so much of it is looked at.
const STACK_BELOW: usize = 4 << 20;
/// What the functions called from here on may still use of it.
const STACK_KEPT: usize = 8 << 10;

/// Give free memory of the allocator and the unused part of the stack back. For a process that has done its heavy work
/// and will be idle for long.
pub fn give_back() {
    // SAFETY: malloc_trim takes a number; the allocator's own locks are its business.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    // Only the main thread has nothing but a wide gap below its stack.
    if nix::unistd::gettid() != nix::unistd::getpid() {
        return;
    }
    let marker = 0u8;
    let here = &raw const marker as usize;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(65536) as usize;
    let end = here.saturating_sub(STACK_KEPT) / page * page;
    // SAFETY: the range lies below every live frame of this thread (stacks grow downwards) and further than what the
    // calls from here need. Nothing but this stack is mapped there: the kernel places no mapping less than 128 MiB below
    // the top of the main thread's stack (MIN_GAP of arch/x86/mm/mmap.c and mm/util.c). Pages given back read as zero.
    unsafe {
        libc::madvise((end - STACK_BELOW) as *mut c_void, STACK_BELOW, libc::MADV_DONTNEED);
    }
}
