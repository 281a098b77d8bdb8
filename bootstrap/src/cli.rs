//! The command line, and what each command needs made of it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::json;

use crate::duration;
use crate::fleet::{Fleet, Group};
use crate::local::LocalOptions;
use crate::local::command::{self, LaunchOptions};
use crate::output::{Outcome, Output, lost, no_result, print};
use crate::policy::command::Policy;

mod aws;

/// Launches a fleet of instance-agent machines behind one load balancer, and takes it down again.
#[derive(Debug, Parser)]
#[command(name = "bootstrap", version)]
pub struct Cli {
    /// How to write the result
    // Everywhere, so that a program can ask for it without knowing which command it runs.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The command line of this process. Wrong usage is told, and ends the process with 2.
    pub fn read() -> Self {
        let cli = Self::parse();
        let wrong = match &cli.command {
            Command::Scale(scale) => scale.asked().err(),
            Command::Launch(launch) => given_twice(&launch.wanted.count),
            Command::Plan(plan) => given_twice(&plan.wanted.count),
            _ => None,
        };
        if let Some(text) = wrong {
            Self::command().error(ErrorKind::ValueValidation, text).exit();
        }
        cli
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a launch would do, and change nothing
    Plan(Box<aws::Plan>),
    /// Launch a fleet, finish one, or bring one to what its file says now
    #[command(after_help = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 not healthy in time.")]
    Launch(Box<Launch>),
    /// Change how many instances groups have
    Scale(aws::Scale),
    /// Show a fleet's instances as the load balancer sees them; exit status 3 if not all are healthy
    Status(aws::Status),
    /// Check through the load balancer that a fleet does what it should
    Verify(aws::Verify),
    /// Remove a fleet, and show that nothing of it is left
    Destroy(aws::Destroy),
    /// List the fleets in a region, and what is left of others
    List(aws::List),
    /// Print the least IAM policy that a fleet's operator or its agents need
    Policy(Policy),
    /// Show the built-in fleets
    Fleets {
        /// What to show.
        #[command(subcommand)]
        command: Fleets,
    },
}

/// What `fleets` shows.
#[derive(Debug, Subcommand)]
pub enum Fleets {
    /// List the built-in fleets, one a line
    List,
    /// Print a built-in fleet's file
    Show {
        /// The fleet's name.
        name: String,
    },
}

/// `launch`.
#[derive(Debug, Args)]
pub struct Launch {
    /// The fleet.
    #[command(flatten)]
    pub wanted: aws::Wanted,
    /// How long the fleet may take to become healthy [default: 15m, with --local 60s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Run the fleet on this machine, with a local stand-in for AWS
    #[arg(long)]
    pub local: bool,
    /// What is said for a local launch alone.
    #[command(flatten)]
    pub here: Here,
}

/// What a launch on this machine can be told.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --local")]
pub struct Here {
    /// The load balancer's port on 127.0.0.1; the instances' addresses follow from it (0: any free)
    #[arg(long, requires = "local", default_value_t = 8080)]
    pub port: u16,
    /// The port each instance serves on, at its own address
    #[arg(long, requires = "local", value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub instance_port: u16,
    /// The agent's binary [default: instance-agent beside bootstrap, then on PATH]
    #[arg(long, requires = "local", value_name = "PATH")]
    pub agent: Option<PathBuf>,
    /// An argument for each agent, such as --agent-arg=--log-level=debug; may be repeated
    #[arg(long, requires = "local", value_name = "ARG", allow_hyphen_values = true)]
    pub agent_arg: Vec<OsString>,
    /// Keep the instances' folders here: seeds, logs [default: a temporary folder, removed at the end]
    #[arg(long, requires = "local", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Stop by itself after this time
    #[arg(long, requires = "local", value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,
    /// Stop as soon as every instance is healthy
    #[arg(long, requires = "local", conflicts_with = "duration")]
    pub exit_when_healthy: bool,
    /// How long an agent must have been without requests before it goes
    #[arg(long, requires = "local", value_name = "TIME", default_value = "3s", value_parser = duration::parse)]
    pub drain_quiet: Duration,
    /// The time from one health check to the next [default: a thirtieth of the fleet's]
    #[arg(long, requires = "local", value_name = "TIME", value_parser = interval)]
    pub health_interval: Option<Duration>,
}

fn count(text: &str) -> Result<(String, u16), String> {
    let expected = || format!("{text:?} is not a group and a number, such as cluster1=3");
    let (group, count) = text.split_once('=').ok_or_else(expected)?;
    let count = count.parse().ok().filter(|count| (1..=1000).contains(count));
    Ok((group.to_owned(), count.ok_or_else(expected)?))
}

/// Groups, and how many instances each is to have.
type Counts = Vec<(String, u16)>;

/// What is wrong with these counts: a group that is there twice.
fn given_twice(counts: &[(String, u16)]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let twice = counts.iter().find(|(group, _)| !seen.insert(group));
    twice.map(|(group, _)| format!("group {group} is given twice"))
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text)?;
    match interval >= Duration::from_millis(50) {
        true => Ok(interval),
        false => Err("less than 50ms is not a health check but a load test".to_owned()),
    }
}

