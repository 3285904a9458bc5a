//! What runs inside: command, environment, user, terminal.

use super::{Surroundings, csv, refuse};
use crate::model::container::ContainerSpec;
use crate::model::user::UserRef;
use anyhow::{Context, Result, bail, ensure};

// The process. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Process {
    /// Override the default ENTRYPOINT from the image; a JSON list or one word
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Set environment variables: KEY=VALUE, KEY from the caller, or KEY* for all that begin so
    #[arg(short, long, value_name = "ENV")]
    pub env: Vec<String>,
    /// Read in a line-delimited file of environment variables
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Use the caller's environment inside of the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub env_host: Option<bool>,
    /// Preprocess environment variables of the image, such as PATH=${PATH}:/x
    #[arg(long, value_name = "ENV")]
    pub env_merge: Vec<String>,
    /// Unset default environment variables for the container
    #[arg(long, value_name = "ENV")]
    pub unsetenv: Vec<String>,
    /// Unset all default environment variables for the container
    #[arg(long)]
    pub unsetenv_all: bool,
    /// Pass the caller's proxy variables into the container (default true)
    #[arg(long, value_name = "BOOL")]
    pub http_proxy: Option<bool>,
    /// User name or UID and optionally group name or GID: USER[:GROUP]
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Assign additional groups to the process; `keep-groups` keeps the caller's
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Set the umask inside the container
    #[arg(long, value_name = "UMASK")]
    pub umask: Option<String>,
    /// Set the time zone in the container; `local` for the host's
    #[arg(long, value_name = "ZONE")]
    pub tz: Option<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub init: Option<bool>,
    /// Path to the container-init binary
    #[arg(long, value_name = "PATH")]
    pub init_path: Option<String>,
    /// Add a user account of the host to /etc/passwd in the container
    #[arg(long, value_name = "NAME")]
    pub hostuser: Vec<String>,
    /// Customize the entry that is written to /etc/passwd in the container
    #[arg(long, value_name = "ENTRY")]
    pub passwd_entry: Option<String>,
    /// Customize the entry that is written to /etc/group in the container
    #[arg(long, value_name = "ENTRY")]
    pub group_entry: Option<String>,
    /// Execution domain: LINUX or LINUX32
    #[arg(long, value_name = "PERSONA")]
    pub personality: Option<String>,
    /// Keep stdin open, even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Add metadata to the container: KEY[=VALUE]
    #[arg(short, long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// Read in a line-delimited file of labels
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<String>,
    /// Add an annotation to the container: KEY=VALUE
    #[arg(long, value_name = "ANNOTATION")]
    pub annotation: Vec<String>,
    // Set by `run`, which has the option.
    #[arg(skip)]
    pub passwd: Option<bool>,
    /// Directory inside the container that is treated as a chroot directory
    #[arg(long, value_name = "DIR", hide = true)]
    pub chrootdirs: Vec<String>,
}

/// The variables that `--http-proxy` passes on.
const PROXIES: [&str; 8] =
    ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"];

impl Process {
    /// Into the spec.
    pub fn apply(self, spec: &mut ContainerSpec, around: &Surroundings) -> Result<()> {
        refuse("--init-path", self.init_path.is_some())?;
        refuse("--chrootdirs", !self.chrootdirs.is_empty())?;
        spec.process.env = self.environment(around)?;
        spec.labels.extend(labels(&self.label_file, &self.label, around)?);
        for annotation in &self.annotation {
            let (key, value) = annotation.split_once('=').context("annotations must be formatted KEY=VALUE")?;
            spec.annotations.insert(key.to_owned(), value.to_owned());
        }
        let process = &mut spec.process;
        process.env_merge = key_values(&self.env_merge, "--env-merge")?;
        process.entrypoint = self.entrypoint.map(entrypoint);
        process.unset_env = self.unsetenv;
        process.unset_env_all = self.unsetenv_all;
        process.user = self.user.filter(|user| !user.is_empty()).map(|user| UserRef::parse(&user)).transpose()?;
        process.workdir = self.workdir.filter(|directory| !directory.is_empty()).map(workdir).transpose()?;
        process.groups = csv(&self.group_add)?;
        if process.groups.iter().any(|group| group == "keep-groups") {
            ensure!(
                process.groups.len() == 1,
                "the '--group-add keep-groups' option is not allowed with any other --group-add options"
            );
            process.groups.clear();
            process.keep_groups = true;
        }
        process.umask = self.umask.filter(|umask| !umask.is_empty()).map(|umask| parse_umask(&umask)).transpose()?;
        process.timezone = self.tz.filter(|zone| !zone.is_empty()).map(timezone).transpose()?;
        process.init = self.init.unwrap_or(false);
        process.host_users = csv(&self.hostuser)?;
        process.passwd = self.passwd;
        process.passwd_entry = self.passwd_entry;
        process.group_entry = self.group_entry;
        process.personality = self.personality.map(personality).transpose()?;
        spec.stdio.interactive = self.interactive;
        spec.stdio.tty = self.tty;
        Ok(())
    }

