//! Images: references, archives and registries.
#![forbid(unsafe_code)]

pub mod access;
pub mod archive;
pub mod auth;
pub mod auth_file;
pub mod builtin;
pub mod change;
pub mod conf;
pub mod config;
pub mod copy;
pub mod der;
pub mod discard;
pub mod download;
pub mod http;
pub mod list;
pub mod manifest;
pub mod parallel;
pub mod policy;
pub mod progress;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod signature;
pub mod store;
pub mod tls;
pub mod trust;
pub mod upload;
