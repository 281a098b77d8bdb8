//! The local cloud's strictness: metadata, API and target states, with raw requests.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use crate::support::{self, *};
use local_cloud::{
    BalancerSpec, Fault, Forward, InstanceSpec, LocalCloud, LocalCloudOptions, Outage, Rate, SpotAction,
    TargetState, TargetStatus, Throttle,
};

#[tokio::test]
async fn metadata_insists_on_a_session_token() {
    let (cloud, ..) = cloud().await;
    let instance = instance(&cloud).await;
    let client = reqwest::Client::new();
    let put = |headers: &[(&'static str, &'static str)]| {
        let url = format!("{}/latest/api/token", instance.imds_url());
        let request = headers.iter().fold(client.put(url), |r, (k, v)| r.header(*k, *v));
        async move { request.send().await.unwrap().status().as_u16() }
    };
    const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    assert_eq!(put(&[]).await, 400);
    for wrong in ["0", "21601", "x", ""] {
        assert_eq!(put(&[(TTL, wrong)]).await, 400, "{wrong:?}");
    }
    assert_eq!(put(&[(TTL, "60"), ("x-forwarded-for", "10.0.0.1")]).await, 403);
    assert_eq!(put(&[(TTL, "21600")]).await, 200);

    let (status, _) = get(&format!("{}/latest/meta-data/instance-id", instance.imds_url())).await;
    assert_eq!(status, 401, "version 1");
    let id = "meta-data/instance-id";
    assert_eq!(metadata(&instance, id, "wrong").await.0, 401);
    let token = token(&instance, "2").await;
    assert_eq!(metadata(&instance, id, &token).await, (200, instance.id().to_owned()));
    let other = support::instance(&cloud).await;
    assert_eq!(metadata(&other, id, &token).await.0, 401, "another instance's token");
    jump(Duration::from_secs(2)).await;
    assert_eq!(metadata(&instance, id, &token).await.0, 401, "expired");

    let earlier = support::token(&instance, "60").await;
    let others = support::token(&other, "60").await;
    instance.forget_session_tokens();
    assert_eq!(metadata(&instance, id, &earlier).await.0, 401, "forgotten");
    let later = support::token(&instance, "60").await;
    assert_eq!(metadata(&instance, id, &later).await.0, 200);
    assert_eq!(metadata(&other, id, &others).await.0, 200, "another instance's are its own");
}

