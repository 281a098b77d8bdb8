//! The arguments of the commands, and the requests that the commands take.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use instance_contract::duration;

use crate::commands::fleet_request::{ExistingFleet, FleetRequest, PackageRequest, example_count};
use crate::commands::local::LaunchOptions;
use crate::commands::policy::Audience;
use crate::commands::ssh::Login;
use crate::fleet::values;
use crate::local::LocalOptions;
use crate::output::Output;

/// The fleet, and the source of the agent's package.
#[derive(Debug, Args)]
pub struct FleetArgs {
    /// Name of a built-in fleet, or a fleet file
    #[arg(default_value = "clusters")]
    pub fleet: String,
    /// Number of instances of a group, instead of the file's; repeatable
    #[arg(long, value_name = "GROUP=N", value_parser = count)]
    pub count: Vec<(String, u16)>,
    /// Options of a launch on AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// Options of a launch on AWS.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "On AWS")]
pub struct AwsArgs {
    /// Name of the fleet, instead of the file's
    #[arg(long, value_name = "NAME", conflicts_with = "local")]
    pub name: Option<String>,
    /// Region [default: the fleet file's, else AWS_REGION, else the profile's]
    #[arg(long, value_name = "REGION", value_parser = checked(values::region), conflicts_with = "local")]
    pub region: Option<String>,
    /// Name of the EC2 key pair for SSH
    #[arg(long, value_name = "NAME", value_parser = checked(values::key_pair), conflicts_with = "local")]
    pub key_pair: Option<String>,
    /// CIDR allowed to reach the instances' open ports; repeatable [default: 0.0.0.0/0]
    #[arg(long, value_name = "CIDR", value_parser = checked(values::cidr), conflicts_with = "local")]
    pub allow: Vec<String>,
    /// Use this existing instance profile, for example if you may not create roles
    #[arg(long, value_name = "NAME", value_parser = checked(values::instance_profile), conflicts_with = "local")]
    pub instance_profile: Option<String>,
    /// Install the agent from this .deb, through a private S3 bucket [default: the fleet's package, else the one that
    /// comes with bootstrap]
    #[arg(long, value_name = "FILE", group = "package", conflicts_with = "local")]
    pub deb: Option<PathBuf>,
    /// Install the agent from the .deb at this URL, which the instances download
    #[arg(long, value_name = "URL", group = "package", requires = "package_sha256", value_parser = checked(values::package_url), conflicts_with = "local")]
    pub package_url: Option<String>,
    /// SHA-256 of the file at --package-url
    #[arg(long, value_name = "HEX", requires = "package_url", value_parser = checked(values::sha256))]
    pub package_sha256: Option<String>,
    /// Install the agent from this apt repository (a line for sources.list)
    #[arg(long, value_name = "LINE", group = "package", requires = "apt_key", value_parser = checked(values::apt_line), conflicts_with = "local")]
    pub apt: Option<String>,
    /// Public key of the apt repository, ASCII-armoured
    #[arg(long, value_name = "FILE", requires = "apt")]
    pub apt_key: Option<PathBuf>,
    /// Install nothing: the image contains the agent
    #[arg(long, group = "package", conflicts_with = "local")]
    pub in_image: bool,
}

/// What a launch alone has to do with, and a destroy has not.
const OF_A_LAUNCH: [&str; 8] =
    ["count", "key_pair", "allow", "instance_profile", "deb", "package_url", "apt", "in_image"];

/// `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Show what destroying the fleet would do
    #[arg(long, conflicts_with_all = OF_A_LAUNCH)]
    pub destroy: bool,
    /// The fleet.
    #[command(flatten)]
    pub fleet_args: FleetArgs,
    // `launch` has both, and the options above conflict with --local.
    #[arg(long, hide = true)]
    pub(super) local: bool,
    #[arg(long, hide = true)]
    pub(super) yes: bool,
}

