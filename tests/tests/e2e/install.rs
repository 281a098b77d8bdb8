//! The package, from installation to purge, in Debians of several ages.

use std::collections::BTreeSet;

use tests::debian::{package, root};
use tests::nspawn::Nspawn;
use tests::service::ServiceBed;
use tests::solo::is_root_or_skip;
use tests::text;

const WHY: &str = "only root can boot a machine";

/// A machine with the package that has no network, no AWS and no CA certificates.
async fn alone() -> Nspawn {
    let machine = Nspawn::booted(&root("bookworm").await).await;
    machine.install(&package("instance-agent")).await;
    machine
}

#[tokio::test]
async fn it_installs_and_serves_without_network_aws_or_certificates() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = Nspawn::booted(&root("bookworm").await).await;
    assert_eq!(machine.ok("ls /etc/ssl/certs 2>/dev/null | wc -l").await, "0");
    assert_eq!(machine.ok("ip -o link | grep -vc ' lo:' || true").await, "0", "there is no network");
    let said = machine.install(&package("instance-agent")).await;
    assert!(said.contains("Need to get 0 B/"), "{said}");
    assert!(said.contains("0 upgraded, 1 newly installed"), "{said}");
    // Not a moment later: systemctl start returns when it listens.
    assert_eq!(machine.ok("systemctl is-active instance-agent").await, "active");
    assert_eq!(machine.ok("curl -sS --max-time 5 http://127.0.0.1/").await, "Healthy!");
}

#[tokio::test]
async fn without_aws_status_and_journal_say_what_is_missing() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = alone().await;
    let status = machine.until("instance-agent status | grep -B100 'no target group'").await;
    for part in ["instance       unknown", "no target group: set the tag instance-agent:target-group"] {
        assert!(status.contains(part), "{status}");
    }
    machine.until("journalctl -u instance-agent | grep 'cannot read the instance metadata'").await;
}

#[tokio::test]
async fn without_certificates_status_and_journal_name_the_package_to_install() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = alone().await;
    machine.until("journalctl -u instance-agent | grep -w ca-certificates").await;
    machine.until("instance-agent status | grep -w ca-certificates").await;
}

#[tokio::test]
async fn installed_in_a_chroot_it_serves_from_the_first_boot_on() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let mut machine = Nspawn::make(&root("bookworm").await).await;
    machine.copy(&package("instance-agent"), "var/cache/instance-agent.deb");
    let installed = machine.chroot("apt-get install -y /var/cache/instance-agent.deb").await;
    assert!(installed.status.success(), "{}{}", text(&installed.stdout), text(&installed.stderr));
    machine.boot().await;
    assert_eq!(machine.until("curl -sS --max-time 5 http://127.0.0.1/").await, "Healthy!");
}

#[tokio::test]
async fn it_installs_purges_and_runs_where_there_is_no_systemd() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = Nspawn::make(&root("bookworm-bare").await).await;
    machine.copy(&package("instance-agent"), "var/cache/instance-agent.deb");
    let line = "set -e; ! command -v systemctl; apt-get install -y /var/cache/instance-agent.deb; \
                instance-agent --version; apt-get purge -y instance-agent; ! test -e /usr/bin/instance-agent";
    let output = machine.chroot(line).await;
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("\ninstance-agent "), "{}", text(&output.stdout));
}

/// Installs, registers, serves and stores, and keeps that over a restart.
async fn works_on(debian: &str, systemd: &str) {
    let bed = ServiceBed::serving(&root(debian).await, &package("instance-agent")).await;
    let version = bed.machine.ok("systemctl --version").await;
    assert!(version.starts_with(&format!("systemd {systemd} ")), "{version}");
    bed.store("100").await;
    bed.machine.ok("systemctl restart instance-agent").await;
    assert_eq!(bed.stored().await, "100");
    // What an old systemd does not know, it must pass over, and not at the price of a promise that
    // it does know.
    let restrictions = bed
        .machine
        .ok("grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/$(pidof -s instance-agent)/status")
        .await;
    let fields: Vec<&str> = restrictions.split_whitespace().collect();
    assert_eq!(fields, ["CapEff:", "0000000000000400", "NoNewPrivs:", "1", "Seccomp:", "2"]);
}

#[tokio::test]
async fn on_bullseye_the_service_keeps_its_seed_and_is_confined() {
    if is_root_or_skip(WHY) {
        works_on("bullseye", "247").await;
    }
}

#[tokio::test]
async fn on_bookworm_the_service_keeps_its_seed_and_is_confined() {
    if is_root_or_skip(WHY) {
        works_on("bookworm", "252").await;
    }
}

#[tokio::test]
async fn on_trixie_the_service_keeps_its_seed_and_is_confined() {
    if is_root_or_skip(WHY) {
        works_on("trixie", "257").await;
    }
}

/// Every path of the machine's disk and of its runtime folders.
async fn paths(machine: &Nspawn) -> BTreeSet<String> {
    let all = machine.ok("find / /run /tmp -xdev | sort -u").await;
    // What apt and the journal write whatever the package is.
    let noise =
        ["/var/cache/", "/var/log/", "/run/log/journal/", "/var/lib/dpkg/status-old", "/var/lib/apt/"];
    let is_noise = |path: &&str| noise.iter().any(|prefix| path.starts_with(prefix));
    all.lines().filter(|path| !is_noise(path)).map(str::to_owned).collect()
}

#[tokio::test]
async fn purge_leaves_no_file_behind() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = Nspawn::booted(&root("bookworm").await).await;
    // Once before, so that what dpkg and systemd themselves leave is there already.
    machine
        .ok("systemctl daemon-reload; systemd-run --wait -p DynamicUser=yes -p StateDirectory=other true")
        .await;
    let before = paths(&machine).await;
    machine.install(&package("instance-agent")).await;
    machine.ok("curl -sS --max-time 5 -d '{\"num\": 7}' http://127.0.0.1/seed").await;
    machine.ok("echo '# my own' >> /etc/instance-agent/agent.toml").await;
    let installed = paths(&machine).await;
    for expected in ["/usr/bin/instance-agent", "/var/lib/private/instance-agent", "/run/instance-agent"] {
        assert!(installed.contains(expected), "no {expected}");
    }
    machine.ok("apt-get purge -y instance-agent").await;
    let left: Vec<String> = paths(&machine).await.difference(&before).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(machine.ok("systemctl list-units --all --no-legend 'instance-agent*'").await, "");
    assert_eq!(machine.ok("getent passwd instance-agent || true").await, "");
}

#[tokio::test]
async fn systemd_finds_nothing_wrong_with_the_unit() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = alone().await;
    let verified = machine.run("systemd-analyze verify --man=no instance-agent.service").await;
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(text(&verified.stderr), "");
}

#[tokio::test]
async fn systemd_rates_its_exposure_at_1_4_or_less() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = alone().await;
    let line = "systemd-analyze security --no-pager --threshold=14 instance-agent.service";
    let rated = machine.run(line).await;
    assert!(rated.status.success(), "{}", text(&rated.stdout));
    // Neither is a restriction: the first would allow everything, the second takes port 80 away.
    let unit = machine.ok("systemctl cat instance-agent").await;
    let tricks =
        unit.lines().filter(|line| line.starts_with("IPAddress") || line.starts_with("PrivateUsers"));
    assert_eq!(tricks.count(), 0, "{unit}");
}
