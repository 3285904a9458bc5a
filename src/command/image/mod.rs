//! The verbs of `coracle image` that have no short form.

pub mod diff;
pub mod exists;
pub mod inspect;
pub mod mount;
pub mod prune;
pub mod scp;
pub mod sign;
pub mod tree;
pub mod trust;
pub mod unmount;
