//! An account's default network, and short words for what the tests do in it.

use serde_json::json;
use tests::account::{Account, Answer, Element, IMAGE, Options};

pub(crate) const ELB: &str = "elasticloadbalancing";

/// The parameters of a launch of one instance that differ from test to test.
pub(crate) type Parameters<'a> = Vec<(&'a str, &'a str)>;

/// What most tests need of an account: its default network.
pub(crate) struct Place {
    pub(crate) account: Account,
    pub(crate) vpc: String,
    /// Zone and id, in the order of the zones: a, b, ...
    pub(crate) subnets: Vec<(String, String)>,
}

impl Place {
    pub(crate) async fn with(options: Options) -> Self {
        Self::find(Account::start(options).await).await
    }

    /// In an account that has just been made, or made new.
    pub(crate) async fn find(account: Account) -> Self {
        let found = account.ask("ec2", "DescribeSubnets", &[]).await.xml();
        let mut subnets: Vec<(String, String)> = found
            .list("subnetSet")
            .iter()
            .map(|item| (item.say("availabilityZone").to_owned(), item.say("subnetId").to_owned()))
            .collect();
        subnets.sort();
        let vpc = found.list("subnetSet")[0].say("vpcId").to_owned();
        Self { account, vpc, subnets }
    }

    pub(crate) async fn strict() -> Self {
        Self::with(Options::strict()).await
    }

    pub(crate) async fn prompt() -> Self {
        Self::with(Options::prompt()).await
    }

    pub(crate) async fn ask(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> Answer {
        self.account.ask_front(service, action, parameters).await.expect("an answer")
    }

    pub(crate) async fn ok(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> Element {
        let answer = self.ask(service, action, parameters).await;
        assert!(answer.ok(), "{action}: {}", String::from_utf8_lossy(&answer.body));
        answer.xml()
    }

    /// The code of a call that has to fail.
    pub(crate) async fn code(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> String {
        let answer = self.ask(service, action, parameters).await;
        assert!(!answer.ok(), "{action} worked");
        answer.code()
    }

    pub(crate) fn launch<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Parameters<'a> {
        let mut launch = vec![
            ("ImageId", IMAGE),
            ("InstanceType", "t2.large"),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("SubnetId", self.subnets[0].1.as_str()),
        ];
        launch.retain(|(key, _)| !more.iter().any(|(other, _)| other == key));
        launch.extend(more);
        launch
    }

    pub(crate) async fn run(&self, more: &[(&str, &str)]) -> Vec<String> {
        ids(&self.ok("ec2", "RunInstances", &self.launch(more)).await)
    }

    pub(crate) async fn group(&self, name: &str) -> String {
        let asked = [("GroupName", name), ("GroupDescription", "a group"), ("VpcId", self.vpc.as_str())];
        self.ok("ec2", "CreateSecurityGroup", &asked).await.say("groupId").to_owned()
    }

    pub(crate) async fn balancer(&self, group: &str) -> String {
        let asked = [
            ("Name", "balancer"),
            ("Subnets.member.1", self.subnets[0].1.as_str()),
            ("Subnets.member.2", self.subnets[1].1.as_str()),
            ("SecurityGroups.member.1", group),
        ];
        let made = self.ok(ELB, "CreateLoadBalancer", &asked).await;
        made.find("LoadBalancerArn").expect("an ARN").text.clone()
    }

    pub(crate) async fn target_group(&self, name: &str) -> String {
        let asked = [("Name", name), ("Protocol", "HTTP"), ("Port", "80"), ("VpcId", self.vpc.as_str())];
        let made = self.ok(ELB, "CreateTargetGroup", &asked).await;
        made.find("TargetGroupArn").expect("an ARN").text.clone()
    }

    pub(crate) async fn listener(&self, balancer: &str, group: &str) -> String {
        let made = self.ok(ELB, "CreateListener", &forwarding(balancer, group)).await;
        made.find("ListenerArn").expect("an ARN").text.clone()
    }

    /// The state of each instance that is described.
    pub(crate) async fn states(&self, more: &[(&str, &str)]) -> Vec<String> {
        let found = self.ok("ec2", "DescribeInstances", more).await;
        instances(&found).iter().map(|item| item.say("instanceState/name").to_owned()).collect()
    }

    /// State and reason of each target.
    pub(crate) async fn health(&self, group: &str) -> Vec<(String, String)> {
        let found = self.ok(ELB, "DescribeTargetHealth", &[("TargetGroupArn", group)]).await;
        let told = found.list("DescribeTargetHealthResult/TargetHealthDescriptions").iter();
        told.map(|item| {
            (item.say("TargetHealth/State").to_owned(), item.say("TargetHealth/Reason").to_owned())
        })
        .collect()
    }

    /// A role that an agent on an instance can use, in a profile of the same name.
    pub(crate) async fn role(&self, name: &str, actions: &[&str]) {
        let trust = json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Principal": { "Service": "ec2.amazonaws.com" }, "Action": "sts:AssumeRole" },
        ] });
        let policy = json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": actions, "Resource": "*" },
        ] });
        let (trust, policy) = (trust.to_string(), policy.to_string());
        self.ok("iam", "CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", &trust)]).await;
        let put = [("RoleName", name), ("PolicyName", "agent"), ("PolicyDocument", policy.as_str())];
        self.ok("iam", "PutRolePolicy", &put).await;
        self.ok("iam", "CreateInstanceProfile", &[("InstanceProfileName", name)]).await;
        let add = [("InstanceProfileName", name), ("RoleName", name)];
        self.ok("iam", "AddRoleToInstanceProfile", &add).await;
    }
}

/// A launch whose agents register with these target groups.
pub(crate) fn joining<'a>(groups: &'a str, profile: &'a str) -> Parameters<'a> {
    vec![
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "instance-agent:target-group"),
        ("TagSpecification.1.Tag.1.Value", groups),
        ("MetadataOptions.InstanceMetadataTags", "enabled"),
        ("IamInstanceProfile.Name", profile),
    ]
}

pub(crate) const AGENT: [&str; 4] = [
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
    "elasticloadbalancing:RegisterTargets",
    "elasticloadbalancing:DeregisterTargets",
];

pub(crate) fn forwarding<'a>(balancer: &'a str, group: &'a str) -> Parameters<'a> {
    vec![
        ("LoadBalancerArn", balancer),
        ("Protocol", "HTTP"),
        ("Port", "80"),
        ("DefaultActions.member.1.Type", "forward"),
        ("DefaultActions.member.1.TargetGroupArn", group),
    ]
}

pub(crate) fn instances(document: &Element) -> Vec<Element> {
    let reservations = document.list("reservationSet").iter();
    reservations.flat_map(|reservation| reservation.list("instancesSet")).cloned().collect()
}

pub(crate) fn ids(launched: &Element) -> Vec<String> {
    launched.list("instancesSet").iter().map(|item| item.say("instanceId").to_owned()).collect()
}
