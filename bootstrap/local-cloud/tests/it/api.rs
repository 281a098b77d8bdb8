//! The API: credentials, parameters, descriptions, throttle and faults, with raw requests.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use local_cloud::{Fault, InstanceSpec, LocalCloud, LocalCloudOptions, Outage, Rate, TargetState, Throttle};

use crate::support::{self, *};

#[tokio::test]
async fn calls_need_the_instances_own_credentials() {
    let (cloud, ..) = cloud().await;
    let instance = instance(&cloud).await;
    let good = Caller::instance(&cloud, &instance).await;
    let action = "DescribeTargetGroups";
    good.ok(action, &[]).await;

    let body = format!("Action={action}&Version=2015-12-01");
    let request = reqwest::Client::new().post(cloud.endpoint_url()).body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 403);
    let xml = response.text().await.unwrap();
    assert_eq!(between(&xml, "Code"), "MissingAuthenticationToken");

    let spoil = |spoil: fn(&mut Caller)| {
        let mut caller = good.clone();
        spoil(&mut caller);
        caller
    };
    let cases = [
        (spoil(|c| c.access_key = "ASIAFOREIGN".into()), "InvalidClientTokenId"),
        (spoil(|c| c.session_token = None), "InvalidClientTokenId"),
        (spoil(|c| c.session_token = Some("stale".into())), "InvalidClientTokenId"),
        (spoil(|c| c.region = "eu-west-1".into()), "SignatureDoesNotMatch"),
        (spoil(|c| c.service = "ec2".into()), "SignatureDoesNotMatch"),
        (spoil(|c| c.date = Some(compact(SystemTime::UNIX_EPOCH))), "SignatureDoesNotMatch"),
        (spoil(|c| c.signed = "host;x-amz-date".into()), "SignatureDoesNotMatch"),
    ];
    for (caller, code) in cases {
        assert_eq!(caller.error(action, &[]).await, (403, code.to_owned()), "{caller:?}");
    }
    let mut foreign = good.ec2();
    foreign.access_key = "ASIAFOREIGN".into();
    assert_eq!(foreign.error("DescribeTags", &[]).await, (401, "AuthFailure".to_owned()));
    instance.revoke_credentials();
    assert_eq!(good.error(action, &[]).await.1, "InvalidClientTokenId");
    Caller::instance(&cloud, &instance).await.ok(action, &[]).await;

    let options = LocalCloudOptions { credentials_lifetime: Duration::ZERO, ..options() };
    let cloud = LocalCloud::start(options).await.unwrap();
    let instance = support::instance(&cloud).await;
    let late = Caller::instance(&cloud, &instance).await;
    assert_eq!(late.error(action, &[]).await, (403, "ExpiredToken".to_owned()));
}

#[tokio::test]
async fn actions_and_parameters_that_are_not_known_are_refused() {
    let (cloud, arn, _) = cloud().await;
    let caller = Caller::instance(&cloud, &instance(&cloud).await).await;
    let error = async |action: &str, params: &[(&str, &str)]| caller.error(action, params).await.1;
    assert_eq!(error("DescribeEverything", &[]).await, "InvalidAction");
    assert_eq!(error("DescribeTargetHealth", &[]).await, "ValidationError");
    let arn = arn.as_str();
    let extra = [("TargetGroupArn", arn), ("Include.member.1", "All")];
    assert_eq!(error("DescribeTargetHealth", &extra).await, "ValidationError");
    let missing = [("Names.member.1", "g"), ("Names.member.2", "h")];
    assert_eq!(error("DescribeTargetGroups", &missing).await, "TargetGroupNotFound");
    assert_eq!(error("DescribeTargetHealth", &[("TargetGroupArn", "g")]).await, "ValidationError");
    let unknown = arn.replace("/g/", "/h/");
    assert_eq!(error("DescribeTargetHealth", &[("TargetGroupArn", &unknown)]).await, "TargetGroupNotFound");
    let mut other = caller.clone();
    other.version = "2012-06-01".into();
    assert_eq!(other.error("DescribeLoadBalancers", &[]).await.1, "InvalidAction");
}

