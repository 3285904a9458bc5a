//! What the host gives: user namespaces and subordinate ids, systemd.
#![forbid(unsafe_code)]

pub mod apparmor;
pub mod bus;
pub mod conf;
pub mod config;
pub mod device;
pub mod netns;
pub mod notify;
pub mod resolve;
pub mod systemd;
pub mod userns;

/// Whether the controllers are on cgroup v2: it is mounted at /sys/fs/cgroup itself.
pub fn is_cgroup_v2() -> bool {
    nix::sys::statfs::statfs("/sys/fs/cgroup")
        .is_ok_and(|facts| facts.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}
