//! A reload replaces the running program by the installed one and loses nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::load::{Ask, Load};
use tests::solo::{Running, Solo, refuses};
use tests::wire::Wire;
use tests::{SOON, binary, eventually, text};
use tokio::task::JoinSet;

/// An agent that was started from a path at which another program can be put.
fn installed() -> Solo {
    let mut solo = Solo::new();
    solo.binary = solo.path("instance-agent");
    install(&solo, &std::fs::read(binary("instance-agent")).unwrap());
    solo
}

/// Puts a program where the agent was started from, in one step, as dpkg does.
fn install(solo: &Solo, program: &[u8]) {
    let new = solo.path("instance-agent.new");
    std::fs::write(&new, program).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &solo.binary).unwrap();
}

/// Asks for a reload with the built program, whatever is installed.
async fn reload(solo: &Solo) -> std::process::Output {
    let arguments =
        ["reload".as_ref(), "--runtime-dir".as_ref(), solo.runtime_dir.as_os_str()].map(Into::into);
    tests::solo::output(tests::solo::program(&[], binary("instance-agent").as_os_str(), &arguments, &[]))
        .await
}

async fn reloads(solo: &Solo) {
    let output = reload(solo).await;
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), solo.log());
    assert!(text(&output.stdout).starts_with("reloaded: version "), "{}", text(&output.stdout));
}

/// Asserts that the reload is refused with one line that says this, and that the agent serves on.
async fn is_refused(solo: &Solo, running: &Running, parts: &[&str]) {
    let output = reload(solo).await;
    refuses(&output, 1, &[&["reload refused: "], parts].concat());
    serves_on(solo, running, parts).await;
}

async fn serves_on(solo: &Solo, running: &Running, parts: &[&str]) {
    solo.get("/health").await.is(200, "Healthy!");
    let status = status(solo).await;
    assert_eq!(status["pid"], running.pid());
    assert_eq!(status["reload"]["outcome"], "refused");
    for part in parts {
        let reason = status["reload"]["reason"].as_str().unwrap();
        assert!(reason.contains(part), "no {part:?} in {reason}");
        assert!(solo.log().contains(part), "no {part:?} in {}", solo.log());
    }
}

async fn status(solo: &Solo) -> Value {
    let folder = ["status", "--output", "json", "--runtime-dir"].map(Into::into);
    let arguments: Vec<_> = folder.into_iter().chain([solo.runtime_dir.clone().into()]).collect();
    let output =
        tests::solo::output(tests::solo::program(&[], binary("instance-agent").as_os_str(), &arguments, &[]));
    serde_json::from_slice(&output.await.stdout).unwrap()
}

fn executable_of(running: &Running) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{}/exe", running.pid())).unwrap()
}

#[tokio::test]
async fn twenty_reloads_under_load_fail_no_request_and_keep_process_and_seed() {
    let solo = installed();
    let running = solo.start().await;
    solo.post("4711").await.is(200, "4711");
    let load = Load::start(&solo.url(""), &[Ask::Get("/"), Ask::Get("/seed"), Ask::Get("/health")]);
    load.until_answered(100).await;
    for count in 1..=20 {
        install(&solo, &std::fs::read(binary("instance-agent")).unwrap());
        assert!(executable_of(&running).to_string_lossy().ends_with("(deleted)"));
        reloads(&solo).await;
        // It is the new file that runs now.
        assert_eq!(executable_of(&running), solo.binary);
        let status = status(&solo).await;
        assert_eq!((&status["pid"], &status["reload"]["attempt"]), (&running.pid().into(), &count.into()));
        load.until_answered(50).await;
    }
    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0], "{}", solo.log());
    solo.get("/seed").await.is(200, "4711");
    // The counters went on.
    let counted = status(&solo).await["traffic"]["seed_read"].as_u64().unwrap();
    assert!(counted * 4 > report.answered, "{counted} of {}", report.answered);
}

#[tokio::test]
async fn posts_under_reloads_are_all_answered_and_the_last_one_stays() {
    let solo = installed();
    let _running = solo.start().await;
    let load = Load::start(&solo.url(""), &[Ask::Post("/seed")]);
    load.until_answered(20).await;
    for _ in 0..5 {
        reloads(&solo).await;
        load.until_answered(20).await;
    }
    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0], "{}", solo.log());
    solo.post("99").await.is(200, "99");
    reloads(&solo).await;
    solo.get("/seed").await.is(200, "99");
}

