//! The commands that call AWS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Counts, count, given_twice, read_fleet};
use crate::cloud::Cloud;
use crate::deb::Deb;
use crate::duration;
use crate::fleet::{Fleet, Package, values};
use crate::launch::{self, Manner};
use crate::output::{Outcome, Output};
use crate::prepare::Request;
use crate::{list, status};

/// A fleet as wanted, and how the agent gets onto it.
#[derive(Debug, Args)]
pub struct Wanted {
    /// A built-in fleet's name or a fleet file
    #[arg(default_value = "clusters")]
    pub fleet: String,
    /// Override a group's number of instances; may be repeated
    #[arg(long, value_name = "GROUP=N", value_parser = count)]
    pub count: Vec<(String, u16)>,
    /// What is said for AWS alone.
    #[command(flatten)]
    pub aws: OnAws,
}

/// What a launch on AWS can be told.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "On AWS")]
pub struct OnAws {
    /// Another name for the fleet
    #[arg(long, value_name = "NAME", conflicts_with = "local")]
    pub name: Option<String>,
    /// The region [default: the fleet's, else AWS_REGION, else the profile's]
    #[arg(long, value_name = "REGION", value_parser = checked(values::region), conflicts_with = "local")]
    pub region: Option<String>,
    /// The key pair for SSH
    #[arg(long, value_name = "NAME", value_parser = checked(values::key_pair), conflicts_with = "local")]
    pub key_pair: Option<String>,
    /// From where the instances' open ports can be reached; may be repeated [default: 0.0.0.0/0]
    #[arg(long, value_name = "CIDR", value_parser = checked(values::cidr), conflicts_with = "local")]
    pub allow: Vec<String>,
    /// An instance profile that exists, where roles cannot be created
    #[arg(long, value_name = "NAME", value_parser = checked(values::instance_profile), conflicts_with = "local")]
    pub instance_profile: Option<String>,
    /// Hand this Debian package of the agent over, through a private bucket
    #[arg(long, value_name = "FILE", group = "package", conflicts_with = "local")]
    pub deb: Option<PathBuf>,
    /// Let the instances download the agent's package from here
    #[arg(long, value_name = "URL", group = "package", requires = "package_sha256", value_parser = checked(values::package_url), conflicts_with = "local")]
    pub package_url: Option<String>,
    /// The SHA-256 of what is at --package-url
    #[arg(long, value_name = "HEX", requires = "package_url", value_parser = checked(values::sha256))]
    pub package_sha256: Option<String>,
    /// Let the instances install the agent from this apt source
    #[arg(long, value_name = "LINE", group = "package", requires = "apt_key", value_parser = checked(values::apt_line), conflicts_with = "local")]
    pub apt: Option<String>,
    /// The public key of the apt source, ASCII-armoured
    #[arg(long, value_name = "FILE", requires = "apt")]
    pub apt_key: Option<PathBuf>,
    /// The image has the agent
    #[arg(long, group = "package", conflicts_with = "local")]
    pub in_image: bool,
    /// Do not ask before changing or deleting what is there
    #[arg(long, conflicts_with = "local")]
    pub yes: bool,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The fleet.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Show what destroying the fleet would do
    #[arg(long)]
    pub destroy: bool,
    // `launch` has it; here it is what the options above conflict with.
    #[arg(long, hide = true)]
    local: bool,
}

/// `scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// The fleet's name or file [default: clusters], then the groups and how many instances each is to have
    #[arg(required = true, value_name = "[NAME] GROUP=N")]
    pub what: Vec<String>,
    /// Where it is.
    #[command(flatten)]
    pub there: There,
    /// Do not ask before terminating instances
    #[arg(long)]
    pub yes: bool,
    /// How long the fleet may take to become healthy
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The fleet's name, or its file
    #[arg(default_value = "clusters")]
    pub name: String,
    /// Where it is.
    #[command(flatten)]
    pub there: There,
    /// Show it again and again
    #[arg(long)]
    pub watch: bool,
}

/// `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The fleet's name, or its file
    #[arg(default_value = "clusters")]
    pub name: String,
    /// Where it is.
    #[command(flatten)]
    pub there: There,
}

/// `destroy`.
#[derive(Debug, Args)]
pub struct Destroy {
    /// The fleet's name, or its file
    #[arg(default_value = "clusters")]
    pub name: String,
    /// Where it is.
    #[command(flatten)]
    pub there: There,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// How long each resource may take to go
    #[arg(long, value_name = "TIME", default_value = "20m", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Where it is.
    #[command(flatten)]
    pub there: There,
}

/// Where a fleet is.
#[derive(Debug, Args)]
pub struct There {
    /// The region [default: the file's, the built-in fleet's of that name, else AWS_REGION, else the profile's]
    #[arg(long, value_name = "REGION", value_parser = checked(values::region))]
    pub region: Option<String>,
}

/// A value parser that takes what `check` takes.
fn checked(
    check: fn(&str) -> Result<(), String>,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| check(text).map(|()| text.to_owned())
}

