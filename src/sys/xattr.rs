//! Extended attributes. One call a function, no policy.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Whose attributes.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// An open file's (not O_PATH).
    Fd(BorrowedFd<'a>),
    /// Those of what the path names, the link itself if it is one.
    Path(&'a CStr),
}

/// Longest value and list of names the kernel knows.
const MAX: usize = 65536;

/// Set an attribute of an open file (not O_PATH).
pub fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    set_of(Of::Fd(file), name, value)
}

/// Set an attribute of what the path names, the link itself if it is one.
pub fn set_path(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    set_of(Of::Path(path), name, value)
}

/// Set an attribute.
pub fn set_of(of: Of<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (name, data, length) = (name.as_ptr(), value.as_ptr().cast(), value.len());
    let result = match of {
        // SAFETY: name is a C string and value a slice; both live through the call, the length is the slice's.
        Of::Fd(file) => unsafe { libc::fsetxattr(file.as_raw_fd(), name, data, length, 0) },
        // SAFETY: as above, and path is a C string that lives through the call.
        Of::Path(path) => unsafe { libc::lsetxattr(path.as_ptr(), name, data, length, 0) },
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An attribute; `None`: there is none of this name.
pub fn get_of(of: Of<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let result = grow(|buffer| {
        let (name, data, length) = (name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len());
        match of {
            // SAFETY: name is a C string and the buffer a slice; both live through the call, the length is the slice's.
            Of::Fd(file) => unsafe { libc::fgetxattr(file.as_raw_fd(), name, data, length) },
            // SAFETY: as above, and path is a C string that lives through the call.
            Of::Path(path) => unsafe { libc::lgetxattr(path.as_ptr(), name, data, length) },
        }
    });
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of all attributes.
pub fn list_of(of: Of<'_>) -> io::Result<Vec<Vec<u8>>> {
    let result = grow(|buffer| {
        let (data, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        match of {
            // SAFETY: the buffer is a slice that lives through the call, the length is its own.
            Of::Fd(file) => unsafe { libc::flistxattr(file.as_raw_fd(), data, length) },
            // SAFETY: as above, and path is a C string that lives through the call.
            Of::Path(path) => unsafe { libc::llistxattr(path.as_ptr(), data, length) },
        }
    });
    match result {
        Ok(names) => Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()),
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Call with a small buffer, and with the largest there can be if that was too small.
fn grow(call: impl Fn(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 512];
    loop {
        match usize::try_from(call(&mut buffer)) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ERANGE) && buffer.len() < MAX => buffer.resize(MAX, 0),
                error => return Err(error),
            },
        }
    }
}
