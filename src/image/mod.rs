//! Images: references, archives and registries.
#![forbid(unsafe_code)]

pub mod auth;
pub mod auth_file;
pub mod http;
pub mod manifest;
pub mod registry;
pub mod trust;
