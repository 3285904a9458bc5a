//! The binary: parse the command line, dispatch, print the failure, give the exit code. Nothing else.

mod bundle;
mod command;
mod engine;
mod failure;
mod host;
mod image;
mod model;
mod network;
mod runtime;
mod state;
mod storage;
mod supervisor;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::main()
}