/// As cloud-init does: every folder is listed, every entry asked for. It tries an entry that is listed
/// and then answers 404 for five minutes.
#[tokio::test]
async fn metadata_answers_whatever_it_lists_under_each_version() {
    let (cloud, ..) = cloud().await;
    let spec = InstanceSpec {
        user_data: Some("#!/bin/sh\n".to_owned()),
        public_key: Some("ssh-ed25519 AAAA".to_owned()),
        ..InstanceSpec::new(Ipv4Addr::LOCALHOST).tag("instance-agent:cluster", "cluster1")
    };
    let instance = cloud.run_instance(spec).await.unwrap();
    let token = token(&instance, "60").await;
    for version in ["latest", "2021-03-23"] {
        let ask = async |path: &str| {
            let url = format!("{}/{version}/{path}", instance.imds_url());
            let request = reqwest::Client::new().get(url).header("X-aws-ec2-metadata-token", &token);
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        let (mut folders, mut found) = (vec![String::new()], Vec::new());
        while let Some(folder) = folders.pop() {
            let (status, listing) = ask(&folder).await;
            assert_eq!(status, 200, "{folder}");
            for entry in listing.lines() {
                match (entry.split_once('='), entry.ends_with('/')) {
                    (Some((number, _)), _) => folders.push(format!("{folder}{number}/")),
                    (None, true) => folders.push(format!("{folder}{entry}")),
                    (None, false) => {
                        let path = format!("{folder}{entry}");
                        let (status, value) = ask(&path).await;
                        assert_eq!(status, 200, "{path}");
                        found.push((path, value));
                    }
                }
            }
        }
        let of = |path: &str| found.iter().find(|(found, _)| found == path).map(|(_, value)| value.as_str());
        assert_eq!(of("user-data"), Some("#!/bin/sh\n"));
        assert_eq!(of("meta-data/public-keys/0/openssh-key"), Some("ssh-ed25519 AAAA"));
        assert_eq!(of("meta-data/mac"), Some("02:00:7f:00:00:01"));
        assert_eq!(of("meta-data/network/interfaces/macs/02:00:7f:00:00:01/device-number"), Some("0"));
        assert_eq!(of("meta-data/tags/instance/instance-agent:cluster"), Some("cluster1"));
        assert_eq!(ask("meta-data/public-keys").await, (200, "0=key".to_owned()));
    }
    let plain = cloud.run_instance(InstanceSpec::new(Ipv4Addr::LOCALHOST)).await.unwrap();
    let token = support::token(&plain, "60").await;
    for absent in ["user-data", "meta-data/public-keys/", "meta-data/public-keys/0/openssh-key"] {
        assert_eq!(metadata(&plain, absent, &token).await.0, 404, "{absent}");
    }
}

#[tokio::test]
async fn metadata_shows_what_is_and_404_for_what_is_not() {
    let (cloud, ..) = cloud().await;
    let spec = InstanceSpec::new(Ipv4Addr::LOCALHOST).tag("instance-agent:cluster", "cluster1");
    let instance = cloud.run_instance(spec).await.unwrap();
    let token = token(&instance, "60").await;
    let look = async |path: &str| metadata(&instance, path, &token).await;
    let found = |text: &str| (200, text.to_owned());
    assert_eq!(look("meta-data/placement/region").await, found("us-east-1"));
    assert_eq!(look("meta-data/placement/").await, found("availability-zone\nregion"));
    assert_eq!(look("meta-data/local-ipv4").await, found("127.0.0.1"));
    assert_eq!(look("meta-data/tags/instance").await, found("instance-agent:cluster"));
    assert_eq!(look("meta-data/tags/instance/instance-agent:cluster").await, found("cluster1"));
    let (_, document) = look("dynamic/instance-identity/document").await;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["instanceId"], instance.id());

    for absent in [
        "spot/instance-action",
        "events/recommendations/rebalance",
        "autoscaling/target-lifecycle-state",
        "tags/instance/other",
    ] {
        assert_eq!(look(&format!("meta-data/{absent}")).await.0, 404, "{absent}");
    }
    instance.set_spot(Some((SpotAction::Stop, SystemTime::UNIX_EPOCH)));
    instance.set_rebalance(Some(SystemTime::UNIX_EPOCH));
    instance.set_lifecycle(Some("InService"));
    assert_eq!(
        look("meta-data/spot/instance-action").await,
        found(r#"{"action":"stop","time":"1970-01-01T00:00:00Z"}"#)
    );
    assert_eq!(look("meta-data/spot/termination-time").await.0, 404, "only for terminate");
    assert_eq!(
        look("meta-data/events/recommendations/rebalance").await,
        found(r#"{"noticeTime":"1970-01-01T00:00:00Z"}"#)
    );
    assert_eq!(look("meta-data/autoscaling/target-lifecycle-state").await, found("InService"));
    instance.publish_tags(false);
    assert_eq!(look("meta-data/tags/instance").await.0, 404);

    instance.set_imds_outage(Outage::Status(503));
    assert_eq!(look("meta-data/instance-id").await.0, 503);
    instance.set_imds_outage(Outage::Refuse);
    let url = format!("{}/latest/meta-data/", instance.imds_url());
    assert!(reqwest::get(&url).await.is_err());
    instance.set_imds_outage(Outage::Hang);
    let hanging = tokio::time::timeout(Duration::from_millis(100), reqwest::get(&url)).await;
    assert!(hanging.is_err());
    instance.set_imds_outage(Outage::Up);
    assert_eq!(look("meta-data/instance-id").await.0, 200);
}

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
        (spoil(|c| c.date = Some(compact(1_700_000_000))), "SignatureDoesNotMatch"),
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
async fn only_running_instances_of_the_vpc_are_registered() {
    let (cloud, arn, _) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let stopped = support::instance(&cloud).await;
    cloud.stop_instance(&stopped);
    let spec = InstanceSpec { vpc: Some("vpc-0other".to_owned()), ..InstanceSpec::new(Ipv4Addr::LOCALHOST) };
    let elsewhere = cloud.run_instance(spec).await.unwrap();
    for id in ["i-00000000000000000", stopped.id(), elsewhere.id()] {
        let error = caller.error("RegisterTargets", &target_params(&arn, id, "80")).await;
        assert_eq!(error, (400, "InvalidTarget".to_owned()), "{id}");
    }
    for (id, port) in [("127.0.0.1", "80"), (instance.id(), "0"), (instance.id(), "65536")] {
        let error = caller.error("RegisterTargets", &target_params(&arn, id, port)).await;
        assert_eq!(error, (400, "ValidationError".to_owned()), "{id} {port}");
    }
    assert!(cloud.target_health(&arn).is_empty());
    // Without a port it is the group's; another port is another target.
    let params = [("TargetGroupArn", arn.as_str()), ("Targets.member.1.Id", instance.id())];
    caller.ok("RegisterTargets", &params).await;
    caller.register(&arn, instance.id(), 81).await;
    let ports: Vec<u16> = cloud.target_health(&arn).iter().map(|t| t.port).collect();
    assert_eq!(ports, [80, 81]);
}

/// State and reason of a group's only target.
fn only(cloud: &LocalCloud, arn: &str) -> (TargetState, Option<&'static str>) {
    match cloud.target_health(arn).as_slice() {
        [TargetStatus { health, .. }] => (health.state, health.reason),
        other => panic!("not one target: {other:?}"),
    }
}

#[tokio::test]
async fn a_target_lives_from_initial_to_the_end_of_draining() {
    let (cloud, arn, _) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let target = Target::start(Manner::Answer("x")).await;
    let (id, port) = (instance.id(), target.address.port());
    caller.register_healthy(&cloud, &arn, id, port).await;
    let steps: Vec<_> = cloud.health_changes().iter().map(|e| e.to.reason).collect();
    assert_eq!(steps, [Some("Elb.RegistrationInProgress"), Some("Elb.InitialHealthChecking"), None]);

    let head = target.heads.lock().unwrap().first().cloned().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get / http/1.1\r\n"), "{head}");
    for line in
        [&format!("host: {}", target.address), "user-agent: elb-healthchecker/2.0", "connection: close"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} not in {head}");
    }
    let fresh = |_: &LocalCloud| target.heads.lock().unwrap().len() >= 3;
    while !fresh(&cloud) {
        tokio::task::yield_now().await;
    }
    let (heads, connections) = (target.heads.lock().unwrap().len(), *target.connections.lock().unwrap());
    assert!(connections >= heads, "each probe on a connection of its own");

    let healthy = (TargetState::Healthy, None);
    let other_port = (port ^ 1).to_string();
    caller.ok("DeregisterTargets", &target_params(&arn, id, &other_port)).await;
    let params = [("TargetGroupArn", arn.as_str()), ("Targets.member.1.Id", id)];
    caller.ok("DeregisterTargets", &params).await;
    assert_eq!(only(&cloud, &arn), healthy, "another port deregisters nothing");

    let port_text = port.to_string();
    let params = target_params(&arn, id, &port_text);
    let draining = (TargetState::Draining, Some("Target.DeregistrationInProgress"));
    caller.ok("DeregisterTargets", &params).await;
    assert_eq!(only(&cloud, &arn), draining);
    jump(Duration::from_secs(200)).await;
    caller.ok("DeregisterTargets", &params).await;
    jump(Duration::from_secs(90)).await;
    let xml = caller.ok("DescribeTargetHealth", &params).await;
    assert_eq!(between(&xml, "State"), "draining", "290 of 300 seconds");
    caller.register_healthy(&cloud, &arn, id, port).await;
    let events = cloud.health_changes();
    let back = events.iter().rev().find(|e| e.from.state == TargetState::Draining).unwrap();
    assert_eq!(back.to.reason, Some("Elb.RegistrationInProgress"));

    assert!(cloud.deregister(&arn, id, port));
    jump(Duration::from_secs(299)).await;
    assert_eq!(only(&cloud, &arn), draining);
    jump(Duration::from_secs(2)).await;
    let xml = caller.ok("DescribeTargetHealth", &params).await;
    assert_eq!(between(&xml, "Reason"), "Target.NotRegistered");
    assert_eq!(between(&xml, "State"), "unused");
    assert!(cloud.target_health(&arn).is_empty());
    let calls = cloud.calls();
    let first = calls.iter().find(|call| call.is_change()).unwrap();
    assert_eq!(first.instance.as_deref(), Some(id));
    assert!(first.parameters.contains(&("Targets.member.1.Port".to_owned(), port_text)));
}

#[tokio::test]
async fn failing_stopped_and_unused_targets_say_why() {
    let (cloud, arn, _) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let target = Target::start(Manner::Answer("x")).await;
    let (id, port) = (instance.id(), target.address.port());
    caller.register_healthy(&cloud, &arn, id, port).await;
    let becomes = async |reason: Option<&str>| {
        let condition = |cloud: &LocalCloud| cloud.health_of(&arn, id, port).reason == reason;
        assert!(cloud.wait_until(LIMIT, condition).await, "{reason:?}: {:?}", cloud.health_changes());
        cloud.health_of(&arn, id, port)
    };
    *target.probe.lock().unwrap() = 503;
    let health = becomes(Some("Target.ResponseCodeMismatch")).await;
    assert_eq!(health.state, TargetState::Unhealthy);
    assert_eq!(health.description.unwrap(), "Health checks failed with these codes: [503]");
    *target.probe.lock().unwrap() = 200;
    let before = target.heads.lock().unwrap().len();
    becomes(None).await;
    assert!(target.heads.lock().unwrap().len() >= before + 5, "five passes in a row");
    instance.stop();
    assert_eq!(becomes(Some("Target.InvalidState")).await.state, TargetState::Unused);
    instance.start();
    becomes(None).await;
    caller.register(&arn, id, 1).await;
    let refused =
        |cloud: &LocalCloud| cloud.health_of(&arn, id, 1).reason == Some("Target.FailedHealthChecks");
    assert!(cloud.wait_until(LIMIT, refused).await);

    let unused = cloud.create_target_group(group("unused"));
    caller.register(&unused, id, port).await;
    assert_eq!(only(&cloud, &unused), (TargetState::Unused, Some("Target.NotInUse")));
    let spec = BalancerSpec {
        zones: vec!["us-east-1b".to_owned()],
        ..BalancerSpec::new("late", Forward::to(&unused))
    };
    cloud.create_balancer(spec).await.unwrap();
    assert_eq!(only(&cloud, &unused).1, Some("Target.NotInUse"), "zone not enabled");
    cloud.create_balancer(BalancerSpec::new("all", Forward::to(&unused))).await.unwrap();
    let healthy = |cloud: &LocalCloud| only(cloud, &unused).0 == TargetState::Healthy;
    assert!(cloud.wait_until(LIMIT, healthy).await);
    instance.terminate();
    assert!(cloud.target_health(&arn).is_empty());
}

#[tokio::test]
async fn a_probe_without_an_answer_times_out() {
    let cloud = LocalCloud::start(options()).await.unwrap();
    let mut spec = group("g");
    spec.health_check.timeout = Duration::from_millis(30);
    let arn = cloud.create_target_group(spec);
    cloud.create_balancer(BalancerSpec::new("b", Forward::to(&arn))).await.unwrap();
    // The kernel accepts for a listener that nobody asks, and nothing is ever answered.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    caller.register(&arn, instance.id(), silent.local_addr().unwrap().port()).await;
    let timed_out = |cloud: &LocalCloud| only(cloud, &arn).1 == Some("Target.Timeout");
    assert!(cloud.wait_until(LIMIT, timed_out).await);
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
    assert_ne!(only(&cloud, &arn).0, TargetState::Draining);
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
