//! The command line: which command, with what, and how it ended.

use std::time::Duration;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    self, ChangeOptions, CommandResult, destroy, fleets, launch, list, local, plan, policy, scale, ssh,
    status, verify,
};
use crate::fleet::Fleet;
use crate::output::Output;
use args::repeated_group;

mod args;

/// Launch a fleet of instances that run instance-agent behind one load balancer, and destroy it again
#[derive(Debug, Parser)]
#[command(
    name = "bootstrap",
    version,
    after_help = EXIT_STATUS
)]
pub struct Cli {
    /// Output format [default: text]
    // Everywhere, so that a program can ask for it without knowing which command it runs.
    #[arg(long, global = true, value_enum)]
    pub output: Option<Output>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line of this process. Wrong usage ends the process with exit status 2.
    pub fn read() -> Self {
        let cli = Self::try_parse().unwrap_or_else(|error| with_show(without_dashes(error)).exit());
        let wrong = match &cli.command {
            command if command.not_local().is_some() => {
                command.not_local().map(|(name, text)| (name, text.to_owned()))
            }
            Command::Scale(scale) => scale.fleet_and_counts().err().map(|text| ("scale", text)),
            Command::Launch(launch) => repeated_group(&launch.fleet_args.count).map(|text| ("launch", text)),
            Command::Plan(plan) if plan.yes => {
                Some(("plan", "plan changes nothing and asks nothing: omit --yes".to_owned()))
            }
            Command::Plan(plan) => repeated_group(&plan.fleet_args.count).map(|text| ("plan", text)),
            Command::Ssh(ssh) if cli.output == Some(Output::Json) => {
                let what = if ssh.command.is_empty() { "a shell" } else { "a command of yours" };
                Some(("ssh", format!("ssh shows the output of {what}: omit --output json")))
            }
            Command::Logs(_) if cli.output == Some(Output::Json) => {
                let other = "`bootstrap ssh FLEET INSTANCE -- sudo journalctl -u instance-agent -o json`";
                Some(("logs", format!("logs shows text; {other} shows JSON")))
            }
            Command::Policy(policy) if policy.output == Some(Output::Text) => {
                Some(("policy", "a policy is JSON: omit --output text".to_owned()))
            }
            _ => None,
        };
        if let Some((command, text)) = wrong {
            wrong_usage(command, text).exit();
        }
        cli
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what launch would do, and change nothing
    Plan(Box<args::Plan>),
    /// Launch a fleet on AWS, finish an interrupted launch, or apply a changed fleet file; with --local, run a fleet on
    /// this machine
    #[command(after_help = TIME_AND_EXIT_STATUS)]
    Launch(Box<args::Launch>),
    /// Change the number of instances in one or more groups, on AWS
    #[command(after_help = TIME_AND_EXIT_STATUS)]
    Scale(args::Scale),
    /// Show a fleet's instances on AWS as the load balancer sees them; exit status 3 if not all are healthy
    Status(args::Status),
    /// Log in to an instance on AWS with your own ssh, or run a command on one or all
    #[command(after_help = "Exit status: that of the command, the highest of several; 255 if ssh failed")]
    Ssh(args::Ssh),
    /// Show the agent's log of one instance on AWS or of all
    #[command(after_help = "Exit status: 0, else that of ssh or journalctl")]
    Logs(args::Logs),
    /// Check through the load balancer on AWS that a fleet answers as it should. With seed groups it stores test numbers
    /// and restores the previous ones
    Verify(args::Verify),
    /// Delete a fleet on AWS, and check that nothing of it is left; a local fleet ends with Ctrl-C in its terminal
    #[command(after_help = TIME)]
    Destroy(args::Destroy),
    /// List the fleets in an AWS region, and the remains of deleted ones
    List(args::List),
    /// Print the smallest IAM policy that a fleet's operator or its agents need, as JSON
    Policy(args::Policy),
    /// Show the built-in fleets, check a fleet file
    Fleets {
        /// What to show.
        #[command(subcommand)]
        command: Fleets,
    },
}

/// What `fleets` shows.
#[derive(Debug, Subcommand)]
pub enum Fleets {
    /// List the built-in fleets, one per line
    List,
    /// Print a built-in fleet's file
    Show {
        /// The fleet's name.
        name: String,
    },
    /// Check a fleet file without AWS: print all its mistakes, or the fleet with every default
    Check {
        /// The fleet file, or a built-in fleet's name
        file: String,
    },
}

impl Cli {
    /// Runs the command. Must run on the main thread, see
    /// [`AgentCommand::spawn`](crate::AgentCommand::spawn).
    ///
    /// # Errors
    /// What failed, with its causes.
    pub async fn run(self) -> CommandResult {
        commands::end(self.output(), self.act().await)
    }

    fn output(&self) -> Output {
        self.output.unwrap_or(Output::Text)
    }

