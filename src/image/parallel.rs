//! Several pieces of work at once, their results in order.
//!
//! Not a pool: threads live as long as one call. Invariant: after the first failure nothing new is begun.

use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Do `work` with each number below `count`, at most `threads` at once. The first failure ends it.
pub fn each<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let done = Mutex::new(Vec::with_capacity(count));
    let run = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                break;
            }
            let result = work(at).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
        Ok(())
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.max(1).min(count)).map(|_| scope.spawn(run)).collect();
        let own = run();
        let joined = others.into_iter().map(|other| other.join().unwrap_or_else(|_| bail!("a thread died")));
        std::iter::once(own).chain(joined).collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_failures_end_it() {
        assert_eq!(each(5, 3, |at| Ok(at * 2)).unwrap(), [0, 2, 4, 6, 8]);
        assert_eq!(each(0, 3, Ok).unwrap(), Vec::<usize>::new());
        let begun = AtomicUsize::new(0);
        let failed = each(1000, 1, |at| {
            begun.fetch_add(1, Ordering::Relaxed);
            if at == 2 { bail!("no") } else { Ok(at) }
        });
        assert!(failed.is_err() && begun.load(Ordering::Relaxed) == 3);
    }
}