/// `launch`.
#[derive(Debug, Args)]
pub struct Launch {
    /// Run the fleet on this machine, without AWS
    #[arg(long)]
    pub local: bool,
    /// Stop waiting for healthy instances after this long [default: 15m, with --local 60s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// The fleet.
    #[command(flatten)]
    pub fleet_args: FleetArgs,
    /// Do not ask before changing or deleting what exists, or before adding instances to it
    #[arg(long, help_heading = "On AWS", conflicts_with = "local")]
    pub yes: bool,
    /// Options of a local launch.
    #[command(flatten)]
    pub local_args: LocalArgs,
}

/// Options of a launch on this machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --local")]
pub struct LocalArgs {
    /// Port of the load balancer on 127.0.0.1; 0 chooses a free one. The instances' addresses follow from it
    #[arg(long, requires = "local", default_value_t = 8080)]
    pub port: u16,
    /// Port on which each instance listens, at its own address
    #[arg(long, requires = "local", value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub instance_port: u16,
    /// The agent's program [default: instance-agent beside bootstrap, then on PATH]
    #[arg(long, requires = "local", value_name = "PATH")]
    pub agent: Option<PathBuf>,
    /// Argument for each agent, such as --agent-arg=--log-level=debug; repeatable
    #[arg(long, requires = "local", value_name = "ARG", allow_hyphen_values = true)]
    pub agent_arg: Vec<OsString>,
    /// Keep the instances' seeds and logs in this folder [default: a temporary folder, kept only if the launch fails]
    #[arg(long, requires = "local", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Stop the fleet this long after it is healthy
    #[arg(long, requires = "local", value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,
    /// Stop the fleet as soon as every instance is healthy
    #[arg(long, requires = "local", conflicts_with = "duration")]
    pub exit_when_healthy: bool,
    /// End each drain once no request has come for this long. With less than 2s requests can fail
    // The balancer sends new requests to a deregistered target for 2 s. They could come to a closed port.
    #[arg(long, requires = "local", value_name = "TIME", default_value = "3s", value_parser = duration::parse)]
    pub drain_quiet: Duration,
    /// Time between health checks, at least 50ms [default: a thirtieth of the fleet's interval, but not below 200ms]
    #[arg(long, requires = "local", value_name = "TIME", value_parser = interval)]
    pub health_interval: Option<Duration>,
}

/// `scale`.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true, override_usage = "bootstrap scale [OPTIONS] [FLEET] <GROUP=N>...")]
pub struct Scale {
    /// Name of the fleet, or its file [default: clusters]
    // A GROUP=N where no fleet is named.
    pub fleet: Option<String>,
    /// New number of instances of a group, such as cluster1=6 or, for the fleet seed, numbers=3
    #[arg(value_name = "GROUP=N", required_unless_present = "local")]
    pub counts: Vec<String>,
    /// Where it is.
    #[command(flatten)]
    pub at: RegionArgs,
    /// Do not ask before terminating instances
    #[arg(long)]
    pub yes: bool,
    /// Stop waiting for healthy instances after this long
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Name of the fleet, or its file
    #[arg(default_value = "clusters")]
    pub fleet: String,
    /// Where it is.
    #[command(flatten)]
    pub at: RegionArgs,
    /// Refresh until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// `ssh`.
#[derive(Debug, Args)]
pub struct Ssh {
    /// Name of the fleet, or its file
    #[arg(default_value = "clusters")]
    pub fleet: String,
    /// Id of an instance; the name of a group means one instance of it [default: any healthy instance]
    pub instance: Option<String>,
    /// Run the command on all instances, 16 at a time
    #[arg(long)]
    pub all: bool,
    /// How to log in.
    #[command(flatten)]
    pub login: LoginArgs,
    /// Where it is.
    #[command(flatten)]
    pub at: RegionArgs,
    /// Command to run [default: a login shell]
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Name of the fleet, or its file
    #[arg(default_value = "clusters")]
    pub fleet: String,
    /// Id of an instance; the name of a group means one instance of it [default: all instances]
    pub instance: Option<String>,
    /// Keep showing new entries
    #[arg(long)]
    pub follow: bool,
    /// Show this many of the latest entries
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub lines: u32,
    /// How to log in.
    #[command(flatten)]
    pub login: LoginArgs,
    /// Where it is.
    #[command(flatten)]
    pub at: RegionArgs,
}

/// How ssh logs in.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// User [default: the image's, such as ubuntu]
    #[arg(long, value_name = "NAME", value_parser = user)]
    pub user: Option<String>,
    /// File of the private key [default: the key pair's in ~/.ssh, else what ssh finds]
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

impl LoginArgs {
    pub(super) fn login(self, on: Option<String>, all: bool) -> Login {
        Login { on, all, user: self.user, identity: self.identity }
    }
}

/// Not an option of ssh.
fn user(text: &str) -> Result<String, String> {
    let right =
        !text.is_empty() && !text.starts_with('-') && text.bytes().all(|byte| byte.is_ascii_graphic());
    right.then(|| text.to_owned()).ok_or_else(|| "expected a user's name, such as ubuntu".to_owned())
}

/// `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Name of the fleet, or its file
    #[arg(default_value = "clusters")]
    pub fleet: String,
    /// Where it is.
    #[command(flatten)]
    pub at: RegionArgs,
}

