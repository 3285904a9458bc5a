//! As much of D-Bus as asking systemd takes: one connection, method calls, and waiting for a signal.
//!
//! A library is not used because inside a user namespace our own id (0) is not the one the bus sees; the libraries name
//! it when they log in and are turned away. Here the bus is left to see for itself (`AUTH EXTERNAL` without an id).
//! Only little-endian machines are supported, and no file descriptors are passed.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A call is answered within this time or given up.
const PATIENCE: Duration = Duration::from_secs(25);
/// The specification's limit for messages is 128 MiB; systemd's are small.
const MESSAGE_MAX: usize = 1 << 20;

/// Values are appended in the order of the signature, each with the alignment of its type.
#[derive(Clone, Debug, Default)]
pub struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    /// `y`
    pub fn byte(&mut self, value: u8) -> &mut Body {
        self.0.push(value);
        self
    }

    /// `u`
    pub fn number(&mut self, value: u32) -> &mut Body {
        self.align(4);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// `b`
    pub fn truth(&mut self, value: bool) -> &mut Body {
        self.number(u32::from(value))
    }

    /// `t`
    pub fn large(&mut self, value: u64) -> &mut Body {
        self.align(8);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// `s` and `o`
    pub fn text(&mut self, value: &str) -> &mut Body {
        self.number(value.len() as u32);
        self.0.extend(value.as_bytes());
        self.byte(0)
    }

    /// `g`
    fn signature(&mut self, value: &str) -> &mut Body {
        self.byte(value.len() as u8);
        self.0.extend(value.as_bytes());
        self.byte(0)
    }

    /// `a…`, whose elements begin at a multiple of `alignment`.
    pub fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Body)) -> &mut Body {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        self
    }

    /// `(…)` and dictionary entries
    pub fn structure(&mut self, fill: impl FnOnce(&mut Body)) -> &mut Body {
        self.align(8);
        fill(self);
        self
    }

    /// `v`
    pub fn variant(&mut self, signature: &str, fill: impl FnOnce(&mut Body)) -> &mut Body {
        self.signature(signature);
        fill(self);
        self
    }
}

/// A method to call.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    /// Bus name of who is asked.
    pub service: &'a str,
    /// The object.
    pub path: &'a str,
    /// Its interface.
    pub interface: &'a str,
    /// The method.
    pub name: &'a str,
}

/// What the other side refused a call with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `org.freedesktop.systemd1.UnitExists` and so on.
    pub name: String,
    /// In words.
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.message.is_empty() { formatter.write_str(&self.name) } else { formatter.write_str(&self.message) }
    }
}

impl std::error::Error for Refusal {}

/// A message that came.
#[derive(Clone, Debug, Default)]
struct Message {
    kind: u8,
    reply_to: u32,
    member: String,
    error: String,
    body: Vec<u8>,
}

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A connection to a bus.
#[derive(Debug)]
pub struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
    signals: Vec<Message>,
}

/// The system's bus.
pub fn system_path() -> PathBuf {
    PathBuf::from("/run/dbus/system_bus_socket")
}

/// The bus of the user with this id on the host, as the environment says or where systemd puts it.
pub fn user_path(uid: u32) -> PathBuf {
    let named = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok();
    let named = named.as_deref().and_then(path_of_address);
    let directory = || match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => PathBuf::from(format!("/run/user/{uid}")),
    };
    named.unwrap_or_else(|| directory().join("bus"))
}

/// The first path in `unix:path=/run/user/1000/bus,guid=…;…`.
fn path_of_address(address: &str) -> Option<PathBuf> {
    address.split(';').find_map(|one| {
        let keys = one.strip_prefix("unix:")?;
        keys.split(',').find_map(|key| key.strip_prefix("path=")).map(PathBuf::from)
    })
}

impl Bus {
    /// Connects and says hello.
    pub fn connect(path: &Path) -> Result<Bus> {
        let tell = || format!("connect to the bus at {}", path.display());
        let stream = UnixStream::connect(path).with_context(tell)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Bus { stream: BufReader::new(stream), serial: 0, signals: Vec::new() };
        bus.log_in().with_context(tell)?;
        let hello = Method {
            service: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            name: "Hello",
        };
        bus.call(hello, "", &Body::default()).with_context(tell)?;
        Ok(bus)
    }

    fn log_in(&mut self) -> Result<()> {
        // All at once, as sd-bus does; each line is answered but the last.
        self.stream.get_mut().write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        for expected in ["DATA", "OK"] {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            if line.split_ascii_whitespace().next() != Some(expected) {
                bail!("log in: the bus answered `{}`", line.trim_end());
            }
        }
        Ok(())
    }

    /// Calls a method and gives the body of its answer; a [`Refusal`] is the error where the other side refuses.
    pub fn call(&mut self, method: Method, signature: &str, body: &Body) -> Result<Vec<u8>> {
        let serial = self.send(method, signature, body).with_context(|| format!("call {}", method.name))?;
        loop {
            let message = self.receive().with_context(|| format!("wait for the answer to {}", method.name))?;
            match message.kind {
                RETURN if message.reply_to == serial => return Ok(message.body),
                ERROR if message.reply_to == serial => {
                    let text = Reader::new(&message.body).text().unwrap_or_default();
                    return Err(anyhow::Error::new(Refusal { name: message.error, message: text }));
                }
                SIGNAL => self.signals.push(message),
                _ => {}
            }
        }
    }

