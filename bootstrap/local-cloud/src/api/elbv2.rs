//! The Elastic Load Balancing actions, version 2015-12-01.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::query::{ApiError, Params};
use crate::api::xml::Xml;
use crate::model::balancers::Balancer;
use crate::model::ids::request_id;
use crate::model::instances::InstanceState;
use crate::model::routing::Forward;
use crate::model::state::State;
use crate::model::target_groups::{TargetGroup, TargetHealth, TargetStatus, TargetType};

/// The API's version.
pub(crate) const VERSION: &str = "2015-12-01";

/// The namespace of its answers.
pub(crate) const NAMESPACE: &str = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/";

/// Targets of one group, as on AWS.
const MAX_TARGETS: usize = 1000;

/// Answers an action.
pub(crate) fn perform(
    state: &mut State,
    action: &str,
    params: &Params,
    now: Instant,
) -> Result<String, ApiError> {
    match action {
        "DescribeTargetGroups" => describe_target_groups(state, params),
        "DescribeTargetGroupAttributes" => describe_attributes(state, params),
        "RegisterTargets" => register(state, params, now),
        "DeregisterTargets" => deregister(state, params, now),
        "DescribeTargetHealth" => describe_health(state, params),
        "DescribeLoadBalancers" => describe_balancers(state, params),
        "DescribeListeners" => describe_listeners(state, params),
        "DescribeRules" => describe_rules(state, params),
        _ => Err(ApiError::invalid_action(action)),
    }
}

fn response(action: &str, inside: impl FnOnce(&mut Xml)) -> String {
    Xml::document(&format!("{action}Response"), NAMESPACE, |xml| {
        xml.element(&format!("{action}Result"), inside);
        xml.element("ResponseMetadata", |xml| xml.text("RequestId", request_id()));
    })
}

/// Whole seconds, rounded up: a delay is never shown shorter than it is.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn group_not_found() -> ApiError {
    ApiError::bad("TargetGroupNotFound", "One or more target groups not found")
}

/// The group that `TargetGroupArn` names: by ARN, a name is not enough.
fn group<'a>(state: &'a mut State, params: &Params) -> Result<&'a mut TargetGroup, ApiError> {
    let arn = params.require("TargetGroupArn")?;
    if !arn.starts_with("arn:") {
        let text = format!("'{arn}' is not a valid target group ARN");
        return Err(ApiError::bad("ValidationError", text));
    }
    state.group(arn).ok_or_else(group_not_found)
}

fn describe_target_groups(state: &State, params: &Params) -> Result<String, ApiError> {
    params.allow(&["Names.member.N", "TargetGroupArns.member.N", "LoadBalancerArn", "PageSize"])?;
    let (names, arns) = (params.list("Names.member"), params.list("TargetGroupArns.member"));
    let balancer = params.get("LoadBalancerArn");
    if [!names.is_empty(), !arns.is_empty(), balancer.is_some()].into_iter().filter(|set| *set).count() > 1 {
        let text = "Names, target group ARNs and a load balancer ARN cannot be given together";
        return Err(ApiError::bad("ValidationError", text));
    }
    let users = |group: &TargetGroup| -> Vec<&Balancer> {
        state.balancers.iter().filter(|b| b.uses(&group.arn)).collect()
    };
    let found: Vec<&TargetGroup> = state
        .groups
        .iter()
        .filter(|group| names.is_empty() || names.contains(&group.spec.name.as_str()))
        .filter(|group| arns.is_empty() || arns.contains(&group.arn.as_str()))
        .filter(|group| balancer.is_none_or(|arn| users(group).iter().any(|b| b.arn == arn)))
        .collect();
    if found.len() < names.len().max(arns.len()) {
        return Err(group_not_found());
    }
    Ok(response("DescribeTargetGroups", |xml| {
        xml.list("TargetGroups", "member", found, |xml, group| {
            let (spec, check) = (&group.spec, &group.spec.health_check);
            xml.text("TargetGroupArn", &group.arn);
            xml.text("TargetGroupName", &spec.name);
            xml.text("Protocol", "HTTP");
            xml.text("Port", spec.port);
            xml.text("VpcId", &group.vpc);
            xml.text("HealthCheckProtocol", "HTTP");
            xml.text("HealthCheckPort", "traffic-port");
            xml.text("HealthCheckEnabled", true);
            xml.text("HealthCheckIntervalSeconds", seconds(check.interval));
            xml.text("HealthCheckTimeoutSeconds", seconds(check.timeout));
            xml.text("HealthyThresholdCount", check.healthy_threshold);
            xml.text("UnhealthyThresholdCount", check.unhealthy_threshold);
            xml.text("HealthCheckPath", &check.path);
            xml.element("Matcher", |xml| xml.text("HttpCode", 200));
            xml.texts("LoadBalancerArns", users(group).iter().map(|b| &b.arn));
            xml.text("TargetType", spec.target_type.as_str());
            xml.text("ProtocolVersion", "HTTP1");
            xml.text("IpAddressType", "ipv4");
        });
    }))
}

