//! Which targets can be registered, and the states they go through.

use std::net::Ipv4Addr;
use std::time::Duration;

use local_cloud::{BalancerSpec, Forward, InstanceSpec, LocalCloud, TargetState};

use crate::support::{self, *};

#[tokio::test]
async fn only_running_instances_of_the_vpc_are_registered() {
    let (cloud, arn, _) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let stopped = support::instance(&cloud).await;
    stopped.stop();
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

#[tokio::test]
async fn a_target_lives_from_initial_to_the_end_of_draining() {
    let (cloud, arn, _) = cloud().await;
    let instance = instance(&cloud).await;
    let caller = Caller::instance(&cloud, &instance).await;
    let target = Target::start(Behaviour::Answer("x")).await;
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
    assert_eq!(only_target(&cloud, &arn), healthy, "another port deregisters nothing");

    let port_text = port.to_string();
    let params = target_params(&arn, id, &port_text);
    let draining = (TargetState::Draining, Some("Target.DeregistrationInProgress"));
    caller.ok("DeregisterTargets", &params).await;
    assert_eq!(only_target(&cloud, &arn), draining);
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
    assert_eq!(only_target(&cloud, &arn), draining);
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
    let target = Target::start(Behaviour::Answer("x")).await;
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
    assert_eq!(only_target(&cloud, &unused), (TargetState::Unused, Some("Target.NotInUse")));
    let spec = BalancerSpec {
        zones: vec!["us-east-1b".to_owned()],
        ..BalancerSpec::new("late", Forward::to(&unused))
    };
    cloud.create_balancer(spec).await.unwrap();
    assert_eq!(only_target(&cloud, &unused).1, Some("Target.NotInUse"), "zone not enabled");
    cloud.create_balancer(BalancerSpec::new("all", Forward::to(&unused))).await.unwrap();
    let healthy = |cloud: &LocalCloud| only_target(cloud, &unused).0 == TargetState::Healthy;
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
    let timed_out = |cloud: &LocalCloud| only_target(cloud, &arn).1 == Some("Target.Timeout");
    assert!(cloud.wait_until(LIMIT, timed_out).await);
}
