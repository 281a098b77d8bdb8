//! A plan: steps, what each does, and what each comes after.

use std::collections::BTreeSet;
use std::fmt;

use super::inventory::IngressRule;

/// Steps and their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Each comes after those it names, which stand before it.
    pub(crate) steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) action: Action,
    /// The steps that must be done before.
    pub(crate) after: Vec<usize>,
    /// What it does, for people.
    pub(crate) title: String,
}

/// What a step does to the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Something new.
    Create,
    /// Something that is there becomes different.
    Change,
    /// Something that is there goes.
    Delete,
    /// Nothing; it waits or looks.
    Wait,
}

/// Which of the two security groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The balancer's.
    Balancer,
    /// The instances'.
    Instances,
}

/// What can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The instances' group is created with the definition in its tags.
    CreateSecurityGroup(Side),
    /// The definition of a fleet that is there becomes the wanted one.
    StoreDefinition,
    /// The fleet's tags on what was made with others.
    Tag {
        /// EC2's ids.
        resources: Vec<String>,
        /// Of the balancer and target groups.
        arns: Vec<String>,
    },
    /// The tags by which instances know what to answer.
    TagAnswers {
        group: String,
        /// Whether it has paths; else its instances are of no cluster.
        paths: bool,
        ids: Vec<String>,
    },
    /// Lets connections in.
    AuthorizeIngress(Side, BTreeSet<IngressRule>),
    /// Lets connections in no more.
    RevokeIngress(Side, BTreeSet<IngressRule>),
    /// The instances' role.
    CreateRole,
    /// What the role allows.
    PutRolePolicy {
        /// Target groups that go, for as long as their instances serve: names.
        also: Vec<String>,
    },
    /// The instance profile.
    CreateProfile,
    /// The role into the profile.
    AddRole,
    /// The private bucket for the package.
    CreateBucket,
    /// The package into the bucket.
    Upload,
    /// A group's target group.
    CreateTargetGroup(String),
    /// How a group's targets are probed.
    SetHealthCheck(String),
    /// How long a group's targets drain.
    SetDelay(String),
    CreateBalancer,
    /// The balancer's zones.
    SetZones(BTreeSet<String>),
    /// The listener with its default action.
    CreateListener,
    /// The listener's default action, while new groups have no healthy instances: the shares that are
    /// there, by ARN, and nothing for the new groups.
    AddUnweighted {
        /// ARNs and weights.
        there: Vec<(String, u16)>,
        /// Names.
        new: Vec<String>,
    },
    /// The listener's default action, as wanted.
    SetDefault,
    /// The rule for a group's paths.
    CreateRule {
        group: String,
        /// Lower ones are looked at first.
        priority: u32,
    },
    /// A rule that nothing wants.
    DeleteRule {
        arn: String,
    },
    /// Instances of one group in one zone.
    RunInstances {
        group: String,
        /// The zone, if there is room in it.
        zone: String,
        /// What they fill.
        slots: Vec<u16>,
    },
    /// That the definition is still this launch's, and no other command's.
    Confirm,
    /// Until every wanted instance is healthy in its target group.
    WaitHealthy,
    /// Instances that are not wanted.
    TerminateInstances {
        ids: Vec<String>,
    },
    /// A target group.
    DeleteTargetGroup {
        arn: String,
        name: String,
    },
    /// Notes that the definition is in force.
    Settle,
    /// The balancer may be deleted again.
    LiftDeletionProtection {
        arn: String,
    },
    /// The balancer with its listener and rules.
    DeleteBalancer {
        arn: String,
    },
    /// Until instances are terminated.
    WaitTerminated {
        ids: Vec<String>,
    },
    /// A security group, as soon as nothing uses it.
    DeleteSecurityGroup {
        id: String,
    },
    /// Role, policy and profile.
    DeleteRole,
    /// The bucket with all versions of what is in it.
    DeleteBucket,
}

