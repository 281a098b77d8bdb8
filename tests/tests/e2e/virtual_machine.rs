//! What only a virtual machine can show: a first boot, a power cut, limits that the kernel enforces.
//!
//! Each test has a machine of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bootstrap::user_data::{FirstBoot, failure_in_console, first_boot_in_console};
use local_cloud::TargetState;
use tests::debian::package;
use tests::solo::is_root_or_skip;
use tests::vm::first_boot::{self, PACKAGE};
use tests::vm::posts::Posts;
use tests::vm::{BOOT, Guest, INSTANCE};

#[tokio::test]
async fn user_data_installs_the_package_once_dpkg_is_free_also_after_a_power_cut_and_only_if_its_sum_is_right()
 {
    if !is_root_or_skip("makes a network namespace") {
        return;
    }
    let mut guest = Guest::launch(|cloud, files| {
        let holder = files.put("hold.py", include_str!("../../guest/hold_dpkg_lock.py"));
        let ours = format!("bootcmd:\n  - curl -sf {holder} | python3 -\n");
        first_boot::user_data(cloud, files).replacen("bootcmd:\n", &ours, 1)
    })
    .await;
    guest.log_in().await;
    // As an upgrade in the background would, something holds dpkg's lock.
    guest.until(BOOT, "grep -q 'Waiting for cache lock' /var/log/cloud-init-output.log").await;
    assert!(!guest.run("dpkg -s instance-agent").await.status.success(), "installed under a foreign lock");
    // cloud-init has noted that this boot's work has begun, and would not begin it again by itself.
    guest.ok("sync").await;
    guest.cut_power().await;
    guest.power_on();
    guest.log_in().await;
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
    assert_eq!(guest.ok("find /tmp -name '*.deb' | wc -l").await, "0", "the download is left behind");
    let said = first_boot_in_console(&guest.console());
    assert_eq!(said, Some(FirstBoot::Installed { version: env!("CARGO_PKG_VERSION").to_owned() }));

    // The same user data, but what is at that address has changed meanwhile.
    guest.ok("apt-get -y purge instance-agent").await;
    let mut tampered = std::fs::read(package("instance-agent")).unwrap();
    tampered.push(0);
    guest.files.put(PACKAGE, tampered);
    guest.ok("rm /var/lib/cloud/instance/sem/instance_agent_* && cloud-init single --name bootcmd").await;
    guest.ok("touch /run/release-dpkg").await;
    let refused = guest.run("/var/lib/cloud/scripts/per-boot/instance-agent").await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let failed = failure_in_console(&tests::text(&refused.stdout)).unwrap();
    assert!(failed.contains("has SHA-256"), "{refused:?}");
    let console = guest.console();
    assert_eq!(failure_in_console(&console), Some(failed), "{console}");
    assert!(!guest.run("dpkg -s instance-agent").await.status.success());
}

#[tokio::test]
async fn a_power_cut_in_the_middle_of_posts_loses_no_acknowledged_number() {
    if !is_root_or_skip("makes a network namespace") {
        return;
    }
    let mut guest = Guest::installed().await;
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
            panic!("cut {round}: {found} is found, acknowledged and lost: {number}");
        }
        guest.log_in().await;
        assert_eq!(guest.ok("cat /var/lib/overwritten").await, "old", "the cut loses nothing at all");
        seed = found;
    }
}

const CGROUP: &str = "/sys/fs/cgroup/system.slice/instance-agent.service";

