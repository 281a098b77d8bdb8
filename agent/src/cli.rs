//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use instance_contract::duration;

use crate::config::SETTINGS;

/// Serve HTTP and register this EC2 instance with its target groups; drain before stopping
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Settings of `serve`, the default command.
    #[command(flatten)]
    serve: SettingArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve HTTP and register with the target groups (default)
    Serve(SettingArgs),
    /// Show what the running agent serves and the health of the instance in each target group
    Status {
        /// Output format
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
        #[command(flatten)]
        agent: AgentArgs,
    },
    /// Deregister from every target group; stay deregistered until `resume`, even if the agent restarts
    Drain {
        /// Wait until the instance is drained; show on stderr what the drain waits for
        #[arg(long)]
        wait: bool,
        /// With --wait: stop waiting after this long; the drain continues [default: no limit]
        #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration::parse)]
        timeout: Option<Duration>,
        #[command(flatten)]
        agent: AgentArgs,
    },
    /// Undo `drain`: register with every target group again
    Resume {
        /// Wait until the instance is healthy in every target group; show on stderr what is missing
        #[arg(long)]
        wait: bool,
        /// With --wait: stop waiting after this long [default: 300s]
        #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration::parse)]
        timeout: Option<Duration>,
        #[command(flatten)]
        agent: AgentArgs,
    },
    /// Replace the running agent with the installed version and the current settings, without
    /// losing a request
    Reload {
        #[command(flatten)]
        agent: AgentArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table
    #[value(alias = "table")]
    Text,
    /// Everything, for programs
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Runtime folder of the running agent [default: from the settings, else /run/instance-agent]
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Settings file that names the runtime folder [default: /etc/instance-agent/agent.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// One flag for each row of [`SETTINGS`].
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingArgs {
    pub(crate) flags: Vec<(&'static str, String)>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) check: bool,
    pub(crate) show: bool,
    /// The version of the handover record that the running agent writes: check that this program can read it.
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
        self.show = matches.get_flag("show");
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
            .help("Settings file [default: /etc/instance-agent/agent.toml]");
        let settings = SETTINGS.iter().map(|setting| {
            Arg::new(setting.key)
                .long(setting.key)
                .value_name(setting.value)
                .help(setting.help)
                // The last one counts, so that a user can override a wrapper's flags.
                .overrides_with(setting.key)
                .help_heading("Settings (also in the settings file and as INSTANCE_AGENT_... variables)")
        });
        let check =
            Arg::new("check").long("check").action(ArgAction::SetTrue).help("Check the settings and exit");
        let show = Arg::new("show")
            .long("show")
            .action(ArgAction::SetTrue)
            .requires("check")
            .conflicts_with("handover")
            .help("With --check: print every setting with its value and source, as a settings file");
        // The running agent asks the installed program before a reload.
        let handover = Arg::new("handover")
            .long("handover")
            .value_name("VERSION")
            .value_parser(clap::value_parser!(u32))
            .requires("check")
            .hide(true);
        command.args([config, check, show, handover]).args(settings)
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
