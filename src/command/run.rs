//! `coracle run`.

use super::flag::Surroundings;
use super::flag::container::{Container, is_passthrough};
use super::{create, present};
use crate::engine::attach::{self, Seat};
use crate::engine::create::Wish;
use crate::engine::image::discard;
use crate::engine::{Engine, remove, start};
use crate::failure;
use crate::state::container::ContainerRecord;
use crate::supervisor::client::{self, Ending, Keys};
use anyhow::{Result, bail, ensure};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Run a command in a new container
#[derive(clap::Parser, Debug)]
#[command(disable_help_flag = true, override_usage = "coracle run [OPTIONS] IMAGE [COMMAND [ARG...]]")]
pub struct Args {
    /// Run in the background and print the container's ID
    #[arg(short, long)]
    detach: bool,
    /// Attach to stdin, stdout or stderr only
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// Keys that leave the container alone, as ctrl-p,ctrl-q; empty for none
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Send signals on to the container (default true)
    #[arg(long, value_name = "BOOL")]
    sig_proxy: Option<bool>,
    /// Pass this many file descriptors from 3 on
    #[arg(long, value_name = "NUMBER")]
    preserve_fds: Option<u32>,
    /// Pass these file descriptors
    #[arg(long, value_name = "FD", hide = true)]
    preserve_fd: Vec<String>,
    /// Add entries to /etc/passwd and /etc/group of the container (default true)
    #[arg(long, value_name = "BOOL")]
    passwd: Option<bool>,
    /// Remove the image after the container's exit unless others use it; implies --rm
    #[arg(long)]
    rmi: bool,
    #[command(flatten)]
    container: Container,
}

/// Create, start, and sit before it unless it goes to the background.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let streams = Streams::parse(&args)?;
    let keys = super::flag::detach_keys(args.detach_keys.as_deref())?;
    let detach = args.detach;
    let proxy_signals = args.sig_proxy.unwrap_or(true);
    let wish = into_wish(args, engine)?;
    let passthrough = is_passthrough(&wish.spec);
    if wish.spec.stdio.tty && wish.spec.stdio.interactive && !detach && !std::io::stdin().is_terminal() {
        present::warn("The input device is not a TTY. The --tty and --interactive flags might not work properly");
    }
    let record = create::make(engine, wish)?;
    if detach || passthrough {
        return in_background(engine, &record, detach);
    }
    let seat = Seat { input: streams.input, detach_keys: keys, proxy_signals };
    let mut watch = attach::everything(seat.input, true);
    (watch.output, watch.errors) = (streams.output, streams.errors);
    // Before the start, so that no signal is lost.
    let signals = client::block_signals()?;
    let wish = start::Wish { prepare_only: false, attach: Some(watch) };
    let started = start::start(engine, &record.id, wish).inspect_err(|_| clean_up(engine, &record))?;
    if !streams.output && !streams.errors {
        // Who sees nothing of it must be told which one it is.
        present::line(&record.id)?;
    }
    let ending = attach::sit(started, seat, &signals)?;
    if record.spec.lifecycle.remove_image && matches!(ending, Ending::Exited { .. }) {
        // Its supervisor has tried, and has nobody to tell why it stays.
        if let Some(image) = &record.image
            && let Err(error) = discard::discard(&engine.layout, &image.name)
        {
            present::warn(&failure::message_of(&error));
        }
    }
    let code = attach::exit_code(ending)?;
    Ok(ExitCode::from(code as u8))
}

