//! The OCI runtime. It knows the OCI spec only: never a container record, never argv.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod exec;
pub mod hook;
pub mod idmap;
mod init;
pub mod label;
pub mod launch;
pub mod lifecycle;
mod netdev;
pub mod plan;
mod rootfs;
pub mod seccomp;
mod step;
mod sync;