/// `destroy`.
#[derive(Debug, Args)]
pub struct Destroy {
    /// Name of the fleet, or its file
    #[arg(default_value = "clusters")]
    pub fleet: String,
    /// Where it is.
    #[command(flatten)]
    pub at: RegionArgs,
    /// Do not ask before deleting
    #[arg(long)]
    pub yes: bool,
    /// Remove deletion and termination protection first
    #[arg(long)]
    pub force: bool,
    /// Stop waiting for a resource to be deleted after this long
    #[arg(long, value_name = "TIME", default_value = "20m", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Region [default: AWS_REGION, else the profile's]
    #[arg(long, value_name = "REGION", value_parser = checked(values::region))]
    pub region: Option<String>,
    /// All regions that the account has enabled
    #[arg(long, conflicts_with = "region")]
    pub all_regions: bool,
    // For a message that leads on.
    #[arg(long, hide = true)]
    pub(super) local: bool,
}

/// Where a fleet is.
#[derive(Debug, Args)]
pub struct RegionArgs {
    /// Region [default: the fleet file's or built-in fleet's, else AWS_REGION, else the profile's]
    #[arg(long, value_name = "REGION", value_parser = checked(values::region))]
    pub region: Option<String>,
    // For a message that leads on.
    #[arg(long, hide = true)]
    pub(super) local: bool,
}