impl Wanted {
    /// The fleet, with what the flags say otherwise, and the package's file.
    async fn read(&self) -> Result<(Fleet, Option<Deb>)> {
        let mut fleet = read_fleet(&self.fleet)?;
        for (group, count) in &self.count {
            fleet.set_count(group, *count).map_err(anyhow::Error::msg)?;
        }
        let aws = &self.aws;
        if let Some(name) = &aws.name {
            fleet.rename(name).map_err(|message| anyhow::anyhow!("--name {name}: {message}"))?;
        }
        if let Some(region) = &aws.region {
            fleet.set_region(region).map_err(|message| anyhow::anyhow!("--region {region}: {message}"))?;
        }
        if aws.key_pair.is_some() {
            fleet.key_pair.clone_from(&aws.key_pair);
        }
        if aws.instance_profile.is_some() {
            fleet.instance_profile.clone_from(&aws.instance_profile);
        }
        if !aws.allow.is_empty() {
            fleet.security.allow.clone_from(&aws.allow);
        }
        if let Some(package) = aws.package()? {
            fleet.package = Some(package);
        }
        let mut deb = None;
        if let Some(Package::Deb { file: Some(file), sha256 }) = &mut fleet.package {
            let read = Deb::read(file).await?;
            sha256.clone_from(&read.sha256);
            deb = Some(read);
        }
        Ok((fleet, deb))
    }
}

impl OnAws {
    fn package(&self) -> Result<Option<Package>> {
        Ok(if let Some(file) = &self.deb {
            Some(Package::Deb { file: Some(file.clone()), sha256: String::new() })
        } else if let (Some(url), Some(sha256)) = (&self.package_url, &self.package_sha256) {
            Some(Package::Url { url: url.clone(), sha256: sha256.to_ascii_lowercase() })
        } else if let (Some(line), Some(file)) = (&self.apt, &self.apt_key) {
            let key = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the apt source's key {}", file.display()))?;
            values::armoured_key(&key)
                .map_err(|message| anyhow::anyhow!("--apt-key {}: {message}", file.display()))?;
            Some(Package::Apt { line: line.clone(), key })
        } else {
            self.in_image.then_some(Package::InImage)
        })
    }
}

/// Launches on AWS.
pub(super) async fn launch(wanted: &Wanted, timeout: Duration, output: Output) -> Result<Outcome> {
    let (fleet, deb) = wanted.read().await?;
    let cloud = Cloud::connect(fleet.region.clone()).await?;
    let manner = Manner { yes: wanted.aws.yes, patience: timeout, output };
    let name = fleet.name.clone();
    launch::launch(&cloud, &name, Request::Fleet(Box::new(fleet)), deb.as_ref(), manner).await
}

impl Plan {
    pub(super) async fn run(&self, output: Output) -> Result<Outcome> {
        if self.destroy {
            let there = There { region: self.wanted.aws.region.clone() };
            let word = self.wanted.aws.name.as_ref().unwrap_or(&self.wanted.fleet);
            let (cloud, name) = there.find(word).await?;
            return launch::plan_destroy(&cloud, &name, output).await;
        }
        let (fleet, deb) = self.wanted.read().await?;
        let cloud = Cloud::connect(fleet.region.clone()).await?;
        let name = fleet.name.clone();
        launch::plan(&cloud, &name, Request::Fleet(Box::new(fleet)), deb.as_ref(), output).await
    }
}

impl Scale {
    /// The fleet's name, and how many instances each group is to have.
    ///
    /// # Errors
    /// What is wrong with the words, in a sentence.
    pub(super) fn asked(&self) -> Result<(&str, Counts), String> {
        let (mut counts, mut name) = (Vec::new(), None);
        for word in &self.what {
            if word.contains('=') {
                counts.push(count(word)?);
            } else if name.replace(word.as_str()).is_some() {
                return Err("more than one name of a fleet; scale takes one and then GROUP=N".to_owned());
            }
        }
        if counts.is_empty() {
            return Err("scale to what? give GROUP=N, such as cluster1=6".to_owned());
        }
        match given_twice(&counts) {
            Some(text) => Err(text),
            None => Ok((name.unwrap_or("clusters"), counts)),
        }
    }

    pub(super) async fn run(&self, output: Output) -> Result<Outcome> {
        let (name, counts) = self.asked().map_err(anyhow::Error::msg)?;
        let (cloud, name) = self.there.find(name).await?;
        let manner = Manner { yes: self.yes, patience: self.timeout, output };
        launch::launch(&cloud, &name, Request::Counts(counts), None, manner).await
    }
}

impl Status {
    pub(super) async fn run(&self, output: Output) -> Result<Outcome> {
        let (cloud, name) = self.there.find(&self.name).await?;
        status::status(&cloud, &name, self.watch, output).await
    }
}

impl Verify {
    pub(super) async fn run(&self, output: Output) -> Result<Outcome> {
        let (cloud, name) = self.there.find(&self.name).await?;
        status::verify(&cloud, &name, output).await
    }
}

impl Destroy {
    pub(super) async fn run(&self, output: Output) -> Result<Outcome> {
        let (cloud, name) = self.there.find(&self.name).await?;
        let manner = Manner { yes: self.yes, patience: self.timeout, output };
        launch::destroy(&cloud, &name, manner).await
    }
}

impl List {
    pub(super) async fn run(&self, output: Output) -> Result<Outcome> {
        let cloud = Cloud::connect(self.there.region.clone()).await?;
        list::list(&cloud, output).await
    }
}

impl There {
    /// The fleet that a word means, which is its name or its file, and clients for the region where it is.
    async fn find(&self, word: &str) -> Result<(Cloud, String)> {
        let (name, region) = match values::fleet_name(word) {
            Ok(()) => {
                let built_in = || Fleet::parse(word, Fleet::built_in(word)?).ok()?.region;
                (word.to_owned(), built_in())
            }
            Err(_) if Path::new(word).is_file() => {
                let fleet = read_fleet(word)?;
                (fleet.name, fleet.region)
            }
            Err(message) => bail!("{word} is no file, and no fleet's name: {message}"),
        };
        Ok((Cloud::connect(self.region.clone().or(region)).await?, name))
    }
}
