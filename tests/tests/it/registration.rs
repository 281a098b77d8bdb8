//! An instance's life with its target groups, against the strict local cloud.

use std::time::{Duration, SystemTime};

use local_cloud::{
    Fault, LocalCloudOptions, Outage, Rate, SpotAction, TargetGroupSpec, TargetState, TargetType, Throttle,
};
use tests::{Bed, BedOptions, PORT, SOON, ended, eventually, group, text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn problem_of(status: &serde_json::Value) -> &str {
    status["target_groups"][0]["problem"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn it_registers_itself_from_its_tags_and_becomes_healthy() {
    let (bed, machine, _agent) = Bed::healthy().await;
    let id = machine.instance.id().to_owned();
    let answer = bed.get(&format!("{}/cluster1", bed.balancer.url())).await;
    assert_eq!(answer, (200, format!("Instance {id} is responding now!")));
    let status =
        machine.until_status("healthy", |status| status["target_groups"][0]["state"] == "healthy").await;
    assert_eq!(status["instance_id"], id);
    assert_eq!(status["cluster"], "cluster1");
    assert_eq!(status["region"], "us-east-1");
    assert_eq!(status["target_groups"][0]["target"], format!("{id}:{PORT}"));

    let table = machine.command(&["status"]).await;
    let table = text(&table.stdout);
    assert!(table.contains("cluster1") && table.contains("healthy"), "{table}");
    assert!(machine.log().contains("target group cluster1: healthy (was initial)"), "{}", machine.log());
}

#[tokio::test]
async fn it_asks_only_about_itself_and_once_healthy_rarely() {
    let mut bed = Bed::start().await;
    let (machine, _agent) = bed.boot().await;
    machine.until_status("healthy", |status| status["target_groups"][0]["state"] == "healthy").await;
    let before = bed.calls(&machine, "DescribeTargetHealth");
    for call in &before {
        let asked =
            |name: &str| call.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(asked("Targets.member.1.Id"), Some(machine.instance.id()), "{call:?}");
        assert_eq!(asked("Targets.member.2.Id"), None, "{call:?}");
    }
    // Ten seconds of an idle healthy life, with health checks, and without anybody who asks for a status.
    let idle = std::time::Instant::now();
    let idled = async || (idle.elapsed() > Duration::from_secs(10)).then_some(());
    assert!(eventually(idled).await.is_some());
    assert_eq!(bed.calls(&machine, "DescribeTargetHealth").len(), before.len(), "it asked while idle");
}

#[tokio::test]
async fn deregistered_by_hand_it_comes_back_at_the_next_reconciliation() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--reconcile-interval", "5s"]);
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    assert!(bed.cloud.deregister("cluster1", machine.instance.id(), PORT));
    bed.until_target("cluster1", &machine, TargetState::Draining).await;
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    assert_eq!(bed.calls(&machine, "RegisterTargets").len(), 2);
}

#[tokio::test]
async fn when_the_checks_stop_coming_it_asks_at_once() {
    let soon_gone = TargetGroupSpec { deregistration_delay: Duration::from_secs(1), ..group("cluster1") };
    let mut bed = Bed::with(BedOptions { groups: vec![soon_gone], ..BedOptions::default() }).await;
    let (machine, _agent) = bed.boot().await;
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    machine.until_status("healthy", |status| status["target_groups"][0]["state"] == "healthy").await;
    // The default interval is ten minutes; only the missing checks can bring it back in time.
    assert!(bed.cloud.deregister("cluster1", machine.instance.id(), PORT));
    bed.until_target("cluster1", &machine, TargetState::Unused).await;
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    machine.until_logged("no health check for three intervals").await;
}

#[tokio::test]
async fn nine_agents_get_there_under_a_throttle() {
    let throttle =
        Throttle { describe: Rate { burst: 4, per_second: 4.0 }, change: Rate { burst: 1, per_second: 1.5 } };
    let cloud = LocalCloudOptions { throttle, ..LocalCloudOptions::default() };
    let mut bed = Bed::with(BedOptions { cloud, ..BedOptions::default() }).await;
    let mut fleet = Vec::new();
    for _ in 0..9 {
        fleet.push(bed.boot().await);
    }
    let all_healthy = |cloud: &local_cloud::LocalCloud| {
        let targets = cloud.target_health("cluster1");
        targets.len() == 9 && targets.iter().all(|target| target.health.state == TargetState::Healthy)
    };
    assert!(bed.cloud.wait_until(2 * SOON, all_healthy).await, "{:?}", bed.cloud.target_health("cluster1"));
    let calls = bed.cloud.calls();
    let changes: Vec<_> = calls.iter().filter(|call| call.is_change()).collect();
    let accepted: Vec<_> = changes.iter().filter(|call| call.error.is_none()).collect();
    assert_eq!(accepted.len(), 9, "each registers once");
    assert!(changes.len() > accepted.len(), "the throttle was felt");
    // Backing off, not hammering: what was refused stays within a few tries an agent.
    assert!(changes.len() <= 9 * 6, "{} tries for nine registrations", changes.len());
}

#[tokio::test]
async fn a_spot_notice_drains_it_and_it_stays_up_drained() {
    for action in [SpotAction::Terminate, SpotAction::Stop, SpotAction::Hibernate] {
        let mut bed = Bed::start().await;
        let (machine, mut agent) = bed.boot().await;
        bed.until_target("cluster1", &machine, TargetState::Healthy).await;
        machine.instance.set_spot(Some((action, SystemTime::now() + Duration::from_secs(120))));
        bed.until_target("cluster1", &machine, TargetState::Draining).await;
        let status = machine.until_phase("drained").await;
        assert!(status["reason"].as_str().unwrap().contains("spot"), "{status}");
        assert_eq!(agent.ended(), None, "an exit would be restarted, and register again");
        assert_eq!(bed.get(&machine.url("/")).await, (200, "Healthy!".to_owned()));
        assert_eq!(bed.get(&machine.url("/health")).await.0, 503);
        agent.terminate();
        assert!(ended(&mut agent, &machine).await.success());
        assert_eq!(bed.calls(&machine, "DeregisterTargets").len(), 1);
    }
}

#[tokio::test]
async fn an_agent_that_starts_during_a_spot_notice_does_not_register() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec()).await;
    machine.instance.set_spot(Some((SpotAction::Terminate, SystemTime::now())));
    let _agent = machine.start();
    machine.until_phase("drained").await;
    assert!(bed.calls(&machine, "RegisterTargets").is_empty());
}