fn describe_attributes(state: &mut State, params: &Params) -> Result<String, ApiError> {
    params.allow(&["TargetGroupArn"])?;
    let delay = seconds(group(state, params)?.spec.deregistration_delay).to_string();
    let attributes = [
        ("deregistration_delay.timeout_seconds", delay.as_str()),
        ("load_balancing.algorithm.type", "round_robin"),
        ("load_balancing.cross_zone.enabled", "use_load_balancer_configuration"),
        ("slow_start.duration_seconds", "0"),
        ("stickiness.enabled", "false"),
    ];
    Ok(response("DescribeTargetGroupAttributes", |xml| {
        xml.list("Attributes", "member", attributes, |xml, (key, value)| {
            xml.text("Key", key);
            xml.text("Value", value);
        });
    }))
}

/// The targets of a request: id and, where given, port.
fn targets(params: &Params) -> Result<Vec<(&str, Option<u16>)>, ApiError> {
    let field = |n, name| format!("Targets.member.{n}.{name}");
    params
        .indices("Targets.member")
        .into_iter()
        .map(|n| Ok((params.require(&field(n, "Id"))?, params.port(&field(n, "Port"))?)))
        .collect()
}

const TARGET_PARAMS: [&str; 4] =
    ["TargetGroupArn", "Targets.member.N.Id", "Targets.member.N.Port", "Targets.member.N.AvailabilityZone"];

fn some_targets(params: &Params) -> Result<Vec<(&str, Option<u16>)>, ApiError> {
    let targets = targets(params)?;
    if targets.is_empty() {
        return Err(ApiError::bad("ValidationError", "At least one target is needed"));
    }
    Ok(targets)
}

fn register(state: &mut State, params: &Params, now: Instant) -> Result<String, ApiError> {
    params.allow(&TARGET_PARAMS)?;
    let group = group(state, params)?;
    let (arn, vpc, default_port) = (group.arn.clone(), group.vpc.clone(), group.spec.port);
    let (target_type, room) = (group.spec.target_type, MAX_TARGETS - group.targets.len());
    let mut accepted = Vec::new();
    // All or nothing, as on AWS: one bad target refuses the call.
    for (id, port) in some_targets(params)? {
        let address = target_address(state, target_type, id, &vpc)?;
        accepted.push((id, SocketAddr::new(address, port.unwrap_or(default_port))));
    }
    if accepted.len() > room {
        let text = format!("A target group holds at most {MAX_TARGETS} targets");
        return Err(ApiError::bad("TooManyTargets", text));
    }
    for (id, address) in accepted {
        state.register(&arn, id, address, now);
    }
    Ok(response("RegisterTargets", |_| {}))
}

