//! `coracle oci …`, and the same under the names coracle-oci, runc and crun: runc's command line, thin over `runtime/`.

use crate::runtime::launch::{Rootfs, Stdio, launch};
use crate::runtime::plan::{PlanOptions, plan};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

/// The arguments for the runtime, if it is the runtime that was called.
pub fn arguments(arguments: &[OsString]) -> Option<&[OsString]> {
    let (name, rest) = arguments.split_first()?;
    let name = Path::new(name).file_name()?.to_str()?;
    match rest.first() {
        _ if matches!(name, "coracle-oci" | "runc" | "crun") => Some(rest),
        Some(first) if first == "oci" => Some(&rest[1..]),
        _ => None,
    }
}

/// Run the runtime's command line.
pub fn main(arguments: &[OsString]) -> ExitCode {
    match run(arguments) {
        Ok(code) => ExitCode::from(code as u8),
        Err(error) => {
            eprintln!("{}", crate::failure::message_of(&error));
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &[OsString]) -> Result<i32> {
    crate::sys::seal::reexec_sealed()?;
    let bundle = Path::new(&arguments[1]).canonicalize()?;
    let spec = oci_spec::runtime::Spec::load(bundle.join("config.json")).context("config.json")?;
    let root = bundle.join(spec.root().as_ref().unwrap().path());
    let plan = plan(&spec, PlanOptions { id: "x".into(), bundle, ..PlanOptions::default() })?;
    if arguments[0] == "plan" {
        print!("{plan}");
        return Ok(0);
    }
    let created = launch(plan, Rootfs::Path(root), Stdio::Inherit, None)?;
    let running = created.start()?;
    Ok(crate::sys::process::wait(running.pidfd.as_fd())?.code())
}
