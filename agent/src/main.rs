//! `instance-agent`: makes a bare EC2 instance a working, self-registering member of a
//! load-balanced fleet.

use std::io::Write as _;
use std::process::ExitCode;

use cli::Command;
use commands::CommandError;
use serve::ServeError;

mod admin;
mod aws;
mod backoff;
mod cli;
mod commands;
mod config;
mod elbv2;
mod identity;
mod lifecycle;
mod notices;
mod notify;
mod registrar;
mod seed;
mod serve;
mod server;
mod serving;

mod status;
mod target_group;
mod telemetry;

/// Usage and settings that cannot be used, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let result = match cli::parse(std::env::args_os()) {
        Command::Serve(args) => serve::run(args).map_err(|error| {
            let code = if matches!(error, ServeError::Config(_)) { USAGE } else { 1 };
            (code, anyhow::Error::new(error))
        }),
        Command::Status { output, agent } => ask(commands::status(output, agent)),
        Command::Drain { wait, agent } => ask(commands::drain(wait, agent)),
        Command::Resume { agent } => ask(commands::resume(agent)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            // Nothing can be done about a stderr that is gone.
            _ = writeln!(std::io::stderr(), "instance-agent: {error:#}");
            ExitCode::from(code)
        }
    }
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
