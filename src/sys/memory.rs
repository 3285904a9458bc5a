//! Memory of this process that nobody needs any more, back to the kernel.

use std::ffi::c_void;

/// Stack below the running function is dead, but its pages stay ours: so much of it is looked at.
const STACK_BELOW: usize = 4 << 20;
/// What the functions called from here on may still use of it.
const STACK_KEPT: usize = 8 << 10;

/// Give free memory of the allocator, the unused part of the stack and the program's constants back. For a process that
/// has done its heavy work and will be idle for long: a constant it still needs comes back from the page cache.
pub fn give_back() {
    forget_constants();
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

/// Take the pages of the program's constants out of this process; they stay in the page cache. Not those of its code: under
/// User Mode Linux a process dies when it comes back to such a page.
fn forget_constants() {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> libc::c_int {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(65536) as usize;
        // SAFETY: dl_iterate_phdr gives a valid description, whose headers are `dlpi_phnum` in number.
        let (base, headers) = unsafe {
            let info = &*info;
            (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
        };
        for header in headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & (libc::PF_W | libc::PF_X) == 0)
        {
            let start = (base + header.p_vaddr as usize).next_multiple_of(page);
            let end = (base + header.p_vaddr as usize + header.p_memsz as usize) / page * page;
            if start < end {
                // SAFETY: whole pages of a segment that is mapped from the program's file, neither writable nor code (relocations
                // and RELRO lie in writable ones): each comes back with the same content when it is touched next.
                unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
            }
        }
        0
    }
    // SAFETY: the callback only reads what it is given and does not unwind.
    unsafe {
        libc::dl_iterate_phdr(Some(each), std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn constants_come_back() {
        static TEXT: &str = "constants come back";
        let before = TEXT.to_owned();
        super::give_back();
        assert_eq!(TEXT, before);
    }
}
