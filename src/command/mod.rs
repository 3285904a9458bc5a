//! The command line: one file per verb.
#![forbid(unsafe_code)]

pub mod flag;
pub mod present;

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