    /// Asks the bus for signals; see [`Bus::wait_for`].
    pub fn listen(&mut self, rule: &str) -> Result<()> {
        let method = Method {
            service: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            name: "AddMatch",
        };
        self.call(method, "s", Body::default().text(rule)).map(drop)
    }

    /// Waits for the signal `member` of which `wanted` makes something by its body.
    pub fn wait_for<T>(&mut self, member: &str, wanted: impl Fn(&mut Reader) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut waiting = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match waiting.next() {
                Some(message) => message,
                None if Instant::now() > deadline => bail!("the signal {member} did not come within {PATIENCE:?}"),
                None => self.receive().with_context(|| format!("wait for the signal {member}"))?,
            };
            if message.kind == SIGNAL
                && message.member == member
                && let Some(made) = wanted(&mut Reader::new(&message.body))
            {
                return Ok(made);
            }
        }
    }

    fn send(&mut self, method: Method, signature: &str, body: &Body) -> Result<u32> {
        self.serial += 1;
        let mut message = Body::default();
        message.byte(b'l').byte(CALL).byte(0).byte(1).number(body.0.len() as u32).number(self.serial);
        message.array(8, |fields| {
            let texts =
                [(1, "o", method.path), (2, "s", method.interface), (3, "s", method.name), (6, "s", method.service)];
            for (code, kind, text) in texts {
                fields.structure(|field| {
                    field.byte(code).variant(kind, |value| {
                        value.text(text);
                    });
                });
            }
            if !signature.is_empty() {
                fields.structure(|field| {
                    field.byte(8).variant("g", |value| {
                        value.signature(signature);
                    });
                });
            }
        });
        message.align(8);
        message.0.extend(&body.0);
        self.stream.get_mut().write_all(&message.0)?;
        Ok(self.serial)
    }

    fn receive(&mut self) -> Result<Message> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        if head[0] != b'l' {
            bail!("the bus speaks big-endian");
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (body_length, fields_length) = (word(4), word(12));
        if body_length > MESSAGE_MAX || fields_length > MESSAGE_MAX {
            bail!("a message of {body_length} bytes is more than was expected");
        }
        let mut rest = vec![0; fields_length.next_multiple_of(8) + body_length];
        self.stream.read_exact(&mut rest)?;
        let body = rest.split_off(fields_length.next_multiple_of(8));
        let mut message = Message { kind: head[1], body, ..Message::default() };
        let mut fields = Reader::new(&rest[..fields_length]);
        while fields.read_field(&mut message).is_some() {}
        Ok(message)
    }
}

/// Takes values off a body, in the order of its signature; `None` when it ends early.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// From the start of a body.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    fn take(&mut self, count: usize, alignment: usize) -> Option<&'a [u8]> {
        let start = self.at.next_multiple_of(alignment);
        let bytes = self.bytes.get(start..start.checked_add(count)?)?;
        self.at = start + count;
        Some(bytes)
    }

    /// `u`
    pub fn number(&mut self) -> Option<u32> {
        self.take(4, 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
    }

    /// `s` and `o`
    pub fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let text = String::from_utf8_lossy(self.take(length, 1)?).into_owned();
        self.take(1, 1)?;
        Some(text)
    }

    /// `g`
    pub fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.take(1, 1)?[0]);
        let text = String::from_utf8_lossy(self.take(length, 1)?).into_owned();
        self.take(1, 1)?;
        Some(text)
    }

    fn read_field(&mut self, message: &mut Message) -> Option<()> {
        let code = self.take(1, 8)?[0];
        match self.signature()?.as_str() {
            "u" => {
                let value = self.number()?;
                if code == 5 {
                    message.reply_to = value;
                }
            }
            "s" | "o" => {
                let value = self.text()?;
                match code {
                    3 => message.member = value,
                    4 => message.error = value,
                    _ => {}
                }
            }
            "g" => drop(self.signature()?),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut body = Body::default();
        body.text("ab").byte(1).number(7).text("").variant("t", |value| {
            value.large(9);
        });
        let mut reader = Reader::new(&body.0);
        assert_eq!(reader.text().as_deref(), Some("ab"));
        assert_eq!(reader.take(1, 1), Some(&[1][..]));
        assert_eq!(reader.number(), Some(7));
        assert_eq!(reader.text().as_deref(), Some(""));
        assert_eq!(reader.signature().as_deref(), Some("t"));
        assert_eq!(reader.take(8, 8), Some(&[9, 0, 0, 0, 0, 0, 0, 0][..]));
        assert_eq!(reader.number(), None);
    }

    #[test]
    fn an_array_counts_its_bytes_without_the_padding_before_them() {
        let mut body = Body::default();
        body.array(8, |list| {
            list.structure(|one| {
                one.byte(5);
            });
        });
        assert_eq!(body.0, [1, 0, 0, 0, 0, 0, 0, 0, 5]);
    }

    #[test]
    fn addresses() {
        let path = |address: &str| path_of_address(address).map(|path| path.display().to_string());
        assert_eq!(path("unix:path=/run/user/7/bus,guid=1").as_deref(), Some("/run/user/7/bus"));
        assert_eq!(path("tcp:host=x;unix:guid=1,path=/b").as_deref(), Some("/b"));
        assert_eq!(path("unix:abstract=x"), None);
    }
}
