//! The package's service in a booted Debian, registered in the strict local cloud: how it starts,
//! leaves and comes back.

use std::time::{Duration, SystemTime};

use local_cloud::{Fault, LocalCloud, Outage, TargetState};
use tests::debian::{package, root};
use tests::service::{SERVICE, ServiceBed};
use tests::solo::is_root_or_skip;
use tests::wire::Wire;
use tests::{SOON, eventually};
use tokio::net::TcpStream;

const WHY: &str = "only root can boot a machine";

async fn serving() -> ServiceBed {
    ServiceBed::serving(&root("bookworm").await, &package("instance-agent")).await
}

/// When the port was first found closed. Only connects: a connection without a request is no
/// traffic that a drain would wait for.
async fn first_refused() -> SystemTime {
    let refused = async || {
        let connect = TcpStream::connect(SERVICE);
        match tokio::time::timeout(Duration::from_secs(1), connect).await {
            Ok(Ok(_)) => None,
            Ok(Err(_)) | Err(_) => Some(SystemTime::now()),
        }
    };
    eventually(refused).await.expect("the port closes")
}

/// A request whose head is there and whose body is not.
async fn half_a_post(bed: &ServiceBed) -> Wire {
    let mut client = bed.connect().await;
    client.send("POST /seed HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n{\"num\":").await.unwrap();
    // Answered after it, so the agent has begun with it: it reads what is there before it waits.
    bed.connect().await.get("/").await.unwrap().is(200, "Healthy!");
    client
}

/// Does what stops the service while a request is under way: it is answered, what is new is
/// served, and the port closes only after the deregistration.
async fn leaves_well(bed: &mut ServiceBed, stop: &str) {
    let mut slow = half_a_post(bed).await;
    let stopped = bed.machine.run(stop);
    let client = async {
        let tried = |cloud: &LocalCloud| cloud.calls().iter().any(|call| call.action == "DeregisterTargets");
        assert!(bed.cloud.wait_until(SOON, tried).await, "{}", bed.machine.console());
        bed.cloud.set_fault("DeregisterTargets", None);
        bed.until_target(TargetState::Draining).await;
        // The balancer may go on sending for some seconds.
        bed.connect().await.get("/").await.unwrap().is(200, "Healthy!");
        bed.connect().await.get("/health").await.unwrap().refuses(503, "SIGTERM");
        slow.send(" 41}").await.unwrap();
        slow.answer().await.unwrap().is(200, "41");
    };
    let (_, (), closed) = tokio::join!(stopped, client, first_refused());
    let calls = bed.calls("DeregisterTargets");
    let left: Vec<_> = calls.iter().filter(|call| call.error.is_none()).collect();
    assert_eq!(left.len(), 1, "{calls:?}");
    assert!(left[0].time < closed, "the port closed before the deregistration");
}

#[tokio::test]
async fn stopped_it_deregisters_before_the_port_closes_and_finishes_what_has_begun() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let mut bed = serving().await;
    leaves_well(&mut bed, "systemctl stop instance-agent").await;
    assert_eq!(bed.machine.property("Result").await, "success");
    assert_eq!(bed.machine.property("ActiveState").await, "inactive");
}

#[tokio::test]
async fn at_poweroff_it_leaves_just_as_well_and_after_a_boot_is_back_with_its_seed() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let mut bed = serving().await;
    // A network that goes too soon might still let the first call through; not the second.
    bed.cloud.set_fault("DeregisterTargets", Some(Fault::Fail(503)));
    leaves_well(&mut bed, "systemctl poweroff").await;
    assert_eq!(bed.machine.ended().await, 0);
    bed.machine.boot().await;
    bed.until_target(TargetState::Healthy).await;
    assert_eq!(bed.stored().await, "41");
}

#[tokio::test]
async fn removed_it_leaves_just_as_well_and_keeps_its_seed_for_the_next_installation() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let mut bed = serving().await;
    leaves_well(&mut bed, "apt-get remove -y instance-agent").await;
    bed.machine.until("! test -e /usr/bin/instance-agent").await;
    bed.machine.install(&package("instance-agent")).await;
    assert_eq!(bed.stored().await, "41");
}

#[tokio::test]
async fn killed_it_is_back_at_once_with_its_seed_and_never_left_its_group() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let bed = serving().await;
    bed.store("123456789012345678901234567890").await;
    let before = bed.machine.property("MainPID").await;
    bed.machine.ok("systemctl kill --kill-who=main --signal=KILL instance-agent").await;
    bed.machine
        .until("test $(systemctl show -P NRestarts instance-agent) = 1 && systemctl is-active instance-agent")
        .await;
    assert_ne!(bed.machine.property("MainPID").await, before);
    assert_eq!(bed.stored().await, "123456789012345678901234567890");
    bed.until_target(TargetState::Healthy).await;
    assert_eq!(bed.calls("DeregisterTargets").len(), 0);
}

