//! What exists of a fleet, as one look at the account found it. No I/O.

use std::collections::BTreeSet;
use std::fmt;

use crate::fleet::tagging::{self, Tags};
use crate::fleet::{Desired, Fleet, Group};

/// The fleet's resources. What is not there is `None` or not in the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    /// The balancer's security group.
    pub(crate) balancer_group: Option<SecurityGroup>,
    /// The instances' security group, which holds the definition.
    pub(crate) instances_group: Option<SecurityGroup>,
    pub(crate) balancer: Option<Balancer>,
    pub(crate) listener: Option<Listener>,
    /// The listener's rules, without the default one.
    pub(crate) rules: Vec<Rule>,
    /// Target groups named after the fleet.
    pub(crate) target_groups: Vec<TargetGroup>,
    /// Instances with the fleet's tag, whatever their state.
    pub(crate) instances: Vec<Instance>,
    /// The ids of those that the balancer does not find healthy; empty while nobody asked.
    pub(crate) unhealthy: BTreeSet<String>,
    /// The instances' role, profile, policy; `None` while nobody asked.
    pub(crate) role: Option<Role>,
    /// The bucket for the package; `None` while nobody asked.
    pub(crate) bucket: Option<Bucket>,
}

/// A security group.
#[derive(Clone, Debug)]
pub(crate) struct SecurityGroup {
    pub(crate) id: String,
    pub(crate) vpc: String,
    pub(crate) tags: Tags,
    pub(crate) ingress: BTreeSet<IngressRule>,
}

/// What a security group lets in: TCP ports, from somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IngressRule {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) from: Source,
}

/// Where connections may come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// In CIDR notation.
    Cidr(String),
    /// The fleet's balancer.
    Balancer,
    /// A source that bootstrap never writes, as text for people.
    Other(String),
}

impl fmt::Display for IngressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (0, u16::MAX) => write!(f, "all TCP ports")?,
            (first, last) if first == last => write!(f, "TCP {first}")?,
            (first, last) => write!(f, "TCP {first}-{last}")?,
        }
        match &self.from {
            Source::Cidr(cidr) => write!(f, " from {cidr}"),
            Source::Balancer => write!(f, " from the balancer"),
            Source::Other(text) => write!(f, " ({text})"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Balancer {
    pub(crate) arn: String,
    pub(crate) dns_name: String,
    /// AWS's state: `provisioning`, `active`, `active_impaired` or `failed`.
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) zones: BTreeSet<String>,
    pub(crate) security_groups: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) arn: String,
    pub(crate) port: u16,
    /// Target group ARN and weight of the default action, sorted.
    pub(crate) default: Vec<(String, u16)>,
}

/// A rule of the listener.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) arn: String,
    pub(crate) priority: u32,
    /// Its path patterns; empty if it has other conditions.
    pub(crate) paths: BTreeSet<String>,
    /// The target group it forwards to, if to just one.
    pub(crate) target_group: Option<String>,
}

/// A target group.
#[derive(Clone, Debug)]
pub(crate) struct TargetGroup {
    pub(crate) arn: String,
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) health: crate::fleet::HealthCheck,
    /// In seconds; `None` while nobody asked.
    pub(crate) delay: Option<u64>,
    /// Its balancers' ARNs.
    pub(crate) balancers: Vec<String>,
}

/// An instance.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    /// In EC2's words.
    pub(crate) state: String,
    /// Why it is in that state, where EC2 says so.
    pub(crate) reason: Option<String>,
    pub(crate) zone: String,
    pub(crate) public_address: Option<String>,
    pub(crate) private_address: Option<String>,
    /// Seconds since 1970.
    pub(crate) launched: i64,
    /// Its number in its batch.
    pub(crate) index: usize,
    pub(crate) tags: Tags,
}

/// What there is under the name of a fleet's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bucket {
    /// Nothing.
    Absent,
    /// An empty bucket without tags: a launch was interrupted right after it created the bucket.
    Untagged,
    /// The fleet's.
    Ours,
}

/// The instances' role and profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    /// Whether the profile is there.
    pub(crate) profile: bool,
    /// Whether the role is in the profile.
    pub(crate) in_profile: bool,
    /// The role's inline policy, if the role is there.
    pub(crate) policy: Option<serde_json::Value>,
}

impl Inventory {
    /// The definition that was stored, as text.
    pub(crate) fn definition(&self) -> Option<String> {
        self.instances_group.as_ref().and_then(|group| tagging::read_definition(&group.tags))
    }

    /// Whether a launch of this fleet was completed, and no other begun since.
    pub(crate) fn is_settled(&self, desired: &Desired) -> bool {
        let settled = self.instances_group.as_ref().and_then(|group| group.tags.get(tagging::SETTLED));
        settled == Some(&desired.digest)
    }

    /// Whether no resource of the fleet exists, terminated instances aside.
    pub(crate) fn is_empty(&self) -> bool {
        self.balancer_group.is_none()
            && self.instances_group.is_none()
            && self.balancer.is_none()
            && self.target_groups.is_empty()
            && self.instances.iter().all(|instance| instance.is_gone())
    }

    /// The instances that were launched for a group and live.
    pub(crate) fn of_group(&self, fleet: &Fleet, group: &Group) -> Vec<&Instance> {
        let name = fleet.target_group(group);
        let is_own = |i: &&Instance| !i.is_dead() && i.target_group() == Some(&name) && i.slot().is_some();
        self.instances.iter().filter(is_own).collect()
    }

    /// A group's target group.
    pub(crate) fn target_group(&self, fleet: &Fleet, group: &Group) -> Option<&TargetGroup> {
        let name = fleet.target_group(group);
        self.target_groups.iter().find(|found| found.name == name)
    }
}

impl Inventory {
    /// Whether this is the ARN of a target group that a load balancer other than the fleet's own, of this name, uses.
    pub(crate) fn is_used_elsewhere(&self, arn: &str, own: &str) -> bool {
        let mut groups = self.target_groups.iter().filter(|group| group.arn == arn);
        groups.any(|group| group.other_balancers(own).next().is_some())
    }
}

impl TargetGroup {
    /// The load balancers that use it beside the fleet's own, by ARN. AWS may still name the fleet's own after its end.
    pub(crate) fn other_balancers(&self, own: &str) -> impl Iterator<Item = &String> {
        let own = format!(":loadbalancer/app/{own}/");
        self.balancers.iter().filter(move |arn| !arn.contains(&own))
    }
}

impl Instance {
    /// Whether it will never serve again.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state.as_str(), "shutting-down" | "terminated")
    }

    /// Whether nothing of it is left that another resource could depend on.
    pub(crate) fn is_gone(&self) -> bool {
        self.state == "terminated"
    }

    /// The slot it fills in its group; `None` if bootstrap did not launch it.
    pub(crate) fn slot(&self) -> Option<u16> {
        self.tags.get(tagging::SLOTS)?.split(' ').nth(self.index)?.parse().ok()
    }

    /// The target group of the group that it belongs to: the one it was launched for, as the tag that the
    /// agent follows is an operator's to change; of one that `bootstrap` did not launch, that tag.
    pub(crate) fn target_group(&self) -> Option<&str> {
        let own = self.tags.get(tagging::LAUNCHED_FOR);
        own.or_else(|| self.tags.get(instance_contract::tags::TARGET_GROUP)).map(String::as_str)
    }

    /// What it was launched as.
    pub(crate) fn revision(&self) -> Option<&str> {
        self.tags.get(tagging::REVISION).map(String::as_str)
    }
}
