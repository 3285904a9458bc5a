//! A terminal for a program: what people have before them when they type `-it`.

use super::command::Command;
use super::wait::until;
use nix::pty::{OpenptyResult, Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};

/// A program on a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    master: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Start the command with all three streams on a new terminal of 80 by 24.
    pub(crate) fn start(command: &Command) -> Terminal {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("make a terminal");
        let mut command = command.std();
        let stream = || slave.try_clone().expect("share the terminal");
        command.stdin(stream()).stdout(stream()).stderr(stream());
        // SAFETY: only system calls on the child's own standard input, nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().expect("start a program on a terminal");
        drop(slave);
        let master = File::from(master);
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, copy) = (master.try_clone().expect("share the terminal"), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: the last holder of the other end is gone.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                copy.lock().expect("the screen").extend_from_slice(&buffer[..length]);
            }
        });
        Terminal { child, master, screen }
    }

    /// Type.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.master.write_all(bytes.as_ref()).expect("type");
    }

    /// All that was ever shown.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("the screen")).into_owned()
    }

    /// Wait until this text is shown.
    #[track_caller]
    pub(crate) fn until(&self, text: &str) {
        until(&format!("{text:?} on the terminal"), || self.screen().contains(text).then_some(()));
    }

    /// Change the terminal's size, as a window that is dragged.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        use std::os::fd::AsRawFd;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads a winsize, which outlives the call.
        let result = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(result, 0, "set the terminal's size");
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Wait for the program's end: its exit code, and all that was shown.
    #[track_caller]
    pub(crate) fn wait(mut self) -> (i32, String) {
        let status: ExitStatus =
            until("the end of the program on the terminal", || self.child.try_wait().expect("ask for its status"));
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        // The reader may still be at the last bytes: the terminal holds them until they are read.
        let mut last = usize::MAX;
        until("the last of the terminal's output", || {
            let length = self.screen.lock().expect("the screen").len();
            let settled = length == last;
            last = length;
            settled.then_some(())
        });
        (code, self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
