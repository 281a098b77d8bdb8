//! Which fleet a command refers to.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::CommandResult;
use crate::cloud::{CallError, Cloud, NoRegion};
use crate::deb::Deb;
use crate::engine::prepare::{PrepareError, did_you_mean};
use crate::fleet::{Fleet, Package, values};
use crate::local::running_local;
use crate::output::WrongUsage;

/// A fleet as wanted: what its file says, and what the command line says instead.
#[derive(Clone, Debug, Default)]
pub(crate) struct FleetRequest {
    /// A built-in fleet's name or a fleet file.
    pub(crate) fleet: String,
    /// Numbers of instances, by group.
    pub(crate) counts: Vec<(String, u16)>,
    pub(crate) name: Option<String>,
    pub(crate) region: Option<String>,
    /// Another key pair for SSH.
    pub(crate) key_pair: Option<String>,
    /// Another instance profile.
    pub(crate) instance_profile: Option<String>,
    /// Other address ranges that reach the instances' ports; empty is the file's.
    pub(crate) allow: Vec<String>,
    /// Another source of the agent's package.
    pub(crate) package: Option<PackageRequest>,
}

/// The source of the agent's package, as the command line names it: its files are not read yet.
#[derive(Clone, Debug)]
pub(crate) enum PackageRequest {
    /// The image has it.
    InImage,
    /// A Debian package on this machine.
    Deb(PathBuf),
    /// A Debian package at an address that the instances can reach.
    Url {
        /// `http` or `https`.
        url: String,
        /// SHA-256 in hex.
        sha256: String,
    },
    /// An apt repository.
    Apt {
        /// The line for `sources.list.d`, one-line style.
        line: String,
        /// The file of the repository's public key, ASCII-armoured.
        key_file: PathBuf,
    },
}

impl PackageRequest {
    /// The source as a fleet has it, with the apt repository's key.
    ///
    /// # Errors
    /// The key cannot be read, or is none.
    fn read(&self) -> Result<Package> {
        Ok(match self {
            Self::InImage => Package::InImage,
            Self::Deb(file) => Package::Deb { file: Some(file.clone()), sha256: String::new() },
            Self::Url { url, sha256 } => {
                Package::Url { url: url.clone(), sha256: sha256.to_ascii_lowercase() }
            }
            Self::Apt { line, key_file } => {
                let key = std::fs::read_to_string(key_file).with_context(|| {
                    format!("cannot read the apt repository's key {}", key_file.display())
                })?;
                values::armoured_key(&key)
                    .map_err(|message| anyhow!("--apt-key {}: {message}", key_file.display()))?;
                Package::Apt { line: line.clone(), key }
            }
        })
    }
}

impl FleetRequest {
    /// The fleet.
    ///
    /// # Errors
    /// There is no such fleet, its file is wrong, or it cannot be as the command line says.
    pub(super) fn read(&self) -> Result<Fleet> {
        let package = self.package.as_ref().map(PackageRequest::read).transpose()?;
        let mut fleet = load(&self.fleet)?;
        for (group, count) in &self.counts {
            fleet.set_count(group, *count).map_err(WrongUsage)?;
        }
        if let Some(name) = &self.name {
            fleet.rename(name).map_err(|message| anyhow!("--name {name}: {message}"))?;
        }
        if let Some(region) = &self.region {
            fleet.set_region(region).map_err(|message| anyhow!("--region {region}: {message}"))?;
        }
        if self.key_pair.is_some() {
            fleet.key_pair.clone_from(&self.key_pair);
        }
        if self.instance_profile.is_some() {
            fleet.instance_profile.clone_from(&self.instance_profile);
        }
        if !self.allow.is_empty() {
            fleet.security.allow.clone_from(&self.allow);
        }
        if package.is_some() {
            fleet.package = package;
        }
        Ok(fleet)
    }

