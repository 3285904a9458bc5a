//! The command line: one file per verb, each output compared whole.

mod archive;
mod complete;
mod config;
mod cp;
mod crash;
mod general;
mod health;
mod hostile;
mod image;
mod life;
mod login;
mod manifest;
mod mount;
mod observe;
mod pull;
mod push;
mod run;
mod sign;
mod userns;
mod volume;
