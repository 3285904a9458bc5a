//! The verbs of `coracle artifact`.

pub mod add;
pub mod extract;
pub mod inspect;
pub mod ls;
pub mod pull;
pub mod push;
pub mod rm;
