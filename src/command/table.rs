//! The table of verbs: every name that can be typed, and its file.

use super::{Enter, Verb};

/// A line of the table.
pub enum Entry {
    /// A command.
    Verb(Verb),
    /// A word with commands below it.
    Group {
        /// The word.
        name: &'static str,
        /// One line of help.
        about: &'static str,
        /// What is below.
        entries: &'static [Entry],
    },
}

/// `verb!("name" | "alias" => path::to::file, Inside)`: the file has `Args` and `run`.
macro_rules! verb {
    ($name:literal $(| $alias:literal)* => $($path:ident)::+, $enter:ident) => {
        Entry::Verb(Verb {
            name: $name,
            aliases: &[$($alias),*],
            enter: Enter::$enter,
            command: || <super::$($path::)+Args as clap::CommandFactory>::command(),
            run: |matches, engine| super::$($path::)+run(super::arguments(matches)?, engine),
        })
    };
}

/// Everything that can be typed. Hidden ones (`supervise`, `document`, …) start with two underscores in none: they are
/// marked hidden in their clap definition.
pub const VERBS: &[Entry] = &[
    Entry::Group {
        name: "artifact",
        about: "Manage OCI artifacts",
        entries: &[
            verb!("add" => artifact::add, Inside),
            verb!("extract" => artifact::extract, Outside),
            verb!("inspect" => artifact::inspect, Outside),
            verb!("ls" | "list" => artifact::ls, Outside),
            verb!("pull" => artifact::pull, Inside),
            verb!("push" => artifact::push, Inside),
            verb!("rm" | "remove" => artifact::rm, Inside),
        ],
    },
    verb!("attach" => attach, Outside),
    verb!("complete" => complete, Outside),
    verb!("__complete" => complete::cobra, Outside),
    verb!("__completeNoDesc" => complete::cobra::plain, Outside),
    verb!("completion" => completion, Outside),
    verb!("commit" => commit, Inside),
    verb!("cp" => cp, Inside),
    verb!("create" => create, Inside),
    verb!("diff" => diff, Inside),
    verb!("export" => export, Inside),
    verb!("document" => document, Outside),
    verb!("exec" => exec, Sealed),
    verb!("forward" => forward, Outside),
    verb!("init" => init, Inside),
    verb!("kill" => kill, Outside),
    verb!("history" => history, Outside),
    Entry::Group {
        name: "image",
        about: "Manage images",
        entries: &[
            verb!("diff" => image::diff, Inside),
            verb!("exists" => image::exists, Outside),
            verb!("history" => history, Outside),
            verb!("import" => import, Inside),
            verb!("inspect" => image::inspect, Outside),
            verb!("list" | "ls" => images, Outside),
            verb!("load" => load, Inside),
            verb!("mount" => image::mount, Inside),
            verb!("prune" => image::prune, Inside),
            verb!("pull" => pull, Inside),
            verb!("push" => push, Inside),
            verb!("rm" | "remove" => rmi, Inside),
            verb!("save" => save, Inside),
            verb!("scp" => image::scp, Outside),
            verb!("search" => search, Outside),
            verb!("sign" => image::sign, Outside),
            verb!("tag" => tag, Outside),
            verb!("tree" => image::tree, Outside),
            Entry::Group {
                name: "trust",
                about: "Manage container image trust policy",
                entries: &[verb!("set" => image::trust::set, Outside), verb!("show" => image::trust::show, Outside)],
            },
            verb!("unmount" | "umount" => image::unmount, Inside),
            verb!("untag" => untag, Outside),
        ],
    },
    verb!("images" => images, Outside),
    verb!("import" => import, Inside),
    verb!("load" => load, Inside),
    verb!("login" => login, Outside),
    verb!("logout" => logout, Outside),
    Entry::Group {
        name: "manifest",
        about: "Manipulate manifest lists and image indexes",
        entries: &[
            verb!("add" => manifest::add, Inside),
            verb!("annotate" => manifest::annotate, Outside),
            verb!("create" => manifest::create, Inside),
            verb!("exists" => manifest::exists, Outside),
            verb!("inspect" => manifest::inspect, Outside),
            verb!("push" => manifest::push, Inside),
            verb!("remove" => manifest::remove, Outside),
            verb!("rm" => manifest::rm, Outside),
        ],
    },
    Entry::Group {
        name: "healthcheck",
        about: "Manage health checks of containers",
        entries: &[verb!("run" => healthcheck::run, Outside)],
    },
    Entry::Group {
        name: "network",
        about: "Manage networks",
        entries: &[
            verb!("connect" => network::connect, Outside),
            verb!("create" => network::create, Outside),
            verb!("disconnect" => network::disconnect, Outside),
            verb!("exists" => network::exists, Outside),
            verb!("inspect" => network::inspect, Outside),
            verb!("ls" | "list" => network::ls, Outside),
            verb!("prune" => network::prune, Outside),
            verb!("reload" => network::reload, Outside),
            verb!("rm" | "remove" => network::rm, Inside),
            verb!("update" => network::update, Outside),
        ],
    },
    verb!("events" => events, Outside),
    verb!("info" => info, Outside),
    verb!("inspect" => inspect, Outside),
    verb!("port" => port, Outside),
    verb!("ps" => ps, Outside),
    verb!("logs" => logs, Outside),
    verb!("rename" => rename, Outside),
    verb!("stats" => stats, Outside),
    verb!("top" => top, Outside),
    verb!("pause" => pause, Outside),
    verb!("copy" => copy, Inside),
    verb!("pull" => pull, Inside),
    verb!("push" => push, Inside),
    verb!("restart" => restart, Inside),
    verb!("rm" => rm, Inside),
    verb!("start" => start, Inside),
    verb!("stop" => stop, Outside),
    verb!("supervise" => supervise, Inside),
    verb!("unpause" => unpause, Outside),
    verb!("rmi" => rmi, Inside),
    verb!("run" => run, Inside),
    verb!("save" => save, Inside),
    verb!("search" => search, Outside),
    verb!("selftest" => selftest, Outside),
    verb!("tag" => tag, Outside),
    verb!("unshare" => unshare, Inside),
    verb!("untag" => untag, Outside),
    Entry::Group {
        name: "system",
        about: "Manage coracle itself",
        entries: &[
            verb!("check" => system::check, Inside),
            verb!("df" => system::df, Inside),
            verb!("dns" => system::dns, Outside),
            verb!("events" => events, Outside),
            verb!("info" => info, Outside),
            verb!("prune" => system::prune, Inside),
        ],
    },
    verb!("update" => update, Outside),
    verb!("version" => version, Outside),
    Entry::Group {
        name: "volume",
        about: "Manage volumes",
        entries: &[
            verb!("create" => volume::create, Inside),
            verb!("exists" => volume::exists, Outside),
            verb!("export" => volume::export, Inside),
            verb!("import" => volume::import, Inside),
            verb!("inspect" => volume::inspect, Outside),
            verb!("ls" | "list" => volume::ls, Outside),
            verb!("mount" => volume::mount, Outside),
            verb!("prune" => volume::prune, Inside),
            verb!("rm" | "remove" => volume::rm, Inside),
            verb!("unmount" => volume::unmount, Outside),
        ],
    },
    verb!("wait" => wait, Outside),
    Entry::Group { name: "container", about: "Manage containers", entries: CONTAINER },
];

