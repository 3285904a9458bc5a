//! Which system calls a container may make: the built-in profile, and Docker's profile files.
//!
//! The built-in profile allows what Docker's allows, with these differences: the i386 call `socketcall` is allowed for
//! every call but `socket` itself, whose family stands behind a pointer no filter can follow (CVE-2026-31431 reached
//! AF_ALG that way), unless 32-bit programs are asked for; and the terminal ioctls TIOCSTI and TIOCLINUX, which type into
//! the caller's terminal, are refused (CVE-2017-5226). Both are tables, so that a start parses nothing.
#![forbid(unsafe_code)]

mod file;
mod table;

pub use file::{Host, parse, running_kernel};

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

/// CLONE_NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWCGROUP.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Linux; PER_LINUX32; UNAME26; both; ask.
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
/// All families up to AF_ROSE, then these. Left out: what the kernel no longer has, AF_ALG (38, CVE-2026-31431) and
/// AF_VSOCK (40: it reaches the machines beside and above, no network namespace confines it).
const FAMILIES_BELOW: u64 = 12;
const FAMILIES: [u64; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];

/// The built-in profile for a process with (at most) these capabilities. `socketcall` allows the i386 call as a whole,
/// for 32-bit images and whoever asks.
pub fn default_profile(capabilities: &Capabilities, socketcall: bool) -> LinuxSeccomp {
    use LinuxSeccompOperator::{ScmpCmpEq as Equal, ScmpCmpGe as NotLess, ScmpCmpLt as Less};
    let administrator = capabilities.contains(&Capability::SysAdmin);
    let mut calls = vec![allow(table::ALWAYS.iter().copied(), None)];
    calls.push(allow(table::MACHINE.iter().copied(), None));
    if socketcall {
        calls.push(allow(["socketcall"], None));
    }
    for (capability, names) in table::WITH_CAPABILITY {
        if capabilities.contains(capability) {
            calls.push(allow(names.iter().copied(), None));
        }
    }
    calls.push(allow(["socket"], Some(argument(0, Less, FAMILIES_BELOW))));
    calls.extend(FAMILIES.map(|family| allow(["socket"], Some(argument(0, Equal, family)))));
    calls.extend(PERSONALITIES.map(|value| allow(["personality"], Some(argument(0, Equal, value)))));
    if administrator {
        calls.push(allow(["ioctl"], None));
    } else {
        calls.push(allow(["clone"], Some(masked(0, NEW_NAMESPACES, 0))));
        // Programs try clone3 first and fall back on ENOSYS only; its flags are behind a pointer.
        calls.push(refuse("clone3", libc::ENOSYS, None));
        // As of Linux 6.2 with dev.tty.legacy_tiocsti=0. Only 32 bits count (CVE-2019-10063).
        for command in [TIOCSTI, TIOCLINUX] {
            calls.push(refuse("ioctl", libc::EIO, Some(masked(1, 0xffff_ffff, command))));
        }
        calls.push(allow(["ioctl"], Some(argument(1, NotLess, 0))));
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM as u32))
        .set_architectures(Some(table::ARCHITECTURES.to_vec()))
        .set_syscalls(Some(calls));
    profile
}

/// The architectures that go with a native one.
fn companions(native: Arch) -> &'static [Arch] {
    match native {
        Arch::ScmpArchX86_64 => &[Arch::ScmpArchX86, Arch::ScmpArchX32],
        Arch::ScmpArchAarch64 => &[Arch::ScmpArchArm],
        _ => &[],
    }
}

fn call<'a>(names: impl IntoIterator<Item = &'a str>, action: LinuxSeccompAction) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(names.into_iter().map(str::to_owned).collect()).set_action(action);
    call
}

fn allow<'a>(names: impl IntoIterator<Item = &'a str>, argument: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut call = call(names, LinuxSeccompAction::ScmpActAllow);
    call.set_args(argument.map(|argument| vec![argument]));
    call
}

