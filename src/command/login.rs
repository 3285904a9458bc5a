//! `coracle login`.

use super::flag::registry::Tls;
use super::present;
use crate::engine::{Engine, login};
use crate::image::access::Access;
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Log in to a container registry
///
/// The name and password are checked with the registry and then kept in `$XDG_RUNTIME_DIR/containers/auth.json`, in the
/// file that is named, or by the credential helper that is configured for the registry.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Directory with certificates and keys for the registry
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Path of a Docker-compatible config file to update instead
    #[arg(long, value_name = "FILE")]
    compat_auth_file: Option<PathBuf>,
    /// Return the current login user for the registry
    #[arg(long)]
    get_login: bool,
    /// Password for registry
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Take the password from stdin
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    /// Retrieve password from a secret; secrets are not read here
    #[arg(long, value_name = "SECRET", hide = true)]
    secret: Option<String>,
    #[command(flatten)]
    tls: Tls,
    /// Username for registry
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Write more detailed information to stdout
    #[arg(short, long)]
    verbose: bool,
    /// The registry, HOST[:PORT][/NAMESPACE]; the first of the search list if it is not said
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// The file of credentials that was named.
pub(super) fn one_of(own: Option<PathBuf>, docker: Option<PathBuf>) -> Result<Option<PathBuf>> {
    ensure!(
        own.is_none() || docker.is_none(),
        "options for paths to the credential file and to the Docker-compatible credential file can not be set simultaneously"
    );
    Ok(own.or(docker))
}

/// Ask for what was not said, try it, keep it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    ensure!(args.secret.is_none(), "--secret: secrets are not read by login; use --password-stdin");
    let authfile = one_of(args.authfile.clone(), args.compat_auth_file.clone())?;
    let access = Access {
        authfile: None,
        cert_dir: args.cert_dir.clone(),
        tls_verify: args.tls.tls_verify,
        retry: Some(0),
        ..Access::default()
    };
    let session = login::Session::open(engine, access, authfile, args.registry.as_deref())?;
    let key = session.key.clone();
    if args.get_login {
        let user = session.user()?.with_context(|| format!("not logged into {key}"))?;
        present::line(user)?;
        return Ok(ExitCode::SUCCESS);
    }
    let asked = args.username.is_some() || args.password.is_some() || args.password_stdin;
    if !asked && let Some(user) = session.existing()? {
        present::line(format!("Authenticating with existing credentials for {key}"))?;
        if session.check(&user).is_ok() {
            present::line(format!("Existing credentials are valid. Already logged in to {key}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        present::line("Existing credentials are invalid, please enter valid username and password")?;
    }
    let (user, password) = credentials(&args, session.user()?.as_deref())?;
    let place = session.log_in(&user, &password)?;
    if args.verbose {
        present::line(format!("Used: {place}"))?;
    }
    present::line("Login Succeeded!")?;
    Ok(ExitCode::SUCCESS)
}

fn credentials(args: &Args, known: Option<&str>) -> Result<(String, String)> {
    if args.password_stdin {
        let user = args.username.clone().context("Must provide --username with --password-stdin")?;
        let mut password = String::new();
        std::io::stdin().lock().read_line(&mut password).context("read the password from standard input")?;
        let password = password.trim_end_matches(['\n', '\r']).to_owned();
        ensure!(!password.is_empty(), "the password on standard input is empty");
        return Ok((user, password));
    }
    let user = match (&args.username, known) {
        (Some(user), _) => user.clone(),
        (None, Some(known)) => {
            let typed = ask(&format!("Username ({known}): "))?;
            if typed.is_empty() { known.to_owned() } else { typed }
        }
        (None, None) => ask("Username: ")?,
    };
    ensure!(!user.is_empty(), "the user name is empty");
    let password = match &args.password {
        Some(password) => password.clone(),
        None => ask_hidden("Password: ")?,
    };
    ensure!(!password.is_empty(), "the password is empty");
    Ok((user, password))
}

fn ask(question: &str) -> Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("{}standard input is not a terminal; use --username and --password-stdin", question.to_lowercase());
    }
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read from the terminal")?;
    Ok(line.trim().to_owned())
}

/// The same without showing what is typed; the terminal is put back on every way out.
fn ask_hidden(question: &str) -> Result<String> {
    use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
    struct Restore(Termios);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &self.0);
        }
    }
    if !std::io::stdin().is_terminal() {
        return ask(question);
    }
    let before = tcgetattr(std::io::stdin()).context("ask for the terminal's settings")?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    silent.local_flags.insert(LocalFlags::ECHONL);
    let _restore = Restore(before);
    tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &silent).context("change the terminal's settings")?;
    ask(question)
}