/// The wish, with what `create` has not.
fn into_wish(args: Args, engine: &Engine) -> Result<Wish> {
    let Args { attach, preserve_fds, preserve_fd, passwd, rmi, mut container, .. } = args;
    super::flag::refuse("--preserve-fd", !preserve_fd.is_empty())?;
    if rmi {
        container.lifecycle.rm = true;
    }
    let fds = preserve_fds.unwrap_or(0);
    for fd in 3..3 + fds {
        ensure!(
            is_inherited(fd),
            "file descriptor {fd} is not available - the preserve-fds option requires that file descriptors must be passed"
        );
    }
    // A restart has nobody's descriptors.
    if fds > 0 && container.lifecycle.restart.as_deref().is_some_and(|policy| !["", "no"].contains(&policy)) {
        bail!("--preserve-fds and --restart cannot be set together");
    }
    container.process.passwd = passwd;
    let mut wish = container.into_wish(&Surroundings::of_new_container(engine)?)?;
    wish.spec.stdio.preserve_fds = fds;
    wish.spec.lifecycle.remove_image = rmi;
    if is_passthrough(&wish.spec) {
        ensure!(attach.is_empty(), "cannot specify --attach with --log-driver=passthrough: invalid argument");
        let on_terminal =
            std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal();
        ensure!(
            !on_terminal || wish.spec.log.driver == crate::model::container::LogDriver::PassthroughTty,
            "the '--log-driver passthrough' option cannot be used on a TTY.  If you really want it, use '--log-driver passthrough-tty'"
        );
    }
    Ok(wish)
}

/// Start it and leave it; who has the caller's own streams is waited for.
fn in_background(engine: &Engine, record: &ContainerRecord, detach: bool) -> Result<ExitCode> {
    let started = start::start(engine, &record.id, start::Wish::default()).inspect_err(|_| clean_up(engine, record))?;
    if detach {
        if !is_passthrough(&record.spec) {
            present::line(&record.id)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let signals = client::block_signals()?;
    let seat = Seat { input: false, detach_keys: Keys::default(), proxy_signals: true };
    let code = attach::exit_code(attach::sit(started, seat, &signals)?)?;
    Ok(ExitCode::from(code as u8))
}

/// `--rm` holds for a container that never ran, too.
fn clean_up(engine: &Engine, record: &ContainerRecord) {
    if record.spec.lifecycle.remove {
        // The error of the start is what is told.
        let _ =
            remove::remove(engine, &record.id, remove::Wish { force: true, volumes: true, ..remove::Wish::default() });
    }
}

/// Whether a descriptor came from the caller: our own are closed on exec.
fn is_inherited(fd: u32) -> bool {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

/// What the caller wants of the container's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Streams {
    input: bool,
    output: bool,
    errors: bool,
}

impl Streams {
    fn parse(args: &Args) -> Result<Streams> {
        let interactive = args.container.process.interactive;
        let named = super::flag::csv(&args.attach)?;
        if named.is_empty() {
            return Ok(Streams { input: interactive, output: true, errors: true });
        }
        let mut streams = Streams { input: interactive, output: false, errors: false };
        for stream in named {
            match stream.to_ascii_lowercase().as_str() {
                "stdin" => streams.input = true,
                "stdout" => streams.output = true,
                "stderr" => streams.errors = true,
                _ => bail!(
                    "invalid stream {stream:?} for --attach - must be one of stdin, stdout, or stderr: invalid argument"
                ),
            }
        }
        Ok(streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches};

    fn args(line: &str) -> Args {
        let mut command = super::super::flag::as_pflag(Args::command().no_binary_name(true));
        let matches = command.try_get_matches_from_mut(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
        Args::from_arg_matches(&matches).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn streams() {
        let streams =
            |line: &str| Streams::parse(&args(line)).map(|Streams { input, output, errors }| (input, output, errors));
        assert_eq!(streams("image").unwrap(), (false, true, true));
        assert_eq!(streams("-it image").unwrap(), (true, true, true));
        assert_eq!(streams("-a stdout image").unwrap(), (false, true, false));
        assert_eq!(streams("-a stdin,STDERR image").unwrap(), (true, false, true));
        assert!(streams("-a other image").is_err());
    }

    #[test]
    fn the_command_keeps_its_own_options() {
        let args = args("-d --sig-proxy=false image -d --sig-proxy=true");
        assert!(args.detach);
        assert_eq!(args.sig_proxy, Some(false));
        assert_eq!(args.container.words, ["image", "-d", "--sig-proxy=true"]);
    }
}
