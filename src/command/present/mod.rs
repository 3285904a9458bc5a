//! Tables, templates, JSON and progress: the only place that writes to standard output.

use std::io::Write;

/// Write text to standard output as it is.
///
/// # Errors
/// `BrokenPipe` when nobody reads, which `command::report` takes for success.
pub fn text(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}