    /// Later wins: the caller's environment, proxies, files, `--env`.
    fn environment(&self, around: &Surroundings) -> Result<Vec<(String, String)>> {
        let mut environment = Vec::new();
        if self.env_host.unwrap_or(false) {
            for (key, value) in &around.env {
                put(&mut environment, key, value);
            }
        }
        if self.http_proxy.unwrap_or(true) {
            for name in PROXIES {
                if let Some(value) = around.variable(name) {
                    put(&mut environment, name, value);
                }
            }
        }
        for file in &self.env_file {
            for line in lines(file, around)? {
                variable(&mut environment, &line, around).with_context(|| format!("parsing file {file:?}"))?;
            }
        }
        for word in &self.env {
            variable(&mut environment, word, around)?;
        }
        Ok(environment)
    }
}

/// Set a variable, in its first place if it is there already.
pub fn put(environment: &mut Vec<(String, String)>, key: &str, value: &str) {
    match environment.iter_mut().find(|(other, _)| other == key) {
        Some(entry) => value.clone_into(&mut entry.1),
        None => environment.push((key.to_owned(), value.to_owned())),
    }
}

/// `KEY=VALUE`, `KEY` from the caller's environment if it is there, `KEY*` for all that begin so.
pub fn variable(environment: &mut Vec<(String, String)>, word: &str, around: &Surroundings) -> Result<()> {
    let (key, value) = match word.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (word, None),
    };
    if key.trim().is_empty() {
        bail!("invalid variable: {word:?}");
    }
    if let Some(value) = value {
        put(environment, key, value);
    } else if let Some(prefix) = key.strip_suffix('*') {
        for (name, value) in around.env.iter().filter(|(name, _)| name.starts_with(prefix)) {
            put(environment, name, value);
        }
    } else if let Some(value) = around.variable(key) {
        put(environment, key, value);
    }
    Ok(())
}

/// The lines of a file that say something: not empty, not beginning with `#`.
pub fn lines(file: &str, around: &Surroundings) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(around.absolute(file)).with_context(|| format!("open {file}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text
        .lines()
        .map(|line| line.trim_start())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

/// `KEY=VALUE` or `KEY`, of files first.
pub fn labels(files: &[String], words: &[String], around: &Surroundings) -> Result<Vec<(String, String)>> {
    let mut labels = Vec::new();
    let mut add = |word: &str| -> Result<()> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        ensure!(!key.is_empty(), "invalid label format: {word:?}");
        put(&mut labels, key, value);
        Ok(())
    };
    for file in files {
        for line in lines(file, around)? {
            add(&line)?;
        }
    }
    words.iter().try_for_each(|word| add(word))?;
    Ok(labels)
}

/// `KEY=VALUE` only.
pub fn key_values(words: &[String], option: &str) -> Result<Vec<(String, String)>> {
    words
        .iter()
        .map(|word| {
            let (key, value) =
                word.split_once('=').with_context(|| format!("{option} must be formatted KEY=VALUE: {word:?}"))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn entrypoint(text: String) -> Vec<String> {
    match serde_json::from_str::<Vec<String>>(&text) {
        Ok(words) => words,
        Err(_) if text.is_empty() => Vec::new(),
        Err(_) => vec![text],
    }
}

fn workdir(directory: String) -> Result<String> {
    ensure!(
        directory.starts_with('/'),
        "the working directory {directory:?} is invalid, it needs to be an absolute path"
    );
    Ok(directory)
}

/// Octal digits.
pub fn parse_umask(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    ensure!(digits, "invalid umask string {text}: invalid argument");
    Ok(u32::from_str_radix(text, 8)?)
}

fn timezone(zone: String) -> Result<String> {
    let plain = zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-/".contains(&byte));
    let known = zone == "local"
        || plain && !zone.starts_with('/') && std::path::Path::new("/usr/share/zoneinfo").join(&zone).is_file();
    ensure!(known, "finding timezone: unknown time zone {zone}");
    Ok(zone)
}

fn personality(name: String) -> Result<String> {
    ensure!(["LINUX", "LINUX32"].contains(&name.as_str()), "unknown personality {name:?}: LINUX or LINUX32");
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Surroundings {
        let env = [("HOME", "/h"), ("LC_A", "1"), ("LC_B", "2"), ("http_proxy", "http://p")];
        Surroundings {
            env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            directory: "/work".into(),
            ..Surroundings::default()
        }
    }

    fn environment(words: &[&str]) -> Result<Vec<(String, String)>> {
        let process = Process {
            env: words.iter().map(|word| (*word).to_owned()).collect(),
            http_proxy: Some(false),
            ..Process::default()
        };
        process.environment(&around())
    }

    #[test]
    fn environment_words() {
        let pairs = environment(&["A=1", "HOME", "MISSING", "LC_*", "A=2=3", "E="]).unwrap();
        let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(text, ["A=2=3", "HOME=/h", "LC_A=1", "LC_B=2", "E="]);
        assert_eq!(environment(&["=x"]).unwrap_err().to_string(), "invalid variable: \"=x\"");
    }

    #[test]
    fn proxies_are_passed_unless_told_not_to() {
        assert_eq!(Process::default().environment(&around()).unwrap(), [("http_proxy".into(), "http://p".into())]);
    }

    #[test]
    fn entrypoints() {
        assert_eq!(entrypoint("[\"sh\",\"-c\"]".into()), ["sh", "-c"]);
        assert_eq!(entrypoint("/bin/sh -c".into()), ["/bin/sh -c"]);
        assert_eq!(entrypoint(String::new()), Vec::<String>::new());
    }

    #[test]
    fn umasks() {
        assert_eq!(parse_umask("0027").unwrap(), 0o027);
        for text in ["9", "", "00022", "a"] {
            assert!(parse_umask(text).is_err(), "{text}");
        }
    }
}
