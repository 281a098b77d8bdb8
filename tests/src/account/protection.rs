//! Somebody's protection against a deletion by mistake.

use super::Account;

const ELB: &str = "elasticloadbalancing";

/// Protects one instance of the account's from termination; its id.
pub async fn protect_instance(account: &Account) -> String {
    let found = account.ask("ec2", "DescribeInstances", &[]).await.xml();
    let instances = found.list("reservationSet").iter().flat_map(|item| item.list("instancesSet"));
    let mut running = instances.filter(|item| item.say("instanceState/name") == "running");
    let id = running.next().expect("one that runs").say("instanceId").to_owned();
    let protected = [("InstanceId", id.as_str()), ("DisableApiTermination.Value", "true")];
    assert!(account.ask("ec2", "ModifyInstanceAttribute", &protected).await.ok());
    id
}

/// Protects the account's balancer from deletion.
pub async fn protect_balancer(account: &Account) {
    let found = account.ask(ELB, "DescribeLoadBalancers", &[]).await.xml();
    let balancers = found.list("DescribeLoadBalancersResult/LoadBalancers");
    let protected = [
        ("LoadBalancerArn", balancers[0].say("LoadBalancerArn")),
        ("Attributes.member.1.Key", "deletion_protection.enabled"),
        ("Attributes.member.1.Value", "true"),
    ];
    assert!(account.ask(ELB, "ModifyLoadBalancerAttributes", &protected).await.ok());
}
