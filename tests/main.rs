//! All tests that run the binary, in one test binary: it links once and shares its support code.
//!
//! `cargo test --test main` runs everything here; `tests/run` does so with a limit on each test. A test in a module
//! named `alone` runs when no other does.

mod support;

mod cli;
mod document;
mod kernel;
mod leak;
mod machine;
mod network;
mod oci;
mod security;
mod tidy;
