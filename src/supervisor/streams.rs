//! The pipes between a container's first process and its supervisor.

use super::message::Start;
use crate::runtime::launch::Stdio;
use crate::state::container::ContainerRecord;
use crate::sys::pipe;
use anyhow::{Context, Result};
use std::fs::File;
use std::os::fd::OwnedFd;

/// The container's ends and ours.
pub(super) struct Streams {
    /// What the container's process gets.
    pub(super) stdio: Stdio,
    /// Where its output is read.
    pub(super) output: Option<OwnedFd>,
    /// Where its errors are read.
    pub(super) errors: Option<OwnedFd>,
    /// Where its input is written.
    pub(super) input: Option<OwnedFd>,
}

impl Streams {
    /// As the record and whoever starts it want them; a terminal is made by the container's process.
    pub(super) fn new(
        record: &ContainerRecord,
        start: &Start,
        descriptors: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Streams> {
        let none = |stdio| Streams { stdio, output: None, errors: None, input: None };
        if start.inherit_stdio {
            let mut next = || descriptors.next().context("passthrough: a descriptor is missing");
            return Ok(none(Stdio::Fds([next()?, next()?, next()?])));
        }
        if record.spec.stdio.tty {
            return Ok(none(Stdio::Terminal));
        }
        let null = || -> Result<OwnedFd> {
            Ok(File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?.into())
        };
        let (stdin, input) = if record.spec.stdio.interactive {
            let (reader, writer) = std::io::pipe().context("make a pipe")?;
            pipe::set_nonblocking(&writer)?;
            (reader.into(), Some(writer.into()))
        } else {
            (null()?, None)
        };
        let (output, stdout) = std::io::pipe().context("make a pipe")?;
        let (errors, stderr) = std::io::pipe().context("make a pipe")?;
        pipe::set_nonblocking(&output)?;
        pipe::set_nonblocking(&errors)?;
        Ok(Streams {
            stdio: Stdio::Fds([stdin, stdout.into(), stderr.into()]),
            output: Some(output.into()),
            errors: Some(errors.into()),
            input,
        })
    }
}
