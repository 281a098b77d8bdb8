//! What only a virtual machine can show: a first boot, a power cut, limits that the kernel enforces.
//!
//! Only `make e2e` runs these: they need the image, the package and some minutes. Each test has a
//! machine of its own.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failure is a failed test")]

use std::net::SocketAddr;

use tests::solo::is_root_or_skip;
use tests::vm::first_boot::{self, PACKAGE};
use tests::vm::posts::Posts;
use tests::vm::{BOOT, Guest, INSTANCE};

#[tokio::test]
async fn user_data_installs_the_package_at_first_boot_once_dpkg_is_free_and_only_if_its_sum_is_right() {
    if !is_root_or_skip("makes a network namespace") {
        return;
    }
    let mut guest = Guest::launch(|cloud, files| {
        let holder = files.put("hold.py", include_str!("../guest/hold_dpkg_lock.py"));
        let ours = format!("bootcmd:\n  - curl -sf {holder} | python3 -\n");
        first_boot::user_data(cloud, files) + &ours
    })
    .await;
    guest.log_in().await;
    // As an upgrade in the background would, something holds dpkg's lock.
    guest.until(BOOT, "grep -q 'Waiting for cache lock' /var/log/cloud-init-output.log").await;
    assert!(!guest.run("dpkg -s instance-agent").await.status.success(), "installed under a foreign lock");
    guest.ok("touch /run/release-dpkg").await;
    guest.until_healthy().await;
    guest.until(BOOT, "cloud-init status | grep -q done").await;
    guest.ok("cloud-init schema --system").await;
    assert_eq!(guest.ok("systemctl is-active instance-agent").await, "active");
    assert_eq!(guest.ok("systemctl is-enabled instance-agent").await, "enabled");
    assert_eq!(
        guest.until_answers("/cluster1").await,
        format!("Instance {} is responding now!", guest.instance.id())
    );
    assert_eq!(guest.ok("ls /tmp/*.deb 2>/dev/null | wc -l").await, "0", "the download is left behind");

    // The same user data, but what is at that address has changed meanwhile.
    guest.ok("apt-get -y purge instance-agent").await;
    let mut tampered = std::fs::read(first_boot::package()).unwrap();
    tampered.push(0);
    guest.files.put(PACKAGE, tampered);
    let refused = guest.run("sh /var/lib/cloud/instance/scripts/runcmd").await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(tests::text(&refused.stderr).contains("did NOT match"), "{refused:?}");
    assert!(!guest.run("dpkg -s instance-agent").await.status.success());
}

#[tokio::test]
async fn a_power_cut_in_the_middle_of_posts_loses_no_acknowledged_number() {
    if !is_root_or_skip("makes a network namespace") {
        return;
    }
    let mut guest = Guest::launch(first_boot::user_data).await;
    guest.until_healthy().await;
    guest.log_in().await;
    guest.until(BOOT, "cloud-init status | grep -q done").await;
    let mut seed = "0".to_owned();
    for round in 1..=3 {
        // The machine has been running for a while: what was installed is on the disk.
        guest.ok("echo old >/var/lib/overwritten && sync").await;
        let mut posts = Posts::start(SocketAddr::from((INSTANCE, 80)), 3, round);
        posts.until_acknowledged(100 * round).await;
        // What nobody made durable, in a file like the seed's. It shows that such a write is lost.
        guest.ok("echo new | dd of=/var/lib/overwritten conv=notrunc status=none").await;
        assert_eq!(guest.ok("cat /var/lib/overwritten").await, "new");
        posts.until_acknowledged(200 * round).await;
        guest.cut_power().await;
        let history = posts.lost().await;
        guest.power_on();
        let found = guest.until_answers("/seed").await;
        println!("cut {round}: (acknowledged, in flight) = {:?}", history.counts());
        if let Some(number) = history.lost(&seed, &found) {
            panic!("cut {round}: {found} is found, acknowledged and lost: {number}\n{history:?}");
        }
        guest.log_in().await;
        assert_eq!(guest.ok("cat /var/lib/overwritten").await, "old", "the cut loses nothing at all");
        seed = found;
    }
}
