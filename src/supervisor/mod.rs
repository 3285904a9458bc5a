//! One small process per running container: the only one that acquires and releases.
#![forbid(unsafe_code)]

pub mod acquire;
pub mod client;
mod confinement;
mod etc;
pub mod exit;
pub mod health;
mod limit;
pub mod log;
pub mod message;
mod notify;
pub mod relay;
pub mod root;
pub mod serve;
pub mod source;
mod status;
mod streams;
pub mod supervise;
