//! The OCI runtime's command line, driven as containerd, CRI-O and podman drive a runtime.

pub(crate) mod bundle;
mod console;
mod consumer;
mod life;
mod process;
mod rootfs;
mod suite;
