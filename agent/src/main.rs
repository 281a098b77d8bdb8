//! `instance-agent`: a web server that registers its EC2 instance with load balancer target groups.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match instance_agent::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr is closed, there is nowhere to report it.
            _ = writeln!(std::io::stderr(), "instance-agent: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
