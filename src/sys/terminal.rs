//! Terminals: their size, and the raw mode that is undone on every way out.

use nix::sys::termios::{self, SetArg, Termios};
use serde::{Deserialize, Serialize};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// Rows and columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// TIOCGWINSZ.
pub fn size(terminal: impl AsFd) -> io::Result<Size> {
    // SAFETY: winsize is plain data that the ioctl fills.
    unsafe {
        let mut size: libc::winsize = MaybeUninit::zeroed().assume_init();
        if libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Size { rows: size.ws_row, columns: size.ws_col })
    }
}

/// TIOCSWINSZ; the kernel tells the foreground process of the terminal.
pub fn set_size(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: reads a winsize that lives through the call.
    if unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether this is a terminal.
pub fn is_terminal(file: impl AsFd) -> bool {
    termios::tcgetattr(file).is_ok()
}

/// Lines written to it end as they are, without a carriage return added.
pub fn keep_newlines(terminal: impl AsFd) -> io::Result<()> {
    let mut mode = termios::tcgetattr(&terminal)?;
    mode.output_flags.remove(termios::OutputFlags::ONLCR);
    Ok(termios::tcsetattr(&terminal, SetArg::TCSANOW, &mode)?)
}

/// A terminal in raw mode; dropping it gives the old mode back.
pub struct RawMode<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> RawMode<T> {
    /// Every key goes through as it is.
    pub fn enter(terminal: T) -> io::Result<RawMode<T>> {
        let before = termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&terminal, SetArg::TCSANOW, &raw)?;
        Ok(RawMode { terminal, before })
    }
}

impl<T: AsFd> Drop for RawMode<T> {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
