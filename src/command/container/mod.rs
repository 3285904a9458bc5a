//! `coracle container …`: the verbs that are not also at the top.

pub mod exists;
pub mod inspect;
pub mod prune;
