//! The verbs of `coracle system` that are about the store as a whole.

pub mod check;
pub mod df;
pub mod dns;
pub mod prune;