#[tokio::test]
async fn the_kernel_holds_the_service_to_its_memory_and_tasks_and_all_else_lives_on() {
    if !is_root_or_skip("makes a network namespace") {
        return;
    }
    let guest = Guest::installed().await;
    guest.put("/root/allocate.py", include_str!("../../guest/allocate.py")).await;
    guest.put("/root/fork_bomb.py", include_str!("../../guest/fork_bomb.py")).await;
    guest.put("/root/flood.py", include_str!("../../guest/flood.py")).await;
    let main_pid = async || guest.ok("systemctl show --value -p MainPID instance-agent").await;
    let limit = async |name: &str| {
        let limit = guest.ok(&format!("systemctl show --value -p {name} instance-agent")).await;
        limit.parse::<u64>().unwrap_or_else(|_| panic!("no {name}: {limit}"))
    };
    let agent = main_pid().await;
    guest.connect().await.unwrap().post("77").await.unwrap().is(200, "77");

    // What would be a fork bomb: refused at the limit, and the agent serves on in the middle of it.
    let tasks = limit("TasksMax").await;
    let free = guest.ok(&format!("echo | python3 /root/fork_bomb.py - {}", tasks + 100)).await;
    assert_eq!(free, format!("{} None", tasks + 100), "outside nothing stops it");
    let mut bomb = guest.start(&format!("python3 /root/fork_bomb.py {CGROUP} {}", tasks + 100));
    let said = bomb.line().await;
    let (children, refusal) = said.split_once(' ').unwrap();
    assert!(children.parse::<u64>().unwrap() < tasks, "{said}, TasksMax {tasks}");
    assert_eq!(refusal, "Resource temporarily unavailable");
    assert_eq!(guest.until_answers("/seed").await, "77");
    bomb.end().await;

    // As many connections as it takes at a time, each with a request begun: within the limit.
    let flood = async |what: &str| {
        let mut job = guest.start(&format!("python3 /root/flood.py 127.0.0.1 80 {what}"));
        println!("{what}: {}", job.line().await);
        assert_eq!(guest.until_answers("/seed").await, "77");
        job.end().await;
    };
    flood("9000 head 0").await;

    // Clients that ask again and again and read no answer, the longest there is: no more is kept for 9,000 than for 200, and
    // the balancer's checks pass all along.
    let longest = "7".repeat(4300);
    guest.connect().await.unwrap().post(&longest).await.unwrap().is(200, &longest);
    for clients in [200, 1500, 9000] {
        let mut job = guest.start(&format!("python3 /root/flood.py 127.0.0.1 80 {clients} unread 65000"));
        println!("{clients} read nothing: {}", job.line().await);
        assert_eq!(guest.until_answers("/seed").await, longest);
        let taken: u64 = guest.ok(&format!("cat {CGROUP}/memory.current")).await.parse().unwrap();
        println!("{clients} read nothing: {} MiB", taken / 1024 / 1024);
        assert!(taken < limit("MemoryMax").await, "{taken}");
        assert_eq!(guest.health(), TargetState::Healthy);
        job.end().await;
    }
    assert_eq!(guest.ok(&format!("grep '^oom_kill ' {CGROUP}/memory.events")).await, "oom_kill 0");
    assert_eq!(main_pid().await, agent, "the same process all along");
    guest.connect().await.unwrap().post("77").await.unwrap().is(200, "77");

    // Some other process of the service that takes all memory: it alone is killed.
    let mebibytes = limit("MemoryMax").await / 1024 / 1024 + 128;
    let free = guest.ok(&format!("python3 /root/allocate.py - {mebibytes}")).await;
    assert_eq!(free, format!("taken {mebibytes}"), "outside nothing stops it");
    let greedy = guest.run(&format!("python3 /root/allocate.py {CGROUP} {mebibytes}; exit $?")).await;
    assert_eq!(greedy.status.code(), Some(128 + 9), "{greedy:?}");
    assert_eq!(guest.until_answers("/seed").await, "77");
    assert_eq!(main_pid().await, agent, "the same process all along");

    // As much unfinished as clients can send, more than the limit. What the agent holds of it, it
    // bounds itself; what the kernel holds for it counts too, and with it the agent may be killed.
    // Then it is back at once, with its seed.
    flood("6000 head 65000").await;
    flood("6000 body 65000").await;
    guest.until(BOOT, "systemctl is-active instance-agent").await;

    let kernel =
        guest.ok("journalctl -k -o cat --no-pager | grep -o '^.*out of memory: Killed process [^)]*)'").await;
    println!("{kernel}");
    let of_the_service = |line: &str| {
        line.starts_with("Memory cgroup out of memory: ")
            && (line.ends_with("(python3)") || line.ends_with("(instance-agent)"))
    };
    assert!(kernel.lines().all(of_the_service), "{kernel}");
    assert_eq!(guest.ok("systemctl --failed --no-legend --plain").await, "");
}

#[tokio::test]
async fn not_even_root_in_the_sandbox_reaches_kernel_clock_or_devices() {
    if !is_root_or_skip("makes a network namespace") {
        return;
    }
    let guest = Guest::installed().await;
    guest.put("/usr/local/lib/sandbox_probe.py", include_str!("../../guest/sandbox_probe.py")).await;
    let outcomes = |text: String| -> BTreeMap<String, String> {
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    let outside = outcomes(guest.ok("python3 /usr/local/lib/sandbox_probe.py").await);
    assert!(outside.len() >= 10 && outside.values().all(|outcome| outcome == "ok"), "{outside:?}");
    // The service's own unit, with another program. `!`: as root, all else of the sandbox stays.
    guest
        .put(
            "/run/systemd/system/sandbox-probe.service",
            &guest.ok("cat $(systemctl show --value -p FragmentPath instance-agent)").await,
        )
        .await;
    guest.ok("mkdir /run/systemd/system/sandbox-probe.service.d").await;
    guest
        .put(
            "/run/systemd/system/sandbox-probe.service.d/probe.conf",
            "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\n\
             StateDirectory=\nRuntimeDirectory=\nExecReload=\nExecStart=\n\
             ExecStart=!/usr/bin/python3 /usr/local/lib/sandbox_probe.py\n\
             StandardOutput=file:/run/sandbox-probe\n",
        )
        .await;
    guest.ok("systemctl daemon-reload && systemctl start sandbox-probe").await;
    let inside = outcomes(guest.ok("cat /run/sandbox-probe").await);
    assert!(inside.keys().eq(outside.keys()));
    let refusals = ["EACCES", "ENOENT", "EPERM", "EROFS"];
    let reached: Vec<_> = inside.iter().filter(|(_, how)| !refusals.contains(&how.as_str())).collect();
    assert!(reached.is_empty(), "{reached:?}");
}
