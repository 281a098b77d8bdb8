//! The parts of `instance-agent`. A library only so that the manual pages and completions can be
//! made from the real command line ([`command`]) and its settings ([`SETTINGS`]); nothing else is meant to use it.

#![expect(clippy::self_named_module_files, reason = "config.rs and seed/store.rs; issue 13 moves them")]

use std::ffi::OsString;
use std::io::Write as _;

use clap::CommandFactory as _;
use cli::Command;
use commands::CommandError;
pub use config::{SETTINGS, Setting};
use serve::ServeError;

mod admin;
mod answers;
mod aws;
mod backoff;
mod cli;
mod commands;
mod config;
mod elbv2;
mod events;
mod identity;
mod lifecycle;
mod limits;
mod notices;
mod notify;
mod registrar;
mod seed;
mod serve;
mod server;
mod signals;
mod status;
mod target_group;
mod telemetry;
mod traffic;
mod unit;
mod upgrade;
mod upgrading;

/// Usage and settings that cannot be used, as clap has it.
const USAGE: u8 = 2;

/// The command line as clap knows it.
pub fn command() -> clap::Command {
    cli::Cli::command()
}

/// Does what the command line `args` asks for. A failure comes with the exit code it deserves: 2 for
/// usage and settings, else 1. Usage errors that clap finds print themselves and exit.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), (u8, anyhow::Error)> {
    match cli::parse(args) {
        Command::Serve(args) if args.check => {
            serve::check(args).map(|said| println!("{said}")).map_err(serving)
        }
        Command::Serve(args) => serve::run(args).map_err(serving),
        Command::Reload { agent } => ask(commands::reload(agent)),
        Command::Status { output, agent } => ask(commands::status(output, agent)),
        Command::Drain { wait, agent } => ask(commands::drain(wait, agent)),
        Command::Resume { agent } => ask(commands::resume(agent)),
    }
}

fn serving(error: ServeError) -> (u8, anyhow::Error) {
    let code = if matches!(error, ServeError::Config(_)) { USAGE } else { 1 };
    (code, anyhow::Error::new(error))
}

/// Runs a command that talks to the running agent, and prints what it says.
fn ask(command: impl Future<Output = Result<String, CommandError>>) -> Result<(), (u8, anyhow::Error)> {
    let said = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| (1, error.into()))?
        .block_on(command)
        .map_err(|error| {
            let code = if matches!(error, CommandError::Config(_)) { USAGE } else { 1 };
            (code, anyhow::Error::new(error))
        })?;
    // A reader that has seen enough (`| head`) is no failure.
    _ = std::io::stdout().write_all(said.as_bytes());
    Ok(())
}
