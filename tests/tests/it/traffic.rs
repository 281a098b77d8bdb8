//! What clients behind the balancer see while instances come and go.

use std::time::{Duration, Instant};

use local_cloud::TargetState;
use tests::load::{Ask, Load};
use tests::{Bed, BedOptions, PORT, ended, group};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_agent_leaves_without_one_failed_request() {
    let options = BedOptions { groups: vec![group("cluster1"), group("cluster2")], ..BedOptions::default() };
    let mut bed = Bed::with(options).await;
    let (leaving, mut agent) = bed.boot().await;
    let (staying, _other) = bed.boot().await;
    let elsewhere = bed.spec().tag(instance_contract::tags::CLUSTER, "cluster2");
    let elsewhere = bed.machine(elsewhere.tag(instance_contract::tags::TARGET_GROUP, "cluster2")).await;
    let _third = elsewhere.start();
    for machine in [&leaving, &staying] {
        bed.until_target("cluster1", machine, TargetState::Healthy).await;
    }
    bed.until_target("cluster2", &elsewhere, TargetState::Healthy).await;
    let asks = [
        Ask::Get("/"),
        Ask::Get("/cluster1"),
        Ask::Get("/cluster2"),
        Ask::Get("/seed"),
        Ask::Post("/seed"),
        Ask::Post("/"),
    ];
    let load = Load::start(&bed.balancer.url(), &asks);
    load.until_answered(500).await;
    agent.terminate();
    let asked = Instant::now();
    ended(&mut agent, &leaving).await;
    // The deregistration delay is 300 s: the agent did not wait for `draining` to end.
    assert!(asked.elapsed() < Duration::from_secs(30), "it took {:?}", asked.elapsed());
    load.until_answered(500).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(bed.cloud.health_of("cluster1", leaving.instance.id(), PORT).state, TargetState::Draining);
    let log = leaving.log();
    let deregistered = log.find("DeregisterTargets accepted").expect("deregistered");
    let closed = log.find("closing the port").expect("closed");
    assert!(deregistered < closed, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_is_taken_out_by_the_checks_and_comes_back() {
    let mut bed = Bed::start().await;
    let (dying, mut agent) = bed.boot().await;
    let (staying, _other) = bed.boot().await;
    for machine in [&dying, &staying] {
        bed.until_target("cluster1", machine, TargetState::Healthy).await;
    }
    let load = Load::start(&bed.balancer.url(), &[Ask::Get("/cluster1")]);
    load.until_answered(200).await;
    agent.kill();
    ended(&mut agent, &dying).await;
    bed.until_target("cluster1", &dying, TargetState::Unhealthy).await;
    _ = load.stop().await;
    // From here on the balancer has only the other one.
    let load = Load::start(&bed.balancer.url(), &[Ask::Get("/cluster1")]);
    load.until_answered(500).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let _agent = dying.start();
    bed.until_target("cluster1", &dying, TargetState::Healthy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_answered_as_before_while_it_drains() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--drain-quiet", "1h", "--drain-timeout", "1h"]);
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    assert!(machine.command(&["drain"]).await.status.success());
    machine.until_phase("draining").await;
    let id = machine.instance.id();
    assert_eq!(bed.get(&machine.url("/")).await, (200, "Healthy!".to_owned()));
    assert_eq!(bed.get(&machine.url("/cluster1")).await, (200, format!("Instance {id} is responding now!")));
    let (status, reason) = bed.get(&machine.url("/health")).await;
    assert_eq!(status, 503);
    assert!(reason.contains("drain") && reason.contains("operator"), "{reason}");
    let probe = bed
        .client()
        .get(machine.url("/"))
        .header("User-Agent", "ELB-HealthChecker/2.0")
        .send()
        .await
        .unwrap();
    assert_eq!(probe.status(), 503);
}
