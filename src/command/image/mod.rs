//! The verbs of `coracle image` that have no short form.

pub mod diff;
pub mod exists;
pub mod inspect;
pub mod mount;
pub mod prune;
pub mod tree;
pub mod unmount;
