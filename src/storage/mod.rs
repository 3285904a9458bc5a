//! Layers, overlay root file systems and volumes.
#![forbid(unsafe_code)]
