//! How a failure becomes an exit code and a hint. The one table of exit codes.
//!
//! Errors travel as `anyhow::Error`. Whoever knows more than the message (which exit code, which knob cures it)
//! attaches a [`Failure`] as context; `main` prints the chain once as `Error: …`-free text
//! `coracle: <what was tried>: <cause>` and a line `hint: …`.
//! And the other thing that is said on standard error: what is done, for those who ask with `--log-level`.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};

/// What kind of failure this is; decides the exit code (docker-run(1), podman-run(1) "Exit status").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The engine itself failed: 125.
    Engine,
    /// The container's command is there but cannot be executed: 126.
    NotExecutable,
    /// The container's command was not found: 127.
    NotFound,
    /// A thing that was asked about is not there (`exists`, `rm`, `inspect`): 1.
    Missing,
    /// An object is in a state that forbids what was asked (`rm` of a running container, `rmi` of a used image): 2.
    InUse,
    /// Exactly this code and no message (the container's own exit code, `exists`).
    Silent(u8),
    /// This code, with the message.
    Code(u8),
}

impl Kind {
    /// The process exit code for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Engine => 125,
            Kind::NotExecutable => 126,
            Kind::NotFound => 127,
            Kind::Missing => 1,
            Kind::InUse => 2,
            Kind::Silent(code) | Kind::Code(code) => code,
        }
    }
}

/// A message with an exit code and, where there is a cure, a hint that names the knob.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What was tried; printed as part of the chain. Empty: adds no text of its own.
    pub message: String,
    /// What to do about it: names the sysctl, package or flag.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of this kind with a message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), hint: None }
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Attach a kind or a hint to any error.
pub trait Explain<T> {
    /// Give the error this exit code.
    fn kind(self, kind: Kind) -> anyhow::Result<T>;
    /// Tell the cure.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Explain<T> for Result<T, E> {
    fn kind(self, kind: Kind) -> anyhow::Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let hint = hint_of(&error).map(str::to_owned);
            error.context(Failure { kind, message: String::new(), hint })
        })
    }

    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let kind = kind_of(&error);
            error.context(Failure::new(kind, "").hint(hint))
        })
    }
}

/// The outermost kind in the chain; an error that nobody judged is [`Kind::Engine`].
pub fn kind_of(error: &anyhow::Error) -> Kind {
    error.downcast_ref::<Failure>().map_or(Kind::Engine, |failure| failure.kind)
}

/// The hint that goes with the outermost [`Failure`] of the chain.
pub fn hint_of(error: &anyhow::Error) -> Option<&str> {
    error.downcast_ref::<Failure>().and_then(|failure| failure.hint.as_deref())
}

/// The chain as one line, `a: b: c`, without the texts of empty [`Failure`]s.
pub fn message_of(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some libraries' errors already tell their cause; it is not said twice.
        if !text.is_empty() && !parts.last().is_some_and(|last| last.ends_with(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

/// How much a message matters; podman's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Each small thing.
    Trace,
    /// What is done, step by step.
    Debug,
    /// What was done.
    Info,
    /// What the caller did not expect.
    Warning,
    /// Failures only.
    Error,
}

/// Below this nothing is said.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Warning as u8);

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// Say nothing below this level from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Say something if it matters enough, in the form that scripts of podman's users look for. `text` is made only then.
pub fn note(level: Level, text: impl FnOnce() -> String) {
    if level as u8 >= LEVEL.load(Ordering::Relaxed) {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        // Who does not listen misses it.
        let _ = writeln!(std::io::stderr(), "time=\"{time}\" level={} msg={:?}", level.as_str(), text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn kind_and_hint_survive_further_context() {
        let result: anyhow::Result<()> =
            Err(anyhow!("not permitted")).hint("set kernel.x").kind(Kind::NotFound).context("mount proc");
        let error = result.unwrap_err();
        assert_eq!(kind_of(&error), Kind::NotFound);
        assert_eq!(hint_of(&error), Some("set kernel.x"));
        assert_eq!(message_of(&error), "mount proc: not permitted");
    }
}
