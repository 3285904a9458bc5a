//! `coracle selftest`: the escape attempts of other runtimes' histories, made on this very host.
//!
//! Every attempt is a container of a throw-away store. What runs in it is a copy of this program ([`inside`]), or, where
//! it is the image that is hostile, a root file system made for the purpose. A canary stands where each wants to get.

mod attack;
pub mod inside;

use super::present;
use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use anyhow::Result;
use attack::{ATTACKS, Range, Verdict};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Try known escapes from a container on this host
///
/// Makes containers in a store of its own, removes them, and prints what became of each attempt. Exit status: 0 if
/// all were stopped, 1 if one succeeded, 125 if none could be tried.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// The escapes of past vulnerabilities
    #[arg(long, required = true)]
    security: bool,
    /// Only those whose name or number holds this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Print a table or JSON
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Try them all, in a row: each may make mounts and processes.
pub fn run(args: Args, _: &Engine) -> Result<ExitCode> {
    let range = Range::new()?;
    let wanted = |name: &str| args.filter.as_deref().is_none_or(|text| name.contains(text));
    let chosen = ATTACKS.iter().filter(|attack| wanted(attack.name) || wanted(attack.cve));
    let results: Vec<(&attack::Attack, Verdict)> = chosen.map(|attack| (attack, range.attempt(attack))).collect();
    drop(range);
    let rows: Vec<Value> = results.iter().map(|(attack, verdict)| row(attack, verdict)).collect();
    if args.format == "json" {
        present::line(present::pretty(&Value::Array(rows.clone()))?)?;
    } else {
        let mut text = String::from("ATTACK\tCVE\tRESULT\n");
        for row in &rows {
            let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            text.push_str(&format!(
                "{}\t{}\t{}: {}\n",
                field("attack"),
                field("cve"),
                field("result"),
                field("detail")
            ));
        }
        present::text(&present::table::align(&text))?;
    }
    let count = |wanted: &str| rows.iter().filter(|row| row["result"] == wanted).count();
    if count("SUCCEEDED") > 0 {
        return Ok(ExitCode::FAILURE);
    }
    if count("stopped") == 0 {
        return Err(Failure::new(Kind::Engine, "selftest: no attempt could be made")
            .hint("`coracle run --rm hello` says what is wrong with containers on this host")
            .into());
    }
    Ok(ExitCode::SUCCESS)
}

fn row(attack: &attack::Attack, verdict: &Verdict) -> Value {
    let (result, detail) = match verdict {
        Verdict::Stopped(how) => ("stopped", how),
        Verdict::Succeeded(how) => ("SUCCEEDED", how),
        Verdict::NotTried(why) => ("not tried", why),
    };
    json!({"attack": attack.name, "cve": attack.cve, "result": result, "detail": detail})
}
