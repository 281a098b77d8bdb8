//! The statements of the operator's policy: which resources, under which condition.

use serde_json::{Value, json};

use super::scope::Scope;

/// Resources, and the condition under which they may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// Lists and descriptions, which AWS does not give for single resources.
    Look,
    /// The parameters with the ids of public images.
    PublicImages,
    /// How many vCPU the account may use.
    Quota,
    /// Security groups that are created with the fleet's tag.
    NewSecurityGroups,
    /// Instances, volumes and interfaces that are created with the fleet's tag.
    NewInstances,
    /// What instances are launched from and into, and the networks of security groups.
    Surroundings,
    /// Security groups and instances with the fleet's tag.
    OwnResources,
    /// The tags that a creating call of EC2 gives.
    TagsAtCreation,
    /// A balancer and target groups of the fleet's names that are created with its tag.
    NewBalancing,
    /// Listeners and rules that are created with the fleet's tag, on what has it.
    NewListeners,
    /// Everything of load balancing with the fleet's names and tag.
    OwnBalancing,
    /// The tags that a creating call of load balancing gives.
    BalancingTagsAtCreation,
    /// The role by which load balancing works in the account, made with its first balancer.
    FirstBalancer,
    /// The instances' role and profile.
    Role,
    /// Giving the role to instances.
    PassRole,
    /// The package bucket and its objects.
    Bucket,
}

/// All of them, in the order of the policy.
pub(super) const GRANTS: [Grant; 16] = [
    Grant::Look,
    Grant::PublicImages,
    Grant::Quota,
    Grant::NewSecurityGroups,
    Grant::NewInstances,
    Grant::Surroundings,
    Grant::OwnResources,
    Grant::TagsAtCreation,
    Grant::NewBalancing,
    Grant::NewListeners,
    Grant::OwnBalancing,
    Grant::BalancingTagsAtCreation,
    Grant::FirstBalancer,
    Grant::Role,
    Grant::PassRole,
    Grant::Bucket,
];

const BALANCING: &str = "elasticloadbalancing";
/// Running On-Demand Standard instances.
const QUOTA: &str = "L-1216C47A";

impl Grant {
    /// The statement's name.
    pub(super) fn sid(self) -> &'static str {
        match self {
            Self::Look => "Look",
            Self::PublicImages => "FindImages",
            Self::Quota => "ReadQuota",
            Self::NewSecurityGroups => "CreateGroups",
            Self::NewInstances => "Launch",
            Self::Surroundings => "LaunchFrom",
            Self::OwnResources => "UseOwn",
            Self::TagsAtCreation => "TagNew",
            Self::NewBalancing => "NewBalancing",
            Self::NewListeners => "NewListeners",
            Self::OwnBalancing => "OwnBalancing",
            Self::BalancingTagsAtCreation => "TagBalancing",
            Self::FirstBalancer => "FirstBalancer",
            Self::Role => "UseOwnRole",
            Self::PassRole => "PassRole",
            Self::Bucket => "UseOwnBucket",
        }
    }

    /// Whether a fleet of this scope needs it: where a profile is given, no role is made.
    pub(super) fn is_needed(self, scope: &Scope, action: &str) -> bool {
        self != Self::Role || scope.instance_profile.is_none() || action == "iam:GetInstanceProfile"
    }

    /// The ARNs. As few and as short as can be, for a policy takes 6,144 characters: where the
    /// condition asks for the fleet's tag, the resource's name is left open.
    pub(super) fn resources(self, scope: &Scope) -> Value {
        let (partition, region, fleet) = (scope.partition(), scope.region(), &scope.fleet);
        let ec2 = |kind: &str| scope.arn("ec2", &format!("{kind}/*"));
        let iam = |path: &str| format!("arn:{partition}:iam::{}:{path}", scope.account());
        let own = format!("instance-agent-{fleet}-{region}");
        let role = scope.instance_profile.as_ref().unwrap_or(&own);
        match self {
            Self::Look => json!("*"),
            // Neither public parameters nor images are of an account.
            Self::PublicImages => json!(format!("arn:{partition}:ssm:{region}::parameter/aws/service/*")),
            Self::Surroundings => json!([
                format!("arn:{partition}:ec2:{region}::image/*"),
                ec2("key-pair"),
                ec2("subnet"),
                ec2("vpc"),
            ]),
            Self::Quota => json!(scope.arn("servicequotas", &format!("ec2/{QUOTA}"))),
            Self::NewSecurityGroups => json!(ec2("security-group")),
            Self::NewInstances => json!(["instance", "volume", "network-interface"].map(ec2)),
            Self::OwnResources => json!(["instance", "security-group"].map(ec2)),
            Self::TagsAtCreation => json!(ec2("*")),
            Self::NewBalancing => json!([
                scope.arn(BALANCING, &format!("targetgroup/{fleet}-*/*")),
                scope.arn(BALANCING, &format!("loadbalancer/app/{fleet}/*")),
            ]),
            Self::NewListeners | Self::OwnBalancing | Self::BalancingTagsAtCreation => {
                json!(scope.arn(BALANCING, "*"))
            }
            Self::FirstBalancer => {
                json!(iam(&format!("role/aws-service-role/{BALANCING}.amazonaws.com/*")))
            }
            Self::Role if scope.instance_profile.is_some() => json!(iam(&format!("instance-profile/{role}"))),
            Self::Role => json!([iam(&format!("role/{role}")), iam(&format!("instance-profile/{role}"))]),
            Self::PassRole => json!(iam(&format!("role/{role}"))),
            Self::Bucket => {
                let bucket =
                    format!("arn:{partition}:s3:::instance-agent-{fleet}-{}-{region}", scope.account());
                json!([bucket, format!("{bucket}/*")])
            }
        }
    }

    /// The condition.
    pub(super) fn condition(self, scope: &Scope) -> Option<Value> {
        let fleet = json!(scope.fleet);
        let asked = format!("aws:RequestTag/{}", instance_contract::tags::FLEET);
        let has = format!("aws:ResourceTag/{}", instance_contract::tags::FLEET);
        let equals = match self {
            Self::NewSecurityGroups | Self::NewInstances | Self::NewBalancing => json!({ asked: fleet }),
            Self::OwnResources | Self::OwnBalancing => json!({ has: fleet }),
            Self::NewListeners => json!({ asked: fleet, has: fleet }),
            Self::TagsAtCreation => {
                json!({ asked: fleet, "ec2:CreateAction": ["CreateSecurityGroup", "RunInstances"] })
            }
            Self::BalancingTagsAtCreation => json!({
                asked: fleet,
                format!("{BALANCING}:CreateAction"):
                    ["CreateListener", "CreateLoadBalancer", "CreateRule", "CreateTargetGroup"],
            }),
            Self::FirstBalancer => json!({ "iam:AWSServiceName": format!("{BALANCING}.amazonaws.com") }),
            Self::PassRole => {
                let service = match scope.partition() {
                    "aws-cn" => json!(["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]),
                    _ => json!("ec2.amazonaws.com"),
                };
                json!({ "iam:PassedToService": service })
            }
            _ => return None,
        };
        Some(json!({ "StringEquals": equals }))
    }
}
