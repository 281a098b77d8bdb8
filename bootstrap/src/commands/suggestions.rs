//! Commands to try on a fleet that is there.

use crate::fleet::{Desired, Fleet, Root};

/// The command lines that show what a fleet does, through its load balancer at `url`. `instances` are groups and
/// addresses of those that serve. A number is stored at each instance before it is read: each has its own, and the
/// balancer asks them in turn.
pub(super) fn requests(fleet: &Fleet, url: &str, instances: &[(&str, String)]) -> Vec<String> {
    let is_seed =
        |name: &str| fleet.groups.iter().any(|group| group.name == name && group.root == Root::Seed);
    let seeds = instances.iter().filter(|(group, _)| is_seed(group));
    let mut lines: Vec<_> =
        seeds.map(|(_, address)| format!("  curl -d '{{\"num\": 100}}' http://{address}/")).collect();
    if !lines.is_empty() {
        lines.insert(0, "store a number at each instance, then read through the load balancer:".to_owned());
    }
    lines.push(format!("  curl {url}/"));
    let clusters = fleet.groups.iter().filter(|group| group.paths);
    lines.extend(clusters.map(|group| format!("  curl {url}/{}", group.name)));
    lines
}

/// How to get onto an instance of a fleet without a key pair, and how to give it one.
pub(super) fn without_key_pair(desired: &Desired, instance: &str) -> Vec<String> {
    let Desired { fleet, names, .. } = desired;
    let mut lines = Vec::new();
    if fleet.key_pair.is_some() {
        return lines;
    }
    let region = &names.region;
    let is_named = |name: &str| fleet.image.starts_with(name);
    // Of the images that have names here, Ubuntu's alone have it.
    if fleet.security.ports.contains(&22) && (is_named("ubuntu-") || is_named("ami-")) {
        let condition = if is_named("ami-") { ", if the image contains it (Ubuntu's do)" } else { "" };
        lines.push(format!("no key pair: log in with EC2 Instance Connect{condition}:"));
        lines.push(format!(
            "  aws ec2-instance-connect ssh --region {region} --os-user ubuntu --instance-id {instance}"
        ));
    } else {
        lines.push("no key pair: nobody can log in to the instances with SSH".to_owned());
    }
    if let Some(profile) = &fleet.instance_profile {
        lines.push(format!(
            "or with Session Manager, if the instance profile {profile} allows it and the image contains the SSM \
             Agent:"
        ));
        lines.push(format!("  aws ssm start-session --region {region} --target {instance}"));
    }
    lines.push(
        "to log in by SSH, import your key (`aws ec2 import-key-pair`); then `launch --key-pair NAME` replaces the instances"
            .to_owned(),
    );
    lines
}
