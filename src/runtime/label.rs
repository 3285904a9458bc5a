//! AppArmor and SELinux: the label of the process to come.
//!
//! Written through a procfs that no image can have forged (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881), to the
//! attribute that takes effect at the next exec.

use super::step::Fault;
use crate::sys::fd;
use std::ffi::CStr;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// What the process will be.
pub enum Label {
    /// `process.apparmorProfile`.
    AppArmor(String),
    /// `process.selinuxLabel`.
    SeLinux(String),
}

/// Does this host confine with AppArmor?
pub fn has_apparmor() -> bool {
    Path::new("/sys/kernel/security/apparmor").exists()
        || std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// Does this host confine with SELinux?
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

impl Label {
    /// Ask the kernel for it, by this process's own directory of `proc`.
    pub fn apply(&self, proc: BorrowedFd<'_>) -> Result<(), Fault> {
        let (files, text): (&[&CStr], String) = match self {
            // The second name is that of kernels before 5.8, and of hosts with one security module only.
            Label::AppArmor(profile) => {
                (&[c"thread-self/attr/apparmor/exec", c"thread-self/attr/exec"], format!("exec {profile}"))
            }
            Label::SeLinux(label) => (&[c"thread-self/attr/exec"], label.clone()),
        };
        let mut last = Fault::refused("no such attribute");
        for path in files {
            match fd::openat2(proc, path, libc::O_WRONLY, 0, fd::RESOLVE_BENEATH | fd::RESOLVE_NO_MAGICLINKS) {
                Ok(file) if fd::file_system_magic(&file)? != fd::PROC_MAGIC => {
                    return Err(Fault::refused("the process's attributes are not on a procfs"));
                }
                Ok(file) => {
                    return nix::unistd::write(&file, text.as_bytes()).map(drop).map_err(|e| Fault::at(path, e));
                }
                Err(error) => last = Fault::at(path, error),
            }
        }
        Err(last)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::AppArmor(profile) => write!(f, "set AppArmor profile {profile}"),
            Label::SeLinux(label) => write!(f, "set SELinux label {label}"),
        }
    }
}