    /// The fleet, and the agent's package if that is a file on this machine.
    ///
    /// # Errors
    /// As [`Self::read`], or the file cannot be read or is no package of the agent.
    pub(super) async fn read_with_package(&self) -> Result<(Fleet, Option<Deb>)> {
        let mut fleet = self.read()?;
        let mut deb = None;
        if let Some(Package::Deb { file: Some(file), sha256 }) = &mut fleet.package {
            let read = Deb::read(file).await?;
            sha256.clone_from(&read.sha256);
            deb = Some(read);
        }
        Ok((fleet, deb))
    }
}

/// A fleet that exists on AWS.
#[derive(Clone, Debug)]
pub(crate) struct ExistingFleet {
    /// Its name or its file.
    pub(crate) fleet: String,
    /// Another region than its file's or the built-in fleet's of that name.
    pub(crate) region: Option<String>,
}

impl ExistingFleet {
    /// The name: the word itself, or that in the file.
    fn name(&self) -> Option<String> {
        match values::fleet_name(&self.fleet) {
            Ok(()) => Some(self.fleet.clone()),
            Err(_) => load(&self.fleet).ok().map(|fleet| fleet.name),
        }
    }

    /// Adds to an error for want of credentials that a local fleet of this name runs: the user may mean that one.
    pub(crate) fn explain(&self, result: CommandResult) -> CommandResult {
        result.map_err(|error| {
            let call = match error.downcast_ref() {
                Some(PrepareError::Call(call)) => Some(call),
                _ => error.downcast_ref::<CallError>(),
            };
            match self.name().filter(|_| call.is_some_and(CallError::lacks_credentials)) {
                Some(name) => anyhow!("{error}{}", running_local(&name)),
                None => error,
            }
        })
    }

    /// Clients for the region where it is, and its name.
    ///
    /// # Errors
    /// It is neither a file nor a name, or no region is known.
    pub(super) async fn connect(&self) -> Result<(Cloud, String)> {
        let word = self.fleet.as_str();
        let (name, region, is_file) = match values::fleet_name(word) {
            Ok(()) => {
                let built_in = || Fleet::parse(word, Fleet::built_in(word)?).ok()?.region;
                (word.to_owned(), built_in(), false)
            }
            Err(_) if Path::new(word).is_file() => {
                let fleet = load(word)?;
                (fleet.name, fleet.region, true)
            }
            Err(message) => bail!("{word} is neither a file nor a fleet name: {message}"),
        };
        let connected = Cloud::connect(self.region.clone().or(region)).await;
        let cloud = connected.map_err(|error| {
            let local = running_local(&name);
            // A misspelt name is the cause, and the region what follows from it.
            match did_you_mean(&name) {
                _ if is_file => anyhow!("{}{local}", NoRegion::WithFile),
                hint if hint.is_empty() => anyhow!("there is no built-in fleet {name}, and {error}{local}"),
                hint => anyhow!(
                    "there is no built-in fleet {name}{hint} If a fleet {name} exists on AWS: {error}{local}"
                ),
            }
        })?;
        Ok((cloud, name))
    }
}

/// `GROUP=N` for this built-in fleet's or file's first group, with one instance more; `None` for another name.
pub(crate) fn example_count(fleet: &str) -> Option<String> {
    let fleet = load(fleet).ok()?;
    fleet.groups.first().map(|group| format!("{}={}", group.name, group.count + 1))
}

/// A built-in fleet by its name, else a file.
///
/// # Errors
/// There is no such file, or it is wrong.
fn load(name: &str) -> Result<Fleet> {
    if let Some(text) = Fleet::built_in(name) {
        return Ok(Fleet::parse(name, text)?);
    }
    let text = std::fs::read_to_string(name).with_context(|| {
        let hint = did_you_mean(name);
        format!("{name} is neither a built-in fleet ({}{hint}) nor a readable file", built_in_names())
    })?;
    Ok(Fleet::parse(name, &text)?)
}

/// The names of the built-in fleets, for a message.
pub(super) fn built_in_names() -> String {
    let names: Vec<_> = Fleet::built_in_names().collect();
    names.join(" and ")
}
