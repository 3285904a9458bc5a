//! `coracle image trust`: the rules of policy.json.

pub mod set;
pub mod show;