/// `policy`.
#[derive(Debug, Args)]
pub struct Policy {
    /// Who gets the policy
    #[arg(value_enum)]
    pub whose: Audience,
    /// Name of a built-in fleet, or a fleet file
    #[arg(default_value = "clusters")]
    pub fleet: String,
    /// Name of the fleet, instead of the file's
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Region [default: the fleet file's, else any]
    #[arg(long, value_name = "REGION", value_parser = checked(values::region))]
    pub region: Option<String>,
    /// Account id, 12 digits [default: any]
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub account: Option<String>,
    // Instead of the one that all commands have: a policy is JSON. A program may still ask for that.
    #[arg(long, value_enum, hide = true)]
    pub(super) output: Option<Output>,
}

fn account(text: &str) -> Result<String, String> {
    let right = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    right.then(|| text.to_owned()).ok_or_else(|| "expected an account id of 12 digits".to_owned())
}

fn count(text: &str) -> Result<(String, u16), String> {
    let expected = || format!("{text:?} is not GROUP=N, such as cluster1=3, or numbers=3 for the fleet seed");
    let (group, count) = text.split_once('=').ok_or_else(expected)?;
    if group.is_empty() || count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let number = count.parse().ok().filter(|count| (1..=1000).contains(count));
    let number = number.ok_or_else(|| format!("a group has 1 to 1000 instances, not {count}"))?;
    Ok((group.to_owned(), number))
}

/// Groups, and how many instances each is to have.
type Counts = Vec<(String, u16)>;

/// The error if a group is given twice.
pub(super) fn repeated_group(counts: &[(String, u16)]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let twice = counts.iter().find(|(group, _)| !seen.insert(group));
    twice.map(|(group, _)| format!("group {group} is given twice"))
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if interval >= Duration::from_millis(50) {
        Ok(interval)
    } else {
        Err("expected at least 50ms".to_owned())
    }
}

/// A value parser that takes what `check` takes.
fn checked(
    check: fn(&str) -> Result<(), String>,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| check(text).map(|()| text.to_owned())
}

impl FleetArgs {
    /// The request for the fleet that these arguments name.
    pub(super) fn request(self) -> FleetRequest {
        let package = self.aws.package();
        let AwsArgs { name, region, key_pair, allow, instance_profile, .. } = self.aws;
        let (fleet, counts) = (self.fleet, self.count);
        FleetRequest { fleet, counts, name, region, key_pair, instance_profile, allow, package }
    }
}

impl AwsArgs {
    fn package(&self) -> Option<PackageRequest> {
        if let Some(file) = &self.deb {
            Some(PackageRequest::Deb(file.clone()))
        } else if let (Some(url), Some(sha256)) = (&self.package_url, &self.package_sha256) {
            Some(PackageRequest::Url { url: url.clone(), sha256: sha256.clone() })
        } else if let (Some(line), Some(key_file)) = (&self.apt, &self.apt_key) {
            Some(PackageRequest::Apt { line: line.clone(), key_file: key_file.clone() })
        } else {
            self.in_image.then_some(PackageRequest::InImage)
        }
    }
}

impl Plan {
    /// The fleet whose destruction is to be shown.
    pub(super) fn existing(self) -> ExistingFleet {
        let AwsArgs { name, region, .. } = self.fleet_args.aws;
        ExistingFleet { fleet: name.unwrap_or(self.fleet_args.fleet), region }
    }
}

impl Launch {
    /// What `launch --local` is asked for.
    pub(super) fn local(self, output: Output) -> LaunchOptions {
        let args = self.local_args;
        LaunchOptions {
            request: self.fleet_args.request(),
            agent: args.agent,
            local: LocalOptions {
                agent_arguments: args.agent_arg,
                port: args.port,
                instance_port: args.instance_port,
                drain_quiet: args.drain_quiet,
                health_interval: args.health_interval,
            },
            dir: args.dir,
            timeout: self.timeout.unwrap_or(Duration::from_secs(60)),
            duration: args.duration,
            exit_when_healthy: args.exit_when_healthy,
            output,
        }
    }
}

impl Scale {
    /// The fleet's name or file, and how many instances each group is to have.
    ///
    /// # Errors
    /// What is wrong with the words, in a sentence.
    pub(super) fn fleet_and_counts(&self) -> Result<(String, Counts), String> {
        let (mut counts, mut fleet) = (Vec::new(), None);
        for word in self.fleet.iter().chain(&self.counts) {
            if word.contains('=') {
                counts.push(count(word)?);
            } else if word.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!(
                    "{word} is not GROUP=N: write a group's name before it, as in GROUP={word}"
                ));
            } else if let Some(first) = fleet.replace(word.as_str()) {
                return Err(format!("{first} and {word} are both fleet names; for a group write {word}=N"));
            }
        }
        let fleet = fleet.unwrap_or("clusters");
        if counts.is_empty() {
            return Err(match example_count(fleet) {
                Some(example) => format!("no number of instances; give GROUP=N, such as {example}"),
                None => format!(
                    "no number of instances; give GROUP=N, for a GROUP that `bootstrap status {fleet}` shows"
                ),
            });
        }
        match repeated_group(&counts) {
            Some(text) => Err(text),
            None => Ok((fleet.to_owned(), counts)),
        }
    }
}

impl RegionArgs {
    /// The request for an existing fleet.
    pub(super) fn existing(self, fleet: String) -> ExistingFleet {
        ExistingFleet { fleet, region: self.region }
    }
}

impl Policy {
    /// The request for the fleet that these arguments name.
    pub(super) fn request(&self) -> FleetRequest {
        FleetRequest { fleet: self.fleet.clone(), name: self.name.clone(), ..FleetRequest::default() }
    }
}
