//! The same for each of several containers: what was done is printed, and what failed is told without stopping the rest.

use super::present;
use crate::engine::select::Chosen;
use crate::failure::{Failure, Kind};
use anyhow::Result;
use std::process::ExitCode;
use std::sync::Mutex;

/// At most so many at once.
const WORKERS_MAX: usize = 16;

/// Do it for each, several at once; print the lines that come of it in the order of the containers.
///
/// # Errors
/// The last failure; those before it are printed at once.
pub fn run(chosen: &[Chosen], work: impl Fn(&Chosen) -> Result<Option<String>> + Sync) -> Result<ExitCode> {
    report(in_parallel(chosen, work))
}

/// What came of each.
pub fn in_parallel(
    chosen: &[Chosen],
    work: impl Fn(&Chosen) -> Result<Option<String>> + Sync,
) -> Vec<Result<Option<String>>> {
    if chosen.len() <= 1 {
        return chosen.iter().map(work).collect();
    }
    let results: Vec<Mutex<Option<Result<Option<String>>>>> = chosen.iter().map(|_| Mutex::new(None)).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS_MAX.min(chosen.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(one) = chosen.get(index) else { return };
                    let result = work(one);
                    if let Ok(mut slot) = results[index].lock() {
                        *slot = Some(result);
                    }
                }
            });
        }
    });
    results.into_iter().filter_map(|slot| slot.into_inner().ok().flatten()).collect()
}

/// Do it for each, one after the other: for work that starts processes.
pub fn in_order(chosen: &[Chosen], work: impl Fn(&Chosen) -> Result<Option<String>>) -> Result<ExitCode> {
    report(chosen.iter().map(work).collect())
}

/// Print what was done, tell what failed.
pub fn report(results: Vec<Result<Option<String>>>) -> Result<ExitCode> {
    let mut failure: Option<anyhow::Error> = None;
    for result in results {
        match result {
            Ok(Some(line)) => present::text(&format!("{line}\n"))?,
            Ok(None) => {}
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    super::report(&earlier);
                }
            }
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// A failure with this exit code, and the message of another.
pub fn with_code(error: anyhow::Error, code: u8) -> anyhow::Error {
    error.context(Failure::new(Kind::Code(code), ""))
}