impl Action {
    /// What it does to the account.
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::CreateSecurityGroup(_)
            | Self::CreateRole
            | Self::PutRolePolicy { .. }
            | Self::CreateProfile
            | Self::AddRole
            | Self::CreateBucket
            | Self::Upload
            | Self::CreateTargetGroup(_)
            | Self::CreateBalancer
            | Self::CreateListener
            | Self::CreateRule { .. }
            | Self::RunInstances { .. }
            | Self::AuthorizeIngress(..) => Effect::Create,
            Self::StoreDefinition
            | Self::Tag { .. }
            | Self::TagAnswers { .. }
            | Self::RevokeIngress(..)
            | Self::SetHealthCheck(_)
            | Self::SetDelay(_)
            | Self::SetZones(_)
            | Self::AddUnweighted { .. }
            | Self::SetDefault
            | Self::LiftDeletionProtection { .. }
            | Self::Settle => Effect::Change,
            Self::DeleteRule { .. }
            | Self::TerminateInstances { .. }
            | Self::DeleteTargetGroup { .. }
            | Self::DeleteBalancer { .. }
            | Self::DeleteSecurityGroup { .. }
            | Self::DeleteRole
            | Self::DeleteBucket => Effect::Delete,
            Self::Confirm | Self::WaitHealthy | Self::WaitTerminated { .. } => Effect::Wait,
        }
    }

    /// The calls it makes, as IAM names their actions, when nothing has to be tried again.
    pub(crate) fn calls(&self) -> &'static [&'static str] {
        match self {
            Self::CreateSecurityGroup(_) => &["ec2:CreateSecurityGroup"],
            Self::StoreDefinition => &["ec2:DescribeSecurityGroups", "ec2:CreateTags", "ec2:DeleteTags"],
            Self::Confirm => &["ec2:DescribeSecurityGroups"],
            Self::Tag { .. } => &["elasticloadbalancing:AddTags", "ec2:CreateTags"],
            Self::TagAnswers { paths: true, .. } => &["ec2:CreateTags"],
            Self::TagAnswers { .. } => &["ec2:CreateTags", "ec2:DeleteTags"],
            Self::AuthorizeIngress(..) => &["ec2:AuthorizeSecurityGroupIngress"],
            Self::RevokeIngress(..) => &["ec2:RevokeSecurityGroupIngress"],
            Self::CreateRole => &["iam:CreateRole"],
            Self::PutRolePolicy { .. } => &["iam:PutRolePolicy"],
            Self::CreateProfile => &["iam:CreateInstanceProfile"],
            Self::AddRole => &["iam:AddRoleToInstanceProfile"],
            Self::CreateBucket => {
                &["s3:CreateBucket", "s3:PutBucketTagging", "s3:PutBucketPublicAccessBlock"]
            }
            Self::Upload => &["s3:PutObject"],
            Self::CreateTargetGroup(_) => &["elasticloadbalancing:CreateTargetGroup"],
            Self::SetHealthCheck(_) => &["elasticloadbalancing:ModifyTargetGroup"],
            Self::SetDelay(_) => &["elasticloadbalancing:ModifyTargetGroupAttributes"],
            Self::CreateBalancer => &["elasticloadbalancing:CreateLoadBalancer"],
            Self::SetZones(_) => &["elasticloadbalancing:SetSubnets"],
            Self::CreateListener => &["elasticloadbalancing:CreateListener"],
            Self::AddUnweighted { .. } | Self::SetDefault => &["elasticloadbalancing:ModifyListener"],
            Self::CreateRule { .. } => &["elasticloadbalancing:CreateRule"],
            Self::DeleteRule { .. } => &["elasticloadbalancing:DeleteRule"],
            Self::RunInstances { .. } => &["ec2:RunInstances"],
            Self::WaitHealthy => {
                &["elasticloadbalancing:DescribeTargetHealth", "elasticloadbalancing:DescribeLoadBalancers"]
            }
            Self::TerminateInstances { .. } => &["ec2:TerminateInstances"],
            Self::DeleteTargetGroup { .. } => &["elasticloadbalancing:DeleteTargetGroup"],
            Self::Settle => &["ec2:CreateTags", "ec2:DescribeInstances"],
            Self::LiftDeletionProtection { .. } => &["elasticloadbalancing:ModifyLoadBalancerAttributes"],
            Self::DeleteBalancer { .. } => &["elasticloadbalancing:DeleteLoadBalancer"],
            Self::WaitTerminated { .. } => &["ec2:DescribeInstances"],
            Self::DeleteSecurityGroup { .. } => &["ec2:DeleteSecurityGroup"],
            Self::DeleteRole => &[
                "iam:RemoveRoleFromInstanceProfile",
                "iam:DeleteInstanceProfile",
                "iam:DeleteRolePolicy",
                "iam:DeleteRole",
            ],
            Self::DeleteBucket => &["s3:ListBucketVersions", "s3:DeleteObject", "s3:DeleteBucket"],
        }
    }
}

impl Plan {
    /// Adds a step after others and answers its number.
    pub(super) fn add(
        &mut self,
        action: Action,
        title: impl Into<String>,
        after: impl IntoIterator<Item = usize>,
    ) -> usize {
        let mut after: Vec<_> = after.into_iter().collect();
        after.sort_unstable();
        after.dedup();
        self.steps.push(Step { action, after, title: title.into() });
        self.steps.len() - 1
    }

    /// Whether anything is to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps that do this to the account.
    pub(crate) fn steps_that(&self, effect: Effect) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.action.effect() == effect)
    }

    /// How many instances of each group it launches.
    pub(crate) fn launched(&self, group: &str) -> usize {
        let slots = self.steps.iter().filter_map(|step| match &step.action {
            Action::RunInstances { group: of, slots, .. } if of == group => Some(slots.len()),
            _ => None,
        });
        slots.sum()
    }
}

/// A list for people.
pub(super) fn listed<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// "1 instance", "2 instances".
pub(super) fn instances_of(count: usize) -> String {
    format!("{count} instance{}", if count == 1 { "" } else { "s" })
}
