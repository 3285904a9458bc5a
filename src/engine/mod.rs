//! The use cases, one file each.
#![forbid(unsafe_code)]
