//! Every `unsafe` of the program. One system call a function, `io::Result` out, no policy.

pub mod bpf;
pub mod capability;
pub mod fd;
pub mod fork;
pub mod loopback;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod packet;
pub mod pipe;
pub mod probe;
pub mod process;
pub mod seal;
pub mod socket;
pub mod terminal;
pub mod xattr;
