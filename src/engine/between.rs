//! Images from one user's store to another's: `save` as the one, `load` as the other, a pipe between them.
//!
//! Each side runs as its user, with that user's own view of the store, so no file ever belongs to the wrong one.

use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use anyhow::{Context, Result, bail, ensure};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whose store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The caller's.
    #[default]
    Own,
    /// A user's of this machine.
    User(String),
}

/// A line of /etc/passwd.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
    home: String,
}

/// Copy an image.
pub fn copy(engine: &Engine, image: &str, source: &End, target: &End, quiet: bool) -> Result<()> {
    ensure!(source != target, "source and destination are the same store");
    let mut save = command(engine, source)?;
    let mut load = command(engine, target)?;
    save.args(["save", "--quiet", image]).stdin(Stdio::null()).stdout(Stdio::piped());
    load.arg("load");
    if quiet {
        load.arg("--quiet").stdout(Stdio::null());
    }
    let mut saving = save.spawn().context("start `coracle save`")?;
    let output = saving.stdout.take().context("the output of `coracle save`")?;
    let loaded = load.stdin(output).status();
    let saved = saving.wait().context("wait for `coracle save`")?;
    let loaded = loaded.context("run `coracle load`")?;
    if !saved.success() || !loaded.success() {
        bail!("{image}: it was not copied");
    }
    Ok(())
}

/// Ourselves as a user.
fn command(engine: &Engine, end: &End) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find our own binary")?);
    let caller = engine.privilege.caller.uid;
    let name = match end {
        End::Own => {
            command.arg("--root").arg(engine.layout.data()).arg("--runroot").arg(engine.layout.run());
            return Ok(command);
        }
        End::User(name) => name,
    };
    let passwd = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let account = find(&passwd, name).with_context(|| format!("user {name}: there is no such user"))?;
    if account.uid == caller {
        command.arg("--root").arg(engine.layout.data()).arg("--runroot").arg(engine.layout.run());
        return Ok(command);
    }
    if caller != 0 {
        return Err(Failure::new(Kind::Engine, format!("the store of {name} belongs to another user"))
            .hint("only root copies between users")
            .into());
    }
    command.env_clear().env("HOME", &account.home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let runtime = format!("/run/user/{}", account.uid);
    if Path::new(&runtime).is_dir() {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    // Going from root, std takes the supplementary groups away too.
    command.uid(account.uid).gid(account.gid).current_dir("/");
    Ok(command)
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        (*found == name)
            .then(|| Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: (*home).into() }))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad\nbob:x:1000:100::/home/bob:/bin/sh\n";
        assert_eq!(find(passwd, "bob"), Some(Account { uid: 1000, gid: 100, home: "/home/bob".into() }));
        assert_eq!(find(passwd, "bad"), None);
        assert_eq!(find(passwd, "bo"), None);
    }
}
