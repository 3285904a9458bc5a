//! Networks: links, addresses, rules, names, and rootless connectivity.
//!
//! The supervisor knows two doors: [`attach::up`] connects a container's network namespace as its record asks for, and
//! [`attach::down`] releases what that took, from a document alone and as often as one likes. All speaks netlink from
//! this process; as root no other program is started.
#![forbid(unsafe_code)]

pub mod attach;
pub mod conf;
pub mod create;
pub mod firewall;
pub mod forward;
pub mod host;
pub mod ipam;
pub mod link;
pub mod message;
pub mod names;
pub mod option;
pub mod port;
pub mod relay;
pub mod resolv;

#[cfg(test)]
mod kernel_tests;
