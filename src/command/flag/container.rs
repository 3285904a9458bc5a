//! All options of `run` and `create` together, and the way from them to a wish.

use super::{
    Surroundings, defaults, health, image, lifecycle, log, mount, namespace, network, process, resource, security,
    userns,
};
use crate::engine::create::Wish;
use crate::model::container::{ContainerSpec, LogDriver, RootSource};
use anyhow::{Context, Result, ensure};

// Everything about a new container. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Container {
    /// Assign a name to the container
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// If another container has the name, remove it first
    #[arg(long)]
    pub replace: bool,
    /// The first argument is a directory with a root file system: PATH[:O]
    #[arg(long)]
    pub rootfs: bool,
    #[command(flatten)]
    pub process: process::Process,
    #[command(flatten)]
    pub mount: mount::Mount,
    #[command(flatten)]
    pub network: network::Network,
    #[command(flatten)]
    pub resource: resource::Resource,
    #[command(flatten)]
    pub security: security::Security,
    #[command(flatten)]
    pub namespace: namespace::Namespace,
    #[command(flatten)]
    pub userns: userns::Userns,
    #[command(flatten)]
    pub lifecycle: lifecycle::Lifecycle,
    #[command(flatten)]
    pub log: log::Log,
    #[command(flatten)]
    pub health: health::Health,
    #[command(flatten)]
    pub image: image::Image,
    /// Print usage statement
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// The image, and the command to run in it with its arguments
    #[arg(value_name = "IMAGE [COMMAND [ARG...]]", trailing_var_arg = true, num_args = 0..)]
    pub words: Vec<String>,
}

impl Container {
    /// What the engine is to make.
    ///
    /// # Errors
    /// The first value that is wrong, in podman's words where scripts see them.
    pub fn into_wish(mut self, around: &Surroundings) -> Result<Wish> {
        defaults::before(&mut self, &around.config, around);
        let mut words = self.words.into_iter();
        let image = words.next().context("requires at least 1 arg(s), only received 0")?;
        ensure!(!image.is_empty(), "the image's name is empty");
        ensure!(!self.replace || self.name.is_some(), "cannot replace container without --name being set");
        let mut spec = ContainerSpec { root: root(&image, self.rootfs, around)?, ..ContainerSpec::default() };
        spec.create_command.clone_from(&around.command_line);
        // Order matters where one option is judged by another: namespaces and network before host name and sysctl.
        self.resource.apply(&mut spec)?;
        self.namespace.apply(&mut spec)?;
        self.userns.apply(&mut spec, around)?;
        self.network.apply(&mut spec, around)?;
        self.process.apply(&mut spec, around)?;
        self.mount.apply(&mut spec, around)?;
        self.security.apply(&mut spec, around)?;
        self.lifecycle.apply(&mut spec, around)?;
        self.log.apply(&mut spec)?;
        self.health.apply(&mut spec)?;
        defaults::after(&mut spec, &around.config, around)?;
        spec.process.command = words.collect();
        let pull = self.image.into_pull()?;
        // Docker's names begin with a slash.
        let name = self.name.map(|name| name.strip_prefix('/').unwrap_or(&name).to_owned());
        Ok(Wish { spec, name: name.filter(|name| !name.is_empty()), replace: self.replace, pull })
    }
}

/// Whether a container has the caller's own streams: then nothing of ours is printed.
pub fn is_passthrough(spec: &ContainerSpec) -> bool {
    matches!(spec.log.driver, LogDriver::Passthrough | LogDriver::PassthroughTty)
}

