//! What an operator is told by `drain`, `resume` and `status`, and how long they wait.

use std::time::Duration;

use local_cloud::{Fault, Outage, TargetState};
use rustix::process::Signal;
use tests::solo::{Solo, refuses};
use tests::{Bed, PORT, ended, eventually, send, text};

#[tokio::test]
async fn resume_waits_until_the_instance_is_healthy_and_says_when_there_was_nothing_to_resume() {
    let (bed, machine, _agent) = Bed::healthy().await;
    let resumed = machine.command(&["resume", "--wait"]).await;
    assert!(resumed.status.success(), "{resumed:?}");
    let said = text(&resumed.stderr);
    assert!(said.starts_with("nothing to resume: no drain by an operator is in force\n"), "{said}");
    assert_eq!(text(&resumed.stdout), "healthy\n");

    let drained = machine.command(&["drain", "--wait"]).await;
    assert!(drained.status.success(), "{drained:?}");
    assert_eq!(text(&drained.stdout), "drained\n");
    let said = text(&drained.stderr);
    assert!(
        said.starts_with(
            "draining: deregistering from cluster1, then waiting for 3 s in a row without requests; "
        ),
        "{said}"
    );
    assert!(said.contains("\nwaiting for 3 s in a row without requests\n"), "{drained:?}");

    let resumed = machine.command(&["resume", "--wait", "--timeout", "50s"]).await;
    assert!(resumed.status.success(), "{resumed:?}\n{}", machine.log());
    assert_eq!(text(&resumed.stdout), "healthy\n");
    assert!(text(&resumed.stderr).contains("waiting for target group cluster1: "), "{resumed:?}");
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
}

#[tokio::test]
async fn a_wait_that_ends_says_where_the_instance_may_still_be_registered_and_where_it_is_in_no_group() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--drain-timeout", "2s"]);
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    bed.cloud.set_fault("DeregisterTargets", Some(Fault::Deny));
    let drained = machine.command(&["drain", "--wait"]).await;
    assert!(drained.status.success(), "{drained:?}");
    let said = text(&drained.stdout);
    let warning = "drained\nwarning: may still be registered with target group cluster1: ";
    assert!(said.starts_with(warning) && said.contains("AccessDenied"), "{said}");

    let alone = Solo::new();
    let _agent = alone.start().await;
    let resumed = alone.command(&[], &["resume", "--wait"]).await;
    assert_eq!(text(&resumed.stdout), "serving; no target group is set\n", "{resumed:?}");
}

#[tokio::test]
async fn where_no_call_about_the_group_succeeds_the_drain_does_not_claim_a_deregistration() {
    let mut bed = Bed::start().await;
    bed.cloud.set_fault("DescribeTargetGroups", Some(Fault::Deny));
    let machine = bed.machine(bed.spec()).await;
    let mut agent = machine.start();
    machine.until_logged("DescribeTargetGroups: AccessDenied").await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    let end = " s, without a deregistration: SIGTERM received";
    assert!(machine.log().contains(end), "{}", machine.log());
}

#[tokio::test]
async fn a_wait_that_takes_too_long_says_what_for() {
    let (bed, machine, _agent) = Bed::healthy().await;
    bed.cloud.set_fault("DeregisterTargets", Some(Fault::Deny));
    let late = machine.command(&["drain", "--wait", "--timeout", "1s"]).await;
    tests::solo::refuses_after_lines(
        &late,
        &[
            "not drained within 1s: still waiting for the deregistration from cluster1 (",
            "DeregisterTargets: AccessDenied",
        ],
    );
    bed.cloud.set_fault("DeregisterTargets", None);
    machine.until_phase("drained").await;

    bed.cloud.set_fault("RegisterTargets", Some(Fault::Deny));
    let late = machine.command(&["resume", "--wait", "--timeout", "1s"]).await;
    tests::solo::refuses_after_lines(
        &late,
        &["not healthy within 1s: still waiting for target group cluster1: ", "; `instance-agent status`"],
    );
    bed.cloud.set_fault("RegisterTargets", None);
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;

    machine.instance.set_lifecycle(Some("Standby"));
    machine.until_phase("drained").await;
    let out = machine.command(&["resume", "--wait"]).await;
    let why = "another reason keeps the instance deregistered: Auto Scaling state Standby";
    tests::solo::refuses_after_lines(&out, &["not registered: ", why]);
}

