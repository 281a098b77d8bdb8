//! `bootstrap`: parse, run, error chain to exit code.

use std::process::ExitCode;

use bootstrap::cli::Cli;
use bootstrap::output::{Outcome, WrongUsage, remark};

fn main() -> ExitCode {
    // Wrong usage exits 2 in here.
    let cli = Cli::read();
    // One thread, the main one: the kernel kills a local fleet's agents when the thread that
    // started them ends, so it has to be the thread that lives as long as the program.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(cli.run()));
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::NotHealthy) => ExitCode::from(3),
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::Exits(status)) => ExitCode::from(status),
        Err(error) => {
            remark(&format!("bootstrap: {error:#}"));
            ExitCode::from(if error.is::<WrongUsage>() { 2 } else { 1 })
        }
    }
}