    async fn act(self) -> CommandResult {
        let output = self.output();
        match self.command {
            Command::Plan(plan) if plan.destroy => plan::plan_destroy(plan.existing(), output).await,
            Command::Plan(plan) => plan::plan_launch(plan.fleet_args.request(), output).await,
            Command::Launch(launch) if launch.local => local::launch(launch.local(output)).await,
            Command::Launch(launch) => {
                let timeout = launch.timeout.unwrap_or(LAUNCH_TIMEOUT);
                let options = ChangeOptions { yes: launch.yes, timeout, output };
                launch::launch(launch.fleet_args.request(), options).await
            }
            Command::Scale(scale) => {
                let (name, counts) = scale.fleet_and_counts().map_err(|text| wrong_usage("scale", text))?;
                let options = ChangeOptions { yes: scale.yes, timeout: scale.timeout, output };
                let fleet = scale.at.existing(name);
                fleet.explain(scale::scale(fleet.clone(), counts, options).await)
            }
            Command::Status(status) => {
                let fleet = status.at.existing(status.fleet);
                fleet.explain(status::status(fleet.clone(), status.watch, output).await)
            }
            Command::Ssh(ssh) => {
                let fleet = ssh.at.existing(ssh.fleet);
                let login = ssh.login.login(ssh.instance, ssh.all);
                fleet.explain(ssh::ssh(fleet.clone(), login, ssh.command).await)
            }
            Command::Logs(logs) => {
                let fleet = logs.at.existing(logs.fleet);
                let login = logs.login.login(logs.instance, false);
                let logs = ssh::Logs { lines: logs.lines, follow: logs.follow };
                fleet.explain(ssh::logs(fleet.clone(), login, logs).await)
            }
            Command::Verify(verify) => {
                let fleet = verify.at.existing(verify.fleet);
                fleet.explain(verify::verify(fleet.clone(), output).await)
            }
            Command::Destroy(destroy) => {
                let options = ChangeOptions { yes: destroy.yes, timeout: destroy.timeout, output };
                let fleet = destroy.at.existing(destroy.fleet);
                fleet.explain(destroy::destroy(fleet.clone(), options, destroy.force).await)
            }
            Command::List(list) if list.all_regions => list::list_everywhere(output).await,
            Command::List(list) => list::list(list.region, output).await,
            Command::Policy(policy) => {
                let (region, account) = (policy.region.as_deref(), policy.account.as_deref());
                policy::policy(policy.whose, &policy.request(), region, account)
            }
            Command::Fleets { command: Fleets::List } => fleets::list(output),
            Command::Fleets { command: Fleets::Show { name } } => fleets::show(&name, output),
            Command::Fleets { command: Fleets::Check { file } } => fleets::check(&file, output).await,
        }
    }
}

/// Suggests `fleets show seed` for `fleets seed`.
fn with_show(mut error: Error) -> Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    if Fleet::built_in(word).is_some() {
        let tips = vec![format!("show {word}")];
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(tips));
    }
    error
}

/// Removes clap's tip to write `-- --local`: no fleet, group or command has a name that begins with a hyphen.
fn without_dashes(mut error: Error) -> Error {
    if let Some(ContextValue::StyledStrs(tips)) = error.remove(ContextKind::Suggested) {
        let tips: Vec<_> =
            tips.into_iter().filter(|tip| !tip.to_string().contains(" as a value, ")).collect();
        if !tips.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    error
}

/// Wrong usage of a command, with the command's own usage line.
fn wrong_usage(command: &str, text: String) -> Error {
    let mut cli = Cli::command();
    cli.build();
    match cli.find_subcommand_mut(command) {
        Some(command) => command.error(ErrorKind::ValueValidation, text),
        None => cli.error(ErrorKind::ValueValidation, text),
    }
}

impl Command {
    /// The name of a command that was given `--local` and has no use for it, and what to do with a local fleet instead.
    fn not_local(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Plan(plan) if plan.local => {
                Some(("plan", "plan is for AWS; a local fleet needs none: use `bootstrap launch --local`"))
            }
            Self::Scale(scale) if scale.at.local => Some((
                "scale",
                "scale is for AWS; end the local fleet with Ctrl-C in its terminal, then use `bootstrap launch \
                 --local --count GROUP=N`",
            )),
            Self::Status(status) if status.at.local => Some((
                "status",
                "status is for AWS; a local fleet's terminal shows each change of a target's health; it also printed the \
                 command that shows one instance's status",
            )),
            Self::Ssh(ssh) if ssh.at.local => {
                Some(("ssh", "ssh is for AWS; the instances of a local fleet are processes of this machine"))
            }
            Self::Logs(logs) if logs.at.local => Some((
                "logs",
                "logs is for AWS; a local fleet has one log for each instance, in the folder that its terminal shows",
            )),
            Self::Verify(verify) if verify.at.local => {
                Some(("verify", "verify is for AWS; the terminal of a local fleet shows requests to try"))
            }
            Self::Destroy(destroy) if destroy.at.local => {
                Some(("destroy", "destroy is for AWS; a local fleet ends with Ctrl-C in its terminal"))
            }
            Self::List(list) if list.local => {
                Some(("list", "list is for AWS; a local fleet runs only in its own terminal"))
            }
            _ => None,
        }
    }
}

const EXIT_STATUS: &str = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 not healthy in time";
const TIME: &str = "TIME is a whole number with ms, s, m or h, such as 90s; a bare number is seconds";
const TIME_AND_EXIT_STATUS: &str = "\
TIME is a whole number with ms, s, m or h, such as 90s; a bare number is seconds
Exit status: 0 done, 1 failed, 2 wrong usage, 3 not healthy in time";

/// How long a fleet on AWS may take to become healthy, unless told.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(15 * 60);

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
        assert_eq!(launch.fleet_args.fleet, "clusters");
        assert_eq!(launch.fleet_args.count, [("cluster1".to_owned(), 3)]);
        assert_eq!(launch.local_args.agent_arg, ["--drain-quiet=2s"]);
        for wrong in ["--count=3", "--count=a=0", "--timeout=5d", "--health-interval=1ms"] {
            assert!(Cli::try_parse_from(["bootstrap", "launch", "--local", wrong]).is_err());
        }
    }
}
