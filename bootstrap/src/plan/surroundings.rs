//! The account and region around a fleet, as a launch needs to know them. No I/O.

use std::collections::{BTreeMap, BTreeSet};

/// The account and region, as far as a launch needs to know them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) account: String,
    /// `aws`, `aws-cn`, …
    pub(crate) partition: String,
    /// The default VPC's subnets, by zone.
    pub(crate) subnets: BTreeMap<String, Subnet>,
    /// The instance types that the fleet names and AWS knows.
    pub(crate) types: BTreeMap<String, InstanceType>,
    /// Instance type and zone, where the type is offered there.
    pub(crate) offered: BTreeSet<(String, String)>,
    /// The image, by the processors it is for.
    pub(crate) images: BTreeMap<String, Image>,
    /// Processors in use and allowed.
    pub(crate) vcpus: Vcpus,
    /// The problems found during the lookup, each with its cure.
    pub(crate) problems: Vec<String>,
}

/// A subnet.
#[derive(Clone, Debug)]
pub(crate) struct Subnet {
    pub(crate) id: String,
    pub(crate) vpc: String,
    /// Whether instances in it get a public address by themselves.
    pub(crate) public_addresses: bool,
}

/// An instance type.
#[derive(Clone, Debug)]
pub(crate) struct InstanceType {
    pub(crate) vcpus: u32,
    /// `x86_64` or `arm64`; `None` if it is neither, so that the agent is not built for it.
    pub(crate) architecture: Option<String>,
}

/// An image that instances can be launched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) id: String,
    /// The processors it runs on, in EC2's words: `x86_64` or `arm64`.
    pub(crate) architecture: String,
    /// The device that its root volume has to be described under.
    pub(crate) root_device: Option<String>,
}

/// The account's processors of on-demand standard instances.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vcpus {
    pub(crate) used: u32,
    /// `None` where these credentials may not ask.
    pub(crate) quota: Option<u32>,
}

/// Whether a type counts towards the quota "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z)
/// instances".
pub(crate) fn is_standard(instance_type: &str) -> bool {
    let family: String = instance_type.chars().take_while(char::is_ascii_alphabetic).collect();
    // Longer ones (inf, trn, mac, hpc, dl, vt) have quotas of their own.
    matches!(family.as_str(), "a" | "c" | "d" | "h" | "i" | "im" | "is" | "m" | "r" | "t" | "z")
}

impl Surroundings {
    /// The VPC that the fleet is put into.
    pub(crate) fn vpc(&self) -> Option<&str> {
        self.subnets.values().next().map(|subnet| subnet.vpc.as_str())
    }

    /// The image for an instance type.
    pub(crate) fn image(&self, instance_type: &str) -> Option<&Image> {
        self.images.get(self.types.get(instance_type)?.architecture.as_ref()?)
    }

    /// Processors of `count` instances of a type that count towards the quota.
    pub(crate) fn standard_vcpus(&self, instance_type: &str, count: usize) -> u32 {
        let vcpus = self.types.get(instance_type).map_or(0, |found| found.vcpus);
        if is_standard(instance_type) { vcpus * u32::try_from(count).unwrap_or(u32::MAX) } else { 0 }
    }
}