#[tokio::test]
async fn auto_scaling_takes_it_out_and_brings_it_back() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec()).await;
    machine.instance.set_lifecycle(Some("InService"));
    let mut agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    machine.instance.set_lifecycle(Some("Standby"));
    bed.until_target("cluster1", &machine, TargetState::Draining).await;
    machine.until_phase("drained").await;
    machine.instance.set_lifecycle(Some("InService"));
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    machine.instance.set_lifecycle(Some("Terminated"));
    let status = machine.until_phase("drained").await;
    assert_eq!(status["auto_scaling"], "Terminated");
    assert_eq!(agent.ended(), None);
}

#[tokio::test]
async fn a_rebalance_recommendation_is_shown_and_drains_only_where_asked_to() {
    let mut bed = Bed::start().await;
    let (indifferent, _agent) = bed.boot().await;
    let mut leaving = bed.machine(bed.spec()).await;
    leaving.arguments(&["--on-rebalance", "drain"]);
    let _other = leaving.start();
    for machine in [&indifferent, &leaving] {
        bed.until_target("cluster1", machine, TargetState::Healthy).await;
        machine.instance.set_rebalance(Some(SystemTime::now()));
    }
    leaving.until_phase("drained").await;
    let status = indifferent.until_status("rebalance", |status| !status["rebalance"].is_null()).await;
    assert_eq!(status["phase"], "serving");
    indifferent.until_logged("rebalance recommendation").await;
    assert!(bed.calls(&indifferent, "DeregisterTargets").is_empty());
}

