//! Device nodes of the host.

use crate::failure::{Failure, Kind};
use crate::model::mount::Device;
use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The devices of `--device`, a directory as all devices in it.
pub fn asked(wanted: &[Device]) -> Result<Vec<LinuxDevice>> {
    let mut list = Vec::new();
    for device in wanted {
        let metadata = std::fs::metadata(&device.source)
            .map_err(|error| Failure::new(Kind::Engine, format!("stat {}: {}", device.source, plain(&error))))?;
        if metadata.is_dir() {
            collect(Path::new(&device.source), Path::new(&device.target), &mut list)
                .with_context(|| format!("read {}", device.source))?;
        } else {
            let found = describe(Path::new(&device.source), Path::new(&device.target));
            list.push(
                found.ok_or_else(|| Failure::new(Kind::Engine, format!("{}: not a device node", device.source)))?,
            );
        }
    }
    Ok(list)
}

/// All devices of the host but those a container has of its own; an ordinary user gets those they may open. `consoles`:
/// the virtual ones too (`/dev/tty1`), on which a systemd inside would start logins.
pub fn of_host(only_accessible: bool, consoles: bool) -> Vec<LinuxDevice> {
    let mut list = Vec::new();
    let _ = collect(Path::new("/dev"), Path::new("/dev"), &mut list);
    const OURS: [&str; 9] = ["console", "null", "zero", "full", "random", "urandom", "tty", "ptmx", "mqueue"];
    list.retain(|device| {
        let name = device.path().strip_prefix("/dev").unwrap_or(device.path());
        let first =
            name.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
        !OURS.contains(&first.as_str()) && first != "pts" && first != "shm" && (consoles || !is_console(&first))
    });
    if only_accessible {
        list.retain(|device| std::fs::File::open(device.path()).is_ok());
    }
    list
}

/// `tty1` and its like, not `ttyS0`.
fn is_console(name: &str) -> bool {
    let number = name.strip_prefix("tty");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn collect(source: &Path, target: &Path, list: &mut Vec<LinuxDevice>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(source)?.flatten() {
        let (path, inside) = (entry.path(), target.join(entry.file_name()));
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if !matches!(entry.file_name().to_str(), Some("pts" | "shm" | "fd" | "mqueue" | ".lxc" | ".udev")) {
                let _ = collect(&path, &inside, list);
            }
        } else {
            list.extend(describe(&path, &inside).filter(|_| !kind.is_symlink()));
        }
    }
    Ok(())
}

fn describe(source: &Path, target: &Path) -> Option<LinuxDevice> {
    let metadata = std::fs::metadata(source).ok()?;
    let kind = if metadata.file_type().is_char_device() {
        LinuxDeviceType::C
    } else if metadata.file_type().is_block_device() {
        LinuxDeviceType::B
    } else {
        return None;
    };
    let mut device = LinuxDevice::default();
    device
        .set_path(PathBuf::from(target))
        .set_typ(kind)
        .set_major(nix::sys::stat::major(metadata.rdev()) as i64)
        .set_minor(nix::sys::stat::minor(metadata.rdev()) as i64)
        .set_file_mode(Some(metadata.mode() & 0o7777))
        .set_uid(Some(metadata.uid()))
        .set_gid(Some(metadata.gid()));
    Some(device)
}

/// Major and minor number of a block device.
pub fn block_number(path: &str) -> Result<(i64, i64)> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| Failure::new(Kind::Engine, format!("stat {path}: {}", plain(&error))))?;
    if !metadata.file_type().is_block_device() {
        return Err(Failure::new(Kind::Engine, format!("{path}: not a block device")).into());
    }
    let number = metadata.rdev();
    Ok((nix::sys::stat::major(number) as i64, nix::sys::stat::minor(number) as i64))
}

/// The system's words without "(os error N)".
fn plain(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
