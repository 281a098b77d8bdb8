//! Pages, faults, the record, and what moto does not have at all.

use serde_json::Value;
use tests::account::{
    AwsError, Element, Fault, IMAGE_PARAMETER, NEWER_IMAGE, Options, Trouble, differences, without_ids,
};

use super::place::{AGENT, ELB, Place, joining};

#[tokio::test]
async fn lists_come_in_pages_and_a_page_follows_only_its_own() {
    let place = Place::with(Options { page: Some(2), ..Options::prompt() }).await;
    let mut token = String::new();
    let mut found = Vec::new();
    loop {
        let page = match token.as_str() {
            "" => place.ok("ec2", "DescribeSubnets", &[]).await,
            token => place.ok("ec2", "DescribeSubnets", &[("NextToken", token)]).await,
        };
        assert!(page.list("subnetSet").len() <= 2);
        found.extend(page.list("subnetSet").iter().map(|item| item.say("subnetId").to_owned()));
        token = page.say("nextToken").to_owned();
        if token.is_empty() {
            break;
        }
        assert_eq!(
            place.code("ec2", "DescribeVpcs", &[("NextToken", &token)]).await,
            "InvalidParameterValue"
        );
    }
    let mut all: Vec<String> = place.subnets.iter().map(|(_, id)| id.clone()).collect();
    all.sort();
    found.sort();
    assert_eq!(found, all);
    for name in ["a", "b", "c"] {
        place.target_group(name).await;
    }
    let first = place.ok(ELB, "DescribeTargetGroups", &[]).await;
    let marker = first.say("DescribeTargetGroupsResult/NextMarker").to_owned();
    let second = place.ok(ELB, "DescribeTargetGroups", &[("Marker", &marker)]).await;
    let names = |page: &Element| {
        let list = page.list("DescribeTargetGroupsResult/TargetGroups").iter();
        list.map(|item| item.say("TargetGroupName").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((names(&first), names(&second)), (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]));
    assert!(second.find("NextMarker").is_none());
    assert_eq!(place.code("ec2", "DescribeInstances", &[("MaxResults", "4")]).await, "InvalidParameterValue");
    let both = [("MaxResults", "5"), ("InstanceId.1", "i-1")];
    assert_eq!(place.code("ec2", "DescribeInstances", &both).await, "InvalidParameterCombination");
    // awscli goes through all pages by itself.
    let listed = place.account.cli().await.ok(&["ec2", "describe-subnets"]).await;
    assert_eq!(listed["Subnets"].as_array().expect("a list").len(), place.subnets.len());
}

#[tokio::test]
async fn what_is_not_moto_is_answered_as_aws_would() {
    let place = Place::with(Options { vcpu_quota: 32, ..Options::prompt() }).await;
    let cli = place.account.cli().await;
    let parameter = cli.ok(&["ssm", "get-parameter", "--name", IMAGE_PARAMETER]).await;
    assert_eq!(parameter["Parameter"]["Value"], NEWER_IMAGE);
    let error = cli.error(&["ssm", "get-parameter", "--name", "/aws/service/canonical/nothing"]).await;
    assert!(error.contains("ParameterNotFound"), "{error}");
    let quota =
        ["service-quotas", "get-service-quota", "--service-code", "ec2", "--quota-code", "L-1216C47A"];
    assert_eq!(cli.ok(&quota).await["Quota"]["Value"], 32.0);
    assert_eq!(cli.ok(&["sts", "get-caller-identity"]).await["Account"], "123456789012");
}

#[tokio::test]
async fn faults_are_met_where_they_were_set() {
    let place = Place::prompt().await;
    let account = &place.account;
    let denied = AwsError::new(403, "UnauthorizedOperation", "no");
    account.fault(Fault::nth("ec2:DescribeVpcs", 2, Trouble::Fail(denied)));
    place.ok("ec2", "DescribeVpcs", &[]).await;
    assert_eq!(place.code("ec2", "DescribeVpcs", &[]).await, "UnauthorizedOperation");
    place.ok("ec2", "DescribeVpcs", &[]).await;
    assert_eq!(account.fired(), 1);

    // Lost: it took effect all the same.
    account.clear();
    account.fault(Fault::nth("elasticloadbalancing:CreateTargetGroup", 1, Trouble::Lose));
    let asked = [("Name", "lost"), ("Protocol", "HTTP"), ("Port", "80"), ("VpcId", place.vpc.as_str())];
    assert!(account.ask_front(ELB, "CreateTargetGroup", &asked).await.is_none());
    place.ok(ELB, "DescribeTargetGroups", &[("Names.member.1", "lost")]).await;

    // Held: the test is told, and whoever asked waits.
    account.fault(Fault::nth("*:*", 1, Trouble::Hold));
    let asking = async { account.ask_front(ELB, "DescribeLoadBalancers", &[]).await };
    tokio::select! {
        _ = asking => panic!("it was answered"),
        () = account.held() => {}
    }
    account.quiet().await;
    let calls = account.calls();
    let last = calls.last().expect("calls");
    assert_eq!(
        (last.name().as_str(), last.ended, last.status),
        ("elasticloadbalancing:DescribeLoadBalancers", None, 0)
    );

    account.clear();
    account.set(|options| options.throttle = true);
    place.ok("ec2", "DescribeVpcs", &[]).await;
    let throttled = place.ask("ec2", "DescribeVpcs", &[]).await;
    assert_eq!((throttled.status, throttled.code().as_str()), (503, "RequestLimitExceeded"));
    place.ok(ELB, "DescribeTargetGroups", &[]).await;
    assert_eq!(place.code(ELB, "DescribeTargetGroups", &[]).await, "Throttling");
}

#[tokio::test]
async fn a_snapshot_shows_every_change_and_ids_compare_equal() {
    let place = Place::prompt().await;
    let empty = place.account.snapshot().await;
    let run = async |place: &Place| {
        place.role("agent", &AGENT).await;
        place.target_group("one").await;
        place.run(&joining("one", "agent")).await;
        place.account.snapshot().await
    };
    let changed = |one: &Value, other: &Value| differences(&without_ids(one), &without_ids(other));
    let nothing = Vec::<String>::new();
    let first = run(&place).await;
    let told = changed(&empty, &first).join("\n");
    for what in ["/instances", "/targetGroups", "/roles", "/instanceProfiles", "/volumes"] {
        assert!(told.contains(&format!("+ {what}: ")), "{what}: {told}");
    }
    place.account.reset(Options::prompt()).await;
    assert!(place.account.calls().is_empty());
    assert_eq!(changed(&empty, &place.account.snapshot().await), nothing);
    // The network is another one, with other ids.
    let place = Place::find(place.account).await;
    let second = run(&place).await;
    assert_ne!(differences(&first, &second), nothing);
    assert_eq!(changed(&first, &second), nothing);
    let modify = [
        ("TargetGroupArn", second["targetGroups"][0]["TargetGroupArn"].as_str().expect("an ARN")),
        ("HealthCheckPath", "/x"),
    ];
    place.ok(ELB, "ModifyTargetGroup", &modify).await;
    let third = place.account.snapshot().await;
    assert_eq!(changed(&second, &third), ["/targetGroups/0/HealthCheckPath: \"/\" -> \"/x\""]);
}
