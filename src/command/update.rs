//! `coracle update`.

use super::flag::{Surroundings, health, lifecycle, process, resource};
use super::present;
use crate::engine::{Engine, list, update};
use crate::model::container::ContainerSpec;
use anyhow::{Result, ensure};
use std::process::ExitCode;

/// Update an existing container
#[derive(clap::Parser, Debug)]
pub struct Args {
    #[command(flatten)]
    limits: resource::Limits,
    #[command(flatten)]
    health: health::Health,
    /// Restart policy: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Set environment variables, from the next start on
    #[arg(short, long, value_name = "ENV")]
    env: Vec<String>,
    /// Unset environment variables, from the next start on
    #[arg(long, value_name = "ENV")]
    unsetenv: Vec<String>,
    /// Ulimit options, from the next start on: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// Act on the latest container
    #[arg(short, long)]
    latest: bool,
    /// Name or ID
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
}

/// Change it and print its id.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let name = match (args.container.clone(), args.latest) {
        (Some(name), false) => name,
        (None, true) => list::latest(engine)?.record.id.to_string(),
        (Some(_), true) => anyhow::bail!("--latest and containers cannot be used together"),
        (None, false) => anyhow::bail!("update requires a container name or ID"),
    };
    let around = Surroundings::of_process(engine);
    let id = update::update(engine, &name, |spec| change(args, spec, &around))?;
    present::line(id)?;
    Ok(ExitCode::SUCCESS)
}

fn change(args: Args, spec: &mut ContainerSpec, around: &Surroundings) -> Result<()> {
    args.limits.apply(&mut spec.resources)?;
    if args.health.no_healthcheck {
        spec.health_policy.startup = None;
    }
    args.health.merge(&mut spec.health, &mut spec.health_policy)?;
    ensure!(
        spec.health.as_ref().is_none_or(|health| !health.test.is_empty()),
        "healthcheck command is not set: name one with --health-cmd"
    );
    if let Some(policy) = &args.restart {
        spec.lifecycle.restart = lifecycle::restart(policy)?;
    }
    for name in &args.unsetenv {
        spec.process.env.retain(|(known, _)| known != name);
    }
    for word in &args.env {
        process::variable(&mut spec.process.env, word, around)?;
    }
    let (limits, of_host) = resource::ulimits(&super::flag::csv(&args.ulimit)?)?;
    for limit in limits {
        spec.ulimits.retain(|known| known.name != limit.name);
        spec.ulimits.push(limit);
        spec.ulimits_host = false;
    }
    if of_host {
        spec.ulimits.clear();
        spec.ulimits_host = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::Restart;
    use clap::{CommandFactory, FromArgMatches};

    fn change_by(line: &str, spec: &mut ContainerSpec) -> Result<()> {
        let mut command = super::super::flag::as_pflag(Args::command().no_binary_name(true));
        let matches = command.try_get_matches_from_mut(line.split(' '))?;
        change(Args::from_arg_matches(&matches)?, spec, &Surroundings::default())
    }

    #[test]
    fn what_was_not_typed_stays() {
        let mut spec = ContainerSpec::default();
        spec.process.env = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())];
        change_by("-m 64m --cpus 2 c", &mut spec).unwrap();
        change_by("--pids-limit 5 --restart on-failure:2 -e B=3 --unsetenv A c", &mut spec).unwrap();
        assert_eq!(spec.resources.memory.map(|memory| memory.0), Some(64 << 20));
        assert_eq!((spec.resources.cpu_quota, spec.resources.pids_limit), (Some(200_000), Some(5)));
        assert_eq!(spec.lifecycle.restart, Restart::OnFailure { retries: 2 });
        assert_eq!(spec.process.env, [("B".to_owned(), "3".to_owned())]);
    }

    #[test]
    fn a_new_memory_limit_takes_the_default_swap_with_it() {
        let mut spec = ContainerSpec::default();
        change_by("-m 64m --memory-swap 128m c", &mut spec).unwrap();
        change_by("-m 256m c", &mut spec).unwrap();
        assert_eq!(spec.resources.memory_swap, None);
        assert!(change_by("--memory-swap 1m c", &mut spec).is_err());
    }

    #[test]
    fn health_options_need_a_check() {
        let mut spec = ContainerSpec::default();
        assert!(change_by("--health-interval 5s c", &mut spec).is_err());
        change_by("--health-cmd true --health-interval 5s c", &mut spec).unwrap();
        change_by("--no-healthcheck c", &mut spec).unwrap();
        assert!(!spec.health.unwrap().runs());
    }
}