#[tokio::test]
async fn drain_lasts_over_restarts_until_resume_and_is_not_inherited_by_a_clone() {
    let (mut bed, machine, mut agent) = Bed::healthy().await;
    let drained = machine.command(&["drain", "--wait"]).await;
    assert!(drained.status.success(), "{drained:?}");
    assert!(text(&drained.stdout).ends_with("drained\n"), "{drained:?}");
    bed.until_target("cluster1", &machine, TargetState::Draining).await;

    agent.kill();
    ended(&mut agent, &machine).await;
    let mut agent = machine.start();
    let status = machine.until_phase("drained").await;
    assert!(status["reason"].as_str().unwrap().contains("operator"), "{status}");
    assert_eq!(bed.calls(&machine, "RegisterTargets").len(), 1, "it stayed out");

    // A second instance made from this one's disk.
    let mut clone = bed.machine(bed.spec()).await;
    std::fs::create_dir_all(clone.command.state_dir()).unwrap();
    std::fs::copy(machine.command.state_dir().join("drained"), clone.command.state_dir().join("drained"))
        .unwrap();
    clone.arguments(&[]);
    let _clone_agent = clone.start();
    bed.until_target("cluster1", &clone, TargetState::Healthy).await;

    let resumed = machine.command(&["resume"]).await;
    assert!(resumed.status.success(), "{resumed:?}");
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    agent.kill();
    ended(&mut agent, &machine).await;
    let _agent = machine.start();
    machine.until_phase("serving").await;
}

#[tokio::test]
async fn an_emptied_tag_takes_it_out_and_a_changed_one_moves_it() {
    let options = BedOptions { groups: vec![group("cluster1"), group("other")], ..BedOptions::default() };
    let mut bed = Bed::with(options).await;
    let (machine, _agent) = bed.boot().await;
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, "other");
    bed.until_target("cluster1", &machine, TargetState::Draining).await;
    bed.until_target("other", &machine, TargetState::Healthy).await;
    machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, "");
    bed.until_target("other", &machine, TargetState::Draining).await;
    let status = machine
        .until_status("no group", |status| status["target_groups"].as_array().unwrap().is_empty())
        .await;
    assert_eq!(status["phase"], "serving", "registered nowhere is not draining");
    assert_eq!(bed.get(&machine.url("/health")).await, (200, "Healthy!".to_owned()));
    machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, "cluster1 other");
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    bed.until_target("other", &machine, TargetState::Healthy).await;
}

#[tokio::test]
async fn it_registers_with_groups_by_arn_by_name_and_by_address() {
    let by_address = TargetGroupSpec { target_type: TargetType::Ip, ..group("addresses") };
    let options = BedOptions { groups: vec![group("cluster1"), by_address], ..BedOptions::default() };
    let mut bed = Bed::with(options).await;
    let arn = bed.cloud.create_target_group(group("by-arn"));
    let spec = bed.spec().tag(instance_contract::tags::TARGET_GROUP, format!("cluster1 addresses {arn}"));
    let machine = bed.machine(spec).await;
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    let address = machine.instance.address().to_string();
    let healthy = |cloud: &local_cloud::LocalCloud| {
        cloud.health_of("addresses", &address, PORT).state == TargetState::Healthy
    };
    assert!(bed.cloud.wait_until(SOON, healthy).await, "{}", machine.log());
    // No listener uses this one: a member all the same, and the reason is shown with its cure.
    let status = machine
        .until_status("unused", |status| {
            let groups = status["target_groups"].as_array().unwrap();
            groups.iter().any(|group| group["name"] == "by-arn" && group["state"] == "unused")
        })
        .await;
    let unused = &status["target_groups"].as_array().unwrap()[2];
    assert_eq!(unused["reason"], "Target.NotInUse");
    assert!(unused["cure"].as_str().unwrap().contains("listener"), "{unused}");
}

#[tokio::test]
async fn register_port_is_what_the_group_is_told_and_what_is_deregistered() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--register-port", "9999"]);
    let mut agent = machine.start();
    let id = machine.instance.id().to_owned();
    let registered =
        |cloud: &local_cloud::LocalCloud| cloud.health_of("cluster1", &id, 9999).state != TargetState::Unused;
    assert!(bed.cloud.wait_until(SOON, registered).await, "{}", machine.log());
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert_eq!(bed.cloud.health_of("cluster1", &id, 9999).state, TargetState::Draining);
}

