//! Images: references, archives and registries.
#![forbid(unsafe_code)]

pub mod manifest;
