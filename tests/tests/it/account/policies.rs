//! What a policy lets its holder do.

use serde_json::json;
use tests::account::{Answer, Document, IMAGE};

use super::place::{AGENT, ELB, Place, joining};

/// What the front decides about a call of this policy.
async fn decided(
    place: &Place,
    policy: &serde_json::Value,
    service: &str,
    action: &str,
    parameters: &[(&str, &str)],
) -> Answer {
    let policy = Document::parse(&json!({ "Version": "2012-10-17", "Statement": policy }).to_string());
    place.account.set(|options| options.policy = Some(policy));
    let answer = place.ask(service, action, parameters).await;
    place.account.set(|options| options.policy = None);
    answer
}

#[tokio::test]
async fn a_policy_has_to_allow_every_resource_of_a_launch_and_what_depends_on_it() {
    let place = Place::prompt().await;
    place.role("agent", &AGENT).await;
    let group = place.group("g").await;
    let mut launch = joining("one", "agent");
    launch.push(("SecurityGroupId.1", &group));
    let launch = place.launch(&launch);
    let account = "arn:aws:ec2:us-east-1:123456789012";
    let resources = ["instance/*", "volume/*", "network-interface/*", "subnet/*", "security-group/*"];
    let mut resources: Vec<String> =
        resources.iter().map(|resource| format!("{account}:{resource}")).collect();
    resources.push(format!("arn:aws:ec2:us-east-1::image/{IMAGE}"));
    let whole = json!([
        { "Effect": "Allow", "Action": "ec2:RunInstances", "Resource": resources },
        { "Effect": "Allow", "Action": "ec2:CreateTags", "Resource": format!("{account}:instance/*"), "Condition": {
            "StringEquals": { "ec2:CreateAction": "RunInstances", "aws:RequestTag/instance-agent:target-group": "one" },
        } },
        { "Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::123456789012:role/agent", "Condition": {
            "StringEquals": { "iam:PassedToService": "ec2.amazonaws.com" },
        } },
    ]);
    let allowed = decided(&place, &whole, "ec2", "RunInstances", &launch).await;
    assert!(allowed.ok(), "{}", String::from_utf8_lossy(&allowed.body));
    for (n, resource) in resources.iter().enumerate() {
        let mut less = whole.clone();
        less[0]["Resource"].as_array_mut().expect("a list").remove(n);
        let refused = decided(&place, &less, "ec2", "RunInstances", &launch).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "UnauthorizedOperation"),
            "without {resource}"
        );
    }
    let changes = [
        ("/1/Action", json!("ec2:DeleteTags")),
        ("/1/Condition/StringEquals/ec2:CreateAction", json!("CreateVolume")),
        ("/1/Condition/StringEquals/aws:RequestTag~1instance-agent:target-group", json!("two")),
        ("/2/Resource", json!("arn:aws:iam::123456789012:role/other")),
        ("/2/Condition/StringEquals/iam:PassedToService", json!("lambda.amazonaws.com")),
    ];
    for (pointer, value) in changes {
        let mut other = whole.clone();
        *other.pointer_mut(pointer).expect("it is there") = value;
        let refused = decided(&place, &other, "ec2", "RunInstances", &launch).await;
        assert_eq!(refused.code(), "UnauthorizedOperation", "{pointer}");
    }
}

