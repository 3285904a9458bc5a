//! What tests stand on: an environment of their own, images, waiting, and the check that nothing is left behind.
// Not every helper has a user at every time.
#![allow(dead_code, unused_imports, unused_macros)]

#[cfg(test)]
mod check;
pub(crate) mod command;
pub(crate) mod coracle;
pub(crate) mod filter;
pub(crate) mod golden;
pub(crate) mod image;
pub(crate) mod leak;
pub(crate) mod need;
pub(crate) mod pty;
pub(crate) mod registry;
pub(crate) mod wait;

pub(crate) use command::{Command, Output};
pub(crate) use coracle::Env;
pub(crate) use image::Image;
pub(crate) use wait::{until, within};