/// The forms with `container` before them.
const CONTAINER: &[Entry] = &[
    verb!("attach" => attach, Outside),
    verb!("commit" => commit, Inside),
    verb!("cp" => cp, Inside),
    verb!("create" => create, Inside),
    verb!("diff" => diff, Inside),
    verb!("export" => export, Inside),
    verb!("exec" => exec, Sealed),
    verb!("forward" => forward, Outside),
    verb!("exists" => container::exists, Outside),
    verb!("init" => init, Inside),
    verb!("inspect" => container::inspect, Outside),
    verb!("kill" => kill, Outside),
    verb!("list" | "ls" | "ps" => ps, Outside),
    verb!("logs" => logs, Outside),
    verb!("pause" => pause, Outside),
    verb!("port" => port, Outside),
    verb!("prune" => container::prune, Inside),
    verb!("rename" => rename, Outside),
    verb!("restart" => restart, Inside),
    verb!("rm" => rm, Inside),
    verb!("run" => run, Inside),
    verb!("start" => start, Inside),
    verb!("stats" => stats, Outside),
    verb!("stop" => stop, Outside),
    verb!("top" => top, Outside),
    verb!("unpause" => unpause, Outside),
    verb!("update" => update, Outside),
    verb!("wait" => wait, Outside),
];

/// The clap command of an entry with all below it.
pub fn clap_command(entry: &Entry) -> clap::Command {
    match entry {
        Entry::Verb(verb) => {
            (verb.command)().name(verb.name).visible_aliases(verb.aliases.iter().copied()).disable_version_flag(true)
        }
        Entry::Group { name, about, entries } => {
            let mut command = clap::Command::new(*name).about(*about).subcommand_required(true);
            for entry in *entries {
                command = command.subcommand(clap_command(entry));
            }
            command
        }
    }
}

/// The name that was probably meant: at most two letters off.
pub fn similar(entries: &'static [Entry], word: &str) -> Option<&'static str> {
    let names = entries.iter().map(|entry| match entry {
        Entry::Verb(verb) => verb.name,
        Entry::Group { name, .. } => name,
    });
    names.map(|name| (distance(name, word), name)).filter(|(distance, _)| *distance <= 2).min().map(|(_, name)| name)
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let substitute = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
