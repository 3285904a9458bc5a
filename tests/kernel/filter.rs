//! The default system call filter, tried from inside by programs of one system call each: its error is their exit code.
#![cfg(target_arch = "x86_64")]

use crate::support::coracle::both;
use crate::support::image::Layer;
use crate::support::need::skip;
use crate::support::{Env, Image};

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const SOCK_SEQPACKET: u64 = 5;
const TIOCSTI: u64 = 0x5412;
const CLONE_NEWUSER: u64 = 0x1000_0000;
const IMAGE: &str = "localhost/calls:latest";

/// A 64-bit program: `exit(-call(number, arguments))`.
fn wide(number: u32, arguments: [u64; 3]) -> Vec<u8> {
    let mut code = vec![0xb8]; // mov eax, number
    code.extend(number.to_le_bytes());
    for (register, argument) in [0xbf, 0xbe, 0xba].into_iter().zip(arguments) {
        code.extend([0x48, register]); // mov rdi/rsi/rdx, argument
        code.extend(argument.to_le_bytes());
    }
    // syscall; neg eax; mov edi, eax; mov eax, 60; syscall
    code.extend([0x0f, 0x05, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    let end = 64 + 56 + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0, 1, 0, 0, 0];
    for word in [0x40_0000 + 64 + 56, 64, 0] {
        file.extend(u64::to_le_bytes(word)); // entry, program header, section header
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]); // load, readable and executable
    for word in [0, 0x40_0000, 0x40_0000, end, end, 0x1000] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(code);
    file
}

/// A 32-bit program: `exit(-socketcall(call, arguments))`.
fn socketcall(call: u32, arguments: [u32; 3]) -> Vec<u8> {
    const START: u32 = 0x40_0000 + 52 + 32;
    const LENGTH: u32 = 28;
    let mut code = vec![0xb8, 102, 0, 0, 0, 0xbb]; // mov eax, socketcall; mov ebx, call
    code.extend(call.to_le_bytes());
    code.push(0xb9); // mov ecx, arguments
    code.extend((START + LENGTH).to_le_bytes());
    // int 0x80; neg eax; mov ebx, eax; mov eax, exit; int 0x80
    code.extend([0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    assert_eq!(code.len() as u32, LENGTH);
    code.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let end = 52 + 32 + code.len() as u32;
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 1, 0, 0, 0];
    for word in [START, 52, 0, 0] {
        file.extend(u32::to_le_bytes(word)); // entry, program header, section header, flags
    }
    file.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    for word in [1, 0, 0x40_0000, 0x40_0000, end, end, 5, 0x1000] {
        file.extend(u32::to_le_bytes(word));
    }
    file.extend(code);
    file
}

/// The exit code of this program in a container with these options.
fn run(env: &Env, options: &[&str], program: &[u8]) -> i32 {
    env.load(&Image::new(IMAGE).layer(Layer::new().file("call", 0o755, program)));
    env.coracle(["run", "--rm", "--network", "none"].iter().chain(options).chain(&[IMAGE, "/call"])).code()
}

both! {
    /// "Copy Fail": a page cache write through the kernel's cryptography sockets, from a default container.
    fn cve_2026_31431_no_socket_of_the_kernels_cryptography(env: Env) {
        const SOCKET: u32 = 41;
        const X32: u32 = 0x4000_0000;
        assert_eq!(run(&env, &[], &wide(SOCKET, [AF_ALG, SOCK_SEQPACKET, 0])), libc::EPERM);
        assert_eq!(run(&env, &[], &wide(SOCKET | X32, [AF_ALG, SOCK_SEQPACKET, 0])), libc::EPERM);
        assert_eq!(run(&env, &[], &wide(SOCKET, [AF_VSOCK, SOCK_SEQPACKET, 0])), libc::EPERM);
        // This is how the program tells success: 3 is the new descriptor.
        let unix = wide(SOCKET, [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0]);
        assert_eq!(run(&env, &[], &unix), 256 - 3);
        let narrow = socketcall(1, [AF_ALG as u32, SOCK_SEQPACKET as u32, 0]);
        match run(&env, &["--security-opt", "seccomp=unconfined"], &narrow) {
            126 => skip("kernel: it runs no 32-bit programs"),
            _ => assert_eq!(run(&env, &[], &narrow), libc::EPERM),
        }
    }

    /// Characters typed into the caller's terminal; also with bits that the kernel does not look at (CVE-2019-10063).
    fn cve_2017_5226_nothing_is_typed_into_the_callers_terminal(env: Env) {
        const IOCTL: u32 = 16;
        assert_eq!(run(&env, &[], &wide(IOCTL, [0, TIOCSTI, 0])), libc::EIO);
        assert_eq!(run(&env, &[], &wide(IOCTL, [0, TIOCSTI | 1 << 32, 0])), libc::EIO);
        // Another one gets as far as the descriptor.
        assert_ne!(run(&env, &[], &wide(IOCTL, [99, 0x5401, 0])), libc::EIO);
    }

    fn namespaces_and_keys_are_for_who_has_the_capability(env: Env) {
        const UNSHARE: u32 = 272;
        const KEYCTL: u32 = 250;
        assert_eq!(run(&env, &[], &wide(UNSHARE, [CLONE_NEWUSER, 0, 0])), libc::EPERM);
        assert_eq!(run(&env, &["--cap-add", "SYS_ADMIN"], &wide(UNSHARE, [CLONE_NEWUSER, 0, 0])), 0);
        assert_eq!(run(&env, &[], &wide(KEYCTL, [0, 0, 0])), libc::EPERM);
    }

    /// A program that probes for a call of the future falls back on ENOSYS, and on nothing else.
    fn calls_nobody_knows_yet_are_not_there(env: Env) {
        assert_eq!(run(&env, &[], &wide(600, [0, 0, 0])), libc::ENOSYS);
        const CLONE3: u32 = 435;
        assert_eq!(run(&env, &[], &wide(CLONE3, [0, 0, 0])), libc::ENOSYS);
    }

    fn a_profile_of_the_users_own(env: Env) {
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":
            [{"names":["getppid"],"action":"SCMP_ACT_ERRNO","errnoRet":77}]}"#;
        let path = env.write("profile.json", profile);
        let option = format!("seccomp={}", path.display());
        assert_eq!(run(&env, &["--security-opt", &option], &wide(110, [0, 0, 0])), 77);
        let path = env.write("bad.json", r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"]}]}"#);
        let option = format!("seccomp={}", path.display());
        let told = env.coracle(["run", "--rm", "--security-opt", &option, IMAGE, "/call"]).fails(125);
        assert!(told.contains("syscalls[0].action: missing"), "{told}");
    }
}
