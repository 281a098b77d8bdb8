//! The least that operator and agent need to be allowed, generated from the calls that are made.
//!
//! | file | holds |
//! | --- | --- |
//! | `calls.rs` | every call this program makes, and the permissions each takes |
//! | `grants.rs` | what those permissions are given for: which resources, under which condition |
//! | `command.rs` | `bootstrap policy` |

use serde_json::{Value, json};

use crate::fleet::Fleet;
use calls::CALLS;
use grants::GRANTS;

mod calls;
pub(crate) mod command;
mod grants;

#[cfg(test)]
mod tests;

/// What policies are aimed at.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The fleet's name.
    pub(crate) fleet: String,
    /// Its target groups' names.
    pub(crate) target_groups: Vec<String>,
    /// The instance profile that exists, for fleets that do not make their own.
    pub(crate) instance_profile: Option<String>,
    /// `None` is any.
    pub(crate) region: Option<String>,
    /// `None` is any.
    pub(crate) account: Option<String>,
}

impl Scope {
    /// For this fleet.
    pub(crate) fn of(fleet: &Fleet, region: Option<&str>, account: Option<&str>) -> Self {
        Self {
            fleet: fleet.name.clone(),
            target_groups: fleet.groups.iter().map(|group| fleet.target_group(group)).collect(),
            instance_profile: fleet.instance_profile.clone(),
            region: region.map(str::to_owned),
            account: account.map(str::to_owned),
        }
    }

    fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("*")
    }

    fn account(&self) -> &str {
        self.account.as_deref().unwrap_or("*")
    }

    /// The part of AWS that the region is in, as ARNs name it.
    fn partition(&self) -> &'static str {
        partition(self.region())
    }

    /// The ARN of something in the region.
    fn arn(&self, service: &str, path: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{path}", self.partition(), self.region(), self.account())
    }
}

/// The part of AWS that a region is in, as ARNs name it.
fn partition(region: &str) -> &'static str {
    let known = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    known.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, partition)| partition)
}

/// Whether the operator policy lists this call of the SDK.
pub(crate) fn lists(service: &str, operation: &str) -> bool {
    CALLS.iter().any(|call| call.service.name() == service && call.operation == operation)
}

/// What a person needs who plans, launches, watches, scales and destroys this fleet.
pub(crate) fn operator(scope: &Scope) -> Value {
    let mut statements = Vec::new();
    for grant in GRANTS {
        let needs = CALLS.iter().flat_map(|call| call.needs).filter(|(_, of)| *of == grant);
        let mut actions: Vec<&str> = needs.map(|(action, _)| *action).collect();
        actions.sort_unstable();
        actions.dedup();
        actions.retain(|action| grant.is_needed(scope, action));
        if actions.is_empty() {
            continue;
        }
        let mut statement = json!({
            "Sid": grant.sid(),
            "Effect": "Allow",
            "Action": match actions.as_slice() {
                [one] => json!(one),
                many => json!(many),
            },
            "Resource": grant.resources(scope),
        });
        if let Some(condition) = grant.condition(scope) {
            statement["Condition"] = condition;
        }
        statements.push(statement);
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// What the agents of this fleet need: to join and leave its target groups and no others, and to see
/// what becomes of them.
pub(crate) fn agent(scope: &Scope) -> Value {
    let groups = scope.target_groups.iter();
    let groups: Vec<_> =
        groups.map(|name| scope.arn("elasticloadbalancing", &format!("targetgroup/{name}/*"))).collect();
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "JoinAndLeaveTargetGroups",
                "Effect": "Allow",
                "Action": ["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"],
                "Resource": groups,
            },
            {
                "Sid": "FindAndWatchTargetGroups",
                "Effect": "Allow",
                "Action": [
                    "elasticloadbalancing:DescribeTargetGroups",
                    "elasticloadbalancing:DescribeTargetGroupAttributes",
                    "elasticloadbalancing:DescribeTargetHealth",
                    "ec2:DescribeTags",
                ],
                "Resource": "*",
            },
        ],
    })
}