#[tokio::test]
async fn a_command_to_a_stopped_process_says_that_it_may_still_be_carried_out() {
    let (_bed, machine, agent) = Bed::healthy().await;
    send(Signal::STOP, agent.pid());
    let (status, drain) = tokio::join!(machine.command(&["status"]), machine.command(&["drain"]));
    let look = "`systemctl restart instance-agent`";
    refuses(&status, 1, &["the agent did not answer within 10 s; its process hangs or is stopped", look]);
    refuses(&drain, 1, &["did not answer within 10 s and may still carry out the drain; ", look]);
    let late = machine.command(&["drain", "--wait", "--timeout", "300ms"]).await;
    let told =
        "not drained within 300ms: still waiting for the agent's answer, and the agent may still drain";
    refuses(&late, 1, &[told]);
    send(Signal::CONT, agent.pid());
    machine.until_phase("drained").await;
}

#[tokio::test]
async fn without_wait_no_timeout_is_taken() {
    for command in ["drain", "resume"] {
        let output = tests::run("instance-agent", &[command, "--timeout", "5s"]).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("--wait"), "{output:?}");
    }
}

#[tokio::test]
async fn a_stop_says_what_it_waits_for() {
    let mut bed = Bed::start().await;
    bed.cloud.set_fault("RegisterTargets", Some(Fault::Fail(503)));
    let mut machine = bed.machine(bed.spec()).await;
    // Longer than the test waits: only not waiting at all can pass.
    machine.arguments(&["--drain-quiet", "1h", "--drain-timeout", "1h"]);
    let mut agent = machine.start();
    machine.until_logged("a call got no answer and may have taken effect").await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success(), "never registered, it waits for nobody");
    assert!(!machine.log().contains("without requests"), "{}", machine.log());
    assert!(
        machine.log().contains("drained after 0 s, without a deregistration: SIGTERM received"),
        "{}",
        machine.log()
    );

    bed.cloud.set_fault("RegisterTargets", None);
    let (machine, mut agent) = bed.boot().await;
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert!(
        machine.log().contains("draining: waiting for 3 s in a row without requests"),
        "{}",
        machine.log()
    );
}

#[tokio::test]
async fn a_health_check_path_that_this_agent_does_not_know_is_noticed_by_its_probes() {
    let (bed, machine, _agent) = Bed::healthy().await;
    machine.until_logged("target group cluster1: healthy").await;
    bed.cloud.set_health_check_path("cluster1", "/nowhere");
    bed.until_target("cluster1", &machine, TargetState::Unhealthy).await;
    // Nobody asks for a status, and the next regular look is ten minutes away.
    machine.until_logged("target group cluster1: unhealthy (was healthy): Target.ResponseCodeMismatch").await;
    assert!(
        machine.log().contains("answered a health check with a status other than 200"),
        "{}",
        machine.log()
    );
    let status = machine.status().await.unwrap();
    assert!(status["traffic"]["refused_probes"].as_u64() > Some(0), "{status}");
    bed.cloud.set_health_check_path("cluster1", "/health");
    machine.until_logged("target group cluster1: healthy (was unhealthy)").await;
}

#[tokio::test]
async fn a_status_is_asked_for_where_it_is_older_than_ten_seconds_and_says_how_old_it_is() {
    let (bed, machine, _agent) = Bed::healthy().await;
    machine.until_logged("target group cluster1: healthy").await;
    let looked = std::time::Instant::now();
    // It stays known as healthy for as long as the balancer's health checks come, which they do.
    assert!(bed.cloud.deregister("cluster1", machine.instance.id(), PORT));
    let old = async || (looked.elapsed() > Duration::from_secs(11)).then_some(());
    eventually(old).await.unwrap();
    assert_eq!(bed.calls(&machine, "RegisterTargets").len(), 1, "it does not know yet");
    let status = machine.status().await.unwrap();
    assert_ne!(status["target_groups"][0]["state"], "healthy", "{status}");
    let group = &machine.status().await.unwrap()["target_groups"][0];
    assert!(group["age_seconds"].as_u64() <= Some(10) && group["as_of"].is_string(), "{group}");
    let table = text(&machine.command(&["status"]).await.stdout);
    assert!(table.contains(", asked ") && table.contains(" s ago"), "{table}");
}

