//! Layers, overlay root file systems and volumes.
//!
//! Knows directories and archives, not images: what a layer is called and who needs it, `image::store` knows.
#![forbid(unsafe_code)]

pub mod compress;
pub mod copy;
pub mod diff;
pub mod flat;
pub mod layer;
pub mod mapped;
pub mod overlay;
pub mod pack;
pub mod pipe;
pub mod remove;
pub mod skeleton;
pub mod split;
pub mod tar;
pub mod tree;
pub mod unpack;
pub mod volume;
