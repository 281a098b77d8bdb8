//! Roles, profiles and security groups: not there at first, and not gone at once.

use serde_json::json;
use tests::account::Options;

use super::place::{AGENT, ELB, Place, instances};

#[tokio::test]
async fn a_new_profile_is_invisible_and_an_empty_one_useless() {
    let place = Place::with(Options { invisible_profiles: 2, invisible_roles: 0, ..Options::prompt() }).await;
    let with = [("IamInstanceProfile.Name", "agent")];
    assert_eq!(place.code("ec2", "RunInstances", &place.launch(&with)).await, "InvalidParameterValue");
    place.role("agent", &AGENT).await;
    for _ in 0..2 {
        let refused = place.ask("ec2", "RunInstances", &place.launch(&with)).await;
        assert_eq!(refused.code(), "InvalidParameterValue");
        let message = refused.xml().find("Message").expect("a message").text.clone();
        assert!(message.contains("Invalid IAM Instance Profile name"), "{message}");
    }
    let launched = place.run(&[with[0], ("MinCount", "2"), ("MaxCount", "2")]).await;
    let found = instances(&place.ok("ec2", "DescribeInstances", &[]).await);
    assert_eq!(found.len(), launched.len());
    for item in found {
        assert_eq!(item.say("iamInstanceProfile/arn"), "arn:aws:iam::123456789012:instance-profile/agent");
    }
    place.ok("iam", "CreateInstanceProfile", &[("InstanceProfileName", "empty")]).await;
    place.account.set(|options| options.invisible_profiles = 0);
    place.ok("iam", "CreateInstanceProfile", &[("InstanceProfileName", "hollow")]).await;
    let hollow = place.launch(&[("IamInstanceProfile.Name", "hollow")]);
    let refused = place.ask("ec2", "RunInstances", &hollow).await;
    assert!(String::from_utf8_lossy(&refused.body).contains("no associated IAM Roles"));
}

#[tokio::test]
async fn a_new_role_is_invisible_to_each_first_use() {
    let place = Place::with(Options { invisible_roles: 1, ..Options::prompt() }).await;
    let trust = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Principal": { "Service": "ec2.amazonaws.com" }, "Action": "sts:AssumeRole" },
    ] });
    place
        .ok("iam", "CreateRole", &[("RoleName", "r"), ("AssumeRolePolicyDocument", &trust.to_string())])
        .await;
    let statement = json!({ "Effect": "Allow", "Action": AGENT, "Resource": "*" });
    let policy = json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
    let put = [("RoleName", "r"), ("PolicyName", "p"), ("PolicyDocument", policy.as_str())];
    assert_eq!(place.code("iam", "PutRolePolicy", &put).await, "NoSuchEntity");
    place.ok("iam", "PutRolePolicy", &put).await;
    place.ok("iam", "CreateInstanceProfile", &[("InstanceProfileName", "r")]).await;
    let add = [("InstanceProfileName", "r"), ("RoleName", "r")];
    assert_eq!(place.code("iam", "AddRoleToInstanceProfile", &add).await, "NoSuchEntity");
    // The profile is as new as the role.
    assert_eq!(place.code("iam", "AddRoleToInstanceProfile", &add).await, "NoSuchEntity");
    place.ok("iam", "AddRoleToInstanceProfile", &add).await;
    assert_eq!(place.code("iam", "DeleteRole", &[("RoleName", "r")]).await, "DeleteConflict");
    place.ok("iam", "RemoveRoleFromInstanceProfile", &add).await;
    assert_eq!(place.code("iam", "RemoveRoleFromInstanceProfile", &add).await, "NoSuchEntity");
}

#[tokio::test]
async fn a_new_security_group_is_invisible_to_each_first_use() {
    let place = Place::with(Options { invisible_groups: 1, ..Options::prompt() }).await;
    let group = place.group("new").await;
    let allow = [
        ("GroupId", group.as_str()),
        ("IpPermissions.1.IpProtocol", "tcp"),
        ("IpPermissions.1.FromPort", "80"),
        ("IpPermissions.1.ToPort", "80"),
        ("IpPermissions.1.IpRanges.1.CidrIp", "0.0.0.0/0"),
    ];
    assert_eq!(place.code("ec2", "AuthorizeSecurityGroupIngress", &allow).await, "InvalidGroup.NotFound");
    place.ok("ec2", "AuthorizeSecurityGroupIngress", &allow).await;
    let launch = place.launch(&[("SecurityGroupId.1", &group)]);
    assert_eq!(place.code("ec2", "RunInstances", &launch).await, "InvalidGroup.NotFound");
    place.ok("ec2", "RunInstances", &launch).await;
    let balancer = [
        ("Name", "b"),
        ("Subnets.member.1", place.subnets[0].1.as_str()),
        ("Subnets.member.2", place.subnets[1].1.as_str()),
        ("SecurityGroups.member.1", group.as_str()),
    ];
    assert_eq!(place.code(ELB, "CreateLoadBalancer", &balancer).await, "InvalidSecurityGroup");
    place.ok(ELB, "CreateLoadBalancer", &balancer).await;
    let wrong = [("GroupName", "umlaut"), ("GroupDescription", "für alle"), ("VpcId", place.vpc.as_str())];
    assert_eq!(place.code("ec2", "CreateSecurityGroup", &wrong).await, "InvalidParameterValue");
}

#[tokio::test]
async fn a_security_group_stays_while_anything_uses_it() {
    let place = Place::with(Options { shutting_down: 1, lingering_interfaces: 1, ..Options::prompt() }).await;
    let (group, other) = (place.group("used").await, place.group("refers").await);
    let delete = [("GroupId", group.as_str())];
    let launched = place.run(&[("SecurityGroupId.1", &group)]).await;
    let balancer = place.balancer(&group).await;
    let refer = [
        ("GroupId", other.as_str()),
        ("IpPermissions.1.IpProtocol", "-1"),
        ("IpPermissions.1.Groups.1.GroupId", group.as_str()),
    ];
    place.ok("ec2", "AuthorizeSecurityGroupIngress", &refer).await;

    let violated =
        async || assert_eq!(place.code("ec2", "DeleteSecurityGroup", &delete).await, "DependencyViolation");
    violated().await;
    place.ok("ec2", "RevokeSecurityGroupIngress", &refer).await;
    violated().await;
    place.ok("ec2", "TerminateInstances", &[("InstanceId.1", &launched[0])]).await;
    violated().await;
    violated().await;
    place.ok(ELB, "DeleteLoadBalancer", &[("LoadBalancerArn", &balancer)]).await;
    // Its network interfaces.
    violated().await;
    place.ok("ec2", "DeleteSecurityGroup", &delete).await;
    // An instance by itself, shutting down, also holds it.
    let launched = place.run(&[("SecurityGroupId.1", &other)]).await;
    place.ok("ec2", "TerminateInstances", &[("InstanceId.1", &launched[0])]).await;
    let delete = [("GroupId", other.as_str())];
    assert_eq!(place.code("ec2", "DeleteSecurityGroup", &delete).await, "DependencyViolation");
    place.ok("ec2", "DeleteSecurityGroup", &delete).await;
}
