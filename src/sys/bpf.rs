//! Both kinds of BPF: a classic filter for seccomp(2), and bpf(2) for the device program of a cgroup.

use libc::{c_long, c_uint, c_ulong, sock_filter};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Installs a classic filter for the calling thread; with SECCOMP_FILTER_FLAG_NEW_LISTENER gives the listener.
/// Allocates nothing: the child between clone and exec may call it.
pub fn load_filter(instructions: &[sock_filter], flags: c_ulong) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: `program` and the instructions it points to outlive the call; the kernel copies and never writes them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return match result {
            0 => Ok(None),
            // With TSYNC a positive value is a thread that could not follow.
            _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        };
    }
    // SAFETY: with this flag the result is a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(result as i32) }))
}

/// One eBPF instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination in the low four bits, source in the high ones.
    pub registers: u8,
    /// Signed offset of a jump or of memory.
    pub offset: i16,
    /// Immediate.
    pub immediate: i32,
}

const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_ATTACH: c_long = 8;
const BPF_PROG_DETACH: c_long = 9;
const BPF_PROG_GET_FD_BY_ID: c_long = 13;
const BPF_PROG_QUERY: c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: c_uint = 15;
const BPF_CGROUP_DEVICE: c_uint = 6;
const BPF_F_ALLOW_MULTI: c_uint = 1 << 1;
const BPF_F_REPLACE: c_uint = 1 << 2;

/// `union bpf_attr`, the parts used here; what is not named is zero, as bpf(2) demands.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Attributes([u32; 32]);

impl Attributes {
    const EMPTY: Attributes = Attributes([0; 32]);

    fn set_pointer(&mut self, word: usize, pointer: *const u8) {
        let address = pointer as u64;
        self.0[word] = address as u32;
        self.0[word + 1] = (address >> 32) as u32;
    }
}

/// # Safety
/// Every address in `attributes` must be valid for what `command` does with it.
unsafe fn bpf(command: c_long, attributes: &mut Attributes) -> io::Result<i32> {
    // SAFETY: the structure is as large as said, and the caller answers for the addresses in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Loads a device program.
pub fn load_device_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::EMPTY;
    attributes.0[0] = BPF_PROG_TYPE_CGROUP_DEVICE;
    attributes.0[1] = instructions.len() as u32;
    attributes.set_pointer(2, instructions.as_ptr().cast());
    attributes.set_pointer(4, c"Apache".as_ptr().cast());
    // SAFETY: instructions and license outlive the call and are only read.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) }?;
    // SAFETY: a new descriptor (close-on-exec, as all of bpf(2)) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a cgroup beside those of others, or in place of `replaced`.
pub fn attach_device_program(cgroup: BorrowedFd, program: BorrowedFd, replaced: Option<BorrowedFd>) -> io::Result<()> {
    let mut attributes = Attributes::EMPTY;
    attributes.0[0] = cgroup.as_raw_fd() as u32;
    attributes.0[1] = program.as_raw_fd() as u32;
    attributes.0[2] = BPF_CGROUP_DEVICE;
    attributes.0[3] = BPF_F_ALLOW_MULTI;
    if let Some(replaced) = replaced {
        attributes.0[3] |= BPF_F_REPLACE;
        attributes.0[4] = replaced.as_raw_fd() as u32;
    }
    // SAFETY: no addresses.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Takes one device program off a cgroup.
pub fn detach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> io::Result<()> {
    let mut attributes = Attributes::EMPTY;
    attributes.0[0] = cgroup.as_raw_fd() as u32;
    attributes.0[1] = program.as_raw_fd() as u32;
    attributes.0[2] = BPF_CGROUP_DEVICE;
    // SAFETY: no addresses.
    unsafe { bpf(BPF_PROG_DETACH, &mut attributes) }.map(drop)
}

/// The device programs attached to this cgroup itself, at most 64.
pub fn device_programs(cgroup: BorrowedFd) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; 64];
    let mut attributes = Attributes::EMPTY;
    attributes.0[0] = cgroup.as_raw_fd() as u32;
    attributes.0[1] = BPF_CGROUP_DEVICE;
    attributes.set_pointer(4, ids.as_mut_ptr().cast());
    attributes.0[6] = ids.len() as u32;
    // SAFETY: the kernel writes at most as many ids as word 6 says, into `ids`, which outlives the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes) }?;
    let count = (attributes.0[6] as usize).min(ids.len());
    ids[..count].iter().map(|&id| program_of(id)).collect()
}

fn program_of(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::EMPTY;
    attributes.0[0] = id;
    // SAFETY: no addresses.
    let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes) }?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