#[tokio::test]
async fn each_refusal_is_told_apart_and_names_its_cure() {
    let mut bed = Bed::start().await;
    let other_vpc = TargetGroupSpec { vpc: Some("vpc-other".to_owned()), ..group("elsewhere") };
    bed.cloud.create_target_group(other_vpc);
    for (tag, said, cure) in [
        ("missing", "TargetGroupNotFound", "create the target group"),
        ("elsewhere", "InvalidTarget", "this instance's VPC"),
    ] {
        let machine = bed.machine(bed.spec().tag(instance_contract::tags::TARGET_GROUP, tag)).await;
        let _agent = machine.start();
        let status = machine.until_status(said, |status| problem_of(status).contains(said)).await;
        let shown = status["target_groups"][0]["cure"].as_str().unwrap();
        assert!(shown.contains(cure), "{shown}");
        machine.until_logged(cure).await;
        assert_eq!(bed.get(&machine.url("/")).await.0, 200, "it serves all the same");
    }
    for action in ["DescribeTargetGroups", "RegisterTargets", "DescribeTargetHealth"] {
        bed.cloud.set_fault(action, Some(Fault::Deny));
        let (machine, _agent) = bed.boot().await;
        let permission = format!("allow elasticloadbalancing:{action}");
        machine.until_logged(&permission).await;
        // Said once: further refusals are only counted.
        let tries = bed.calls(&machine, action).len();
        let tried_again = async || (bed.calls(&machine, action).len() > tries + 1).then_some(());
        assert!(eventually(tried_again).await.is_some(), "it does not try again");
        assert_eq!(machine.log().matches(&permission).count(), 1, "{}", machine.log());
        bed.cloud.set_fault(action, None);
        bed.until_target("cluster1", &machine, TargetState::Healthy).await;
        machine.until_logged("calls succeed again").await;
    }
}

#[tokio::test]
async fn a_registration_whose_answer_is_lost_is_looked_up_before_it_is_repeated() {
    let mut bed = Bed::start().await;
    bed.cloud.set_fault("RegisterTargets", Some(Fault::Fail(503)));
    let (machine, _agent) = bed.boot().await;
    machine.until_logged("a call got no answer and may have taken effect").await;
    bed.cloud.set_fault("RegisterTargets", None);
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    let calls = bed.cloud.calls();
    let mut looked = true;
    for call in calls.iter().filter(|call| call.instance.as_deref() == Some(machine.instance.id())) {
        match call.action.as_str() {
            "DescribeTargetHealth" => looked = true,
            "RegisterTargets" => assert!(std::mem::replace(&mut looked, false), "registered without looking"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_registration_that_took_effect_without_an_answer_is_not_repeated() {
    let mut bed = Bed::start().await;
    bed.cloud.set_fault("RegisterTargets", Some(Fault::LoseAnswer));
    let (machine, _agent) = bed.boot().await;
    machine.until_logged("a call got no answer and may have taken effect").await;
    machine.until_status("healthy", |status| status["target_groups"][0]["state"] == "healthy").await;
    assert_eq!(bed.calls(&machine, "RegisterTargets").len(), 1, "{}", machine.log());
}

#[tokio::test]
async fn a_deregistration_that_took_effect_without_an_answer_ends_the_drain_well() {
    let (bed, machine, mut agent) = Bed::healthy().await;
    bed.cloud.set_fault("DeregisterTargets", Some(Fault::LoseAnswer));
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert_eq!(bed.calls(&machine, "DeregisterTargets").len(), 1, "{}", machine.log());
    // It had seen itself draining, and waited for its quiet time, not for its last deadline.
    assert!(!machine.log().contains("drain timeout reached"), "{}", machine.log());
    assert_eq!(bed.cloud.health_of("cluster1", machine.instance.id(), PORT).state, TargetState::Draining);
}

#[tokio::test]
async fn a_restarted_agent_finds_itself_registered_and_does_not_register_again() {
    let (bed, machine, mut agent) = Bed::healthy().await;
    agent.kill();
    ended(&mut agent, &machine).await;
    let _agent = machine.start();
    machine.until_status("registered", |status| status["target_groups"][0]["state"] == "healthy").await;
    assert_eq!(bed.calls(&machine, "RegisterTargets").len(), 1);
}

#[tokio::test]
async fn without_metadata_it_serves_says_so_once_and_registers_when_they_come() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec()).await;
    machine.instance.set_imds_outage(Outage::Refuse);
    let _agent = machine.start();
    machine.until_logged("cannot read the instance metadata").await;
    assert_eq!(bed.get(&machine.url("/")).await, (200, "Healthy!".to_owned()));
    let known = async || {
        let answer = bed.get(&machine.url("/cluster1")).await;
        (answer == (200, "Instance unknown is responding now!".to_owned())).then_some(())
    };
    assert!(eventually(known).await.is_some());
    machine.instance.set_imds_outage(Outage::Up);
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    assert_eq!(machine.log().matches("cannot read the instance metadata").count(), 1, "{}", machine.log());
    machine.until_logged("instance metadata available again after ").await;
}

#[tokio::test]
async fn metadata_that_hang_delay_the_first_answer_by_three_seconds_at_most() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec()).await;
    machine.instance.set_imds_outage(Outage::Hang);
    let _agent = machine.start();
    machine.until_serving(&bed).await;
    assert_eq!(bed.get(&machine.url("/")).await, (200, "Healthy!".to_owned()));
    let starting = (503, "starting: instance id not known yet".to_owned());
    let unknown = (200, "Instance unknown is responding now!".to_owned());
    let mut answers = Vec::new();
    let settled = async || {
        let answer = bed.get(&machine.url("/cluster1")).await;
        assert!(answer == starting || answer == unknown, "{answer:?}");
        let done = answer == unknown;
        answers.push(answer);
        done.then_some(())
    };
    assert!(eventually(settled).await.is_some());
    assert_eq!(answers[0], starting);
}