/// Where a target that may be registered is reached.
fn target_address(state: &State, target_type: TargetType, id: &str, vpc: &str) -> Result<IpAddr, ApiError> {
    let invalid = |text: String| ApiError::bad("InvalidTarget", text);
    let instance = match target_type {
        TargetType::Instance => {
            if !id.starts_with("i-") {
                let text = format!("'{id}' is not a valid instance id");
                return Err(ApiError::bad("ValidationError", text));
            }
            let found = state.instances.get(id);
            found.ok_or_else(|| invalid(format!("The following targets do not exist: '{id}'")))?
        }
        TargetType::Ip => {
            let Ok(address) = id.parse::<IpAddr>() else {
                let text = format!("'{id}' is not a valid IP address");
                return Err(ApiError::bad("ValidationError", text));
            };
            let found = state.instance_at(address);
            found.ok_or_else(|| invalid(format!("No instance of the VPC has the address '{id}'")))?
        }
    };
    if instance.state != InstanceState::Running {
        return Err(invalid(format!(
            "The following targets are not in a running state and cannot be registered: '{id}'"
        )));
    }
    if instance.vpc != vpc {
        return Err(invalid(format!(
            "The following targets are not in the target group VPC '{vpc}': '{id}'"
        )));
    }
    Ok(IpAddr::V4(instance.spec.address))
}

fn deregister(state: &mut State, params: &Params, now: Instant) -> Result<String, ApiError> {
    params.allow(&TARGET_PARAMS)?;
    let group = group(state, params)?;
    let (arn, default_port) = (group.arn.clone(), group.spec.port);
    for (id, port) in some_targets(params)? {
        // Not registered, or with another port: success without effect, as on AWS.
        state.deregister(&arn, id, port.unwrap_or(default_port), now);
    }
    Ok(response("DeregisterTargets", |_| {}))
}

fn describe_health(state: &mut State, params: &Params) -> Result<String, ApiError> {
    params.allow(&TARGET_PARAMS)?;
    let group = group(state, params)?;
    let (target_type, default_port) = (group.spec.target_type, group.spec.port);
    let registered = group.statuses();
    let asked = targets(params)?;
    let mut shown = Vec::new();
    for (id, port) in &asked {
        let port = port.unwrap_or(default_port);
        let found = registered.iter().find(|t| t.id == *id && t.port == port);
        if found.is_none() && target_type == TargetType::Instance && !state.instances.contains_key(*id) {
            let text = format!("The following targets do not exist: '{id}'");
            return Err(ApiError::bad("InvalidTarget", text));
        }
        shown.push(found.cloned().unwrap_or_else(|| TargetStatus {
            id: (*id).to_owned(),
            port,
            health: TargetHealth::not_registered(),
        }));
    }
    if asked.is_empty() {
        shown = registered;
    }
    Ok(response("DescribeTargetHealth", |xml| {
        xml.list("TargetHealthDescriptions", "member", shown, |xml, status| {
            xml.text("HealthCheckPort", status.port);
            xml.element("TargetHealth", |xml| {
                xml.text("State", status.health.state);
                if let Some(reason) = status.health.reason {
                    xml.text("Reason", reason);
                }
                if let Some(description) = &status.health.description {
                    xml.text("Description", description);
                }
            });
            xml.element("Target", |xml| {
                xml.text("Id", &status.id);
                xml.text("Port", status.port);
            });
        });
    }))
}

