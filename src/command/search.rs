//! `coracle search`.

use super::flag::registry::Tls;
use super::present::{Column, List};
use crate::engine::{Engine, search};
use crate::image::access::Access;
use anyhow::{Result, bail};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Search registry for image
///
/// Asks the registries of the search list, or the one the term begins with. Docker Hub's own search is used where there
/// is one; other registries are asked for their catalog.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Directory with certificates and keys for the registry
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Credentials (USERNAME:PASSWORD) to use for authenticating to a registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    creds: Option<String>,
    /// List stars, official and automated columns (Docker compatibility)
    #[arg(long)]
    compatible: bool,
    /// Filter output based on conditions provided: stars=N, is-official[=BOOL], is-automated[=BOOL]
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Change the output format to JSON or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Limit the number of results
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// List the tags of the input registry
    #[arg(long)]
    list_tags: bool,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    tls: Tls,
    /// What to look for: [REGISTRY/]TERM
    #[arg(value_name = "TERM")]
    term: String,
}

const PLAIN: &[Column] = &[Column::new("Name", "NAME"), Column::new("Description", "DESCRIPTION")];
const COMPATIBLE: &[Column] = &[
    Column::new("Name", "NAME"),
    Column::new("Description", "DESCRIPTION"),
    Column::new("Stars", "STARS"),
    Column::new("Official", "OFFICIAL"),
    Column::new("Automated", "AUTOMATED"),
];
const TAGS: &[Column] = &[Column::new("Name", "NAME"), Column::new("Tag", "TAG")];

/// Ask and show.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let credentials = args.creds.as_deref().map(crate::image::auth::Credentials::parse).transpose()?;
    let access = Access {
        authfile: args.authfile.clone(),
        credentials,
        cert_dir: args.cert_dir.clone(),
        tls_verify: args.tls.tls_verify,
        ..Access::default()
    };
    if args.list_tags {
        if !args.filter.is_empty() {
            bail!("filters are not applicable to list tags result");
        }
        return tags(&args, engine, access);
    }
    let filters = args.filter.iter().map(|text| search::Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let wish = search::Wish { term: &args.term, limit: args.limit.unwrap_or(25), filters: &filters };
    let found = search::search(engine, access, wish)?;
    let columns = if args.compatible { COMPATIBLE } else { PLAIN };
    let mark = |yes: bool| if yes { "[OK]" } else { "" };
    List { format: args.format.as_deref(), heading: true, columns, more_headings: &[] }.print(
        &found,
        |line| {
            let description = if args.no_trunc { line.description.clone() } else { shorten(&line.description) };
            json!({"Index": line.registry, "Name": line.name, "Description": description, "Stars": line.stars,
                "Official": mark(line.official), "Automated": mark(line.automated), "Tag": ""})
        },
        |line| {
            json!({"Index": line.registry, "Name": line.name, "Description": line.description, "Stars": line.stars,
                "Official": mark(line.official), "Automated": mark(line.automated), "Tag": ""})
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

fn tags(args: &Args, engine: &Engine, access: Access) -> Result<ExitCode> {
    let (name, mut tags) = search::tags(engine, access, &args.term)?;
    tags.truncate(args.limit.unwrap_or(25));
    let list = List { format: args.format.as_deref(), heading: true, columns: TAGS, more_headings: &[] };
    if args.format.as_deref() == Some("json") {
        // All tags of the repository in one object, as podman writes it.
        super::present::line(super::present::pretty(&json!([{"Name": name, "Tags": tags}]))?)?;
    } else {
        list.print(&tags, |tag| json!({"Name": name, "Tag": tag}), |tag| json!({"Name": name, "Tag": tag}))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// podman cuts descriptions at 44 characters.
fn shorten(text: &str) -> String {
    let one_line = text.replace('\n', " ");
    if one_line.chars().count() <= 44 {
        return one_line;
    }
    one_line.chars().take(44).chain("...".chars()).collect()
}
