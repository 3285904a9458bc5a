//! `coracle completion SHELL`: the script a shell loads once.
//!
//! The scripts know nothing of verbs and options: they ask `coracle complete`, which reads the tree of commands and
//! the names in the store. So they are never older than the binary.

use super::present;
use crate::engine::Engine;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Generate a completion script for a shell
///
/// bash: `coracle completion bash >/etc/bash_completion.d/coracle`; zsh: `coracle completion zsh >"${fpath[1]}/_coracle"`;
/// fish: `coracle completion fish >~/.config/fish/completions/coracle.fish`.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Leave out the descriptions of candidates
    #[arg(long)]
    no_desc: bool,
}

/// A shell that we have a script for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Shell {
    /// GNU bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

impl Shell {
    /// All of them.
    pub const ALL: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

    /// The name under which a distribution installs the script.
    pub fn file_name(self) -> &'static str {
        match self {
            Shell::Bash => "coracle.bash",
            Shell::Zsh => "_coracle",
            Shell::Fish => "coracle.fish",
        }
    }

    /// The script.
    pub fn script(self) -> &'static str {
        match self {
            Shell::Bash => BASH,
            Shell::Zsh => ZSH,
            Shell::Fish => FISH,
        }
    }
}

/// Print it, or write it to the file.
pub fn run(args: Args, _engine: &Engine) -> Result<ExitCode> {
    let mut script = args.shell.script().to_owned();
    if args.no_desc {
        script = script.replace("coracle complete --", "coracle complete --no-descriptions --");
    }
    match args.file {
        Some(path) => std::fs::write(&path, script).with_context(|| format!("write {}", path.display()))?,
        None => present::text(&script)?,
    }
    Ok(ExitCode::SUCCESS)
}

// Bash breaks words at `:` and `=`, which names of images and `--option=value` hold: the line is split here, and what
// stands before the last break is taken off the candidates again.
const BASH: &str = r#"# bash completion for coracle: asks `coracle complete`
_coracle() {
    local line=${COMP_LINE:0:COMP_POINT} words current before candidate
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    before=${current%"${current##*[:=]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        case $candidate in
        :files) compopt -o filenames && mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "${current#"$before"}") ;;
        :directories) compopt -o filenames && mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -d -- "${current#"$before"}") ;;
        *=) compopt -o nospace && COMPREPLY+=("${candidate#"$before"}") ;;
        *) COMPREPLY+=("${candidate#"$before"}") ;;
        esac
    done < <(coracle complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _coracle coracle
"#;

const ZSH: &str = r#"#compdef coracle
# zsh completion for coracle: asks `coracle complete`
_coracle() {
    local -a candidates
    local line want=
    for line in "${(@f)$(coracle complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
        :*) want=$line ;;
        ?*) candidates+=("${${line%%$'\t'*}//:/\\:}${${(M)line%$'\t'*}:+:${line#*$'\t'}}") ;;
        esac
    done
    (( $#candidates )) && _describe -V coracle candidates
    case $want in
    :files) _files ;;
    :directories) _files -/ ;;
    esac
}
if [ "$funcstack[1]" = _coracle ]; then
    _coracle "$@"
else
    compdef _coracle coracle
fi
"#;

const FISH: &str = r#"# fish completion for coracle: asks `coracle complete`
function __coracle_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (coracle complete -- $words[2..-1] 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :directories
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c coracle -f -a '(__coracle_complete)'
"#;