#[tokio::test]
async fn a_policy_is_held_against_the_tags_that_things_have() {
    let place = Place::prompt().await;
    let tagged = async |name: &str, fleet: &str| {
        let asked = [
            ("GroupName", name),
            ("GroupDescription", "x"),
            ("VpcId", place.vpc.as_str()),
            ("TagSpecification.1.ResourceType", "security-group"),
            ("TagSpecification.1.Tag.1.Key", "instance-agent:fleet"),
            ("TagSpecification.1.Tag.1.Value", fleet),
        ];
        place.ok("ec2", "CreateSecurityGroup", &asked).await.say("groupId").to_owned()
    };
    let (ours, theirs) = (tagged("ours", "blue").await, tagged("theirs", "red").await);
    let policy = json!([{
        "Effect": "Allow", "Action": "ec2:DeleteSecurityGroup", "Resource": "*",
        "Condition": { "StringEquals": { "aws:ResourceTag/instance-agent:fleet": "blue" } },
    }]);
    let refused = decided(&place, &policy, "ec2", "DeleteSecurityGroup", &[("GroupId", &theirs)]).await;
    assert_eq!(refused.code(), "UnauthorizedOperation");
    assert!(decided(&place, &policy, "ec2", "DeleteSecurityGroup", &[("GroupId", &ours)]).await.ok());

    // A balancer of an account that never had one needs the service's own role.
    place.account.set(|options| options.had_balancers = false);
    let mut policy = json!([
        { "Effect": "Allow", "Action": "elasticloadbalancing:CreateLoadBalancer",
          "Resource": "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/blue/*" },
        { "Effect": "Allow", "Action": "elasticloadbalancing:AddTags",
          "Resource": "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/blue/*",
          "Condition": { "StringEquals": { "elasticloadbalancing:CreateAction": "CreateLoadBalancer" } } },
    ]);
    let create = [
        ("Name", "blue"),
        ("Subnets.member.1", place.subnets[0].1.as_str()),
        ("Subnets.member.2", place.subnets[1].1.as_str()),
        ("Tags.member.1.Key", "instance-agent:fleet"),
        ("Tags.member.1.Value", "blue"),
    ];
    let refused = decided(&place, &policy, ELB, "CreateLoadBalancer", &create).await;
    assert_eq!(refused.code(), "AccessDenied");
    assert!(String::from_utf8_lossy(&refused.body).contains("iam:CreateServiceLinkedRole"));
    let role = json!({ "Effect": "Allow", "Action": "iam:CreateServiceLinkedRole", "Resource": "*", "Condition": {
        "StringEquals": { "iam:AWSServiceName": "elasticloadbalancing.amazonaws.com" },
    } });
    policy.as_array_mut().expect("a list").push(role);
    let refused = decided(&place, &policy, ELB, "CreateLoadBalancer", &create).await;
    assert!(String::from_utf8_lossy(&refused.body).contains("ec2:DescribeAccountAttributes"));
    let looks = json!({ "Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*" });
    policy.as_array_mut().expect("a list").push(looks);
    let made = decided(&place, &policy, ELB, "CreateLoadBalancer", &create).await;
    assert!(made.ok(), "{}", String::from_utf8_lossy(&made.body));
    let arn = made.xml().find("LoadBalancerArn").expect("an ARN").text.clone();
    let policy = json!([{
        "Effect": "Allow", "Action": "elasticloadbalancing:DeleteLoadBalancer", "Resource": "*",
        "Condition": { "StringEquals": { "aws:ResourceTag/instance-agent:fleet": "red" } },
    }]);
    let delete = [("LoadBalancerArn", arn.as_str())];
    assert_eq!(decided(&place, &policy, ELB, "DeleteLoadBalancer", &delete).await.code(), "AccessDenied");
}

#[tokio::test]
async fn moto_itself_refuses_what_a_users_policy_does_not_name() {
    let place = Place::strict().await;
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": ["ec2:DescribeSubnets", "ec2:DescribeInstances"], "Resource": "*" },
    ] });
    let (key, secret) = place.account.user("operator", &policy.to_string()).await;
    let cli = tests::outside::AwsCli::new(place.account.endpoint(), &key, &secret).await;
    let listed = cli.ok(&["ec2", "describe-subnets"]).await;
    assert_eq!(listed["Subnets"].as_array().expect("a list").len(), place.subnets.len());
    let token = ["ec2", "describe-instances", "--filters", "Name=client-token,Values=x"];
    assert_eq!(cli.ok(&token).await["Reservations"], json!([]));
    let error = cli.error(&["ec2", "describe-vpcs"]).await;
    assert!(error.contains("UnauthorizedOperation") || error.contains("AccessDenied"), "{error}");
    let nobody = tests::outside::AwsCli::new(place.account.endpoint(), "AKIANOBODYKNOWSTHIS0", &secret).await;
    let error = nobody.error(&["ec2", "describe-subnets"]).await;
    assert!(error.contains("AuthFailure"), "{error}");
}