#[tokio::test]
async fn hung_it_is_restarted_by_the_watchdog_with_its_seed() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let bed = serving().await;
    bed.store("5").await;
    // As shipped, only that the test does not want to wait for 20 s.
    bed.machine
        .write("etc/systemd/system/instance-agent.service.d/watchdog.conf", "[Service]\nWatchdogSec=4\n");
    bed.machine.ok("systemctl daemon-reload && systemctl kill --signal=KILL instance-agent").await;
    bed.machine
        .until("test $(systemctl show -P NRestarts instance-agent) = 1 && systemctl is-active instance-agent")
        .await;
    bed.machine.ok("systemctl kill --kill-who=main --signal=STOP instance-agent").await;
    bed.machine
        .until("test $(systemctl show -P NRestarts instance-agent) = 2 && systemctl is-active instance-agent")
        .await;
    let journal = bed.machine.journal().await;
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    assert_eq!(bed.stored().await, "5");
}

#[tokio::test]
async fn the_watchdog_does_not_mind_that_aws_answers_nothing() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let bed = serving().await;
    bed.machine
        .write("etc/systemd/system/instance-agent.service.d/watchdog.conf", "[Service]\nWatchdogSec=4\n");
    bed.machine.ok("systemctl daemon-reload").await;
    bed.cloud.set_endpoint_outage(Outage::Hang);
    bed.instance.set_imds_outage(Outage::Hang);
    // Begins its life in the outage: every task of the registration hangs.
    bed.machine.ok("systemctl kill --signal=KILL instance-agent").await;
    bed.machine
        .until("test $(systemctl show -P NRestarts instance-agent) = 1 && systemctl is-active instance-agent")
        .await;
    // Fed for longer than the watchdog's patience.
    let line = "eval $(systemctl show -p ActiveEnterTimestampMonotonic -p WatchdogTimestampMonotonic instance-agent); \
                test $((WatchdogTimestampMonotonic - ActiveEnterTimestampMonotonic)) -gt 8000000";
    bed.machine.until(line).await;
    assert_eq!(bed.machine.property("NRestarts").await, "1");
    bed.connect().await.get("/health").await.unwrap().is(200, "Healthy!");
}

#[tokio::test]
async fn it_is_not_called_started_before_it_listens_and_is_tried_again_without_end() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let bed = ServiceBed::boot(&root("bookworm").await).await;
    // Takes the port as another program would.
    bed.machine.ok("systemd-run --unit=taker -p ExecStartPost='/bin/bash -c \"until ss -ltn | grep -q :80; do sleep 0.1; done\"' python3 -m http.server 80").await;
    bed.machine.install(&package("instance-agent")).await;
    // systemd's own limit would have been five starts in ten seconds.
    bed.machine.until("test $(systemctl show -P NRestarts instance-agent) -ge 6").await;
    let never = bed.machine.property("ActiveEnterTimestampMonotonic").await;
    assert_eq!(never, "0", "it was called active without its port");
    bed.machine.ok("systemctl stop taker").await;
    bed.machine.until_active().await;
    bed.until_target(TargetState::Healthy).await;
}

#[tokio::test]
async fn systemctl_status_shows_what_it_serves_and_what_its_target_group_thinks_and_why() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let bed = serving().await;
    bed.machine
        .until(
            "systemctl status instance-agent | grep 'Status: \"serving on 0.0.0.0:80; cluster1: healthy\"'",
        )
        .await;
    bed.cloud.set_fault("RegisterTargets", Some(Fault::Deny));
    assert!(bed.cloud.deregister(tests::service::GROUP, bed.instance.id(), SERVICE.port()));
    bed.machine.ok("systemctl restart instance-agent").await;
    let line = "systemctl status instance-agent | grep 'Status:.*cluster1: .*RegisterTargets'";
    let shown = bed.machine.until(line).await;
    assert!(shown.contains("serving on 0.0.0.0:80"), "{shown}");
}

#[tokio::test]
async fn with_a_socket_unit_it_needs_no_capability() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let bed = serving().await;
    bed.machine.write(
        "etc/systemd/system/instance-agent.socket",
        "[Socket]\nListenStream=0.0.0.0:80\n[Install]\nWantedBy=sockets.target\n",
    );
    bed.machine.write(
        "etc/systemd/system/instance-agent.service.d/socket.conf",
        "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n",
    );
    bed.machine.ok("systemctl stop instance-agent && systemctl daemon-reload && systemctl enable --now instance-agent.socket").await;
    assert_eq!(bed.machine.property("ActiveState").await, "inactive", "it waits for its first client");
    bed.connect().await.get("/").await.unwrap().is(200, "Healthy!");
    bed.machine.until_active().await;
    let line = "grep CapEff /proc/$(systemctl show -P MainPID instance-agent)/status";
    assert_eq!(bed.machine.ok(line).await.split_whitespace().last(), Some("0000000000000000"));
    bed.until_target(TargetState::Healthy).await;
}
