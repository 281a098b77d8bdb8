//! What the policies allow, and that it is no more.

use serde_json::{Value, json};

use super::*;
use crate::fleet::Fleet;

fn scope(fleet: &str) -> Scope {
    Scope {
        fleet: fleet.to_owned(),
        target_groups: ["cluster1", "cluster2"].map(|group| format!("{fleet}-{group}")).into(),
        instance_profile: None,
        region: Some("us-east-1".to_owned()),
        account: Some("123456789012".to_owned()),
    }
}

fn statements(document: &Value) -> &[Value] {
    document["Statement"].as_array().unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().map(|value| value.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

fn statement<'a>(document: &'a Value, sid: &str) -> Option<&'a Value> {
    statements(document).iter().find(|statement| statement["Sid"] == sid)
}

#[test]
fn agents_join_and_leave_their_own_target_groups_and_no_others() {
    let fleet = Fleet::parse("clusters", Fleet::built_in("clusters").unwrap()).unwrap();
    let document = agent(&Scope::of(&fleet, Some("us-east-1"), Some("123456789012")));
    assert_eq!(
        document,
        json!({
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "JoinAndLeaveTargetGroups",
                    "Effect": "Allow",
                    "Action": [
                        "elasticloadbalancing:RegisterTargets",
                        "elasticloadbalancing:DeregisterTargets",
                    ],
                    "Resource": [
                        "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/clusters-cluster1/*",
                        "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/clusters-cluster2/*",
                    ],
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
    );
}

#[test]
fn the_policy_that_the_package_ships_differs_in_the_target_groups_alone() {
    let mut shipped: Value = serde_json::from_str(include_str!("../../../packaging/iam/agent.json")).unwrap();
    let any = "arn:aws:elasticloadbalancing:*:*:targetgroup/*";
    assert_eq!(shipped["Statement"][0]["Resource"], any);
    let made = agent(&scope("clusters"));
    shipped["Statement"][0]["Resource"] = made["Statement"][0]["Resource"].clone();
    assert_eq!(shipped, made);
}

#[test]
fn operators_are_given_everything_only_for_looking() {
    let document = operator(&scope("web"));
    let wide: Vec<_> =
        statements(&document).iter().filter(|s| texts(&s["Resource"]).contains(&"*")).collect();
    assert_eq!(wide.len(), 1);
    for action in texts(&wide[0]["Action"]) {
        let (service, name) = action.split_once(':').unwrap();
        let looks = name.starts_with("Describe") && ["ec2", "elasticloadbalancing"].contains(&service);
        let lists = ["s3:ListAllMyBuckets", "iam:ListRoles", "iam:ListInstanceProfiles"].contains(&action);
        assert!(looks || lists, "{action}");
    }
}

#[test]
fn everything_else_is_aimed_at_the_fleets_names_or_tag() {
    // Resources without an owner in the account: public images, the quota, what to launch from and into, and the
    // role that load balancing has in each account.
    let shared = ["FindImages", "ReadQuota", "LaunchFrom"];
    let document = operator(&scope("web"));
    for statement in statements(&document) {
        let sid = statement["Sid"].as_str().unwrap();
        if sid == "Look" || shared.contains(&sid) {
            continue;
        }
        let conditions = &statement["Condition"]["StringEquals"];
        if sid == "FirstBalancer" {
            assert_eq!(conditions["iam:AWSServiceName"], "elasticloadbalancing.amazonaws.com");
            continue;
        }
        let tag = ["Request", "Resource"].map(|kind| format!("aws:{kind}Tag/instance-agent:fleet"));
        let by_tag = tag.iter().any(|key| conditions[key] == "web");
        for resource in texts(&statement["Resource"]) {
            let mut path = resource.splitn(6, ':').last().unwrap().split(['/', ':']);
            let by_name = path.any(|part| part.contains("web"));
            assert!(by_tag || by_name, "{sid}: {resource}");
            assert!(!resource.starts_with("arn:aws:ec2") || by_tag, "{sid}: {resource}");
            let of_account = resource.starts_with("arn:aws:s3:::") || resource.contains(":123456789012:");
            assert!(of_account, "{sid}: {resource}");
        }
    }
    for sid in ["NewListeners", "Launch", "TagNew", "TagBalancing"] {
        let conditions = &statement(&document, sid).unwrap()["Condition"]["StringEquals"];
        assert_eq!(conditions["aws:RequestTag/instance-agent:fleet"], "web", "{sid}");
    }
    let passing = statement(&document, "PassRole").unwrap();
    assert_eq!(passing["Resource"], "arn:aws:iam::123456789012:role/instance-agent-web-us-east-1");
    assert_eq!(passing["Condition"]["StringEquals"]["iam:PassedToService"], "ec2.amazonaws.com");
}

#[test]
fn two_fleets_policies_differ_in_the_name_alone() {
    let [one, other] = ["qqq", "zzz"].map(|fleet| operator(&scope(fleet)).to_string());
    assert_ne!(one, other);
    assert_eq!(one.replace("qqq", "zzz"), other);
}

#[test]
fn a_policy_fits_into_what_iam_takes() {
    let fleet = "a-name-of-20-letters";
    for region in ["ap-southeast-2", "us-gov-west-1"] {
        let scope = Scope { region: Some(region.to_owned()), ..scope(fleet) };
        // White space does not count for a managed policy's 6,144 characters.
        let length = operator(&scope).to_string().len();
        assert!(length <= 6144, "{length} in {region}");
    }
}

#[test]
fn without_region_and_account_it_is_any() {
    let document = operator(&Scope { region: None, account: None, ..scope("web") });
    let resource = |sid| statement(&document, sid).unwrap()["Resource"].clone();
    assert_eq!(resource("UseOwn")[0], "arn:aws:ec2:*:*:instance/*");
    assert_eq!(resource("PassRole"), "arn:aws:iam::*:role/instance-agent-web-*");
    assert_eq!(resource("UseOwnBucket")[1], "arn:aws:s3:::instance-agent-web-*-*/*");
}

#[test]
fn arns_are_of_the_regions_part_of_aws() {
    for (region, expected) in [
        ("us-east-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("*", "aws"),
    ] {
        let scope = Scope { region: Some(region.to_owned()), ..scope("web") };
        assert_eq!(scope.partition(), expected, "{region}");
    }
    let document = operator(&Scope { region: Some("cn-north-1".to_owned()), ..scope("web") });
    assert!(!document.to_string().contains("arn:aws:"), "{document}");
    let passing = statement(&document, "PassRole").unwrap();
    let services = json!(["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]);
    assert_eq!(passing["Condition"]["StringEquals"]["iam:PassedToService"], services);
}

#[test]
fn with_a_profile_that_exists_no_role_is_made() {
    let document = operator(&Scope { instance_profile: Some("ops".to_owned()), ..scope("web") });
    let profile = statement(&document, "UseOwnRole").unwrap();
    assert_eq!(profile["Action"], "iam:GetInstanceProfile");
    assert_eq!(profile["Resource"], "arn:aws:iam::123456789012:instance-profile/ops");
    let passing = statement(&document, "PassRole").unwrap();
    assert_eq!(passing["Resource"], "arn:aws:iam::123456789012:role/ops");
}

#[test]
fn only_listed_calls_can_be_made_and_each_is_listed_once() {
    assert!(allows_call("EC2", "RunInstances") && allows_call("Elastic Load Balancing v2", "CreateRule"));
    assert!(!allows_call("EC2", "DeleteVpc") && !allows_call("IAM", "RunInstances"));
    for (number, call) in CALLS.iter().enumerate() {
        let again =
            CALLS[..number].iter().any(|c| (c.service, c.operation) == (call.service, call.operation));
        let free = ["GetCallerIdentity", "DescribeRegions"].contains(&call.operation);
        assert!(!again && call.needs.is_empty() == free, "{}", call.operation);
    }
    for grant in GRANTS {
        assert!(CALLS.iter().flat_map(|call| call.needs).any(|(_, of)| *of == grant), "{grant:?}");
    }
}

#[test]
fn the_documentation_has_every_call_and_every_permission() {
    let text = include_str!("../../../docs/policies.md");
    for call in CALLS {
        let line = text.lines().find(|line| line.contains(&format!(" | `{}` | ", call.operation)));
        let line = line.unwrap_or_else(|| panic!("{} is missing", call.operation));
        for (action, _) in call.needs {
            assert!(line.contains(&format!("`{action}`")), "{action} is missing in: {line}");
        }
    }
    let rows = text.split("## Each call").nth(1).unwrap().lines().filter(|line| line.starts_with("| "));
    assert_eq!(rows.count() - 2, CALLS.len(), "beside the head: calls that are made no more");
    for grant in GRANTS {
        assert!(text.contains(&format!("\n| `{}` | ", grant.sid())), "{} is missing", grant.sid());
    }
}
