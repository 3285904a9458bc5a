//! What the host gives: user namespaces and subordinate ids, systemd.
#![forbid(unsafe_code)]

pub mod resolve;
pub mod userns;
