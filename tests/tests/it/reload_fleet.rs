//! A reload leaves the registrations as they are, and follows what has changed since.

use std::time::{Duration, SystemTime};

use local_cloud::{Fault, Outage, SpotAction, TargetState};
use tests::load::{Ask, Load};
use tests::{Bed, BedOptions, Machine, eventually, group, text};

async fn reloads(machine: &Machine) {
    let output = machine.command(&["reload"]).await;
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), machine.log());
}

/// The calls by which the instance changed its registrations.
fn changes(bed: &Bed, machine: &Machine) -> (usize, usize) {
    (bed.calls(machine, "RegisterTargets").len(), bed.calls(machine, "DeregisterTargets").len())
}

#[tokio::test]
async fn through_reloads_the_target_stays_registered_and_healthy_and_says_who_it_is() {
    let (bed, machine, _agent) = Bed::healthy().await;
    let base = machine.url("");
    let load = Load::start(&base, &[Ask::Get("/cluster1"), Ask::Get("/health")]);
    load.until_answered(20).await;
    for _ in 0..5 {
        let described = bed.calls(&machine, "DescribeTargetHealth").len();
        reloads(&machine).await;
        // The identity came along: it was never "not known yet".
        let (status, body) = bed.get(&machine.url("/cluster1")).await;
        assert_eq!((status, body), (200, format!("Instance {} is responding now!", machine.instance.id())));
        machine.until_status("healthy", |status| status["target_groups"][0]["state"] == "healthy").await;
        // What it said first was what the program before it knew.
        let asked = async || (bed.calls(&machine, "DescribeTargetHealth").len() > described).then_some(());
        assert!(eventually(asked).await.is_some(), "{}", machine.log());
        load.until_answered(20).await;
    }
    assert_eq!(load.stop().await.failures, [""; 0], "{}", machine.log());
    assert_eq!(changes(&bed, &machine), (1, 0));
    assert_eq!(
        bed.cloud.health_of("cluster1", machine.instance.id(), tests::PORT).state,
        TargetState::Healthy
    );
}

#[tokio::test]
async fn a_reload_shows_what_was_known_before_it_has_asked_and_serves_since_when_it_did() {
    let (bed, machine, _agent) = Bed::healthy().await;
    let healthy = |status: &serde_json::Value| status["target_groups"][0]["state"] == "healthy";
    let before = machine.until_status("healthy", healthy).await;
    // The next program cannot ask anybody.
    bed.cloud.set_endpoint_outage(Outage::Hang);
    for _ in 0..2 {
        reloads(&machine).await;
        let after = machine.status().await.unwrap();
        assert_eq!(after["phase"], "serving");
        assert_eq!(after["since"], before["since"]);
        for field in ["state", "since", "target", "arn"] {
            assert_eq!(after["target_groups"][0][field], before["target_groups"][0][field], "{after}");
        }
        assert!(after["target_groups"][0]["as_of"].is_string(), "{after}");
    }
    bed.cloud.set_endpoint_outage(Outage::Up);
    bed.cloud.set_health_check_path("cluster1", "/nowhere");
    machine.until_logged("target group cluster1: unhealthy (was healthy)").await;
    assert_eq!(machine.log().matches("found; asking").count(), 1, "{}", machine.log());
}

#[tokio::test]
async fn a_reload_while_metadata_and_api_are_gone_forgets_nothing() {
    let (bed, machine, _agent) = Bed::healthy().await;
    machine.instance.set_imds_outage(Outage::Refuse);
    bed.cloud.set_endpoint_outage(Outage::Refuse);
    reloads(&machine).await;
    let (_, body) = bed.get(&machine.url("/cluster1")).await;
    assert!(body.contains(machine.instance.id()), "{body}");
    let status = machine.until_phase("serving").await;
    assert_eq!(status["target_groups"][0]["name"], "cluster1");
    bed.cloud.set_endpoint_outage(Outage::Up);
    machine.instance.set_imds_outage(Outage::Up);
    machine.until_status("healthy", |status| status["target_groups"][0]["state"] == "healthy").await;
    assert_eq!(changes(&bed, &machine), (1, 0));
}

#[tokio::test]
async fn a_reload_leaves_the_group_that_the_file_no_longer_names_and_joins_the_new_one() {
    let options = BedOptions { groups: vec![group("cluster1"), group("other")], ..BedOptions::default() };
    let mut bed = Bed::with(options).await;
    let machine = bed.machine(bed.spec()).await;
    let file = machine.command.folder.join("agent.toml");
    std::fs::create_dir_all(&machine.command.folder).unwrap();
    std::fs::write(&file, "target-group = [\"cluster1\"]\n").unwrap();
    let _agent = machine.start();
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    std::fs::write(&file, "target-group = [\"other\"]\n").unwrap();
    reloads(&machine).await;
    bed.until_target("other", &machine, TargetState::Healthy).await;
    bed.until_target("cluster1", &machine, TargetState::Draining).await;
    assert_eq!(changes(&bed, &machine), (2, 1));
}

#[tokio::test]
async fn what_is_drained_stays_drained_and_a_drain_is_not_begun_again() {
    let (bed, machine, _agent) = Bed::healthy().await;
    machine.instance.set_spot(Some((SpotAction::Stop, SystemTime::now() + Duration::from_secs(120))));
    machine.until_phase("draining").await;
    let refused = machine.command(&["reload"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("a drain is in progress ("), "{}", text(&refused.stderr));
    machine.until_phase("drained").await;
    let before = machine.log().matches(" draining for ").count();
    reloads(&machine).await;
    let status = machine.until_phase("drained").await;
    assert!(status["reason"].as_str().unwrap().contains("spot"), "{status}");
    assert_eq!(machine.log().matches(" draining for ").count(), before, "{}", machine.log());
    assert_eq!(bed.get(&machine.url("/health")).await.0, 503);
    assert_eq!(changes(&bed, &machine), (1, 1));
}

#[tokio::test]
async fn after_a_reload_a_stop_drains_as_ever() {
    let (bed, machine, mut agent) = Bed::healthy().await;
    reloads(&machine).await;
    agent.terminate();
    bed.until_target("cluster1", &machine, TargetState::Draining).await;
    assert!(tests::ended(&mut agent, &machine).await.success());
    assert_eq!(changes(&bed, &machine), (1, 1));
}

#[tokio::test]
async fn a_group_that_could_not_be_left_yet_is_left_after_the_reload() {
    let options = BedOptions { groups: vec![group("cluster1"), group("other")], ..BedOptions::default() };
    let mut bed = Bed::with(options).await;
    let (machine, _agent) = bed.boot().await;
    bed.until_target("cluster1", &machine, TargetState::Healthy).await;
    bed.cloud.set_fault("DeregisterTargets", Some(Fault::Fail(503)));
    machine.instance.set_tag(instance_contract::tags::TARGET_GROUP, "other");
    bed.until_target("other", &machine, TargetState::Healthy).await;
    reloads(&machine).await;
    machine.until_status("other", |status| status["target_groups"][0]["name"] == "other").await;
    bed.cloud.set_fault("DeregisterTargets", None);
    bed.until_target("cluster1", &machine, TargetState::Draining).await;
}
