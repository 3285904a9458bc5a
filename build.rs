//! Compiles the program of the built-in image `hello`, which is carried in the binary.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "src/image/builtin/hello.c";
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rerun-if-changed=build.rs");
    let target = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("hello");
    // The crate finds the compiler of the target; linking is ours, for it is a program without any library.
    let compiler = cc::Build::new().cargo_warnings(false).get_compiler();
    let mut command = Command::new(compiler.path());
    for (name, value) in compiler.get_envs() {
        command.env(name, value);
    }
    command.args(["-static", "-nostdlib", "-ffreestanding", "-Os", "-fno-stack-protector", "-fno-pic", "-no-pie"]);
    command.args(["-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-s", "-o"]);
    command.arg(&target).arg(source);
    let status = command.status().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
