//! The tests' region by hand; see `tests/bed`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tests::region::command::Place;

/// A region of AWS on this machine: moto as its control plane, a booted Debian for each instance,
/// haproxy as its balancers. Needs root.
#[derive(Parser)]
#[command(name = "tests/bed")]
struct Arguments {
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Begin a region with room for this many machines
    Up { machines: u32 },
    /// Show its machines, and what its balancers say of them
    Status,
    /// Run a command in it, as the account's owner: bootstrap, aws, curl
    Run {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run a command, or a shell, in the machine of an instance
    Shell {
        instance: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Pull a machine's plug
    Cut { instance: String },
    /// Put the plug back: it boots from the disk as it is
    Plug { instance: String },
    /// Give notice of a spot interruption in two minutes
    Spot { instance: String },
    /// Recommend to rebalance
    Rebalance { instance: String },
    /// Say which state Auto Scaling wants an instance in, such as Terminated
    Lifecycle { instance: String, state: String },
    /// End the region; nothing of it stays
    Down,
    #[command(hide = true)]
    Serve { machines: u32 },
}

fn main() -> ExitCode {
    let place = Place::new();
    let told = |said: std::io::Result<String>| {
        said.map(|said| {
            if !said.is_empty() {
                println!("{said}")
            }
        })
    };
    let done = match Arguments::parse().order {
        Order::Up { machines } => place.up(machines).map(|()| {
            println!("the bed is up; for example:\n  tests/bed run bootstrap launch clusters --deb dist/instance-agent_*_amd64.deb\n  tests/bed status\n  tests/bed down");
        }),
        Order::Status => told(place.ask(&["status"])),
        Order::Run { command } => place.run(&command),
        Order::Shell { instance, command } => place.shell(&instance, &command),
        Order::Cut { instance } => told(place.ask(&["cut", &instance])),
        Order::Plug { instance } => told(place.ask(&["plug", &instance])),
        Order::Spot { instance } => told(place.ask(&["spot", &instance])),
        Order::Rebalance { instance } => told(place.ask(&["rebalance", &instance])),
        Order::Lifecycle { instance, state } => told(place.ask(&["lifecycle", &instance, &state])),
        Order::Down => place.down(),
        Order::Serve { machines } => serve(&place, machines),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// In one thread: it alone is moved into the region's network.
fn serve(place: &Place, machines: u32) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(place.serve(machines))
}
