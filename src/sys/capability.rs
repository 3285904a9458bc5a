//! The capability system calls on sets given as bit masks. No names, no policy.

use super::fd::check;
use std::io;

/// The three sets of a thread, one bit a capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// May be handed over an exec.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

const VERSION_3: u32 = 0x2008_0522;

/// capset(2) of this thread.
pub fn set(sets: &Sets) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| {
        [(sets.effective >> shift) as u32, (sets.permitted >> shift) as u32, (sets.inheritable >> shift) as u32]
    };
    let data = [half(0), half(32)];
    // SAFETY: header and data have the layout of version 3: two triples of u32.
    check(unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) })?;
    Ok(())
}

/// The same; of what this process itself has been denied (by whoever runs it), the rest.
pub fn set_granted(sets: &Sets) -> io::Result<()> {
    match set(sets) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let own = get()?.permitted;
            set(&Sets { effective: sets.effective & own, permitted: sets.permitted & own, ..*sets })
        }
        other => other,
    }
}

/// capget(2) of this thread.
pub fn get() -> io::Result<Sets> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [[0_u32; 3]; 2];
    // SAFETY: the kernel fills two triples of u32, which is what data holds.
    check(unsafe { libc::syscall(libc::SYS_capget, &header, data.as_mut_ptr()) })?;
    let join = |index: usize| u64::from(data[0][index]) | u64::from(data[1][index]) << 32;
    Ok(Sets { effective: join(0), permitted: join(1), inheritable: join(2) })
}

fn prctl(option: i32, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<libc::c_long> {
    const ZERO: libc::c_ulong = 0;
    // SAFETY: private; the options used below take numbers only.
    check(unsafe { libc::prctl(option, first, second, ZERO, ZERO) }.into())
}

/// Take a capability out of the bounding set.
pub fn drop_bounding(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Put a capability into the ambient set.
pub fn raise_ambient(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as _, capability.into()).map(drop)
}

/// Empty the ambient set.
pub fn clear_ambient() -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as _, 0).map(drop)
}

/// Keep the permitted set while the user changes (until the next exec).
pub fn keep_over_setuid() -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0).map(drop)
}
