//! The IAM policies of operators and agents, generated from the list of calls.
//!
//! | file | holds |
//! | --- | --- |
//! | `calls.rs` | every call this program makes, and the permissions each takes |
//! | `grants.rs` | what those permissions are given for: which resources, under which condition |
//! | `scope.rs` | which fleet, region and account a policy is for |

use serde_json::{Value, json};

use crate::fleet::Desired;

use calls::CALLS;
use grants::GRANTS;

pub(crate) use scope::Scope;

mod calls;
mod grants;
mod scope;

#[cfg(test)]
mod tests;

/// Whether the operator policy lists this call of the SDK.
pub(crate) fn allows_call(service: &str, operation: &str) -> bool {
    CALLS.iter().any(|call| call.service.name() == service && call.operation == operation)
}

/// The policy of a person who plans, launches, watches, scales and destroys this fleet.
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

/// The policy of this fleet's agents: register with and leave its target groups, no others, and read their
/// target health.
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

/// The policy of a fleet's agents in this account; `also` names target groups that the fleet is leaving.
pub(crate) fn agent_policy(desired: &Desired, account: &str, also: &[String]) -> Value {
    let mut scope = Scope::of(&desired.fleet, Some(&desired.names.region), Some(account));
    scope.target_groups.extend_from_slice(also);
    agent(&scope)
}
