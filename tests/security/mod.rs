//! What other runtimes and engines have been broken by, one test for each, named after it. Each says what a careless
//! implementation does instead, and how it was seen to fail one.

mod confine;
mod engine_mounts;
mod engine_users;
mod runtime;
mod selftest;