#[tokio::test]
async fn a_status_does_not_wait_for_an_aws_that_hangs() {
    let (bed, machine, _agent) = Bed::healthy().await;
    machine.until_logged("target group cluster1: healthy").await;
    let looked = std::time::Instant::now();
    bed.cloud.set_endpoint_outage(Outage::Hang);
    let old = async || (looked.elapsed() > Duration::from_secs(11)).then_some(());
    eventually(old).await.unwrap();
    let asked = std::time::Instant::now();
    let status = machine.status().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert!(status["target_groups"][0]["age_seconds"].as_u64() >= Some(11), "{status}");
    assert_eq!(status["target_groups"][0]["state"], "healthy", "as it was");
}

#[tokio::test]
async fn at_debug_each_look_and_each_decision_is_told_and_at_info_none() {
    const TOLD: [&str; 9] = [
        "metadata /latest/dynamic/instance-identity/document: ",
        "metadata /latest/meta-data/spot/instance-action: absent (",
        "elasticloadbalancing:DescribeTargetGroups of cluster1: 1 found (",
        "a deregistration delay of 300 s (",
        "elasticloadbalancing:RegisterTargets of i-",
        "elasticloadbalancing:DescribeTargetHealth of i-",
        "target group cluster1: healthy; asking again in ",
        "phase starting: Serve, nothing keeps the instance out",
        "own health path http://",
    ];
    let mut bed = Bed::start().await;
    let (machine, _agent) = bed.boot().await;
    for told in TOLD {
        machine.until_logged(told).await;
    }
    bed.cloud.set_fault("DescribeTargetHealth", Some(Fault::Deny));
    assert!(machine.command(&["drain", "--wait"]).await.status.success());
    machine.until_logged("phase serving: Drain, requested by an operator").await;
    machine.until_logged("target group cluster1: wish Out, state healthy").await;
    assert!(machine.command(&["resume"]).await.status.success());
    machine.until_logged("failed: AccessDenied: ").await;
    machine.until_logged("; retrying in ").await;
    bed.cloud.set_fault("DescribeTargetHealth", None);

    let mut quiet = bed.machine(bed.spec()).await;
    quiet.arguments(&["--log-level", "info"]);
    let _agent = quiet.start();
    bed.until_target("cluster1", &quiet, TargetState::Healthy).await;
    quiet.until_logged("target group cluster1: healthy").await;
    for told in TOLD {
        assert!(!quiet.log().contains(told), "{told}: {}", quiet.log());
    }
    assert!(!quiet.log().contains("DEBUG"), "{}", quiet.log());
}

#[tokio::test]
async fn no_request_is_told_at_debug_and_connections_are_at_trace() {
    for (level, told) in [("debug", 0), ("trace", 20)] {
        let solo = Solo::new().with(&["--log-level", level]);
        let _agent = solo.start().await;
        solo.until_started().await;
        let quiet = async || (solo.status().await?["traffic"]["connections"] == 0).then_some(());
        eventually(quiet).await.unwrap();
        let before = solo.log().lines().count();
        for number in 0..5 {
            solo.get("/").await.is(200, "Healthy!");
            solo.get("/nowhere").await.refuses(404, "no such path");
            solo.post(&number.to_string()).await.is(200, &number.to_string());
            let mut probe = solo.connect().await;
            probe
                .send("GET /nowhere HTTP/1.1\r\nHost: x\r\nUser-Agent: ELB-HealthChecker/2.0\r\n\r\n")
                .await
                .unwrap();
            probe.answer().await.unwrap().refuses(404, "no such path");
        }
        eventually(quiet).await.unwrap();
        let log = solo.log();
        let new: Vec<&str> = log.lines().skip(before).collect();
        let ended = new.iter().filter(|line| line.contains("TRACE connection from 127.")).count();
        assert_eq!((new.len(), ended), (2 * told, 2 * told), "{level}: {new:#?}");
    }
}
