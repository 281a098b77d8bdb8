//! What would make a launch fail, found before anything is created. Each problem is a sentence with its cure.

use crate::cloud::package_reachable::{Unreachable, reachable};
use crate::cloud::survey::{ForeignResource, TARGET_GROUP};
use crate::cloud::{CallError, Cloud};
use crate::deb::Deb;
use crate::fleet::names::Names;
use crate::fleet::{Desired, Fleet, Package};
use crate::output::remark;
use crate::plan::inventory::{Bucket, Instance, Inventory};
use crate::plan::members;
use crate::plan::surroundings::Surroundings;
use crate::user_data::{PackageForInstance, user_data};

/// Stopped instances that the fleet keeps: it cannot become healthy with them.
pub(super) fn stopped(desired: &Desired, have: &Inventory) -> Vec<String> {
    let region = &desired.names.region;
    let kept = desired.fleet.groups.iter().flat_map(|group| members(desired, group, have).kept.into_values());
    let stopped = kept.filter(|instance| matches!(instance.state.as_str(), "stopping" | "stopped"));
    let told = |instance: &Instance| {
        format!(
            "{id} is {state}: start it (`aws ec2 start-instances --region {region} --instance-ids {id}`), or \
             replace it (`aws ec2 terminate-instances --region {region} --instance-ids {id}`, then this command \
             again)",
            id = instance.id,
            state = instance.state
        )
    };
    stopped.map(told).collect()
}

/// The names that this fleet needs and that resources of others already have.
pub(super) fn name_conflicts(foreign: &[ForeignResource], fleet: &Fleet, vpc: Option<&str>) -> Vec<String> {
    let is_in_the_way = |found: &&ForeignResource| match (&found.vpc, found.kind) {
        (Some(of), _) => vpc == Some(of),
        (None, TARGET_GROUP) => fleet.groups.iter().any(|group| fleet.target_group(group) == found.name),
        (None, _) => true,
    };
    let text = |found: &ForeignResource| {
        format!(
            "{found} has a name that this fleet needs, but not the tag {}={}: it belongs to someone else and is \
             left unchanged; choose another --name",
            instance_contract::tags::FLEET,
            fleet.name
        )
    };
    foreign.iter().filter(is_in_the_way).map(text).collect()
}

/// The fleet's target groups that another load balancer uses, which AWS then neither deletes nor gives to the fleet's: its
/// name, and the listeners and rules that forward to it.
pub(super) async fn used_elsewhere(
    cloud: &Cloud,
    names: &Names,
    have: &Inventory,
) -> Result<Vec<(String, String)>, CallError> {
    let mut used = Vec::new();
    for group in &have.target_groups {
        // AWS lets a target group have one load balancer.
        let Some(balancer) = group.other_balancers(&names.balancer()).next() else {
            continue;
        };
        let users = match cloud.users_of(balancer, &group.arn).await {
            Err(error) if error.is_denied() => Vec::new(),
            users => users?,
        };
        let users = if users.is_empty() { "a listener or rule".to_owned() } else { users.join(", ") };
        // arn:aws:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/app/NAME/ID
        let name = balancer.split('/').nth(2).unwrap_or(balancer);
        used.push((group.name.clone(), format!("{users} of load balancer {name}")));
    }
    Ok(used)
}

/// Why the instances could not install the package.
pub(super) async fn package_problem(
    fleet: &Fleet,
    have: &Inventory,
    around: &Surroundings,
    deb: Option<&Deb>,
) -> Option<String> {
    let package = fleet.package.as_ref()?;
    if let Package::Deb { .. } = package {
        let Some(deb) = deb else {
            let there = have.bucket == Some(Bucket::Ours);
            return (!there).then(|| {
                "the bucket with the package is gone, and this bootstrap comes with no package of its SHA-256; \
                 give that file or another with --deb FILE"
                    .to_owned()
            });
        };
        let wanted = deb.architecture?;
        let other = fleet.groups.iter().find(|group| {
            let known = around.types.get(&group.instance_type);
            known.and_then(|known| known.architecture.as_deref()).is_some_and(|found| found != wanted)
        });
        return other.map(|group| {
            format!(
                "the package is for {wanted}, but {} (group {}) is not; give the package for its architecture",
                group.instance_type, group.name
            )
        });
    }
    if let Some(Err(error)) = PackageForInstance::of(Some(package)).map(|package| user_data(&package)) {
        return Some(error.to_string());
    }
    match reachable(package).await {
        Ok(()) => None,
        // It may be an address that only the VPC reaches.
        Err(error @ Unreachable::NoAnswer { .. }) => {
            remark(&format!("warning: {error}"));
            None
        }
        Err(error) => Some(error.to_string()),
    }
}
