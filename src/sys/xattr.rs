//! Extended attributes. One call a function, no policy.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Set an attribute of an open file (not O_PATH).
pub fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: name is a C string and value a slice; both live through the call, the length is the slice's.
    let result = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Set an attribute of what the path names, the link itself if it is one.
pub fn set_path(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: two C strings and a slice that live through the call, the length is the slice's.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An attribute of what the path names, the link itself if it is one; `None`: it has none of this name.
pub fn get_path(path: &CStr, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; 256];
    loop {
        // SAFETY: two C strings and a buffer that live through the call, the length is the buffer's.
        let result = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        match usize::try_from(result) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ERANGE) && value.len() < 65536 => value.resize(65536, 0),
                error if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => return Ok(None),
                error => return Err(error),
            },
        }
    }
}

/// The names of all attributes of what the path names, the link itself if it is one.
pub fn list_path(path: &CStr) -> io::Result<Vec<Vec<u8>>> {
    let mut names = vec![0u8; 1024];
    loop {
        // SAFETY: a C string and a buffer that live through the call, the length is the buffer's.
        let result = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
        match usize::try_from(result) {
            Ok(length) => {
                names.truncate(length);
                return Ok(names
                    .split(|byte| *byte == 0)
                    .filter(|name| !name.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect());
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ERANGE) && names.len() < 65536 => names.resize(65536, 0),
                error if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(Vec::new()),
                error => return Err(error),
            },
        }
    }
}
