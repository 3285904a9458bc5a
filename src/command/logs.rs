//! `coracle logs`.

use super::present::{self, Reader};
use crate::engine::Engine;
use crate::engine::log::{self, Flow, Record};
use crate::engine::moment;
use crate::engine::select::{self, Chosen};
use crate::failure::{Failure, Kind};
use crate::state::container::ContainerRecord;
use crate::state::event::now_ns;
use crate::supervisor::log::Stream;
use anyhow::{Context, Result};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Mutex;

/// Fetch the logs of one or more containers
///
/// By default a container's log is kept in up to three files of 10 MiB, the oldest lines going first; change it with
/// `--log-opt max-size=` and `--log-opt max-file=` of `run` and `create` (`max-size=-1`: no bound).
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Show each container in a color of its own
    #[arg(long)]
    color: bool,
    /// Accepted for docker's sake: there are no details
    #[arg(long, hide = true)]
    details: bool,
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Show names instead of IDs
    #[arg(short, long)]
    names: bool,
    /// Nothing older: a date, Unix seconds, or a duration before now
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only so many lines at the end
    #[arg(long, value_name = "LINES", default_value = "-1", allow_hyphen_values = true)]
    tail: String,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Nothing younger: a date, Unix seconds, or a duration before now
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// podman's colors.
const COLORS: [&str; 7] = ["\x1b[37m", "\x1b[31m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m", "\x1b[32m"];

/// Print them.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    if args.containers.is_empty() && !args.latest {
        return Err(Failure::new(Kind::Engine, "specify at least one container name or ID to log").into());
    }
    let wish = wish(&args)?;
    let selection = select::Wish { names: args.containers.clone(), latest: args.latest, ..select::Wish::default() };
    let chosen = select::select(engine, &selection, "logs", |_, _| true)?;
    let mut printers = Vec::new();
    for (index, one) in chosen.iter().enumerate() {
        printers.push(Printer::new(engine, &args, one, index, chosen.len() > 1)?);
    }
    if printers.len() == 1 || !args.follow {
        for (one, printer) in chosen.iter().zip(&mut printers) {
            log::read(engine, one.id()?, wish, &mut |record| printer.print(&record))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for (one, mut printer) in chosen.iter().zip(printers) {
            let failure = &failure;
            scope.spawn(move || {
                let result = one.id().and_then(|id| log::read(engine, id, wish, &mut |record| printer.print(&record)));
                if let (Err(error), Ok(mut slot)) = (result, failure.lock()) {
                    slot.get_or_insert(error);
                }
            });
        }
    });
    match failure.into_inner().ok().flatten() {
        Some(error) => Err(error),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn wish(args: &Args) -> Result<log::Wish> {
    let time = |text: &Option<String>, option: &str, future: bool| -> Result<Option<i64>> {
        let Some(text) = text else { return Ok(None) };
        let now = now_ns();
        let moment = moment::parse(text, now).with_context(|| format!("parsing --{option} {text:?}"))?;
        // A bare duration lies behind us for --since and before us for --until (podman).
        let bare = crate::model::unit::parse_duration_ns(text).is_ok() && text.parse::<f64>().is_err();
        Ok(Some(if future && bare { now + (now - moment) } else { moment }))
    };
    let tail = match args.tail.as_str() {
        "all" | "" => None,
        text => u64::try_from(text.parse::<i64>().with_context(|| format!("--tail {text}"))?).ok(),
    };
    Ok(log::Wish {
        follow: args.follow,
        since_ns: time(&args.since, "since", false)?,
        until_ns: time(&args.until, "until", true)?,
        tail,
    })
}

/// Prints the records of one container.
struct Printer {
    prefix: String,
    color: &'static str,
    timestamps: bool,
    zone: jiff::tz::TimeZone,
    /// The line goes on, by stream.
    inside: [bool; 2],
}

impl Printer {
    fn new(engine: &Engine, args: &Args, one: &Chosen, index: usize, several: bool) -> Result<Printer> {
        let id = one.id()?;
        let prefix = match (several, args.names) {
            (false, false) => String::new(),
            (_, true) => format!("{} ", ContainerRecord::load(&engine.layout, id)?.name),
            (true, false) => format!("{} ", id.short()),
        };
        Ok(Printer {
            prefix,
            color: if args.color { COLORS[index % COLORS.len()] } else { "" },
            timestamps: args.timestamps,
            zone: if args.timestamps { jiff::tz::TimeZone::system() } else { jiff::tz::TimeZone::UTC },
            inside: [false; 2],
        })
    }

    fn print(&mut self, record: &Record) -> Result<Flow> {
        let mut line = Vec::with_capacity(record.text.len() + 64);
        let inside = &mut self.inside[record.stream as usize];
        if !*inside {
            line.extend_from_slice(self.color.as_bytes());
            line.extend_from_slice(self.prefix.as_bytes());
            if self.timestamps {
                line.extend_from_slice(stamp(record.time_ns, &self.zone).as_bytes());
                line.push(b' ');
            }
        }
        line.extend_from_slice(&record.text);
        if record.whole {
            if !self.color.is_empty() {
                line.extend_from_slice(b"\x1b[0m");
            }
            line.push(b'\n');
        }
        *inside = !record.whole;
        if record.stream == Stream::Output {
            return Ok(match present::write(&line)? {
                Reader::Reads => Flow::More,
                Reader::Gone => Flow::Enough,
            });
        }
        match std::io::stderr().lock().write_all(&line) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to standard error"),
            _ => Ok(Flow::More),
        }
    }
}

/// RFC 3339 with all nine digits, in the local zone.
fn stamp(time_ns: i64, zone: &jiff::tz::TimeZone) -> String {
    let Ok(time) = jiff::Timestamp::from_nanosecond(time_ns.into()) else { return String::new() };
    let zoned = time.to_zoned_datetime(zone.clone());
    let offset = if zoned.offset().is_zero() { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    format!("{}{offset}", zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f"))
}