#[tokio::test]
async fn idle_connections_and_half_a_head_are_handed_over() {
    let solo = installed();
    let _running = solo.start().await;
    let mut unused = solo.connect().await;
    let mut used = solo.connect().await;
    used.get("/health").await.unwrap().is(200, "Healthy!");
    let mut half = solo.connect().await;
    half.send("GET /hea").await.unwrap();
    let mut second_half = solo.connect().await;
    second_half.get("/seed").await.unwrap().is(200, "0");
    second_half.send("GET /seed HTTP/1.1\r\nHo").await.unwrap();
    connections(&solo, 4).await;
    // Twice: what was handed over is handed on.
    reloads(&solo).await;
    reloads(&solo).await;
    connections(&solo, 4).await;
    for wire in [&unused, &used, &half, &second_half] {
        assert!(wire.is_silent());
    }
    unused.get("/health").await.unwrap().is(200, "Healthy!");
    used.get("/health").await.unwrap().is(200, "Healthy!");
    half.send("lth HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    half.answer().await.unwrap().is(200, "Healthy!");
    second_half.send("st: x\r\n\r\n").await.unwrap();
    second_half.answer().await.unwrap().is(200, "0");
}

/// Waits until so many connections are open and nothing is being answered.
async fn connections(solo: &Solo, wanted: u64) {
    let open = async || {
        let traffic = &status(solo).await["traffic"];
        (traffic["connections"] == wanted && traffic["in_flight"] == 0).then_some(())
    };
    assert!(eventually(open).await.is_some(), "{}", status(solo).await);
}

#[tokio::test]
async fn thousands_of_idle_connections_are_handed_over() {
    const COUNT: usize = 3000;
    let mut solo = installed();
    // The tester's own limit does not matter: the agent raises its own, and this test holds half.
    solo.wrapper = ["prlimit", "--nofile=8192:8192", "--"].map(Into::into).to_vec();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let _running = solo.start().await;
    let mut wires = Vec::new();
    for _ in 0..COUNT {
        wires.push(solo.connect().await);
    }
    connections(&solo, COUNT as u64).await;
    // Half of them parked, as those that were idle for a while.
    let parked = async |count: usize| (status(&solo).await["traffic"]["parked"] == count).then_some(());
    assert!(eventually(async || parked(COUNT).await).await.is_some(), "{}", status(&solo).await);
    for wire in wires.iter_mut().step_by(2) {
        wire.get("/health").await.unwrap().is(200, "Healthy!");
    }
    reloads(&solo).await;
    connections(&solo, COUNT as u64).await;
    assert!(eventually(async || parked(COUNT).await).await.is_some(), "{}", status(&solo).await);
    for wire in wires.iter_mut().step_by(100) {
        wire.get("/health").await.unwrap().is(200, "Healthy!");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_nobody_waiting_and_gets_its_answers() {
    let solo = installed();
    let _running = solo.start().await;
    // The longest answer there is, so often that no kernel buffer holds all of them.
    let digits = "9".repeat(4300);
    solo.post(&digits).await.is(200, &digits);
    const ASKED: usize = 2000;
    let mut slow = solo.connect().await;
    let request = "GET /seed HTTP/1.1\r\nHost: x\r\n\r\n".repeat(ASKED);
    slow.send(&request).await.unwrap();
    let stuck = async || (status(&solo).await["traffic"]["in_flight"] == 1).then_some(());
    assert!(eventually(stuck).await.is_some(), "{}", status(&solo).await);
    reloads(&solo).await;
    for _ in 0..ASKED {
        slow.answer().await.unwrap().is(200, &digits);
    }
    assert!(slow.is_silent());
}

#[tokio::test]
async fn a_body_that_comes_in_time_is_waited_for_while_others_are_served() {
    let solo = installed().with(&["--reload-wait", "30s"]);
    let _running = solo.start().await;
    let mut slow = begin_post(&solo).await;
    let reloading = reload(&solo);
    let rest = async {
        solo.until_logged("reloading").await;
        // Nobody else waits for it.
        for _ in 0..20 {
            solo.get("/health").await.is(200, "Healthy!");
        }
        assert_eq!(status(&solo).await["reload"]["outcome"], "running");
        slow.send("55}").await.unwrap();
        slow.answer().await.unwrap().is(200, "55");
    };
    let (output, ()) = tokio::join!(reloading, rest);
    assert!(output.status.success(), "{}", text(&output.stderr));
    slow.get("/seed").await.unwrap().is(200, "55");
}

/// A POST of which the end of the body is missing: `55}`.
async fn begin_post(solo: &Solo) -> Wire {
    let mut slow = solo.connect().await;
    slow.send("POST /seed HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n{\"num\": ").await.unwrap();
    let begun = async || (status(solo).await["traffic"]["in_flight"] == 1).then_some(());
    assert!(eventually(begun).await.is_some(), "{}", status(solo).await);
    slow
}

#[tokio::test]
async fn a_body_that_does_not_come_within_reload_wait_is_refused_and_counted() {
    let solo = installed().with(&["--reload-wait", "300ms"]);
    let _running = solo.start().await;
    let mut slow = begin_post(&solo).await;
    let mut idle = solo.connect().await;
    idle.get("/health").await.unwrap().is(200, "Healthy!");
    reloads(&solo).await;
    slow.answer().await.unwrap().refuses(408, "send the request again");
    assert!(solo.log().contains("1 slow request bodies refused"), "{}", solo.log());
    // Its sender may go on for a moment without a reset that would destroy the answer.
    slow.send("55}").await.unwrap();
    slow.closed().await.unwrap();
    idle.get("/seed").await.unwrap().is(200, "0");
}

#[tokio::test]
async fn where_a_body_is_always_on_its_way_those_that_come_soon_are_not_refused() {
    let solo = installed().with(&["--reload-wait", "300ms"]);
    let _running = solo.start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..10 {
        let (stop, listen) = (Arc::clone(&stop), solo.listen);
        clients.spawn(async move {
            let mut wire = Wire::connect(listen).await.unwrap();
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                let body = format!("{{\"num\": {number}}}");
                let length = body.len();
                let head = format!("POST /seed HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
                wire.send(head).await.unwrap();
                // This client's pace.
                tokio::time::sleep(Duration::from_millis(100 + number)).await;
                wire.send(body).await.unwrap();
                wire.answer().await.unwrap().is(200, &number.to_string());
                answered += 1;
            }
            answered
        });
    }
    for _ in 0..3 {
        reloads(&solo).await;
    }
    stop.store(true, Ordering::Relaxed);
    let answered = clients.join_all().await;
    assert!(answered.iter().all(|count| *count > 3), "{answered:?}");
}

#[tokio::test]
async fn bursts_of_pipelined_requests_are_answered_once_each_and_in_order() {
    let solo = installed().with(&["--threads", "1"]);
    let _running = solo.start().await;
    solo.until_started().await;
    solo.post("7").await.is(200, "7");
    const BURST: usize = 200;
    let pair = "GET /seed HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    let burst = pair.repeat(BURST / 2);
    let mut wires = Vec::new();
    for _ in 0..4 {
        wires.push(solo.connect().await);
    }
    for _ in 0..5 {
        let reloading = reload(&solo);
        let asking = async {
            for wire in &mut wires {
                wire.send(&burst).await.unwrap();
            }
            for wire in &mut wires {
                for _ in 0..BURST / 2 {
                    wire.answer().await.unwrap().is(200, "7");
                    assert_eq!(wire.answer().await.unwrap().status, 404);
                }
                assert!(wire.is_silent());
            }
        };
        let (output, ()) = tokio::join!(reloading, asking);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn the_pause_is_said_in_the_log_line() {
    let solo = installed();
    let _running = solo.start().await;
    reloads(&solo).await;
    let log = solo.log();
    let line = log.lines().find(|line| line.contains(" reloaded: ")).unwrap();
    for field in [
        "version ",
        " replaced ",
        "0 connections kept",
        "0 slow request bodies refused",
        "requests paused for ",
    ] {
        assert!(line.contains(field), "{line}");
    }
}

#[tokio::test]
async fn a_file_with_a_mistake_is_refused_with_its_line_and_a_good_one_is_taken() {
    let mut solo = installed();
    let file = solo.path("agent.toml");
    std::fs::write(&file, "# empty\n").unwrap();
    let path = file.to_str().unwrap().to_owned();
    solo = solo.with(&["--config", &path]);
    let running = solo.start().await;
    solo.post("12").await.is(200, "12");
    std::fs::write(&file, "# settings\nroot = \"sed\"\n").unwrap();
    is_refused(&solo, &running, &[&format!("{path}:2: root:"), "expected health or seed"]).await;
    std::fs::write(&file, "root = \"sed\"\nthreads =\n").unwrap();
    is_refused(&solo, &running, &[&format!("{path}:2: threads: the value is missing")]).await;
    std::fs::write(&file, "root = \"sed\"\nthreads = 0\n").unwrap();
    let both = [&*format!("{path}:1: root:"), &format!("{path}:2: threads:")];
    is_refused(&solo, &running, &both).await;
    std::fs::remove_file(&file).unwrap();
    is_refused(&solo, &running, &[&path, "cannot be read"]).await;
    std::fs::write(&file, "root = \"seed\"\n").unwrap();
    reloads(&solo).await;
    solo.get("/").await.is(200, "12");
}

#[tokio::test]
async fn a_setting_that_only_a_restart_can_change_is_refused_and_named() {
    let mut solo = installed();
    let file = solo.path("agent.toml");
    std::fs::write(&file, "").unwrap();
    solo = solo.with(&["--config", file.to_str().unwrap()]);
    let running = solo.start().await;
    for (line, key) in [
        ("register-port = 8081", "a reload cannot change register-port (running: not set; new: 8081)"),
        ("instance-id = \"i-0123456789abcdef0\"", "a reload cannot change instance-id"),
    ] {
        std::fs::write(&file, line).unwrap();
        is_refused(&solo, &running, &[key, "restart instead"]).await;
    }
}

#[tokio::test]
async fn a_program_that_cannot_take_over_is_refused_and_named() {
    let solo = installed();
    let running = solo.start().await;
    let path = solo.binary.to_str().unwrap().to_owned();
    let good = std::fs::read(binary("instance-agent")).unwrap();
    std::fs::remove_file(&solo.binary).unwrap();
    is_refused(&solo, &running, &[&path, "cannot run ", "install it again"]).await;
    install(&solo, b"no program at all\n");
    is_refused(&solo, &running, &[&path, "cannot run "]).await;
    install(&solo, &good[..good.len() / 3]);
    is_refused(&solo, &running, &[&path]).await;
    // A program for another machine: an ELF file that says it is for one that does not exist here.
    let mut foreign = good.clone();
    foreign[18..20].copy_from_slice(&[0xf7, 0]);
    install(&solo, &foreign);
    is_refused(&solo, &running, &[&path, "cannot run "]).await;
    install(&solo, b"#!/bin/sh\nexit 0\n");
    is_refused(&solo, &running, &[&path, "is not an instance-agent"]).await;
    install(&solo, b"#!/bin/sh\nyes\n");
    is_refused(&solo, &running, &[&path]).await;
    install(&solo, b"#!/bin/sh\necho 'library missing' >&2; exit 127\n");
    is_refused(&solo, &running, &[&path, "library missing"]).await;
    install(&solo, b"#!/bin/sh\nkill -SEGV $$\n");
    is_refused(&solo, &running, &[&path, "signal: 11"]).await;
    std::fs::set_permissions(&solo.binary, std::fs::Permissions::from_mode(0o644)).unwrap();
    is_refused(&solo, &running, &[&path, "Permission denied"]).await;
    install(&solo, &good);
    reloads(&solo).await;
    assert_eq!(status(&solo).await["pid"], running.pid());
}

#[tokio::test]
async fn a_program_that_does_not_say_whether_it_can_take_over_is_given_five_seconds() {
    let solo = installed();
    let running = solo.start().await;
    install(&solo, b"#!/bin/sh\nexec sleep 1000\n");
    let begun = Instant::now();
    is_refused(&solo, &running, &["did not answer within 5s"]).await;
    assert!(begun.elapsed() >= Duration::from_secs(5));
    // It is gone with the answer.
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let none = async || std::fs::read_to_string(&children).unwrap().is_empty().then_some(());
    assert!(eventually(none).await.is_some());
}

#[tokio::test]
async fn a_program_that_reads_another_form_of_record_is_not_started() {
    let solo = installed();
    let output = solo.command(&[], &["serve", "--check", "--handover", "4000000000"]).await;
    refuses(&output, 1, &["cannot take over", "4000000000", "restart instead"]);
}

#[tokio::test]
async fn check_says_whether_the_settings_can_be_used_and_starts_nothing() {
    let solo = installed();
    let output = solo.command(&[], &["serve", "--check"]).await;
    assert!(output.status.success());
    // Not the settings file of this machine, if it has one.
    let said = text(&output.stdout);
    assert!(
        said.starts_with("the settings are valid; there is no settings file ")
            && said.ends_with("/agent.toml\n"),
        "{said}"
    );
    assert!(!solo.state_dir.exists() && !solo.runtime_dir.exists());
    let output = solo.command(&[], &["serve", "--check", "--root", "x"]).await;
    refuses(&output, 2, &["--root", "health or seed"]);
}

#[tokio::test]
async fn a_second_reload_waits_for_nobody_and_is_told_of_the_first() {
    let solo = installed().with(&["--reload-wait", "30s"]);
    let _running = solo.start().await;
    let mut slow = begin_post(&solo).await;
    let second = async {
        solo.until_logged("reloading").await;
        let output = reload(&solo).await;
        refuses(&output, 1, &["a reload is already running"]);
        slow.send("55}").await.unwrap();
        slow.answer().await.unwrap().is(200, "55");
    };
    let (first, ()) = tokio::join!(reload(&solo), second);
    assert!(first.status.success(), "{}", text(&first.stderr));
}

#[tokio::test]
async fn a_stop_that_comes_during_a_reload_wins() {
    let solo = installed().with(&["--reload-wait", "30s"]);
    let mut running = solo.start().await;
    let mut slow = begin_post(&solo).await;
    let stop = async {
        solo.until_logged("reloading").await;
        running.terminate();
        solo.until_logged("draining").await;
        slow.send("55}").await.unwrap();
        slow.answer().await.unwrap().is(200, "55");
    };
    let (output, ()) = tokio::join!(reload(&solo), stop);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    assert!(running.ended(&solo).await.success(), "{}", solo.log());
}

#[tokio::test]
async fn signals_reach_the_next_program() {
    let solo = installed();
    let mut running = solo.start().await;
    for _ in 0..3 {
        reloads(&solo).await;
    }
    // At once, so that it meets the next program in the making.
    let (output, ()) = tokio::join!(reload(&solo), async {
        solo.until_logged("reloading").await;
        running.terminate();
    });
    let ended = tokio::time::timeout(SOON, running.ended(&solo)).await.unwrap();
    assert!(ended.success(), "{ended}, {output:?}\n{}", solo.log());
    assert!(solo.log().contains("stopped"), "{}", solo.log());
}

#[tokio::test]
async fn nothing_but_the_record_and_the_sockets_is_inherited() {
    let solo = installed();
    let running = solo.start().await;
    reloads(&solo).await;
    connections(&solo, 0).await;
    let first = settled(&running).await;
    for _ in 0..5 {
        reloads(&solo).await;
    }
    // The last question's connection may take a moment to close.
    let same = async || (descriptors(&running) == first).then_some(());
    assert!(eventually(same).await.is_some(), "{:?}, at first {first:?}", descriptors(&running));
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", running.pid())).unwrap();
    assert_eq!(environment.matches("HANDOVER_FD").count(), 1, "{environment:?}");
}

/// What it has open once that has not changed for a while.
async fn settled(running: &Running) -> Vec<String> {
    let mut last = Vec::new();
    let same = async || {
        let now = descriptors(running);
        let same = now == last;
        last.clone_from(&now);
        same.then_some(now)
    };
    eventually(same).await.expect("it settles")
}

/// What the process has open, by kind.
fn descriptors(running: &Running) -> Vec<String> {
    let folder = format!("/proc/{}/fd", running.pid());
    let target = |entry: std::io::Result<std::fs::DirEntry>| {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap();
        target.to_string_lossy().split(':').next().unwrap().to_owned()
    };
    let mut targets: Vec<_> = Path::new(&folder).read_dir().unwrap().map(target).collect();
    targets.sort();
    targets
}
