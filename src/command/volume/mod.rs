//! The verbs of `coracle volume`.

pub mod create;
pub mod exists;
pub mod export;
pub mod import;
pub mod inspect;
pub mod ls;
pub mod mount;
pub mod prune;
pub mod rm;
pub mod unmount;
