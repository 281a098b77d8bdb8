//! What a fleet is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use instance_contract::{Root, duration};
use serde::{Deserialize, Serialize, Serializer};

use super::values;

/// A fleet as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fleet {
    /// Its name, the value of its resources' fleet tag.
    pub name: String,
    /// The AWS region; `None` leaves it to the SDK's own sources. Not part of the definition that is
    /// stored, as that is where it is.
    #[serde(skip)]
    pub region: Option<String>,
    /// The machine image: an id, or a name such as `ubuntu-22.04`.
    pub image: String,
    /// The availability zones, at least two; instances take turns in them.
    pub zones: Vec<String>,
    /// The port of the listener and of the target groups.
    pub port: u16,
    /// How long deregistered targets drain.
    #[serde(with = "duration::text")]
    pub deregistration_delay: Duration,
    /// How targets are probed.
    pub health_check: HealthCheck,
    /// Its groups of instances, at least one.
    pub groups: Vec<Group>,
    /// The key pair for SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pair: Option<String>,
    /// Name of an existing instance profile, where you may not create roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_profile: Option<String>,
    /// Who may connect to what.
    #[serde(default)]
    pub security: Security,
    /// How the agent gets onto the instances; `None` where the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// Tags for every resource, beside the fleet's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// Who may connect to what, all TCP over IPv4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Security {
    /// The instances' ports that are open to `allow`.
    pub ports: Vec<u16>,
    /// From where the instances' ports can be reached, in CIDR notation.
    pub allow: Vec<String>,
    /// From where the balancer can be reached, in CIDR notation.
    pub balancer_allow: Vec<String>,
}

impl Default for Security {
    fn default() -> Self {
        let anywhere = vec!["0.0.0.0/0".to_owned()];
        Self { ports: vec![22, 80, 443], allow: anywhere.clone(), balancer_allow: anywhere }
    }
}

/// How the agent gets onto the instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Package {
    /// The image has it.
    InImage,
    /// A Debian package on this machine, handed over through a private bucket.
    Deb {
        /// Where it is on this machine; `None` where only the stored definition is known.
        #[serde(skip)]
        file: Option<PathBuf>,
        /// SHA-256 of the file in lower-case hex; empty until the file was read.
        sha256: String,
    },
    /// A Debian package at an address that the instances can reach.
    Url {
        /// `http` or `https`. Its query may be a signature: it is for the instances alone and not stored. One whose
        /// query is not known, because it was read back, ends with `?`.
        #[serde(serialize_with = "without_secret")]
        url: String,
        /// SHA-256 in lower-case hex.
        sha256: String,
    },
    /// An apt repository.
    Apt {
        /// The line for `sources.list.d`, one-line style.
        line: String,
        /// The repository's public key, ASCII-armoured.
        key: String,
    },
}

impl Package {
    /// The address and SHA-256 of a package whose address had a query that was not stored.
    pub(crate) fn without_its_query(&self) -> Option<(&str, &str)> {
        match self {
            Self::Url { url, sha256 } => Some((url.strip_suffix('?')?, sha256)),
            _ => None,
        }
    }
}

/// An address without its query, which may be a signature.
pub(crate) fn public_address(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// Of the query, only the `?` is stored. An older version reads an address without query as ever.
fn without_secret<S: Serializer>(url: &str, to: S) -> Result<S::Ok, S::Error> {
    let mark = if url.contains('?') { "?" } else { "" };
    to.serialize_str(&format!("{}{mark}", public_address(url)))
}

/// How targets are probed; the limits are AWS's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HealthCheck {
    /// The path that must answer 200.
    pub path: String,
    /// From one probe to the next.
    #[serde(with = "duration::text")]
    pub interval: Duration,
    /// How long a probe may take.
    #[serde(with = "duration::text")]
    pub timeout: Duration,
    /// Passes in a row that make an unhealthy target healthy.
    pub healthy: u32,
    /// Failures in a row that make a target unhealthy.
    pub unhealthy: u32,
}

/// Instances of one kind in one target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// Its name; with `paths` also the cluster's.
    pub name: String,
    /// The instance type.
    pub instance_type: String,
    /// How many instances.
    pub count: u16,
    /// Its share of the requests that no path rule takes, 0 to 999.
    pub weight: u16,
    /// What `GET /` means on its instances.
    pub root: Root,
    /// Whether the group is a cluster: `/{name}` and `/{name}/*` lead to it.
    pub paths: bool,
}

impl Group {
    /// The path patterns that lead to it; none without `paths`.
    pub fn rule_paths(&self) -> Vec<String> {
        if self.paths { vec![format!("/{}", self.name), format!("/{}/*", self.name)] } else { Vec::new() }
    }
}

impl Fleet {
    /// A fleet of which nothing but the name is known.
    pub(crate) fn unknown(name: &str) -> Self {
        let wait = Duration::from_secs(30);
        let health_check =
            HealthCheck { path: "/".to_owned(), interval: wait, timeout: wait, healthy: 5, unhealthy: 2 };
        Self {
            name: name.to_owned(),
            region: None,
            image: String::new(),
            zones: Vec::new(),
            port: 80,
            deregistration_delay: Duration::ZERO,
            health_check,
            groups: Vec::new(),
            key_pair: None,
            instance_profile: None,
            security: Security::default(),
            package: None,
            tags: BTreeMap::new(),
        }
    }

    /// How many instances it has.
    pub fn instances(&self) -> usize {
        self.groups.iter().map(|group| usize::from(group.count)).sum()
    }

    /// Overrides a group's count.
    ///
    /// # Errors
    /// There is no such group; the message names those there are.
    pub fn set_count(&mut self, group: &str, count: u16) -> Result<(), String> {
        let names: Vec<String> = self.groups.iter().map(|g| g.name.clone()).collect();
        match self.groups.iter_mut().find(|g| g.name == group) {
            Some(found) => {
                found.count = count;
                Ok(())
            }
            None => Err(format!("fleet {} has no group {group}, only {}", self.name, names.join(", "))),
        }
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// The name cannot be a fleet's, or not this fleet's, as a target group's name would be too long.
    pub fn rename(&mut self, name: &str) -> Result<(), String> {
        values::fleet_name(name)?;
        for group in &self.groups {
            values::target_group(name, &group.name)?;
        }
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// Puts it into another region.
    ///
    /// # Errors
    /// Its zones are elsewhere.
    pub fn set_region(&mut self, region: &str) -> Result<(), String> {
        if let Some(zone) = self.zones.iter().find(|zone| values::region_of(zone) != Some(region)) {
            return Err(format!(
                "the fleet's zone {zone} is not in {region}; write a fleet file with zones of {region} (`bootstrap \
                 fleets show` prints one to start from), and with an image that is there"
            ));
        }
        self.region = Some(region.to_owned());
        Ok(())
    }

    /// The name of a group's target group.
    pub fn target_group(&self, group: &Group) -> String {
        format!("{}-{}", self.name, group.name)
    }
}
