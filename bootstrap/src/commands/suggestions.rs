//! Commands to try on a fleet that is there.

use crate::fleet::{Desired, Fleet, Root};

/// The command lines that show what a fleet does, through its load balancer at `url`. `instances` are groups and
/// addresses of those that serve. A number is stored at each instance before it is read: each has its own, and the
/// balancer asks them in turn.
pub(super) fn requests(fleet: &Fleet, url: &str, instances: &[(&str, String)]) -> Vec<String> {
    let is_seed =
        |name: &str| fleet.groups.iter().any(|group| group.name == name && group.root == Root::Seed);
    let seeds = instances.iter().filter(|(group, _)| is_seed(group));
    let store = |(number, (_, address)): (usize, &(&str, String))| {
        format!("  curl -d '{{\"num\": {}}}' http://{address}/", 100 * (number + 1))
    };
    let mut lines: Vec<_> = seeds.enumerate().map(store).collect();
    let has_seeds = !lines.is_empty();
    if has_seeds {
        lines.insert(
            0,
            "store a number at each instance, then read them in turn through the load balancer:".to_owned(),
        );
    }
    lines.push(format!("  curl {url}/"));
    let clusters = fleet.groups.iter().filter(|group| group.paths);
    let mut clusters: Vec<_> = clusters.map(|group| format!("  curl {url}/{}", group.name)).collect();
    if has_seeds && !clusters.is_empty() {
        clusters.insert(0, "ask which instance answers:".to_owned());
    }
    lines.extend(clusters);
    lines
}

/// How to get onto an instance; without a key pair also how to add one.
pub(super) fn login(desired: &Desired, instance: &str) -> Vec<String> {
    let Desired { fleet, names, .. } = desired;
    let mut lines = Vec::new();
    let region = &names.region;
    if fleet.key_pair.is_some() {
        lines.push("log in to an instance:".to_owned());
        lines.push(format!("  bootstrap ssh {} --region {region}", fleet.name));
        return lines;
    }
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
