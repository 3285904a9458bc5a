//! One small process per running container: the only one that acquires and releases.
#![forbid(unsafe_code)]

pub mod acquire;
pub mod client;
mod confinement;
mod etc;
pub mod exit;
pub mod health;
pub mod log;
pub mod message;
pub mod relay;
pub mod serve;
pub mod source;
mod status;
pub mod supervise;
