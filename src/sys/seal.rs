//! A way to run our own binary so that nobody can write to it through /proc/PID/exe (CVE-2019-5736).
//!
//! Where we may mount: the binary through a detached read-only mount, which costs no memory. Where we may not but could
//! write to the binary (an ordinary user's own file): a sealed copy in memory. Else the binary as it is, for then the
//! container, whose ids are at most ours, cannot write to it either.

use super::fd;
use super::mount::{self, Attributes};
use super::process::{self, Strings};
use nix::fcntl::{AT_FDCWD, FcntlArg, SealFlag, fcntl};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

const SELF: &CStr = c"/proc/self/exe";

/// A descriptor of our binary to run with [`process::execute_fd`].
pub fn sealed_self() -> io::Result<OwnedFd> {
    match mount::clone_tree(AT_FDCWD, SELF, false) {
        Ok(tree) => read_only(tree),
        // EINVAL: we were started from a mount of another namespace, as a user's command that has made its own.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL | libc::ENOSYS)) => {
            match is_writable() {
                true => clone_of_path().and_then(read_only).or_else(|_| copy()),
                false => fd::open(SELF, libc::O_PATH),
            }
        }
        Err(error) => Err(error),
    }
}

fn read_only(tree: OwnedFd) -> io::Result<OwnedFd> {
    let read_only = Attributes { set: mount::ATTR_RDONLY, ..Attributes::default() };
    mount::mount_setattr(tree.as_fd(), false, &read_only)?;
    Ok(tree)
}

/// Our file as this mount namespace has it at the path it was started by, if it still is the same file.
fn clone_of_path() -> io::Result<OwnedFd> {
    let path = CString::new(std::fs::read_link("/proc/self/exe")?.into_os_string().into_vec())?;
    let file = fd::open(&path, libc::O_PATH | libc::O_NOFOLLOW)?;
    let (found, own) = (nix::sys::stat::fstat(&file)?, nix::sys::stat::stat(SELF)?);
    if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino) {
        return Err(io::ErrorKind::NotFound.into());
    }
    mount::clone_tree(file.as_fd(), c"", false)
}

/// Could we, or somebody with our ids, write to the file or make it writable?
fn is_writable() -> bool {
    let Ok(status) = nix::sys::stat::stat(SELF) else { return true };
    let user = nix::unistd::geteuid();
    user.is_root()
        || status.st_uid == user.as_raw()
        || nix::unistd::access(SELF, nix::unistd::AccessFlags::W_OK).is_ok()
}

const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

fn copy() -> io::Result<OwnedFd> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC | nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING;
    let mut file = std::fs::File::from(nix::sys::memfd::memfd_create(c"coracle", flags)?);
    io::copy(&mut std::fs::File::from(fd::open(SELF, libc::O_RDONLY)?), &mut file)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(file.into())
}

/// Is this process's binary out of everybody's reach already?
pub fn is_sealed() -> io::Result<bool> {
    let file = fd::open(SELF, libc::O_RDONLY)?;
    if nix::sys::statvfs::fstatvfs(&file)?.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
        return Ok(true);
    }
    // EINVAL: a file without seals.
    let seals = fcntl(&file, FcntlArg::F_GET_SEALS).unwrap_or(0);
    Ok(SealFlag::from_bits_truncate(seals).contains(SEALS) || (!nix::unistd::geteuid().is_root() && !is_writable()))
}

/// Go on as the sealed binary, with the same arguments: the first thing a process does that is to clone containers.
/// Does nothing where it is sealed already.
pub fn reexec_sealed() -> io::Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let string = |text: std::ffi::OsString| CString::new(text.into_vec());
    let arguments = std::env::args_os().map(string).collect::<Result<Vec<_>, _>>()?;
    let environment = std::env::vars_os().map(|(name, value)| {
        let mut entry = name;
        entry.push("=");
        entry.push(value);
        CString::new(entry.into_vec())
    });
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    let binary = sealed_self()?;
    Err(process::execute_fd(binary.as_fd(), &Strings::new(arguments), &Strings::new(environment)))
}
