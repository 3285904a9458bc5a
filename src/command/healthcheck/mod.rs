//! `coracle healthcheck …`.

pub mod run;
