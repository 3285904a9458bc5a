//! Images: references, archives and registries.
#![forbid(unsafe_code)]

pub mod auth;
pub mod auth_file;
pub mod builtin;
pub mod config;
pub mod http;
pub mod manifest;
pub mod reference;
pub mod registry;
pub mod store;
pub mod trust;
