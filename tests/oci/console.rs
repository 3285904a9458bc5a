//! The socket that `--console-socket` names: what containerd's shim and conmon listen at.

use crate::support::{Env, until};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

pub(super) struct Console(UnixListener);

impl Console {
    pub(super) fn listen(env: &Env, name: &str) -> Console {
        let path = env.path(name);
        let listener = UnixListener::bind(&path).expect("listen");
        let (uid, gid) = env.ids();
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).expect("give the socket to the user");
        listener.set_nonblocking(true).expect("not block");
        Console(listener)
    }

    /// The terminal's master.
    pub(super) fn accept(self) -> Master {
        let (stream, _) = until("a connection to the console socket", || self.0.accept().ok());
        stream.set_nonblocking(false).expect("block");
        let mut bytes = [0; 256];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut space = nix::cmsg_space!([i32; 1]);
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .expect("receive the terminal");
        let fd = message.cmsgs().expect("control messages").find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        // SAFETY: the descriptor has just come in this message, nothing else owns it.
        let mut file = unsafe { File::from_raw_fd(fd.expect("a descriptor")) };
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, copy) = (file.try_clone().expect("share the terminal"), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: the last holder of the other end is gone.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                copy.lock().expect("the screen").extend_from_slice(&buffer[..length]);
            }
        });
        let _ = &mut file;
        Master { _file: file, screen }
    }
}

pub(super) struct Master {
    _file: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Master {
    /// All that was shown, once this was.
    pub(super) fn until(&mut self, text: &str) -> String {
        until(text, || {
            let screen = String::from_utf8_lossy(&self.screen.lock().expect("the screen")).into_owned();
            screen.contains(text).then_some(screen)
        })
    }
}