#[tokio::test]
async fn a_session_token_that_is_no_longer_accepted_is_replaced() {
    let (_bed, machine, _agent) = Bed::healthy().await;
    machine.instance.forget_session_tokens();
    machine.instance.set_spot(Some((SpotAction::Terminate, SystemTime::now())));
    machine.until_phase("drained").await;
}

#[tokio::test]
async fn tags_that_the_metadata_do_not_show_are_asked_of_ec2() {
    let mut bed = Bed::start().await;
    // The third tag, by name, is the target group's; the local cloud shows two in a page.
    let mut spec = bed.spec().tag(instance_contract::tags::ROOT, "health");
    spec.publishes_tags = false;
    let machine = bed.machine(spec).await;
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    let calls = bed.calls(&machine, "DescribeTags");
    assert_eq!(calls.len(), 2, "EC2 is asked once an hour, for both pages");
    assert!(calls[0].parameters.iter().any(|(_, value)| value == machine.instance.id()));
}

#[tokio::test]
async fn tags_that_ec2_refuses_to_tell_are_said_once_and_counted_until_it_does() {
    let mut bed = Bed::start().await;
    bed.cloud.set_fault("DescribeTags", Some(Fault::Deny));
    let mut spec = bed.spec();
    spec.publishes_tags = false;
    let machine = bed.machine(spec).await;
    let _agent = machine.start();
    machine.until_logged("allow ec2:DescribeTags").await;
    let tried_again = async || (bed.calls(&machine, "DescribeTags").len() >= 2).then_some(());
    assert!(eventually(tried_again).await.is_some(), "it does not try again");
    bed.cloud.set_fault("DescribeTags", None);
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    assert!(machine.log().contains("EC2 returns the instance tags again after "), "{}", machine.log());
    assert_eq!(machine.log().matches("allow ec2:DescribeTags").count(), 1, "{}", machine.log());
}

#[tokio::test]
async fn without_credentials_it_serves_and_says_what_is_missing() {
    let mut bed = Bed::start().await;
    let mut spec = bed.spec();
    spec.role = None;
    let machine = bed.machine(spec).await;
    let _agent = machine.start();
    machine.until_logged("attach an instance profile").await;
    assert_eq!(bed.get(&machine.url("/")).await, (200, "Healthy!".to_owned()));
    let log = machine.log();
    let said = log.lines().find(|line| line.contains("attach an instance profile")).unwrap();
    let sentence = "target group cluster1: elasticloadbalancing:DescribeTargetGroups: there are no credentials; attach \
                    an instance profile to this instance, or provide credentials in the environment; ";
    assert!(said.contains(sentence), "{said}");
    assert_eq!(machine.log().matches("attach an instance profile").count(), 1, "{}", machine.log());
}

