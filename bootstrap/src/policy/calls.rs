//! Every call that this program makes, and the permissions that AWS checks for it. A call that is not listed
//! here is refused before it is sent, so the printed policy is complete.

use super::grants::Grant;

/// A service, as the SDK names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Ec2,
    Balancing,
    Iam,
    Quotas,
    S3,
    Ssm,
    Sts,
}

impl Service {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "EC2",
            Self::Balancing => "Elastic Load Balancing v2",
            Self::Iam => "IAM",
            Self::Quotas => "Service Quotas",
            Self::S3 => "S3",
            Self::Ssm => "SSM",
            Self::Sts => "STS",
        }
    }
}

/// One operation and the permissions that it needs.
pub(super) struct Call {
    pub(super) service: Service,
    pub(super) operation: &'static str,
    /// IAM's action and what it is needed for.
    pub(super) needs: &'static [(&'static str, Grant)],
}

const fn call(service: Service, operation: &'static str, needs: &'static [(&'static str, Grant)]) -> Call {
    Call { service, operation, needs }
}

use Service::{Balancing, Ec2, Iam, Quotas, S3, Ssm, Sts};

/// All calls.
pub(super) const CALLS: &[Call] = &[
    call(Ec2, "DescribeImages", &[("ec2:DescribeImages", Grant::Look)]),
    call(Ec2, "DescribeInstanceTypeOfferings", &[("ec2:DescribeInstanceTypeOfferings", Grant::Look)]),
    call(Ec2, "DescribeInstanceTypes", &[("ec2:DescribeInstanceTypes", Grant::Look)]),
    call(Ec2, "DescribeInstances", &[("ec2:DescribeInstances", Grant::Look)]),
    call(Ec2, "DescribeKeyPairs", &[("ec2:DescribeKeyPairs", Grant::Look)]),
    // `ec2:DescribeRegions` is in no policy: whoever looks at all regions does more than operate one fleet.
    call(Ec2, "DescribeRegions", &[]),
    call(Ec2, "DescribeSecurityGroups", &[("ec2:DescribeSecurityGroups", Grant::Look)]),
    call(Ec2, "DescribeSubnets", &[("ec2:DescribeSubnets", Grant::Look)]),
    call(Ec2, "DescribeVolumes", &[("ec2:DescribeVolumes", Grant::Look)]),
    call(
        Ec2,
        "CreateSecurityGroup",
        &[
            ("ec2:CreateSecurityGroup", Grant::NewSecurityGroups),
            ("ec2:CreateSecurityGroup", Grant::Surroundings),
            ("ec2:CreateTags", Grant::TagsAtCreation),
        ],
    ),
    call(Ec2, "AuthorizeSecurityGroupIngress", &[("ec2:AuthorizeSecurityGroupIngress", Grant::OwnResources)]),
    call(Ec2, "RevokeSecurityGroupIngress", &[("ec2:RevokeSecurityGroupIngress", Grant::OwnResources)]),
    call(Ec2, "DeleteSecurityGroup", &[("ec2:DeleteSecurityGroup", Grant::OwnResources)]),
    // The definition and whether it was launched are kept in a security group's tags; the user's own
    // tags may change on everything.
    call(Ec2, "CreateTags", &[("ec2:CreateTags", Grant::OwnResources)]),
    call(Ec2, "DeleteTags", &[("ec2:DeleteTags", Grant::OwnResources)]),
    call(
        Ec2,
        "RunInstances",
        &[
            ("ec2:RunInstances", Grant::NewInstances),
            ("ec2:RunInstances", Grant::Surroundings),
            ("ec2:RunInstances", Grant::OwnResources),
            ("ec2:CreateTags", Grant::TagsAtCreation),
            ("iam:PassRole", Grant::PassRole),
        ],
    ),
    call(Ec2, "GetConsoleOutput", &[("ec2:GetConsoleOutput", Grant::OwnResources)]),
    call(Ec2, "TerminateInstances", &[("ec2:TerminateInstances", Grant::OwnResources)]),
    call(Ec2, "ModifyInstanceAttribute", &[("ec2:ModifyInstanceAttribute", Grant::OwnResources)]),
    call(Balancing, "DescribeListeners", &[("elasticloadbalancing:DescribeListeners", Grant::Look)]),
    call(
        Balancing,
        "DescribeLoadBalancerAttributes",
        &[("elasticloadbalancing:DescribeLoadBalancerAttributes", Grant::Look)],
    ),
    call(Balancing, "DescribeLoadBalancers", &[("elasticloadbalancing:DescribeLoadBalancers", Grant::Look)]),
    call(Balancing, "DescribeRules", &[("elasticloadbalancing:DescribeRules", Grant::Look)]),
    call(Balancing, "DescribeTags", &[("elasticloadbalancing:DescribeTags", Grant::Look)]),
    call(
        Balancing,
        "DescribeTargetGroupAttributes",
        &[("elasticloadbalancing:DescribeTargetGroupAttributes", Grant::Look)],
    ),
    call(Balancing, "DescribeTargetGroups", &[("elasticloadbalancing:DescribeTargetGroups", Grant::Look)]),
    call(Balancing, "DescribeTargetHealth", &[("elasticloadbalancing:DescribeTargetHealth", Grant::Look)]),
    // In an account that never had a load balancer, ELB uses the caller's permissions to look up the network and
    // to create its service-linked role.
    call(
        Balancing,
        "CreateTargetGroup",
        &[
            ("elasticloadbalancing:CreateTargetGroup", Grant::NewBalancing),
            ("elasticloadbalancing:AddTags", Grant::BalancingTagsAtCreation),
            ("ec2:DescribeInternetGateways", Grant::Look),
            ("ec2:DescribeVpcs", Grant::Look),
            ("iam:CreateServiceLinkedRole", Grant::FirstBalancer),
        ],
    ),
    call(
        Balancing,
        "CreateLoadBalancer",
        &[
            ("elasticloadbalancing:CreateLoadBalancer", Grant::NewBalancing),
            ("elasticloadbalancing:AddTags", Grant::BalancingTagsAtCreation),
            ("ec2:DescribeAccountAttributes", Grant::Look),
            ("ec2:DescribeAddresses", Grant::Look),
            ("ec2:DescribeInternetGateways", Grant::Look),
            ("ec2:DescribeSecurityGroups", Grant::Look),
            ("ec2:DescribeSubnets", Grant::Look),
            ("ec2:DescribeVpcs", Grant::Look),
            ("iam:CreateServiceLinkedRole", Grant::FirstBalancer),
        ],
    ),
    call(
        Balancing,
        "CreateListener",
        &[
            ("elasticloadbalancing:CreateListener", Grant::NewListeners),
            ("elasticloadbalancing:AddTags", Grant::BalancingTagsAtCreation),
        ],
    ),
    call(
        Balancing,
        "CreateRule",
        &[
            ("elasticloadbalancing:CreateRule", Grant::NewListeners),
            ("elasticloadbalancing:AddTags", Grant::BalancingTagsAtCreation),
        ],
    ),
    call(Balancing, "ModifyTargetGroup", &[("elasticloadbalancing:ModifyTargetGroup", Grant::OwnBalancing)]),
    call(
        Balancing,
        "ModifyTargetGroupAttributes",
        &[("elasticloadbalancing:ModifyTargetGroupAttributes", Grant::OwnBalancing)],
    ),
    call(Balancing, "SetSubnets", &[("elasticloadbalancing:SetSubnets", Grant::OwnBalancing)]),
    call(Balancing, "ModifyListener", &[("elasticloadbalancing:ModifyListener", Grant::OwnBalancing)]),
    call(Balancing, "AddTags", &[("elasticloadbalancing:AddTags", Grant::OwnBalancing)]),
    call(Balancing, "DeleteRule", &[("elasticloadbalancing:DeleteRule", Grant::OwnBalancing)]),
    call(
        Balancing,
        "ModifyLoadBalancerAttributes",
        &[("elasticloadbalancing:ModifyLoadBalancerAttributes", Grant::OwnBalancing)],
    ),
    call(
        Balancing,
        "DeleteLoadBalancer",
        &[("elasticloadbalancing:DeleteLoadBalancer", Grant::OwnBalancing)],
    ),
    call(Balancing, "DeleteTargetGroup", &[("elasticloadbalancing:DeleteTargetGroup", Grant::OwnBalancing)]),
    call(Iam, "ListRoles", &[("iam:ListRoles", Grant::Look)]),
    call(Iam, "ListInstanceProfiles", &[("iam:ListInstanceProfiles", Grant::Look)]),
    call(Iam, "GetRole", &[("iam:GetRole", Grant::Role)]),
    call(Iam, "GetRolePolicy", &[("iam:GetRolePolicy", Grant::Role)]),
    call(Iam, "CreateRole", &[("iam:CreateRole", Grant::Role), ("iam:TagRole", Grant::Role)]),
    call(Iam, "PutRolePolicy", &[("iam:PutRolePolicy", Grant::Role)]),
    call(Iam, "DeleteRolePolicy", &[("iam:DeleteRolePolicy", Grant::Role)]),
    call(Iam, "DeleteRole", &[("iam:DeleteRole", Grant::Role)]),
    call(Iam, "GetInstanceProfile", &[("iam:GetInstanceProfile", Grant::Role)]),
    call(
        Iam,
        "CreateInstanceProfile",
        &[("iam:CreateInstanceProfile", Grant::Role), ("iam:TagInstanceProfile", Grant::Role)],
    ),
    call(
        Iam,
        "AddRoleToInstanceProfile",
        &[("iam:AddRoleToInstanceProfile", Grant::Role), ("iam:PassRole", Grant::PassRole)],
    ),
    call(Iam, "RemoveRoleFromInstanceProfile", &[("iam:RemoveRoleFromInstanceProfile", Grant::Role)]),
    call(Iam, "DeleteInstanceProfile", &[("iam:DeleteInstanceProfile", Grant::Role)]),
    call(Quotas, "GetServiceQuota", &[("servicequotas:GetServiceQuota", Grant::Quota)]),
    call(Ssm, "GetParameter", &[("ssm:GetParameter", Grant::PublicImages)]),
    // Allowed to everyone, even against a policy.
    call(Sts, "GetCallerIdentity", &[]),
    call(S3, "ListBuckets", &[("s3:ListAllMyBuckets", Grant::Look)]),
    call(S3, "GetBucketTagging", &[("s3:GetBucketTagging", Grant::Bucket)]),
    call(S3, "CreateBucket", &[("s3:CreateBucket", Grant::Bucket)]),
    call(S3, "PutPublicAccessBlock", &[("s3:PutBucketPublicAccessBlock", Grant::Bucket)]),
    call(S3, "PutBucketTagging", &[("s3:PutBucketTagging", Grant::Bucket)]),
    call(S3, "ListObjectVersions", &[("s3:ListBucketVersions", Grant::Bucket)]),
    call(S3, "ListMultipartUploads", &[("s3:ListBucketMultipartUploads", Grant::Bucket)]),
    call(S3, "DeleteBucket", &[("s3:DeleteBucket", Grant::Bucket)]),
    // Without s3:ListBucket an object that is not there would be answered with 403.
    call(S3, "HeadObject", &[("s3:GetObject", Grant::Bucket), ("s3:ListBucket", Grant::Bucket)]),
    call(S3, "PutObject", &[("s3:PutObject", Grant::Bucket)]),
    // Not sent, but presigned: the instances use it with the operator's permission.
    call(S3, "GetObject", &[("s3:GetObject", Grant::Bucket)]),
    call(
        S3,
        "DeleteObjects",
        &[("s3:DeleteObject", Grant::Bucket), ("s3:DeleteObjectVersion", Grant::Bucket)],
    ),
    call(S3, "AbortMultipartUpload", &[("s3:AbortMultipartUpload", Grant::Bucket)]),
];
