//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use instance_contract::duration;

use crate::config::SETTINGS;

/// Serves HTTP, registers this instance with its target groups, and leaves them without losing a
/// request.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The settings of `serve`, which is what runs when no command is given.
    #[command(flatten)]
    serve: SettingArgs,
}

/// What the agent can be asked to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve and register (the default)
    Serve(SettingArgs),
    /// Show what the running agent serves and what each target group thinks of it
    Status {
        /// Print a table for people, or everything as JSON
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
        /// How to reach the agent
        #[command(flatten)]
        agent: AgentArgs,
    },
    /// Leave every target group and stay out, also over restarts, until `resume`
    Drain {
        /// Return only when the instance is drained, and say meanwhile what it waits for
        #[arg(long)]
        wait: bool,
        /// With --wait: give up after this long [default: as long as the drain takes]
        #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration::parse)]
        timeout: Option<Duration>,
        /// How to reach the agent
        #[command(flatten)]
        agent: AgentArgs,
    },
    /// Undo `drain`: register with the target groups again
    Resume {
        /// Return only when every target group has the instance in service, and say meanwhile what it waits for
        #[arg(long)]
        wait: bool,
        /// With --wait: give up after this long [default: 300s]
        #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration::parse)]
        timeout: Option<Duration>,
        /// How to reach the agent
        #[command(flatten)]
        agent: AgentArgs,
    },
    /// Replace the running agent by the installed one, with the settings as they are now; no request
    /// is lost
    Reload {
        /// How to reach the agent
        #[command(flatten)]
        agent: AgentArgs,
    },
}

/// How `status` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// For programs.
    Json,
}

/// How the commands find the running agent.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The running agent's runtime folder [default: as the settings say, else /run/instance-agent]
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// The settings file [default: /etc/instance-agent/agent.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// One flag for each row of [`SETTINGS`].
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingArgs {
    /// The settings given as flags.
    pub(crate) flags: Vec<(&'static str, String)>,
    /// The settings file, where one was named.
    pub(crate) config: Option<PathBuf>,
    /// Only say whether the settings can be used.
    pub(crate) check: bool,
    /// The form of the record that an agent would leave to this one: say also whether it can take over.
    pub(crate) handover: Option<u32>,
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let given = |key: &'static str| matches.get_one::<String>(key).map(|value| (key, value.clone()));
        self.flags = SETTINGS.iter().filter_map(|setting| given(setting.key)).collect();
        self.config = matches.get_one::<PathBuf>("config").cloned();
        self.check = matches.get_flag("check");
        self.handover = matches.get_one::<u32>("handover").copied();
        Ok(())
    }
}

impl Args for SettingArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("The settings file [default: /etc/instance-agent/agent.toml]");
        let settings = SETTINGS.iter().map(|setting| {
            Arg::new(setting.key)
                .long(setting.key)
                .value_name(setting.value)
                .help(setting.help)
                // The last one counts, so that a wrapper's flags can be overridden.
                .overrides_with(setting.key)
                .help_heading("Settings (also in the file, and as INSTANCE_AGENT_... in the environment)")
        });
        let check = Arg::new("check")
            .long("check")
            .action(ArgAction::SetTrue)
            .help("Only say whether the settings can be used, and exit");
        // The running agent asks it of the installed one, before it gives anything up.
        let handover = Arg::new("handover")
            .long("handover")
            .value_name("VERSION")
            .value_parser(clap::value_parser!(u32))
            .requires("check")
            .hide(true);
        command.args([config, check, handover]).args(settings)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// Parses the command line; usage errors print themselves and exit with 2.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Command {
    let cli = Cli::parse_from(args);
    cli.command.unwrap_or(Command::Serve(cli.serve))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_every_setting_is_a_flag() {
        for first in [vec!["instance-agent"], vec!["instance-agent", "serve"]] {
            let args = SETTINGS.iter().flat_map(|setting| [format!("--{}", setting.key), "v".into()]);
            let args = first.into_iter().map(String::from).chain(args).map(OsString::from);
            let Command::Serve(args) = parse(args) else { panic!("not serve") };
            assert_eq!(args.flags.len(), SETTINGS.len());
        }
    }
}