#[tokio::test]
async fn a_tag_that_cannot_be_used_is_said_once_and_ignored() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec().tag(instance_contract::tags::CLUSTER, "Metrics!")).await;
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    assert_eq!(
        machine.log().matches("WARN instance tag instance-agent:cluster").count(),
        1,
        "{}",
        machine.log()
    );
    for path in ["/cluster1", "/cluster2"] {
        assert_eq!(bed.get(&machine.url(path)).await.0, 200, "no cluster: it answers on both");
    }
}

#[tokio::test]
async fn a_deregistration_that_fails_is_retried_until_the_drain_timeout() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--drain-timeout", "8s"]);
    let mut agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    bed.cloud.set_fault("DeregisterTargets", Some(Fault::Deny));
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert!(bed.calls(&machine, "DeregisterTargets").len() >= 3, "{}", machine.log());
    assert!(machine.log().contains("drain timeout reached"), "{}", machine.log());
    assert!(machine.log().contains("allow elasticloadbalancing:DeregisterTargets"), "{}", machine.log());
}

#[tokio::test]
async fn registered_nowhere_it_stops_at_once() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec().tag(instance_contract::tags::TARGET_GROUP, "")).await;
    // Longer than the test waits: only not waiting at all can pass.
    machine.arguments(&["--drain-quiet", "1h", "--drain-timeout", "1h"]);
    let mut agent = machine.start();
    machine.until_phase("serving").await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
}

#[tokio::test]
async fn a_second_signal_ends_the_wait() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--drain-quiet", "1h", "--drain-timeout", "1h"]);
    let mut agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    agent.terminate();
    machine.until_phase("draining").await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
}

#[tokio::test]
async fn a_deregistration_delay_of_zero_still_deregisters_and_waits_for_silence() {
    let none = TargetGroupSpec { deregistration_delay: Duration::ZERO, ..group("cluster1") };
    let mut bed = Bed::with(BedOptions { groups: vec![none], ..BedOptions::default() }).await;
    let (machine, mut agent) = bed.boot().await;
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert_eq!(bed.calls(&machine, "DeregisterTargets").len(), 1, "{}", machine.log());
    assert!(!machine.log().contains("drain timeout reached"), "{}", machine.log());
}

#[tokio::test]
async fn a_drain_timeout_of_zero_still_tries_to_deregister() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--drain-timeout", "0s"]);
    let mut agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert_eq!(bed.calls(&machine, "DeregisterTargets").len(), 1, "{}", machine.log());
}

#[tokio::test]
async fn naming_the_same_group_otherwise_does_not_leave_it() {
    let (bed, machine, _agent) = Bed::healthy().await;
    let status = machine.until_status("healthy", |s| s["target_groups"][0]["state"] == "healthy").await;
    let arn = status["target_groups"][0]["arn"].as_str().unwrap();
    machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, &format!("{arn} cluster1"));
    machine.until_logged(&format!("target groups {arn};")).await;
    machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, arn);
    let status = machine.until_phase("serving").await;
    assert_eq!(status["target_groups"].as_array().unwrap().len(), 1);
    assert!(bed.calls(&machine, "DeregisterTargets").is_empty());
    assert_eq!(bed.calls(&machine, "RegisterTargets").len(), 1);
}

#[tokio::test]
async fn a_slip_in_the_tag_takes_no_instance_out_of_its_group() {
    let (bed, machine, _agent) = Bed::healthy().await;
    machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, "cluster1,cluster2");
    machine.until_logged("the previous value stays in effect").await;
    let status = machine.until_phase("serving").await;
    assert_eq!(status["target_groups"][0]["name"], "cluster1");
    assert!(bed.calls(&machine, "DeregisterTargets").is_empty());
}