fn refuse(name: &str, errno: i32, argument: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut call = call([name], LinuxSeccompAction::ScmpActErrno);
    call.set_errno_ret(Some(errno as u32)).set_args(argument.map(|argument| vec![argument]));
    call
}

fn argument(index: usize, operator: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default().index(index).op(operator).value(value).build().unwrap_or_default()
}

fn masked(index: usize, mask: u64, value: u64) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(index).op(LinuxSeccompOperator::ScmpCmpMaskedEq);
    builder.value(mask).value_two(value).build().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(capabilities: &[Capability], socketcall: bool) -> LinuxSeccomp {
        let profile = default_profile(&capabilities.iter().copied().collect(), socketcall);
        let names = profile.syscalls().iter().flatten().flat_map(|call| call.names());
        assert!(names.count() > 300);
        profile
    }

    fn rules<'a>(profile: &'a LinuxSeccomp, name: &str) -> Vec<&'a LinuxSyscall> {
        let calls = profile.syscalls().as_deref().unwrap();
        calls.iter().filter(|call| call.names().iter().any(|known| known == name)).collect()
    }

    #[test]
    fn capabilities_open_their_calls() {
        let plain = check(&[], false);
        for name in ["mount", "bpf", "keyctl", "add_key", "io_uring_setup", "userfaultfd", "socketcall"] {
            assert!(rules(&plain, name).is_empty(), "{name}");
        }
        assert_eq!(rules(&plain, "clone3")[0].errno_ret(), Some(libc::ENOSYS as u32));
        assert!(rules(&plain, "clone")[0].args().is_some());
        let administrator = check(&[Capability::SysAdmin], true);
        assert!(rules(&administrator, "clone").iter().any(|call| call.args().is_none()));
        for name in ["mount", "bpf", "clone3", "socketcall", "ioctl"] {
            assert!(!rules(&administrator, name).is_empty(), "{name}");
        }
    }

    #[test]
    fn families_of_sockets() {
        let profile = check(&[], false);
        let allowed = |family: u64| {
            rules(&profile, "socket").iter().any(|call| {
                let arg = call.args().as_ref().unwrap()[0];
                if arg.op() == LinuxSeccompOperator::ScmpCmpLt { family < arg.value() } else { family == arg.value() }
            })
        };
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_XDP] {
            assert!(allowed(family as u64), "{family}");
        }
        for family in [libc::AF_ALG, libc::AF_VSOCK, libc::AF_IRDA, libc::AF_ECONET, libc::AF_WANPIPE] {
            assert!(!allowed(family as u64), "{family}");
        }
    }

    /// Loads the built-in profile in a thread of its own (a filter is a thread's) and tries what it is for.
    #[test]
    fn the_kernel_takes_it_and_refuses_what_it_should() {
        use nix::errno::Errno;
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let program = crate::runtime::seccomp::compile(&check(&[], false)).unwrap();
        println!("{} instructions", program.instructions.len());
        let tried = std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            if let Err(error) = crate::sys::bpf::load_filter(&program.instructions, program.flags) {
                // Sandboxes without seccomp(2) are no place to test it.
                assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}");
                return eprintln!("SKIP: no seccomp");
            }
            let open = |family| socket(family, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).map(drop);
            assert_eq!(open(AddressFamily::Alg), Err(Errno::EPERM));
            assert_eq!(open(AddressFamily::Vsock), Err(Errno::EPERM));
            assert_eq!(open(AddressFamily::Unix), Ok(()));
            assert_eq!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
            assert_eq!(
                nix::sys::personality::set(nix::sys::personality::Persona::ADDR_NO_RANDOMIZE),
                Err(Errno::EPERM)
            );
            assert!(std::fs::read("/proc/self/status").is_ok());
            assert!(std::thread::spawn(|| 1).join().is_ok());
        });
        tried.join().unwrap();
    }
}
