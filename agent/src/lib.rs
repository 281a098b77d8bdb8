//! The parts of `instance-agent`. It is a library only so that manual pages and completions can be
//! generated from the command line ([`command`]) and the settings ([`SETTINGS`]).

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};

use clap::CommandFactory as _;
use cli::Command;
use commands::CommandError;
pub use config::{SETTINGS, Setting};
use serve::ServeError;

mod admin;
mod aws;
mod backoff;
mod believed_tags;
mod cli;
mod commands;
mod config;
mod elbv2;
mod guard;
mod identity;
mod imds;
mod lifecycle;
mod local_http;
mod notices;
mod notify;
mod registrar;
mod serve;
mod signals;
mod status;
mod target_group;
mod telemetry;
mod unit;
mod upgrade;
mod upgrading;
mod validate;

/// The exit code for wrong usage and invalid settings, the same as clap's.
const USAGE: u8 = 2;

/// The command line.
pub fn command() -> clap::Command {
    cli::Cli::command()
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code: 2 for usage and settings, else 1.
    pub code: u8,
    /// What failed and what to do: one line, or one for each mistake.
    pub message: String,
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let code = if matches!(error, ServeError::Config(_)) { USAGE } else { 1 };
        Self { code, message: error.to_string() }
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self { code: 1, message: error.to_string() }
    }
}

/// Runs the command line `args`. For usage errors clap prints the message and exits.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    match cli::parse(args) {
        Command::Serve(args) if args.check => print(&(serve::check(args)? + "\n")),
        Command::Serve(args) => Ok(serve::run(args)?),
        Command::Reload { agent } => ask(commands::reload(agent)),
        Command::Status { output, agent } => ask(commands::status(output, agent)),
        Command::Drain { wait, timeout, agent } => ask(commands::drain(wait, timeout, agent)),
        Command::Resume { wait, timeout, agent } => ask(commands::resume(wait, timeout, agent)),
    }
}

/// Runs a command that asks the running agent, and prints the answer.
fn ask(command: impl Future<Output = Result<String, CommandError>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ServeError::System)?;
    print(&runtime.block_on(command)?)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader that closes early (`| head`) is no failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure { code: 1, message: format!("cannot write to standard output: {error}") })
        }
        _ => Ok(()),
    }
}