#[tokio::test]
async fn a_group_that_does_not_exist_or_is_elsewhere_takes_no_instance_out_of_its_group() {
    let options = BedOptions { groups: vec![group("cluster1"), group("other")], ..BedOptions::default() };
    let mut bed = Bed::with(options).await;
    let (machine, _agent) = bed.boot().await;
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    let elsewhere = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/other/73e2d6bc24d8a067";
    for (named, problem) in [("misspelled", "TargetGroupNotFound"), (elsewhere, "eu-west-1")] {
        machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, named);
        let status = machine.until_status(problem, |status| problem_of(status).contains(problem)).await;
        let kept =
            status["target_groups"].as_array().unwrap().iter().find(|group| group["name"] == "cluster1");
        assert_eq!(kept.unwrap()["state"], "healthy", "{status}");
        assert!(bed.calls(&machine, "DeregisterTargets").is_empty());
    }
    let found = bed.calls(&machine, "DescribeTargetGroups");
    assert!(!format!("{found:?}").contains("eu-west-1"), "refused without a call");
    machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, "other");
    bed.until_target("cluster1", &machine, TargetState::Draining).await;
    assert_eq!(bed.calls(&machine, "RegisterTargets").len(), 2, "joined before it left");
    bed.until_target("other", &machine, TargetState::Healthy).await;
}

#[tokio::test]
async fn a_drain_is_not_forgotten_when_the_metadata_come_late() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec()).await;
    std::fs::create_dir_all(machine.command.state_dir()).unwrap();
    std::fs::write(machine.command.state_dir().join("drained"), machine.instance.id()).unwrap();
    machine.instance.set_imds_outage(Outage::Refuse);
    let _agent = machine.start();
    machine.until_phase("drained").await;
    machine.instance.set_imds_outage(Outage::Up);
    let known = |status: &serde_json::Value| status["instance_id"] == machine.instance.id();
    let status = machine.until_status("its id", known).await;
    assert_eq!(status["phase"], "drained");
    assert!(bed.calls(&machine, "RegisterTargets").is_empty());
}

#[tokio::test]
async fn a_spot_notice_behind_a_hiccup_of_the_metadata_keeps_it_from_registering() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec()).await;
    machine.instance.set_spot(Some((SpotAction::Terminate, SystemTime::now())));
    machine.instance.set_imds_outage(Outage::Status(503));
    let _agent = machine.start();
    machine.until_logged("cannot read the instance metadata").await;
    machine.instance.set_imds_outage(Outage::Up);
    machine.until_phase("drained").await;
    assert!(bed.calls(&machine, "RegisterTargets").is_empty(), "{}", machine.log());
}

#[tokio::test]
async fn stopped_just_after_its_tag_was_emptied_it_still_waits_for_silence() {
    let (bed, machine, mut agent) = Bed::healthy().await;
    machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, "");
    bed.until_target("cluster1", &machine, TargetState::Draining).await;
    let left = std::time::Instant::now();
    let nowhere = |status: &serde_json::Value| status["target_groups"].as_array().unwrap().is_empty();
    machine.until_status("no group", nowhere).await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert!(left.elapsed() >= Duration::from_secs(3), "the balancer may still have been sending");
}

#[tokio::test]
async fn a_restarted_agent_leaves_also_where_it_may_not_look() {
    let (bed, machine, mut agent) = Bed::healthy().await;
    agent.kill();
    ended(&mut agent, &machine).await;
    bed.cloud.set_fault("DescribeTargetHealth", Some(Fault::Deny));
    let mut agent = machine.start();
    machine.until_logged("allow elasticloadbalancing:DescribeTargetHealth").await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert_eq!(bed.cloud.health_of("cluster1", machine.instance.id(), PORT).state, TargetState::Draining);
}

#[tokio::test]
async fn a_restarted_agent_that_gets_no_checks_asks_at_once() {
    let (_bed, machine, mut agent) = Bed::healthy().await;
    agent.kill();
    ended(&mut agent, &machine).await;
    let mut machine = machine;
    // Registered with a port that no check comes to; the default would look again in ten minutes.
    machine.arguments(&["--listen", "127.0.0.1:0", "--register-port", "8080"]);
    let _agent = machine.start();
    machine.until_logged("no health check for three intervals").await;
}

#[tokio::test]
async fn withdrawn_credentials_are_replaced() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--reconcile-interval", "2s"]);
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    machine.instance.revoke_credentials();
    assert!(bed.cloud.deregister("cluster1", machine.instance.id(), PORT));
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
}

