//! The OCI runtime. It knows the OCI spec only: never a container record, never argv.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod seccomp;
