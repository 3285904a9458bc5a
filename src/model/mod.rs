//! What a user can ask for: plain data, no I/O.
//!
//! Every front end (command line, and later API, kube, compose, quadlet) builds a [`container::ContainerSpec`]; nothing
//! below parses a string again. All types go to disk as JSON inside records, so a field is added, never renamed, and a
//! new one carries `#[serde(default)]`.
#![forbid(unsafe_code)]

pub mod container;
pub mod digest;
pub mod health;
pub mod id;
pub mod image;
pub mod mount;
pub mod network;
pub mod port;
pub mod pull;
pub mod resource;
pub mod security;
pub mod signal;
pub mod subnet;
pub mod unit;
pub mod user;
