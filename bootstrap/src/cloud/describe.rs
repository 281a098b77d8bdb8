//! Converts AWS's answers to our own types. No calls.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::types as ec2;
use aws_sdk_elasticloadbalancingv2::types as elbv2;
use instance_contract::one_line;

use crate::fleet::HealthCheck;
use crate::fleet::tagging::Tags;
use crate::plan::inventory::{Balancer, IngressRule, Instance, Rule, SecurityGroup, Source, TargetGroup};

/// A sentence of AWS's is shown to this length, in characters.
const LONGEST: usize = 500;

/// The attribute of a target group that holds its deregistration delay, in seconds.
pub(super) const DEREGISTRATION_DELAY: &str = "deregistration_delay.timeout_seconds";

/// A filter of EC2's.
pub(super) fn filter(name: &str, values: impl IntoIterator<Item = String>) -> ec2::Filter {
    ec2::Filter::builder().name(name).set_values(Some(values.into_iter().collect())).build()
}

/// A sentence of AWS's, as it is shown.
pub(super) fn shown(sentence: &str) -> String {
    one_line(sentence, LONGEST)
}

fn ec2_tags(tags: Option<Vec<ec2::Tag>>) -> Tags {
    let tags = tags.unwrap_or_default().into_iter();
    tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect()
}

/// `balancer` is the id of the fleet's balancer's group, which rules of the other may name.
pub(super) fn security_group(group: ec2::SecurityGroup, balancer: Option<&str>) -> SecurityGroup {
    let mut ingress = BTreeSet::new();
    for permission in group.ip_permissions.unwrap_or_default() {
        ingress.extend(permission_openings(&permission, balancer));
    }
    SecurityGroup {
        id: group.group_id.unwrap_or_default(),
        vpc: group.vpc_id.unwrap_or_default(),
        tags: ec2_tags(group.tags),
        ingress,
    }
}

fn permission_openings(permission: &ec2::IpPermission, balancer: Option<&str>) -> Vec<IngressRule> {
    let protocol = permission.ip_protocol().unwrap_or_default();
    let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok());
    let (first, last) = (port(permission.from_port), port(permission.to_port));
    let (first, last, plain) = match (first, last) {
        (Some(first), Some(last)) => (first, last, protocol == "tcp"),
        _ => (0, u16::MAX, false),
    };
    let from = |source: Source, text: &str| {
        if plain { source } else { Source::Other(format!("{protocol} from {text}")) }
    };
    let mut sources = Vec::new();
    for range in permission.ip_ranges() {
        let cidr = range.cidr_ip().unwrap_or_default();
        sources.push(from(Source::Cidr(cidr.to_owned()), cidr));
    }
    for pair in permission.user_id_group_pairs() {
        let id = pair.group_id().unwrap_or_default();
        let known = if balancer == Some(id) { Source::Balancer } else { Source::Other(id.to_owned()) };
        sources.push(from(known, id));
    }
    for range in permission.ipv6_ranges() {
        sources.push(Source::Other(range.cidr_ipv6().unwrap_or_default().to_owned()));
    }
    for list in permission.prefix_list_ids() {
        sources.push(Source::Other(list.prefix_list_id().unwrap_or_default().to_owned()));
    }
    sources.into_iter().map(|from| IngressRule { first, last, from }).collect()
}

/// An instance, from EC2's description.
pub(super) fn instance(instance: ec2::Instance) -> Instance {
    let reason = instance.state_reason.and_then(|reason| reason.message);
    Instance {
        id: instance.instance_id.unwrap_or_default(),
        state: instance
            .state
            .and_then(|state| state.name)
            .map_or_else(|| "pending".to_owned(), |name| name.as_str().to_owned()),
        reason: reason
            .or(instance.state_transition_reason)
            .filter(|reason| !reason.is_empty())
            .map(|reason| shown(&reason)),
        zone: instance.placement.and_then(|placement| placement.availability_zone).unwrap_or_default(),
        public_address: instance.public_ip_address.filter(|address| !address.is_empty()),
        private_address: instance.private_ip_address.filter(|address| !address.is_empty()),
        launched: instance.launch_time.map_or(0, |time| time.secs()),
        index: instance.ami_launch_index.and_then(|index| usize::try_from(index).ok()).unwrap_or_default(),
        tags: ec2_tags(instance.tags),
    }
}

/// A balancer, from ELBv2's description.
pub(super) fn balancer(balancer: elbv2::LoadBalancer) -> Balancer {
    let state = balancer.state;
    let zones = balancer.availability_zones.unwrap_or_default();
    Balancer {
        arn: balancer.load_balancer_arn.unwrap_or_default(),
        dns_name: balancer.dns_name.unwrap_or_default(),
        state: state
            .as_ref()
            .and_then(|state| state.code.as_ref())
            .map_or_else(|| "provisioning".to_owned(), |code| code.as_str().to_owned()),
        reason: state.and_then(|state| state.reason).map(|reason| shown(&reason)),
        zones: zones.into_iter().filter_map(|zone| zone.zone_name).collect(),
        security_groups: balancer.security_groups.unwrap_or_default(),
    }
}

/// A target group, from ELBv2's description.
pub(super) fn target_group(group: elbv2::TargetGroup) -> TargetGroup {
    let seconds = |number: Option<i32>| {
        Duration::from_secs(number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default())
    };
    let count =
        |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
    TargetGroup {
        arn: group.target_group_arn.unwrap_or_default(),
        name: group.target_group_name.unwrap_or_default(),
        port: group.port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
        health: HealthCheck {
            path: group.health_check_path.unwrap_or_default(),
            interval: seconds(group.health_check_interval_seconds),
            timeout: seconds(group.health_check_timeout_seconds),
            healthy: count(group.healthy_threshold_count),
            unhealthy: count(group.unhealthy_threshold_count),
        },
        delay: None,
        balancers: group.load_balancer_arns.unwrap_or_default(),
    }
}

pub(super) fn rule(rule: elbv2::Rule) -> Rule {
    let conditions = rule.conditions.unwrap_or_default();
    let mut paths = BTreeSet::new();
    // One condition, and that on the path: anything else is not a rule that bootstrap made.
    if let [condition] = conditions.as_slice()
        && condition.field() == Some("path-pattern")
    {
        let values = condition.path_pattern_config().map(|config| config.values()).unwrap_or_default();
        let values = if values.is_empty() { condition.values() } else { values };
        paths = values.iter().cloned().collect();
    }
    let mut forwards = forwards(rule.actions.as_deref().unwrap_or_default());
    Rule {
        arn: rule.rule_arn.unwrap_or_default(),
        priority: rule.priority.and_then(|priority| priority.parse().ok()).unwrap_or_default(),
        paths,
        target_group: if forwards.len() == 1 { forwards.pop().map(|(arn, _)| arn) } else { None },
    }
}

/// Where an action forwards to, sorted by ARN; a lone target group weighs 1.
pub(super) fn forwards(actions: &[elbv2::Action]) -> Vec<(String, u16)> {
    let mut found = Vec::new();
    for action in actions {
        let groups = action.forward_config().map(|config| config.target_groups()).unwrap_or_default();
        for group in groups {
            let weight = group.weight.and_then(|weight| u16::try_from(weight).ok()).unwrap_or(1);
            found.push((group.target_group_arn.clone().unwrap_or_default(), weight));
        }
        if groups.is_empty()
            && let Some(arn) = &action.target_group_arn
        {
            found.push((arn.clone(), 1));
        }
    }
    found.sort();
    found
}