#[tokio::test]
async fn sighup_does_not_end_it() {
    let (_bed, machine, mut agent) = Bed::healthy().await;
    tests::send(rustix::process::Signal::HUP, agent.pid());
    machine.until_logged("SIGHUP is ignored").await;
    assert_eq!(agent.ended(), None);
}

#[tokio::test]
async fn without_metadata_it_idles_and_burns_no_cpu() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.command.environment.push(("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()));
    let agent = machine.start();
    machine.until_phase("serving").await;
    // In clock ticks of 10 ms, user and system together.
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = cpu();
    // Idling is what is looked at, so this waits on purpose.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cpu() - before < 40, "{} ms of CPU in two idle seconds", 10 * (cpu() - before));
}

#[tokio::test]
async fn a_notice_that_cannot_be_read_hides_no_other() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec()).await;
    machine.instance.answer_metadata("meta-data/events/recommendations/rebalance", Some((403, "refused")));
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    machine.instance.set_spot(Some((SpotAction::Terminate, SystemTime::now())));
    machine.until_phase("drained").await;
    assert_eq!(machine.log().matches("cannot read a notice").count(), 1, "{}", machine.log());
}

#[tokio::test]
async fn stopped_while_drained_it_still_finishes_what_is_in_flight() {
    let (_bed, machine, mut agent) = Bed::healthy().await;
    assert!(machine.command(&["drain", "--wait"]).await.status.success());
    let mut slow = tokio::net::TcpStream::connect(machine.command.listen).await.unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n").await.unwrap();
    machine.until_status("in flight", |status| status["traffic"]["in_flight"] == 1).await;
    agent.terminate();
    machine.until_status("stopping", |status| status["stopping"] == true).await;
    slow.write_all(b"{\"num\": 123}").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("123"), "{answer}");
    assert!(ended(&mut agent, &machine).await.success());
}

#[tokio::test]
async fn in_an_outage_of_the_api_a_drain_goes_on_until_its_timeout() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--drain-timeout", "1h"]);
    let mut agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    bed.cloud.set_endpoint_outage(Outage::Refuse);
    agent.terminate();
    machine.until_phase("draining").await;
    // Longer than it looks for a registration that it never saw: this one it saw.
    let draining = std::time::Instant::now();
    let still = async || (draining.elapsed() > Duration::from_secs(13)).then_some(());
    assert!(eventually(still).await.is_some());
    assert_eq!(agent.ended(), None, "it left while it was registered:\n{}", machine.log());
    bed.cloud.set_endpoint_outage(Outage::Up);
    assert!(ended(&mut agent, &machine).await.success());
    assert_eq!(bed.cloud.health_of("cluster1", machine.instance.id(), PORT).state, TargetState::Draining);
    assert!(!machine.log().contains("illegal transition"), "{}", machine.log());
}

#[tokio::test]
async fn a_look_that_fails_when_the_checks_stop_is_repeated() {
    let soon_gone = TargetGroupSpec { deregistration_delay: Duration::from_secs(1), ..group("cluster1") };
    let mut bed = Bed::with(BedOptions { groups: vec![soon_gone], ..BedOptions::default() }).await;
    let (machine, _agent) = bed.boot().await;
    machine.until_status("healthy", |status| status["target_groups"][0]["state"] == "healthy").await;
    bed.cloud.set_fault("DescribeTargetHealth", Some(Fault::Deny));
    assert!(bed.cloud.deregister("cluster1", machine.instance.id(), PORT));
    machine.until_logged("allow elasticloadbalancing:DescribeTargetHealth").await;
    bed.cloud.set_fault("DescribeTargetHealth", None);
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
}

#[tokio::test]
async fn a_stop_tries_at_once_what_a_drain_before_could_not() {
    let mut bed = Bed::start().await;
    let mut machine = bed.machine(bed.spec()).await;
    machine.arguments(&["--drain-timeout", "4s"]);
    let mut agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    bed.cloud.set_fault("DeregisterTargets", Some(Fault::Deny));
    assert!(machine.command(&["drain", "--wait"]).await.status.success());
    bed.cloud.set_fault("DeregisterTargets", None);
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success());
    assert_eq!(bed.cloud.health_of("cluster1", machine.instance.id(), PORT).state, TargetState::Draining);
}
