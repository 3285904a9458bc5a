//! Ask the kernel whether it would do a thing, with arguments that let it do nothing.

use super::fd::check;
use std::io;

/// A system call with these numbers as arguments, none of which is an address.
///
/// For calls that check rights before they look at their arguments: EPERM or ENOSYS is a refusal, anything else is not.
pub fn call(number: libc::c_long, arguments: [libc::c_long; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: addresses are null and lengths zero, which is the contract above: the kernel has no memory of ours to touch.
    check(unsafe { libc::syscall(number, a, b, c, d, e) }).map(drop)
}
