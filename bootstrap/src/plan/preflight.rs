//! Checks before anything is created: zones, subnets, instance types, image, quota.

use super::surroundings::Surroundings;
use crate::fleet::Fleet;

/// What would make a launch fail, each with its cure. `launched` are the types and numbers of
/// the instances that it would start.
pub(crate) fn problems(
    around: &Surroundings,
    fleet: &Fleet,
    region: &str,
    launched: &[(String, usize)],
) -> Vec<String> {
    let mut problems = around.problems.clone();
    if around.subnets.is_empty() {
        problems.push(format!(
            "there is no default VPC with subnets in {} in {region}; create one (`aws ec2 \
             create-default-vpc`), or correct zones",
            fleet.zones.join(", ")
        ));
    } else {
        let missing = fleet.zones.iter().filter(|zone| !around.subnets.contains_key(*zone));
        for zone in missing {
            problems.push(format!(
                "the default VPC has no subnet in {zone}; a balancer needs two zones: correct zones, or `aws \
                 ec2 create-default-subnet --availability-zone {zone}`"
            ));
        }
    }
    // Without one an instance reaches neither its package nor AWS, unless a gateway of the VPC's own leads there.
    let private = fleet.zones.iter().filter_map(|zone| around.subnets.get_key_value(zone));
    for (zone, subnet) in private.filter(|(_, subnet)| !launched.is_empty() && !subnet.public_addresses) {
        problems.push(format!(
            "subnet {} in {zone} gives instances no public address, so they could reach neither the package nor \
             AWS; correct zones, or `aws ec2 modify-subnet-attribute --region {region} --subnet-id {} \
             --map-public-ip-on-launch`",
            subnet.id, subnet.id
        ));
    }
    for group in &fleet.groups {
        let wanted = &group.instance_type;
        let Some(known) = around.types.get(wanted) else {
            problems.push(format!(
                "there is no instance type {wanted} (group {}) in {region}; correct type",
                group.name
            ));
            continue;
        };
        for zone in &fleet.zones {
            if !around.offered.contains(&(wanted.clone(), zone.clone())) {
                problems.push(format!(
                    "{wanted} (group {}) is not offered in {zone}; choose other zones",
                    group.name
                ));
            }
        }
        let Some(architecture) = &known.architecture else {
            problems.push(format!(
                "the agent does not run on the architecture of {wanted} (group {}); choose another type",
                group.name
            ));
            continue;
        };
        // No image at all is a problem that is told of already.
        if !around.images.contains_key(architecture)
            && let Some(other) = around.images.values().next()
        {
            problems.push(format!(
                "image {} is for {}, {wanted} (group {}) is {architecture}; choose another image or type",
                fleet.image, other.architecture, group.name
            ));
        }
    }
    let needed: u32 = launched.iter().map(|(name, count)| around.standard_vcpus(name, *count)).sum();
    if let Some(quota) = around.vcpus.quota
        && around.vcpus.used + needed > quota
    {
        problems.push(format!(
            "{needed} vCPU are needed, {} of {quota} are in use in {region}; ask for more (Service Quotas, EC2, \
             L-1216C47A: Running On-Demand Standard instances), or lower the counts",
            around.vcpus.used
        ));
    }
    problems
}
