//! What pull, push and build tell people while they work: bars on a terminal, plain lines otherwise, nothing with
//! `--quiet`. All of it goes to standard error.
//!
//! Invariant: whoever moves the bytes only counts them; drawing is done here, at most ten times a second, and never
//! slows the copy.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};

/// The progress of one command.
pub struct Progress {
    mode: Mode,
}

enum Mode {
    Quiet,
    Lines,
    Bars(MultiProgress),
}

impl Progress {
    /// Bars if standard error is a terminal, lines if not, silence if asked for.
    pub fn new(quiet: bool) -> Progress {
        let mode = match quiet {
            true => Mode::Quiet,
            false if !std::io::stderr().is_terminal() => Mode::Lines,
            false => Mode::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10))),
        };
        Progress { mode }
    }

    /// A line of its own: "Trying to pull docker.io/library/alpine:latest...".
    pub fn say(&self, text: &str) {
        match &self.mode {
            Mode::Quiet => {}
            Mode::Lines => say(text),
            // A terminal that went away is no reason to stop a pull.
            Mode::Bars(bars) => drop(bars.println(text)),
        }
    }

    /// Begin to follow one blob. `total` is `None` where the server did not say.
    pub fn blob(&self, what: &str, total: Option<u64>) -> Blob {
        match &self.mode {
            Mode::Quiet => Blob { bar: None },
            Mode::Lines => {
                say(what);
                Blob { bar: None }
            }
            Mode::Bars(bars) => {
                let bar = bars.add(total.map_or_else(ProgressBar::no_length, ProgressBar::new));
                bar.set_style(style(total.is_some()));
                bar.set_message(what.to_owned());
                Blob { bar: Some(bar) }
            }
        }
    }
}

/// One blob that is under way. Cheap to share: threads may count into clones of it.
#[derive(Clone)]
pub struct Blob {
    bar: Option<ProgressBar>,
}

impl Blob {
    /// So many more bytes went through.
    pub fn add(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// A transfer goes on where an earlier one stopped, or starts again from there.
    pub fn set(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// Nothing more comes; `word` is "done", "skipped: already exists" and the like.
    pub fn finish(&self, word: &str) {
        if let Some(bar) = &self.bar {
            bar.set_style(finished_style());
            let message = format!("{} {word}", bar.message());
            bar.finish_with_message(message);
        }
    }
}

fn say(text: &str) {
    // Standard error may be closed: then nobody wants to know.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn style(sized: bool) -> ProgressStyle {
    let template = if sized {
        "{msg} [{bar:30}] {bytes} / {total_bytes} | {bytes_per_sec}"
    } else {
        "{msg} {spinner} {bytes} | {bytes_per_sec}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

fn finished_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl crate::image::progress::Progress for Progress {
    fn say(&self, text: &str) {
        Progress::say(self, text);
    }

    fn blob(&self, what: &str, total: Option<u64>) -> Box<dyn crate::image::progress::Meter> {
        Box::new(Progress::blob(self, what, total))
    }
}

impl crate::image::progress::Meter for Blob {
    fn add(&self, bytes: u64) {
        Blob::add(self, bytes);
    }

    fn set(&self, bytes: u64) {
        Blob::set(self, bytes);
    }

    fn finish(&self, word: &str) {
        Blob::finish(self, word);
    }
}
