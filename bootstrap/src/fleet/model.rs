//! A fleet and its parts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use instance_contract::{Root, duration};
use serde::{Deserialize, Serialize, Serializer};

use super::values;

/// A fleet as a user describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fleet {
    /// The fleet's name, and the value of the tag `instance-agent:fleet` on its resources.
    pub name: String,
    /// The AWS region; `None` leaves the choice to the SDK's own sources. The stored definition has no region: it is
    /// stored in that region.
    #[serde(skip)]
    pub region: Option<String>,
    /// The machine image: an id, or a name such as `ubuntu-22.04`.
    pub image: String,
    /// The availability zones, at least two; the instances are spread over them in turn.
    pub zones: Vec<String>,
    /// The port of the listener and of the target groups.
    pub port: u16,
    /// How long the load balancer lets a deregistered target finish its requests.
    #[serde(with = "duration::text")]
    pub deregistration_delay: Duration,
    /// The load balancer's health check.
    pub health_check: HealthCheck,
    /// The groups of instances, at least one.
    pub groups: Vec<Group>,
    /// The key pair for SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pair: Option<String>,
    /// An existing instance profile, for accounts that allow no new roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_profile: Option<String>,
    /// The rules of the security groups.
    #[serde(default)]
    pub security: Security,
    /// The source of the agent's package; `None` where the fleet file names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// The user's tags for every resource, beside those of bootstrap.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// The rules of the security groups, all for TCP over IPv4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Security {
    /// The instances' ports that `allow` can reach.
    pub ports: Vec<u16>,
    /// The ranges of addresses that can reach the instances' ports, in CIDR notation.
    pub allow: Vec<String>,
    /// The ranges of addresses that can reach the load balancer, in CIDR notation.
    pub balancer_allow: Vec<String>,
}

impl Default for Security {
    fn default() -> Self {
        let anywhere = vec!["0.0.0.0/0".to_owned()];
        Self { ports: vec![22, 80, 443], allow: anywhere.clone(), balancer_allow: anywhere }
    }
}

/// The source of the agent's package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Package {
    /// The image contains the agent.
    InImage,
    /// A Debian package on this machine; a private bucket hands it to the instances.
    Deb {
        /// The path on this machine; `None` in a stored definition.
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

/// The load balancer's health check; the limits are AWS's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HealthCheck {
    /// The path that must answer 200.
    pub path: String,
    /// The time between two probes.
    #[serde(with = "duration::text")]
    pub interval: Duration,
    /// The time after which a probe has failed.
    #[serde(with = "duration::text")]
    pub timeout: Duration,
    /// Successful probes in a row that make an unhealthy target healthy.
    pub healthy: u32,
    /// Failed probes in a row that make a target unhealthy.
    pub unhealthy: u32,
}

/// Equal instances in one target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// The group's name; with `paths` also the name of the cluster.
    pub name: String,
    /// The instance type.
    pub instance_type: String,
    /// The number of instances.
    pub count: u16,
    /// The group's share of the requests that match no path rule, 0 to 999.
    pub weight: u16,
    /// What its instances answer to `GET /`.
    pub root: Root,
    /// Whether the group is a cluster: the listener forwards `/{name}` and `/{name}/*` to it.
    pub paths: bool,
}

impl Group {
    /// The path patterns that the listener forwards to the group; none without `paths`.
    pub fn rule_paths(&self) -> Vec<String> {
        if self.paths { vec![format!("/{}", self.name), format!("/{}/*", self.name)] } else { Vec::new() }
    }
}

impl Fleet {
    /// A fleet whose name alone is known.
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

    /// The number of instances of all groups.
    pub fn instances(&self) -> usize {
        self.groups.iter().map(|group| usize::from(group.count)).sum()
    }

    /// Overrides a group's count.
    ///
    /// # Errors
    /// There is no such group; the message lists the groups.
    pub fn set_count(&mut self, group: &str, count: u16) -> Result<(), String> {
        let names: Vec<String> = self.groups.iter().map(|g| g.name.clone()).collect();
        match self.groups.iter_mut().find(|g| g.name == group) {
            Some(found) => {
                found.count = count;
                Ok(())
            }
            None => Err(format!(
                "fleet {} has no group named {group}; its groups: {}",
                self.name,
                names.join(", ")
            )),
        }
    }

    /// Gives the fleet another name.
    ///
    /// # Errors
    /// The name is not one of a fleet, or too long for a target group of this fleet.
    pub fn rename(&mut self, name: &str) -> Result<(), String> {
        values::fleet_name(name)?;
        for group in &self.groups {
            values::target_group(name, &group.name)?;
        }
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// Gives the fleet another region.
    ///
    /// # Errors
    /// The fleet's zones are not in that region.
    pub fn set_region(&mut self, region: &str) -> Result<(), String> {
        if let Some(zone) = self.zones.iter().find(|zone| values::region_of(zone) != Some(region)) {
            return Err(format!(
                "the fleet's zone {zone} is not in {region}; write a fleet file with zones of {region} (`bootstrap \
                 fleets show` prints an example) and an image of {region}"
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