fn root(word: &str, directory: bool, around: &Surroundings) -> Result<RootSource> {
    if !directory {
        return Ok(RootSource::Image(word.to_owned()));
    }
    let (path, options) = match word.rsplit_once(':') {
        Some((path, options)) if options.split(',').all(|option| option == "O" || option.starts_with("idmap")) => {
            (path, options)
        }
        _ => (word, ""),
    };
    ensure!(
        !options.contains("idmap="),
        "rootfs {word:?}: `idmap` takes no maps here: the container's own are used (--uidmap, --userns)"
    );
    let path = around.absolute(path);
    let is_directory = std::fs::metadata(&path).with_context(|| format!("rootfs {path:?}"))?.is_dir();
    ensure!(is_directory, "rootfs {path:?}: not a directory");
    Ok(RootSource::Directory {
        path,
        overlay: options.split(',').any(|option| option == "O"),
        idmap: options.split(',').any(|option| option.starts_with("idmap")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::user::{IdMaps, IdRange};
    use clap::Parser;

    #[derive(Parser, Debug)]
    #[command(disable_help_flag = true)]
    struct Args {
        #[command(flatten)]
        container: Container,
    }

    fn around() -> Surroundings {
        let env = [("HOME", "/root"), ("LC_ALL", "C"), ("LC_TIME", "de")];
        let ids =
            vec![IdRange { inside: 0, outside: 1000, size: 1 }, IdRange { inside: 1, outside: 100_000, size: 65_536 }];
        Surroundings {
            env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            directory: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/spec/files").into(),
            rootless: false,
            command_line: Vec::new(),
            id_maps: IdMaps { uid: ids.clone(), gid: ids },
            ..Surroundings::default()
        }
    }

    fn wish(words: &[String]) -> Result<Wish> {
        use clap::{CommandFactory, FromArgMatches};
        let mut command = super::super::as_pflag(Args::command().no_binary_name(true));
        let matches = command.try_get_matches_from_mut(words)?;
        Args::from_arg_matches(&matches)?.container.into_wish(&around())
    }

    /// What of a document is not as in another.
    fn difference(value: &serde_json::Value, default: &serde_json::Value) -> Option<serde_json::Value> {
        match (value, default) {
            (value, default) if value == default => None,
            (serde_json::Value::Object(value), serde_json::Value::Object(default)) => {
                let null = serde_json::Value::Null;
                let fields = value.iter().filter_map(|(key, value)| {
                    difference(value, default.get(key).unwrap_or(&null)).map(|value| (key.clone(), value))
                });
                Some(serde_json::Value::Object(fields.collect()))
            }
            (value, _) => Some(value.clone()),
        }
    }

    /// Each `tests/golden/spec/*.args` (one word a line) gives the fields of the spec that are not at their default, or
    /// the error, as `*.json` says. `CORACLE_BLESS=1` writes what came out.
    #[test]
    fn golden() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spec");
        let bless = std::env::var_os("CORACLE_BLESS").is_some();
        let mut count = 0;
        let mut wrong = Vec::new();
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "args") {
                continue;
            }
            count += 1;
            let words: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
            let text = match wish(&words) {
                Ok(wish) => {
                    let default = serde_json::to_value(ContainerSpec::default()).unwrap();
                    let spec = serde_json::to_value(&wish.spec).unwrap();
                    let spec = difference(&spec, &default).unwrap_or_default();
                    let document = serde_json::json!({ "name": wish.name, "pull": wish.pull.policy, "spec": spec });
                    format!("{}\n", serde_json::to_string_pretty(&document).unwrap())
                }
                Err(error) => format!("error: {}\n", crate::failure::message_of(&error)),
            }
            .replace(env!("CARGO_MANIFEST_DIR"), "/src");
            let golden = path.with_extension("json");
            if bless {
                std::fs::write(&golden, &text).unwrap();
            }
            let expected = std::fs::read_to_string(&golden).unwrap_or_default();
            if text != expected {
                wrong.push(format!("{}:\n{text}instead of\n{expected}", path.display()));
            }
        }
        assert!(count >= 20, "{count} goldens");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_end_at_the_image() {
        let wish = wish(&words("-it --rm=true --name web -e A=b image -d --rm -- -x")).unwrap();
        assert_eq!(wish.spec.root, RootSource::Image("image".to_owned()));
        assert_eq!(wish.spec.process.command, words("-d --rm -- -x"));
        assert!(wish.spec.stdio.tty && wish.spec.stdio.interactive && wish.spec.lifecycle.remove);
    }

    #[test]
    fn flags_are_read_as_pflag_does() {
        let spec = |line: &str| wish(&words(line)).map(|wish| wish.spec);
        assert!(!spec("-i=false image").unwrap().stdio.interactive);
        assert!(!spec("--rm --rm=false image").unwrap().lifecycle.remove);
        assert_eq!(spec("--stop-timeout -1 image").unwrap().lifecycle.stop_timeout_s, Some(-1));
        assert_eq!(spec("-m 1m --memory-swap -1 image").unwrap().resources.memory_swap, Some(-1));
        assert_eq!(spec("-h a -h b image").unwrap().network.hostname.as_deref(), Some("b"));
        assert_eq!(spec("-w=/x image").unwrap().process.workdir.as_deref(), Some("/x"));
        assert_eq!(spec("-- image -x").unwrap().process.command, ["-x"]);
        for line in ["--bogus image", "--rm=maybe image", "--cpus x image", "--name web", "--replace image"] {
            assert!(spec(line).is_err(), "{line}");
        }
    }
}
