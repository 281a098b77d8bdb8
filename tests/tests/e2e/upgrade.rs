//! Reload and package upgrade of the running service in a booted Debian: nothing is lost.

use std::os::unix::fs::PermissionsExt;

use local_cloud::TargetState;
use tests::debian::{another_version, package, root};
use tests::load::{Ask, Load};
use tests::service::{SERVICE, ServiceBed};
use tests::solo::is_root_or_skip;
use tests::text;

const WHY: &str = "only root can boot a machine";

impl Seen {
    async fn of(bed: &ServiceBed) -> Self {
        Self {
            pid: bed.machine.property("MainPID").await,
            invocation: bed.machine.property("InvocationID").await,
            restarts: bed.machine.property("NRestarts").await,
            seed: bed.stored().await,
            registered: bed.calls("RegisterTargets").len(),
            deregistered: bed.calls("DeregisterTargets").len(),
        }
    }
}

/// What must not change.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    pid: String,
    invocation: String,
    restarts: String,
    seed: String,
    registered: usize,
    deregistered: usize,
}

async fn reload(bed: &ServiceBed) {
    let output = bed.machine.run("systemctl reload instance-agent").await;
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), bed.machine.journal().await);
}

#[tokio::test]
async fn reloads_an_upgrade_and_a_downgrade_under_load_lose_nothing() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let shipped = package("instance-agent");
    let newer = another_version(&shipped, "99.0.0", |_| ()).await;
    let bed = ServiceBed::serving(&root("bookworm").await, &shipped).await;
    bed.store("4711").await;
    let before = Seen::of(&bed).await;
    assert_eq!((before.registered, before.deregistered), (1, 0));
    // Directly, with kept and with fresh connections, and through the balancer.
    let asks = [Ask::Get("/"), Ask::Get("/seed"), Ask::Get("/cluster1")];
    let direct = Load::start(&format!("http://{SERVICE}"), &asks);
    let balanced = Load::start(&bed.balancer.url(), &[Ask::Get("/cluster1")]);
    direct.until_answered(100).await;
    for _ in 0..20 {
        reload(&bed).await;
        direct.until_answered(20).await;
    }
    assert_eq!(Seen::of(&bed).await, before);
    for (deb, version) in [(newer.as_ref(), "99.0.0"), (shipped.as_path(), "0.1.0")] {
        bed.machine.install_any(deb).await;
        let installed = bed.machine.ok("dpkg-query -W -f '${Version}' instance-agent").await;
        assert!(installed.starts_with(version), "{installed}");
        // The new file is what runs.
        let exe = bed.machine.ok(&format!("readlink /proc/{}/exe", before.pid)).await;
        assert_eq!(exe, "/usr/bin/instance-agent");
        assert_eq!(Seen::of(&bed).await, before);
        direct.until_answered(100).await;
        balanced.until_answered(10).await;
    }
    assert_eq!(direct.stop().await.failures, [""; 0], "{}", bed.machine.journal().await);
    assert_eq!(balanced.stop().await.failures, [""; 0], "{}", bed.machine.journal().await);
    bed.until_target(TargetState::Healthy).await;
    let status = bed.machine.status().await;
    assert_eq!(status["reload"]["outcome"], "done");
    assert_eq!(status["reload"]["attempt"], 22);
    assert_eq!(status["restart_needed"], serde_json::Value::Null, "the unit is the same");
    assert_eq!(bed.machine.property("ActiveState").await, "active");
}

