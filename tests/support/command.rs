//! A program that a test runs: its surroundings, its input, its limit, and what came of it.

use super::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where programs are looked for; the tests' own PATH may hold anything.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As whom and where a program runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Become this user first.
    pub(crate) user: Option<(u32, u32)>,
    /// Run in this network namespace.
    pub(crate) network: Option<Arc<OwnedFd>>,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) directory: PathBuf,
}

/// A program to run.
#[must_use]
pub(crate) struct Command {
    argv: Vec<OsString>,
    surroundings: Surroundings,
    input: Input,
    limit: Duration,
}

enum Input {
    Nothing,
    Bytes(Vec<u8>),
    /// The test writes it itself.
    Open,
}

impl Command {
    pub(crate) fn new(surroundings: Surroundings, argv: Vec<OsString>) -> Command {
        Command { argv, surroundings, input: Input::Nothing, limit: Duration::from_secs(60) }
    }

    /// One more argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Command {
        self.argv.push(argument.as_ref().to_owned());
        self
    }

    /// A variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Command {
        self.surroundings.variables.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Where it starts.
    pub(crate) fn directory(mut self, directory: impl Into<PathBuf>) -> Command {
        self.surroundings.directory = directory.into();
        self
    }

    /// What it reads from standard input; nothing else than this said, it reads the end of file.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Command {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Leave standard input open for [`Running::write`].
    pub(crate) fn stdin_open(mut self) -> Command {
        self.input = Input::Open;
        self
    }

    /// Kill it and fail after this long; a minute if not said.
    pub(crate) fn limit(mut self, limit: Duration) -> Command {
        self.limit = limit;
        self
    }

    /// The same as a `std::process::Command`, for what this type does not do.
    pub(crate) fn std(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).env_clear().current_dir(&self.surroundings.directory);
        for (name, value) in &self.surroundings.variables {
            command.env(name, value);
        }
        let user = self.surroundings.user;
        let network = self.surroundings.network.clone();
        // SAFETY: the closure runs in the child before execve and makes system calls only; it allocates nothing.
        unsafe {
            command.pre_exec(move || enter(network.as_ref().map(|network| network.as_raw_fd()), user));
        }
        command
    }

    /// Run to the end.
    #[track_caller]
    pub(crate) fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Start it.
    #[track_caller]
    pub(crate) fn spawn(self) -> Running {
        let mut command = self.std();
        command.stdin(match self.input {
            Input::Nothing => Stdio::null(),
            _ => Stdio::piped(),
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {:?}: {error}", self.argv));
        let mut stdin = child.stdin.take();
        if let Input::Bytes(bytes) = self.input {
            let mut pipe = stdin.take();
            std::thread::spawn(move || {
                // A program that does not read its input to the end is not wrong.
                let _ = pipe.as_mut().map(|pipe| pipe.write_all(&bytes));
            });
        }
        let stdout = Stream::read(child.stdout.take());
        let stderr = Stream::read(child.stderr.take());
        Running { argv: self.argv, child, stdin, stdout, stderr, end: Instant::now() + self.limit, status: None }
    }
}

/// In the child: the network namespace first, for which the old rights are needed, then the user.
fn enter(network: Option<RawFd>, user: Option<(u32, u32)>) -> std::io::Result<()> {
    if let Some(network) = network {
        // SAFETY: setns only reads its arguments; the descriptor is open as long as the parent's `Arc`.
        if unsafe { libc::setns(network, libc::CLONE_NEWNET) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    if let Some((uid, gid)) = user {
        nix::unistd::setgroups(&[Gid::from_raw(gid)])?;
        nix::unistd::setresgid(Gid::from_raw(gid), Gid::from_raw(gid), Gid::from_raw(gid))?;
        nix::unistd::setresuid(Uid::from_raw(uid), Uid::from_raw(uid), Uid::from_raw(uid))?;
    }
    Ok(())
}

/// Bytes that a thread gathers from a pipe.
#[derive(Clone)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Arc<std::sync::atomic::AtomicBool>,
}

impl Stream {
    fn read(pipe: Option<impl Read + Send + 'static>) -> Stream {
        let stream = Stream { bytes: Arc::default(), ended: Arc::default() };
        let copy = stream.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            if let Some(mut pipe) = pipe {
                while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                    copy.bytes.lock().expect("the gathered bytes").extend_from_slice(&buffer[..length]);
                }
            }
            copy.ended.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        stream
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("the gathered bytes").clone()
    }

    fn ended(&self) -> bool {
        self.ended.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// A program that runs. Killed if the test ends without waiting for it.
pub(crate) struct Running {
    argv: Vec<OsString>,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Stream,
    stderr: Stream,
    end: Instant,
    status: Option<ExitStatus>,
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Send it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("send a signal");
    }

    /// Write to its standard input, which was left open.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(bytes.as_ref()).and_then(|()| stdin.flush()).expect("write to its standard input");
    }

    /// Close its standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// What it wrote so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes()).into_owned()
    }

    /// What it complained of so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    /// Wait until this text stands on its standard output.
    #[track_caller]
    pub(crate) fn until_stdout(&self, text: &str) {
        until(&format!("{text:?} from {:?}", self.argv), || self.stdout().contains(text).then_some(()));
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.status = self.status.or(self.child.try_wait().expect("ask for its status"));
        self.status.is_none()
    }

    /// Wait for its end and the end of its output.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Output {
        self.stdin = None;
        let mut pause = Duration::from_micros(200);
        while self.runs() {
            if Instant::now() > self.end {
                self.signal(Signal::SIGKILL);
                let output = self.output(ExitStatus::from_raw(9));
                panic!("did not end in time\n{output}");
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        let status = self.status.unwrap_or_default();
        // A program that leaves its output to a child that stays would hang every script.
        let start = Instant::now();
        while !(self.stdout.ended() && self.stderr.ended()) {
            if start.elapsed() > super::wait::DEADLINE {
                panic!("its output is still held open after its end\n{}", self.output(status));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.output(status)
    }

    fn output(&self, status: ExitStatus) -> Output {
        Output { argv: self.argv.clone(), status, stdout: self.stdout.bytes(), stderr: self.stderr.bytes() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What came of a program. Displays as a transcript.
#[must_use]
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) argv: Vec<OsString>,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    /// The exit code; 128 and the signal's number if it was killed.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// It succeeded and complained of nothing: its standard output without the last newline.
    #[track_caller]
    pub(crate) fn ok(&self) -> String {
        assert!(self.code() == 0 && self.stderr.is_empty(), "expected success without a word on stderr\n{self}");
        let text = self.stdout();
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// It succeeded; it may have said something on standard error.
    #[track_caller]
    pub(crate) fn succeeded(&self) -> String {
        assert!(self.code() == 0, "expected success\n{self}");
        let text = self.stdout();
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// It ended with this code: its standard error without the last newline.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32) -> String {
        assert!(self.code() == code, "expected exit code {code}\n{self}");
        let text = self.stderr();
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// Standard output is one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert!(self.code() == 0, "expected success\n{self}");
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{self}"))
    }

    /// Both streams and the exit code, with what changes from run to run replaced: for comparing.
    pub(crate) fn transcript(&self, base: &str) -> String {
        let mut text = self.stdout();
        if !self.stderr.is_empty() {
            text.push_str("--- stderr ---\n");
            text.push_str(&self.stderr());
        }
        if self.code() != 0 {
            text.push_str(&format!("[exit status: {}]\n", self.code()));
        }
        super::filter::stable(&text, base)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.argv.iter().map(|word| word.to_string_lossy()).collect();
        writeln!(formatter, "$ {}", words.join(" "))?;
        writeln!(formatter, "--- stdout ---\n{}", self.stdout())?;
        writeln!(formatter, "--- stderr ---\n{}", self.stderr())?;
        write!(formatter, "[{}]", self.status)
    }
}
