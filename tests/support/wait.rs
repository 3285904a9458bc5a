//! Waiting for something to become true: never a sleep and a hope.

use std::time::{Duration, Instant};

/// No event that a test waits for takes this long on a machine that works.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Ask again and again until there is an answer; after [`DEADLINE`] the test fails and says what it waited for.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, &mut ask).unwrap_or_else(|| panic!("waited {DEADLINE:?} for {what}"))
}

/// The same for who can go on without an answer.
pub(crate) fn within<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match ask() {
            None if start.elapsed() < limit => {}
            answer => return answer,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