#[tokio::test]
async fn descriptions_say_what_was_set_up() {
    let (cloud, arn, balancer) = cloud().await;
    let spec = InstanceSpec::new(Ipv4Addr::LOCALHOST).tag("k", "a&b");
    let instance = cloud.run_instance(spec).await.unwrap();
    support::instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let xml = caller.ok("DescribeTargetGroups", &[("Names.member.1", "g")]).await;
    assert_eq!(between(&xml, "TargetGroupArn"), arn);
    assert_eq!(between(&xml, "LoadBalancerArns"), format!("<member>{}</member>", balancer.arn()));
    let xml = caller.ok("DescribeTargetGroupAttributes", &[("TargetGroupArn", &arn)]).await;
    assert!(xml.contains("<Key>deregistration_delay.timeout_seconds</Key><Value>300</Value>"));
    let xml = caller.ok("DescribeListeners", &[("LoadBalancerArn", balancer.arn())]).await;
    let listener = between(&xml, "ListenerArn");
    let xml = caller.ok("DescribeRules", &[("ListenerArn", &listener)]).await;
    assert!(xml.contains("<Priority>default</Priority>"));
    let filter = [("Filter.1.Name", "resource-id"), ("Filter.1.Value.1", instance.id())];
    let xml = caller.ec2().ok("DescribeTags", &filter).await;
    assert_eq!(between(&xml, "value"), "a&amp;b");
    assert_eq!(xml.matches("<item>").count(), 1);
}

#[tokio::test]
async fn the_api_throttles_denies_and_fails_as_told() {
    let (cloud, arn, _) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let describe = ("DescribeTargetHealth", [("TargetGroupArn", arn.as_str())]);
    let rate = |burst| Rate { burst, per_second: 0.001 };
    cloud.throttle(Throttle { describe: rate(1), change: rate(1) });
    caller.ok(describe.0, &describe.1).await;
    assert_eq!(caller.error(describe.0, &describe.1).await, (400, "Throttling".to_owned()));
    caller.register(&arn, instance.id(), 80).await;
    let params = target_params(&arn, instance.id(), "80");
    assert_eq!(caller.error("DeregisterTargets", &params).await.1, "Throttling");
    caller.ec2().ok("DescribeTags", &[]).await;
    let throttled = caller.ec2().error("DescribeTags", &[]).await;
    assert_eq!(throttled, (503, "RequestLimitExceeded".to_owned()));

    cloud.throttle(Throttle::default());
    cloud.set_fault("DeregisterTargets", Some(Fault::Deny));
    let (status, xml) = caller.call("DeregisterTargets", &params).await;
    assert_eq!((status, between(&xml, "Code").as_str()), (403, "AccessDenied"));
    assert!(xml.contains("elasticloadbalancing:DeregisterTargets"), "{xml}");
    assert_ne!(only_target(&cloud, &arn).0, TargetState::Draining);
    cloud.set_fault("DeregisterTargets", Some(Fault::Fail(500)));
    assert_eq!(caller.error("DeregisterTargets", &params).await.0, 500);
    cloud.set_fault("DeregisterTargets", Some(Fault::Error("TooManyTargets".to_owned())));
    assert_eq!(caller.error("DeregisterTargets", &params).await.1, "TooManyTargets");
    cloud.set_fault("DeregisterTargets", None);
    cloud.set_endpoint_outage(Outage::Status(503));
    assert_eq!(caller.call("DeregisterTargets", &params).await.0, 503);
    cloud.set_endpoint_outage(Outage::Up);
    caller.ok("DeregisterTargets", &params).await;
    let errors: Vec<_> = cloud.calls().iter().filter_map(|call| call.error.clone()).collect();
    assert_eq!(
        errors,
        [
            "Throttling",
            "Throttling",
            "RequestLimitExceeded",
            "AccessDenied",
            "InternalFailure",
            "TooManyTargets"
        ]
    );
}

#[tokio::test]
async fn an_answer_can_be_lost_after_the_call_took_effect() {
    let (cloud, arn, _balancer) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    cloud.set_fault("RegisterTargets", Some(Fault::LoseAnswer));
    let params = target_params(&arn, instance.id(), "80");
    assert!(caller.try_call("RegisterTargets", &params).await.is_err(), "it was answered");
    assert_eq!(cloud.target_health(&arn).len(), 1, "it took effect");
    assert_eq!(cloud.calls().last().unwrap().error, None);
    // A call that is refused leaves no more of an answer than one that is not.
    let unknown = target_params(&arn, "i-0000000000000dead", "80");
    assert!(caller.try_call("RegisterTargets", &unknown).await.is_err(), "it was answered");
    assert_eq!(cloud.calls().last().unwrap().error.as_deref(), Some("InvalidTarget"));
    caller.ok("DescribeTargetHealth", &[("TargetGroupArn", &arn)]).await;
    cloud.set_fault("RegisterTargets", None);
    caller.ok("RegisterTargets", &params).await;
}
