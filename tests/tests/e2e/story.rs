//! The whole story, with three machines and with the nine of the fleet `clusters`.

use std::os::unix::fs::PermissionsExt;

use tests::debian::{another_version, package};
use tests::solo::is_root_or_skip;
use tests::story::{Day, QUICK, TRIO, USUAL, WHY, flask, live};

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
    let ran =
        ran.exits(3).says("could not install the agent: apt-get: ").says("The end of its console output:");
    assert!(ran.stderr.contains("terminate the instance and launch again"), "{}", ran.stderr);
    // As it says: another package, other instances.
    day.terminate_all().await;
    day.launch().await;
    day.ends().await;
}
