//! Writes what the packages hold besides the programs: manual pages and completions from the real
//! command lines, the settings file from the agent's table of settings, the changelog, and the
//! licences of everything that is linked in. Not shipped; `packaging/make-deb` runs it.

mod changelog;
mod completions;
mod defaults;
mod licences;
mod manual;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

/// Writes manual pages, completions, settings file, changelog and copyright.
#[derive(Debug, Parser)]
struct Arguments {
    /// The tree's root
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The target whose dependencies count
    #[arg(long, value_name = "TRIPLE")]
    target: String,
    /// The packages' version
    #[arg(long, value_name = "VERSION")]
    deb_version: String,
    /// The day that manual pages show, as 2026-01-31
    #[arg(long, value_name = "DAY")]
    day: String,
    /// The date of the changelog's newest entry, in the form of mail headers
    #[arg(long, value_name = "DATE")]
    date: String,
}

/// One of the programs, and the package that it comes in.
struct Program {
    package: &'static str,
    binary: &'static str,
    command: clap::Command,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let programs = [
        Program { package: "instance-agent", binary: "instance-agent", command: instance_agent::command() },
        Program {
            package: "instance-bootstrap",
            binary: "bootstrap",
            command: <bootstrap::cli::Cli as clap::CommandFactory>::command(),
        },
    ];
    let linked = licences::Linked::read(&arguments.root, &arguments.target)?;
    let changes = fs::read_to_string(arguments.root.join("CHANGELOG.md")).context("CHANGELOG.md")?;
    for program in programs {
        let folder = arguments.out.join(program.package);
        // What an earlier version of this program wrote must not get into the package.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let copyright = linked.copyright(program.package, program.binary)?;
        write(&folder.join("copyright"), &copyright)?;
        let changelog =
            changelog::debian(&changes, program.package, &arguments.deb_version, &arguments.date)?;
        write(&folder.join("changelog"), &changelog)?;
        manual::write_commands(&program, &folder.join("man1"), &arguments.day)?;
        completions::write(&program, &folder.join("completions"))?;
        if program.package == "instance-agent" {
            write(&folder.join("agent.toml"), &defaults::file(instance_agent::SETTINGS)?)?;
            manual::write_settings(instance_agent::SETTINGS, &folder.join("man5"), &arguments.day)?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("no folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::write(path, text).with_context(|| path.display().to_string())
}
