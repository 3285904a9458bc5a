//! The mount system calls that work on file descriptors. One call a function, no policy.

use super::fd::{check, owned};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null;

/// `mount_setattr`: read-only.
pub const ATTR_RDONLY: u64 = 0x01;
/// `mount_setattr`: ignore set-user-id bits.
pub const ATTR_NOSUID: u64 = 0x02;
/// `mount_setattr`: no device nodes.
pub const ATTR_NODEV: u64 = 0x04;
/// `mount_setattr`: no programs.
pub const ATTR_NOEXEC: u64 = 0x08;
/// `mount_setattr`: the bits of the access time mode.
pub const ATTR_ATIME: u64 = 0x70;
/// `mount_setattr`: never update access times.
pub const ATTR_NOATIME: u64 = 0x10;
/// `mount_setattr`: always update access times.
pub const ATTR_STRICTATIME: u64 = 0x20;
/// `mount_setattr`: no access times of directories.
pub const ATTR_NODIRATIME: u64 = 0x80;
/// `mount_setattr`: map ids by a user namespace.
pub const ATTR_IDMAP: u64 = 0x0010_0000;
/// `mount_setattr`: do not follow symbolic links.
pub const ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

/// What `mount_setattr` changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Attributes {
    /// ATTR_* to set.
    pub set: u64,
    /// ATTR_* to clear.
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE, or 0 to leave it.
    pub propagation: u64,
    /// The user namespace of ATTR_IDMAP.
    pub user_namespace: u64,
}

/// open_tree(2): an O_PATH descriptor of an existing mount.
pub fn open_tree(dir: BorrowedFd<'_>, path: &CStr, flags: i32) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLOEXEC: i32 = libc::O_CLOEXEC;
    // SAFETY: path is a C string that lives through the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags | OPEN_TREE_CLOEXEC) })
}

/// open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount at the path, with all below it if `recursive`.
/// An empty path means `dir` itself.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: i32 = 1;
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    open_tree(dir, path, OPEN_TREE_CLONE | empty | if recursive { libc::AT_RECURSIVE } else { 0 })
}

/// move_mount(2): attach (or move) the mount `source` at the place `target`, both descriptors.
pub fn move_mount(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
    const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
    // SAFETY: both paths are empty C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            source.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// fsopen(2): begin to make a file system.
pub fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    // SAFETY: kind is a C string that lives through the call.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

fn fsconfig(context: BorrowedFd<'_>, command: u32, key: *const i8, value: *const i8, number: i32) -> io::Result<()> {
    // SAFETY: private; the callers below pass null or C strings that live through the call.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, number) })?;
    Ok(())
}

/// fsconfig(2): set an option that has no value.
pub fn fsconfig_flag(context: BorrowedFd<'_>, key: &CStr) -> io::Result<()> {
    fsconfig(context, 0, key.as_ptr().cast(), null(), 0)
}

/// fsconfig(2): set an option to a string.
pub fn fsconfig_string(context: BorrowedFd<'_>, key: &CStr, value: &CStr) -> io::Result<()> {
    fsconfig(context, 1, key.as_ptr().cast(), value.as_ptr().cast(), 0)
}

/// fsconfig(2): set an option to a descriptor (overlay's `lowerdir+`, `upperdir`, `workdir` since Linux 6.13).
pub fn fsconfig_fd(context: BorrowedFd<'_>, key: &CStr, value: BorrowedFd<'_>) -> io::Result<()> {
    fsconfig(context, 5, key.as_ptr().cast(), null(), value.as_raw_fd())
}

/// fsconfig(2): make the file system.
pub fn fsconfig_create(context: BorrowedFd<'_>) -> io::Result<()> {
    fsconfig(context, 6, null(), null(), 0)
}

/// What the kernel had to say about the last failure on this context ("e overlay: …"), without its level letter.
pub fn fs_message(context: BorrowedFd<'_>) -> Option<String> {
    let mut text = [0_u8; 512];
    let length = nix::unistd::read(context, &mut text).ok()?;
    let text = String::from_utf8_lossy(&text[..length]);
    Some(text.trim_start_matches(['e', 'w', 'i']).trim().to_owned()).filter(|text| !text.is_empty())
}

/// fsmount(2): a detached mount of the file system that was made. `attributes` are ATTR_*.
pub fn fsmount(context: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as u32) })
}

/// mount_setattr(2) on a descriptor, with all below it if `recursive`.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attributes: &Attributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: Attributes has the layout of struct mount_attr (four u64); its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes as *const Attributes,
            size_of::<Attributes>(),
        )
    })?;
    Ok(())
}

/// pivot_root(".", "."): the working directory becomes the root, the old root lies on top of it.
pub fn pivot_root_here() -> io::Result<()> {
    // SAFETY: two C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    Ok(())
}