fn describe_balancers(state: &State, params: &Params) -> Result<String, ApiError> {
    params.allow(&["Names.member.N", "LoadBalancerArns.member.N", "PageSize"])?;
    let (names, arns) = (params.list("Names.member"), params.list("LoadBalancerArns.member"));
    let found: Vec<&Balancer> = state
        .balancers
        .iter()
        .filter(|b| names.is_empty() || names.contains(&b.spec.name.as_str()))
        .filter(|b| arns.is_empty() || arns.contains(&b.arn.as_str()))
        .collect();
    if found.len() < names.len().max(arns.len()) {
        let text = "One or more load balancers not found";
        return Err(ApiError::bad("LoadBalancerNotFound", text));
    }
    Ok(response("DescribeLoadBalancers", |xml| {
        xml.list("LoadBalancers", "member", found, |xml, balancer| {
            xml.text("LoadBalancerArn", &balancer.arn);
            xml.text("LoadBalancerName", &balancer.spec.name);
            xml.text("DNSName", balancer.address);
            xml.text("Scheme", "internet-facing");
            xml.text("Type", "application");
            xml.text("IpAddressType", "ipv4");
            xml.text("VpcId", &state.options.vpc);
            xml.element("State", |xml| xml.text("Code", "active"));
            xml.list("AvailabilityZones", "member", balancer.zones(), |xml, zone| {
                xml.text("ZoneName", zone);
            });
        });
    }))
}

fn forward_action(xml: &mut Xml, forward: &Forward) {
    xml.text("Type", "forward");
    let groups: Vec<_> = forward.groups().collect();
    if let [(arn, _)] = groups.as_slice() {
        xml.text("TargetGroupArn", arn);
    }
    xml.element("ForwardConfig", |xml| {
        xml.list("TargetGroups", "member", groups, |xml, (arn, weight)| {
            xml.text("TargetGroupArn", arn);
            xml.text("Weight", weight);
        });
    });
}

fn describe_listeners(state: &State, params: &Params) -> Result<String, ApiError> {
    params.allow(&["LoadBalancerArn", "ListenerArns.member.N", "PageSize"])?;
    let arns = params.list("ListenerArns.member");
    let balancer = params.get("LoadBalancerArn");
    let found: Vec<&Balancer> = state
        .balancers
        .iter()
        .filter(|b| arns.is_empty() || arns.contains(&b.listener_arn.as_str()))
        .filter(|b| balancer.is_none_or(|arn| b.arn == arn))
        .collect();
    if found.len() < arns.len() {
        return Err(ApiError::bad("ListenerNotFound", "One or more listeners not found"));
    }
    if balancer.is_some() && found.is_empty() {
        let text = "One or more load balancers not found";
        return Err(ApiError::bad("LoadBalancerNotFound", text));
    }
    Ok(response("DescribeListeners", |xml| {
        xml.list("Listeners", "member", found, |xml, balancer| {
            xml.text("ListenerArn", &balancer.listener_arn);
            xml.text("LoadBalancerArn", &balancer.arn);
            xml.text("Port", balancer.address.port());
            xml.text("Protocol", "HTTP");
            xml.list("DefaultActions", "member", [&balancer.spec.default], forward_action);
        });
    }))
}

fn describe_rules(state: &State, params: &Params) -> Result<String, ApiError> {
    params.allow(&["ListenerArn", "PageSize"])?;
    let arn = params.require("ListenerArn")?;
    let Some(balancer) = state.balancers.iter().find(|b| b.listener_arn == arn) else {
        return Err(ApiError::bad("ListenerNotFound", "One or more listeners not found"));
    };
    Ok(response("DescribeRules", |xml| {
        xml.element("Rules", |xml| {
            for rule in &balancer.spec.rules {
                xml.element("member", |xml| {
                    xml.text("RuleArn", balancer.rule_arn(&rule.priority.to_string()));
                    xml.text("Priority", rule.priority);
                    xml.list("Conditions", "member", [&rule.paths], |xml, paths| {
                        xml.text("Field", "path-pattern");
                        xml.texts("Values", paths);
                        xml.element("PathPatternConfig", |xml| xml.texts("Values", paths));
                    });
                    xml.list("Actions", "member", [&rule.forward], forward_action);
                    xml.text("IsDefault", false);
                });
            }
            xml.element("member", |xml| {
                xml.text("RuleArn", balancer.rule_arn("default"));
                xml.text("Priority", "default");
                xml.element("Conditions", |_| {});
                xml.list("Actions", "member", [&balancer.spec.default], forward_action);
                xml.text("IsDefault", true);
            });
        });
    }))
}
