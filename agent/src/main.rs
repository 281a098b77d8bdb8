//! `instance-agent`: makes a bare EC2 instance a working, self-registering member of a
//! load-balanced fleet.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match instance_agent::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing can be done about a stderr that is gone.
            _ = writeln!(std::io::stderr(), "instance-agent: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