#[tokio::test]
async fn a_mistake_in_the_file_and_a_broken_program_are_refused_and_the_old_one_serves_on() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let shipped = package("instance-agent");
    let broken = another_version(&shipped, "99.0.0", |tree| {
        let program = tree.join("usr/bin/instance-agent");
        std::fs::write(&program, "no program\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    })
    .await;
    let bed = ServiceBed::serving(&root("bookworm").await, &shipped).await;
    bed.store("4711").await;
    let before = Seen::of(&bed).await;
    let load = Load::start(&format!("http://{SERVICE}"), &[Ask::Get("/"), Ask::Get("/seed")]);
    load.until_answered(50).await;

    bed.machine.ok("cp /etc/instance-agent/agent.toml /root/; echo 'root = \"sed\"' >> /etc/instance-agent/agent.toml").await;
    let refused = bed.machine.run("systemctl reload instance-agent").await;
    assert!(!refused.status.success(), "{}", text(&refused.stderr));
    assert!(bed.machine.journal().await.contains("expected health or seed"));
    bed.machine.ok("cp /root/agent.toml /etc/instance-agent/").await;

    // dpkg is content, and says what is the matter.
    let said = bed.machine.install_any(&broken).await;
    assert!(said.contains("the new version did not take over"), "{said}");
    assert_eq!(bed.machine.ok("dpkg-query -W -f '${Status}' instance-agent").await, "install ok installed");
    // Asking for the reload is the new program's work too; here it is systemd that names it.
    // The process that says it may be gone before journald has looked up its unit, so the whole journal is read.
    let failed = "journalctl --no-pager | grep 'execute /usr/bin/instance-agent: Exec format error'";
    bed.machine.until(failed).await;
    bed.machine.ok("rm /usr/bin/instance-agent").await;
    let refused = bed.machine.run("systemctl reload instance-agent").await;
    assert!(!refused.status.success());
    load.until_answered(50).await;
    assert_eq!(load.stop().await.failures, [""; 0], "{}", bed.machine.journal().await);
    assert_eq!(Seen::of(&bed).await, before);

    // What was broken is mended by the next package.
    bed.machine.install_any(&shipped).await;
    assert_eq!(Seen::of(&bed).await, before);
    assert_eq!(bed.machine.status().await["reload"]["outcome"], "done");
}

#[tokio::test]
async fn a_new_release_runs_under_the_old_unit_and_says_that_a_restart_is_needed() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let shipped = package("instance-agent");
    let newer = another_version(&shipped, "99.0.0", |tree| {
        let unit =
            ["usr/lib", "lib"].map(|folder| tree.join(folder).join("systemd/system/instance-agent.service"));
        let unit = unit.iter().find(|path| path.exists()).expect("the unit");
        let text = std::fs::read_to_string(unit).unwrap();
        assert!(text.contains("RestartSec=1\n"));
        std::fs::write(unit, text.replace("RestartSec=1\n", "RestartSec=2\n")).unwrap();
    })
    .await;
    let bed = ServiceBed::serving(&root("bookworm").await, &shipped).await;
    let before = Seen::of(&bed).await;
    bed.machine.install_any(&newer).await;
    assert_eq!(Seen::of(&bed).await, before);
    let status = bed.machine.status().await;
    let said = status["restart_needed"].as_str().expect("it is said");
    assert!(said.contains("systemctl restart instance-agent.service"), "{said}");
    bed.machine.ok("systemctl restart instance-agent").await;
    bed.machine.until_active().await;
    assert_eq!(bed.machine.status().await["restart_needed"], serde_json::Value::Null);
    bed.until_target(TargetState::Healthy).await;
}

#[tokio::test]
async fn an_upgrade_on_bullseye_keeps_the_process() {
    upgrades_in_place("bullseye").await;
}

#[tokio::test]
async fn an_upgrade_on_trixie_keeps_the_process() {
    upgrades_in_place("trixie").await;
}

async fn upgrades_in_place(suite: &str) {
    if !is_root_or_skip(WHY) {
        return;
    }
    let shipped = package("instance-agent");
    let newer = another_version(&shipped, "99.0.0", |_| ()).await;
    let bed = ServiceBed::serving(&root(suite).await, &shipped).await;
    let before = Seen::of(&bed).await;
    bed.machine.install_any(&newer).await;
    assert_eq!(Seen::of(&bed).await, before);
    assert_eq!(bed.machine.status().await["reload"]["outcome"], "done");
    reload(&bed).await;
    assert_eq!(Seen::of(&bed).await, before);
}