impl Cli {
    /// Does what was asked for. Must run on the main thread, see
    /// [`AgentCommand::spawn`](crate::local::AgentCommand::spawn).
    ///
    /// # Errors
    /// What failed, with its causes.
    pub async fn run(self) -> Result<Outcome> {
        let output = self.output;
        let outcome = self.act().await.inspect_err(|error| no_result(output, &format!("{error:#}")))?;
        match lost() {
            Some(error) => bail!("the result cannot be written: {error}"),
            None => Ok(outcome),
        }
    }

    async fn act(self) -> Result<Outcome> {
        let output = self.output;
        match self.command {
            Command::Plan(plan) => plan.run(output).await,
            Command::Launch(launch) => launch.run(output).await,
            Command::Scale(scale) => scale.run(output).await,
            Command::Status(status) => status.run(output).await,
            Command::Verify(verify) => verify.run(output).await,
            Command::Destroy(destroy) => destroy.run(output).await,
            Command::List(list) => list.run(output).await,
            Command::Policy(policy) => {
                policy.run(read_fleet(&policy.fleet)?)?;
                Ok(Outcome::Done)
            }
            Command::Fleets { command } => {
                command.run(output)?;
                Ok(Outcome::Done)
            }
        }
    }
}

impl Fleets {
    fn run(&self, output: Output) -> Result<()> {
        let fleet = |name: &str| {
            let text = Fleet::built_in(name);
            let text =
                text.with_context(|| format!("no built-in fleet {name}; there are {}", built_in_names()))?;
            anyhow::Ok((Fleet::parse(name, text)?, text))
        };
        match self {
            Self::List => {
                let fleets: Vec<_> = Fleet::built_in_names().map(fleet).collect::<Result<_>>()?;
                if output == Output::Json {
                    let fleets: Vec<_> = fleets.iter().map(|(fleet, _)| fleet.to_json()).collect();
                    print(&format!("{:#}\n", json!({ "fleets": fleets })));
                    return Ok(());
                }
                for (fleet, _) in fleets {
                    let of_group =
                        |group: &Group| format!("{} x {} {}", group.count, group.instance_type, group.name);
                    let groups: Vec<_> = fleet.groups.iter().map(of_group).collect();
                    print(&format!("{:10} {}\n", fleet.name, groups.join(", ")));
                }
            }
            Self::Show { name } => {
                let (fleet, text) = fleet(name)?;
                match output {
                    Output::Text => print(text),
                    Output::Json => print(&format!("{:#}\n", fleet.to_json())),
                }
            }
        }
        Ok(())
    }
}

fn built_in_names() -> String {
    let names: Vec<_> = Fleet::built_in_names().collect();
    names.join(" and ")
}

impl Launch {
    async fn run(self, output: Output) -> Result<Outcome> {
        if !self.local {
            let timeout = self.timeout.unwrap_or(Duration::from_secs(15 * 60));
            return aws::launch(&self.wanted, timeout, output).await;
        }
        let mut fleet = read_fleet(&self.wanted.fleet)?;
        for (group, count) in &self.wanted.count {
            fleet.set_count(group, *count).map_err(anyhow::Error::msg)?;
        }
        let here = self.here;
        let agent = find_agent(here.agent)?;
        command::launch(LaunchOptions {
            fleet,
            dir: here.dir,
            timeout: self.timeout.unwrap_or(Duration::from_secs(60)),
            duration: here.duration,
            exit_when_healthy: here.exit_when_healthy,
            output,
            local: LocalOptions {
                agent_arguments: here.agent_arg,
                port: here.port,
                instance_port: here.instance_port,
                drain_quiet: here.drain_quiet,
                health_interval: here.health_interval,
                ..LocalOptions::new(agent, PathBuf::new())
            },
        })
        .await
    }
}

/// A built-in fleet by its name, else a file.
fn read_fleet(name: &str) -> Result<Fleet> {
    if let Some(text) = Fleet::built_in(name) {
        return Ok(Fleet::parse(name, text)?);
    }
    let text = std::fs::read_to_string(name)
        .with_context(|| format!("cannot read the fleet file {name} (built in are {})", built_in_names()))?;
    Ok(Fleet::parse(name, &text)?)
}

fn find_agent(given: Option<PathBuf>) -> Result<PathBuf> {
    const NAME: &str = "instance-agent";
    if let Some(path) = given {
        if !path.is_file() {
            bail!("{} is not a file (--agent)", path.display());
        }
        // Made absolute: a bare name would be looked for on PATH.
        return std::path::absolute(&path).with_context(|| format!("{}", path.display()));
    }
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|dir| dir.join(NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(NAME));
    let found = beside.into_iter().chain(on_path).find(|path| path.is_file());
    found.with_context(|| {
        format!("no {NAME} beside bootstrap and none on PATH; say where it is with --agent PATH")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from([
            "bootstrap",
            "launch",
            "--local",
            "--count",
            "cluster1=3",
            "--agent-arg=--drain-quiet=2s",
        ]);
        let Command::Launch(launch) = cli.unwrap().command else {
            panic!("not a launch");
        };
        assert_eq!(launch.wanted.fleet, "clusters");
        assert_eq!(launch.wanted.count, [("cluster1".to_owned(), 3)]);
        assert_eq!(launch.here.agent_arg, ["--drain-quiet=2s"]);
        for wrong in ["--count=3", "--count=a=0", "--timeout=5", "--health-interval=1ms"] {
            assert!(Cli::try_parse_from(["bootstrap", "launch", "--local", wrong]).is_err());
        }
    }
}
