//! The whole story, with nothing of ours played that someone else has written: moto is AWS's control
//! plane, booted Debians are the instances, haproxy is the balancer, awscli is the witness.
//!
//! A fleet is launched from a package, lives through a day under load without one failed request, and
//! is destroyed. `make e2e` tells it with the nine machines of `clusters`, `make test` with three.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tests::debian::{another_version, package};
use tests::solo::is_root_or_skip;

use tests::region::Power;
use tests::within;

use day::{Day, Times};

mod auto_scaling;
mod day;
mod flask;

const WHY: &str = "only root can boot a machine";

/// Three machines whose balancer makes up its mind faster than `clusters`' does.
const TRIO: &str = r#"
name = "trio"
region = "us-east-1"
image = "ami-08c40ec9ead489470"
zones = ["us-east-1a", "us-east-1b"]
deregistration-delay = "30s"

[health-check]
path = "/"
interval = "5s"
timeout = "2s"
healthy = 2
unhealthy = 2

[[group]]
name = "cluster1"
type = "m4.large"
count = 2

[[group]]
name = "cluster2"
type = "t2.large"
count = 1
"#;

const QUICK: Times =
    Times { boot: Duration::from_secs(90), settle: Duration::from_secs(90), lasts: Duration::from_secs(15) };

/// As AWS is by default.
const USUAL: Times = Times {
    boot: Duration::from_secs(300),
    settle: Duration::from_secs(420),
    lasts: Duration::from_secs(60),
};

#[tokio::test]
async fn three_machines_live_through_a_day() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let mut day = Day::begin(4, Some(TRIO), "trio", &[("cluster1", 2), ("cluster2", 1)], QUICK).await;
    live(&mut day).await;
    day.ends().await;
}

#[tokio::test]
async fn nine_machines_live_through_a_day() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let mut day = Day::begin(12, None, "clusters", &[("cluster1", 5), ("cluster2", 4)], USUAL).await;
    live(&mut day).await;
    flask::beside(&mut day).await;
    day.seed_fleet_comes_and_goes().await;
    day.ends().await;
}

#[tokio::test]
async fn a_launch_whose_package_cannot_be_installed_ends_early_with_the_reason() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let shipped = package("instance-agent");
    let broken = another_version(&shipped, "98.0.0", |tree| {
        let script = tree.join("DEBIAN/preinst");
        std::fs::write(&script, "#!/bin/sh\necho 'not on a Saturday' >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    })
    .await;
    let mut day = Day::begin(3, Some(TRIO), "trio", &[("cluster1", 2), ("cluster2", 1)], QUICK).await;
    let ran =
        day.region.account.run(&["launch", &day.file, "--deb", broken.to_str().unwrap(), "--yes"]).await;
    let ran = ran.exits(3).says("could not install the agent: apt-get: ").says("The end of its console:");
    assert!(ran.stderr.contains("terminate the instance and launch again"), "{}", ran.stderr);
    // As it says: another package, other instances.
    day.terminate_all().await;
    day.launch().await;
    day.ends().await;
}

async fn live(day: &mut Day) {
    day.launch().await;
    day.is_what_was_asked_for().await;
    day.steps_of_the_boots().await;

    day.load_begins().await;
    day.rolling_upgrade().await;
    day.scale_up_and_down().await;
    day.one_is_stopped_and_started().await;
    day.a_spot_instance_is_interrupted().await;
    day.a_rebalance_is_recommended().await;
    day.auto_scaling_says_terminated().await;
    day.someone_deregisters_one_by_hand().await;
    day.metadata_are_gone().await;
    day.the_api_is_throttled().await;
    day.load_ends_without_a_failure().await;

    day.power_is_cut().await;
}
