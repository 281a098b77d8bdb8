//! docs/http-api.md through the real program, and seen by clients and a proxy that are not ours.

use std::ffi::OsString;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::load::{Ask, Load};
use tests::solo::{Solo, program, tool};
use tests::wire::Wire;
use tests::{eventually, send, text, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn with_the_default_settings_a_connection_idles_longer_than_the_balancer_would_let_it() {
    let solo = Solo::new();
    let _agent = solo.start().await;
    let mut wire = solo.connect().await;
    wire.get("/").await.unwrap().is(200, "Healthy!");
    // Idling is what is tested: the load balancer closes after 60 s, and never the instance first.
    tokio::time::sleep(Duration::from_secs(65)).await;
    assert!(wire.is_silent(), "closed, or something came");
    wire.get("/").await.unwrap().is(200, "Healthy!");
    wire.post("1").await.unwrap().is(200, "1");
}

#[tokio::test]
async fn every_answer_carries_the_promised_fields() {
    let solo = Solo::new();
    let _agent = solo.start().await;
    let mut wire = solo.connect().await;
    let mut answers = Vec::new();
    for path in ["/", "/health", "/seed", "/cluster1", "/nowhere"] {
        answers.push(wire.get(path).await.unwrap());
    }
    answers.push(wire.post("12").await.unwrap());
    answers.push(wire.post("x").await.unwrap());
    wire.send("DELETE /seed HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let refused = wire.answer().await.unwrap();
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD, POST, PUT")));
    answers.push(refused);
    for answer in answers {
        assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"), "{answer:?}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{answer:?}");
        assert_eq!(answer.field("content-length"), Some(&*answer.body.len().to_string()), "{answer:?}");
        let date = answer.field("date").expect("a date");
        assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
        assert!(!answer.body.ends_with('\n'), "{answer:?}");
    }
}

#[tokio::test]
async fn every_limit_is_a_setting() {
    let limits = ["--max-body", "1KiB", "--header-timeout", "300ms", "--body-timeout", "300ms"];
    let solo = Solo::new().with(&limits);
    let _agent = solo.start().await;
    let post = |length: usize| format!("POST /seed HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");

    let mut wire = solo.connect().await;
    // Told before the body is read: none of it was sent.
    wire.send(post(1025)).await.unwrap();
    let answer = wire.answer().await.unwrap();
    answer.refuses(413, "1024");
    assert_eq!(answer.field("connection"), Some("close"));
    wire.closed().await.unwrap();

    let mut wire = solo.connect().await;
    wire.send(format!("{}{:>1024}", post(1024), "{\"num\": 3}")).await.unwrap();
    wire.answer().await.unwrap().is(200, "3");

    for unfinished in ["GET / HTTP/1.1\r\nHost:", &post(10)] {
        let mut wire = solo.connect().await;
        wire.send(unfinished).await.unwrap();
        wire.answer().await.unwrap().refuses(408, "300ms");
        wire.closed().await.unwrap();
    }
}

#[tokio::test]
async fn what_had_come_while_the_process_stood_still_is_not_late() {
    let limit = Duration::from_secs(4);
    let solo = Solo::new().with(&["--body-timeout", "4s", "--header-timeout", "4s"]);
    let agent = solo.start().await;
    let begun = Instant::now();
    let mut bodies = Vec::new();
    for _ in 0..10 {
        let mut body = solo.connect().await;
        body.send("POST /seed HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n{\"num\": ").await.unwrap();
        bodies.push(body);
    }
    let mut head = solo.connect().await;
    head.send("GET /health HTTP/1.1\r\nHo").await.unwrap();
    let waiting = async || {
        let traffic = &solo.status().await?["traffic"];
        (traffic["in_flight"] == 10 && traffic["connections"] == 11).then_some(())
    };
    assert!(eventually(waiting).await.is_some(), "{}", solo.log());
    assert!(begun.elapsed() < limit, "this machine is too slow for the test: {:?}", begun.elapsed());

    send(Signal::STOP, agent.pid());
    for body in &mut bodies {
        body.send(format!("5}}{}", " ".repeat(40_000 - 10))).await.unwrap();
    }
    head.send("st: x\r\n\r\n").await.unwrap();
    let over = async || (begun.elapsed() > 2 * limit).then_some(());
    eventually(over).await.unwrap();
    send(Signal::CONT, agent.pid());

    for body in &mut bodies {
        body.answer().await.unwrap().is(200, "5");
    }
    head.answer().await.unwrap().is(200, "Healthy!");
}

/// The bytes that the kernel holds for the peers of this port, after the kernel's own table.
fn unsent(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let of_port = format!(":{port:04X}");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let queue = fields.get(4)?.split(':').next()?;
        fields[1].ends_with(&of_port).then(|| u64::from_str_radix(queue, 16).ok())?
    };
    table.lines().skip(1).filter_map(row).sum()
}

#[tokio::test]
async fn a_client_that_read_while_the_process_stood_still_gets_all_its_answers() {
    const ANSWERS: usize = 1000;
    let limit = Duration::from_secs(4);
    let solo = Solo::new().with(&["--write-timeout", "4s"]);
    let agent = solo.start().await;
    let mut client = solo.connect().await;
    let longest = "7".repeat(4300);
    client.post(&longest).await.unwrap().is(200, &longest);
    let begun = Instant::now();
    client.send("GET /seed HTTP/1.1\r\nHost: x\r\n\r\n".repeat(ANSWERS)).await.unwrap();
    // It takes no more of them: the kernel holds all that it may of those that the agent has written.
    let blocked = async || (unsent(solo.listen.port()) > 8 * 1024).then_some(());
    assert!(eventually(blocked).await.is_some(), "{}", solo.log());
    assert!(begun.elapsed() < limit, "this machine is too slow for the test: {:?}", begun.elapsed());

    send(Signal::STOP, agent.pid());
    let mut read = 0;
    // What is only not acknowledged yet goes by itself, at the latest when the kernel probes again after 200 ms. What stays
    // waits for this client, which has whole answers to read.
    let sent = async || (unsent(solo.listen.port()) == 0).then_some(());
    while within(Duration::from_secs(1), sent).await.is_none() {
        client.answer().await.unwrap().is(200, &longest);
        read += 1;
    }
    assert!(read < ANSWERS, "the agent had written all answers before it stood still");
    let over = async || (begun.elapsed() > 2 * limit).then_some(());
    eventually(over).await.unwrap();
    send(Signal::CONT, agent.pid());

    for _ in read..ANSWERS {
        client.answer().await.unwrap().is(200, &longest);
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    let solo = Solo::new().with(&["--keep-alive", "1s"]);
    let _agent = solo.start().await;
    let mut used = solo.connect().await;
    used.get("/").await.unwrap().is(200, "Healthy!");
    let mut unused = solo.connect().await;
    used.closed().await.unwrap();
    unused.closed().await.unwrap();
}

#[tokio::test]
async fn past_the_connection_limit_new_ones_are_served_at_once_in_the_place_of_idle_ones() {
    let solo = Solo::new().with(&["--max-connections", "4"]);
    let _agent = solo.start().await;
    let mut crowd = Vec::new();
    for _ in 0..9 {
        crowd.push(solo.connect().await);
    }
    // As the balancer's probe: each on a connection of its own.
    for _ in 0..5 {
        solo.connect().await.get("/health").await.unwrap().is(200, "Healthy!");
    }
    solo.until_logged("connection limit reached: each new connection closes an idle one").await;
    let status = solo.status().await.unwrap();
    assert!(status["traffic"]["made_room"].as_u64() >= Some(5), "{status}");
    // The first to come are those that went; those with a request on them stay.
    crowd[0].closed().await.unwrap();
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut wire = solo.connect().await;
        wire.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{\"num\"").await.unwrap();
        busy.push(wire);
        let begun = busy.len() as u64;
        let all = async || (solo.status().await?["traffic"]["in_flight"] == begun).then_some(());
        assert!(eventually(all).await.is_some(), "{begun} are in a request: {}", solo.log());
    }
    let mut waits = solo.connect().await;
    waits.send("GET /seed HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    solo.until_logged("connection limit reached and no connection is idle").await;
    assert!(waits.is_silent(), "served beyond the limit");
    busy[1].send(": 1}").await.unwrap();
    busy[1].answer().await.unwrap().is(200, "1");
    waits.answer().await.unwrap().is(200, "1");
    busy[0].send(": 7}").await.unwrap();
    busy[0].answer().await.unwrap().is(200, "7");
}

#[tokio::test]
async fn too_few_descriptors_for_every_connection_mean_that_some_wait() {
    let mut solo = Solo::new().with(&["--threads", "1"]);
    solo.wrapper = ["prlimit", "--nofile=64:64", "--"].map(OsString::from).to_vec();
    let _agent = solo.start().await;
    solo.until_logged("the limit of open files allows only ").await;
    let mut held = solo.connect().await;
    held.get("/").await.unwrap().is(200, "Healthy!");
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(solo.connect().await);
    }
    solo.until_logged("connection limit reached").await;
    // The ones inside are served, and the seed and the admin socket find their descriptors.
    for number in 0..20 {
        held.get("/").await.unwrap().is(200, "Healthy!");
        held.post(&number.to_string()).await.unwrap().is(200, &number.to_string());
    }
    assert!(solo.status().await.is_some(), "{}", solo.log());
    drop(crowd);
    solo.get("/").await.is(200, "Healthy!");
    assert!(!solo.log().contains("cannot accept connections"), "{}", solo.log());
}

#[tokio::test]
async fn what_was_begun_is_finished_before_it_ends() {
    let solo = Solo::new();
    let mut agent = solo.start().await;
    let (mut idle, mut busy, mut late) = (solo.connect().await, solo.connect().await, solo.connect().await);
    for wire in [&mut idle, &mut late] {
        wire.get("/").await.unwrap().is(200, "Healthy!");
    }
    busy.send("POST /seed HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"num\"").await.unwrap();
    let begun = async || (solo.status().await?["traffic"]["in_flight"] == 1).then_some(());
    assert!(eventually(begun).await.is_some(), "{}", solo.log());
    agent.terminate();
    let draining = async || (solo.status().await?["phase"] == "draining").then_some(());
    assert!(eventually(draining).await.is_some(), "{}", solo.log());
    // It waits for the one request, and serves everybody else as before.
    late.get("/").await.unwrap().is(200, "Healthy!");
    solo.get("/health").await.refuses(503, "draining");
    // Told to hurry, it closes the port, and still finishes what has begun.
    agent.terminate();
    let refused = async || Wire::connect(solo.listen).await.is_err().then_some(());
    assert!(eventually(refused).await.is_some(), "the port stays open:\n{}", solo.log());
    for wire in [&mut idle, &mut late] {
        wire.closed().await.unwrap();
    }
    busy.send(": 100}").await.unwrap();
    let answer = busy.answer().await.unwrap();
    answer.is(200, "100");
    assert_eq!(answer.field("connection"), Some("close"), "{answer:?}");
    assert!(agent.ended(&solo).await.success());
    assert!(!solo.log().contains("cut off"), "{}", solo.log());
}

/// curl, which ends with 0 unless it got no answer; what it printed, the status in the last line.
async fn curl(arguments: &[&str]) -> (String, String) {
    let always = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"];
    let shown = ["--write-out", "\n%{http_code}"];
    let output = tool("curl", &[&always, &shown[..], arguments].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn curl_needs_no_options() {
    let solo = Solo::new();
    let _agent = solo.start().await;
    let (root, seed) = (solo.url("/"), solo.url("/seed"));
    // curl calls this a form; the type is not looked at.
    assert_eq!(curl(&["-d", "{\"num\": 5}", &root]).await.0, "5\n200");
    assert_eq!(curl(&[&seed]).await.0, "5\n200");
    assert_eq!(curl(&["-X", "PUT", "-d", "{\"num\": -6}", &seed]).await.0, "-6\n200");
    assert_eq!(curl(&["--http1.0", &seed]).await.0, "-6\n200");
    let (head, _) = curl(&["--head", &seed]).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\n200"), "{head}");
    let (answer, _) = curl(&["-H", "Transfer-Encoding: chunked", "-d", "{\"num\": 7}", &seed]).await;
    assert_eq!(answer, "7\n200");
    let proxied = format!("http://{}", solo.listen);
    // As a proxy's client, curl sends the target in absolute form.
    let (answer, _) = curl(&["--noproxy", "", "--proxy", &proxied, "http://any.host/seed?x=1"]).await;
    assert_eq!(answer, "7\n200");
}

#[tokio::test]
async fn curl_sees_why_its_body_is_refused() {
    let solo = Solo::new();
    let _agent = solo.start().await;
    let body = solo.path("body");
    let data = format!("@{}", body.display());
    let seed = solo.url("/seed");
    for (size, expect) in [(2_000_000, "Expect: 100-continue"), (200_000, "Expect:"), (200_000, "X-None: 1")]
    {
        fs::write(&body, "1".repeat(size)).unwrap();
        let (answer, talk) = curl(&["-v", "-H", expect, "--data-binary", &data, &seed]).await;
        assert!(answer.ends_with("\n413") && answer.contains("65536"), "{answer}");
        if size > 1_000_000 {
            assert!(!talk.contains("100 Continue"), "it was asked to send what is refused: {talk}");
        }
    }
    // Within the limit it is asked for.
    fs::write(&body, format!("{:>60000}", "{\"num\": 8}")).unwrap();
    let (answer, talk) = curl(&["-v", "-H", "Expect: 100-continue", "--data-binary", &data, &seed]).await;
    assert_eq!(answer, "8\n200");
    assert!(talk.contains("100 Continue"), "{talk}");
}

#[tokio::test]
async fn heads_as_large_as_a_balancer_sends_pass_and_larger_ones_are_told_why() {
    let solo = Solo::new();
    let _agent = solo.start().await;
    let url = solo.url("/");
    let header = format!("X-Long: {}", "a".repeat(20_000));
    assert_eq!(curl(&["-H", &header, &url]).await.0, "Healthy!\n200");
    let headers: Vec<String> = (0..4).map(|n| format!("X-{n}: {}", "b".repeat(16_000))).collect();
    let headers: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).chain([url.as_str()]).collect();
    assert_eq!(curl(&headers).await.0, "Healthy!\n200");
    let long = format!("{url}?{}", "c".repeat(16_000));
    assert_eq!(curl(&[&long]).await.0, "Healthy!\n200");
    let too_long = format!("{url}?{}", "c".repeat(66_000));
    let (answer, _) = curl(&[&too_long]).await;
    assert!(answer.ends_with("\n414"), "{answer}");
    let header = format!("X-Long: {}", "a".repeat(99_000));
    let (answer, _) = curl(&["-H", &header, &url]).await;
    assert!(answer.ends_with("\n431"), "{answer}");
}

/// haproxy's opinion of its servers, by name: `UP`, `DOWN` and the steps between.
async fn servers_of(socket: &std::path::Path) -> Option<Vec<(String, String)>> {
    let mut stream = tokio::net::UnixStream::connect(socket).await.ok()?;
    stream.write_all(b"show stat\n").await.ok()?;
    let mut table = String::new();
    stream.read_to_string(&mut table).await.ok()?;
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
    let column = |name| names.iter().position(|found| *found == name);
    let (server, status) = (column("svname")?, column("status")?);
    let rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
    Some(
        rows.filter_map(|row| Some(((*row.get(server)?).to_owned(), (*row.get(status)?).to_owned())))
            .collect(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy_an_agent_is_drained_and_restarted_without_one_failed_request() {
    let (leaving, staying) = (Solo::new(), Solo::new());
    let mut agent = leaving.start().await;
    let _other = staying.start().await;
    leaving.until_started().await;
    staying.until_started().await;
    let (config, socket) = (leaving.path("haproxy.cfg"), leaving.path("haproxy.sock"));
    let front = std::net::SocketAddr::new(leaving.listen.ip(), 8081);
    // No retries: a failure is seen, not hidden. The proxy keeps its connections to the agents and
    // shares them among its clients, as a load balancer does. An agent without metadata is healthy a
    // moment before it knows that it has none, and answers with 503 where its instance id belongs: so it
    // gets requests when it answers both.
    let settings = format!(
        "global
    stats socket {socket} level user
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
    retries 0
    http-reuse always
frontend front
    bind {front}
    default_backend agents
backend agents
    balance roundrobin
    option httpchk
    http-check connect
    http-check send meth GET uri /health
    http-check expect status 200
    http-check connect
    http-check send meth GET uri /cluster1
    http-check expect status 200
    default-server check inter 200ms fall 2 rise 2
    server leaving {}
    server staying {}
",
        leaving.listen,
        staying.listen,
        socket = socket.display(),
    );
    fs::write(&config, settings).unwrap();
    let log = fs::File::create(leaving.path("haproxy.log")).unwrap();
    let arguments = ["-db".into(), "-f".into(), config.into_os_string()];
    let mut command = program(&[], "haproxy".as_ref(), &arguments, &[]);
    command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
    let _haproxy = command.spawn().expect("haproxy; tests/bin/setup installs it");
    let said = || fs::read_to_string(leaving.path("haproxy.log")).unwrap_or_default();
    let until = async |wanted: &str| {
        let is = async || {
            let servers = servers_of(&socket).await?;
            servers.iter().any(|(name, status)| name == "leaving" && status == wanted).then_some(())
        };
        assert!(eventually(is).await.is_some(), "not {wanted}: {}", said());
    };
    until("UP").await;

    let asks = [Ask::Get("/"), Ask::Get("/cluster1"), Ask::Get("/seed"), Ask::Post("/seed")];
    let load = Load::start(&format!("http://{front}"), &asks);
    load.until_answered(500).await;
    assert!(leaving.command(&[], &["drain", "--wait"]).await.status.success(), "{}", leaving.log());
    until("DOWN").await;
    load.until_answered(500).await;
    // Nothing is sent to it any more, so its end is nobody's loss.
    agent.stop(&leaving).await;
    load.until_answered(500).await;

    let _agent = leaving.start().await;
    assert!(leaving.command(&[], &["resume"]).await.status.success(), "{}", leaving.log());
    until("UP").await;
    load.until_answered(500).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:?}\n{}", report.failures, said());
    let status = leaving.status().await.unwrap();
    assert!(status["traffic"]["root"].as_u64().unwrap() > 0, "it is used again: {status}");
}

/// Without its buffers and its task: with them, a connection costs 14 kB.
#[tokio::test]
async fn an_idle_connection_costs_little_memory_and_answers_as_before() {
    const COUNT: u64 = 2_000;
    let mut solo = Solo::new().with(&["--threads", "1", "--keep-alive", "1h"]);
    // The tester's own limit does not matter: the agent raises its own, and this test holds half.
    solo.wrapper = ["prlimit", "--nofile=8192:8192", "--"].map(Into::into).to_vec();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let running = solo.start().await;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    let parked = async |count: u64| {
        let traffic = &solo.status().await?["traffic"];
        (traffic["parked"] == count && traffic["connections"] == count).then_some(())
    };
    solo.get("/health").await.is(200, "Healthy!");
    assert!(eventually(async || parked(0).await).await.is_some(), "{:?}", solo.status().await);
    let before = resident();
    let mut wires = Vec::new();
    for number in 0..COUNT {
        let mut wire = solo.connect().await;
        // Some never send anything.
        if number % 4 > 0 {
            wire.get("/health").await.unwrap().is(200, "Healthy!");
        }
        wires.push(wire);
    }
    assert!(eventually(async || parked(COUNT).await).await.is_some(), "{:?}", solo.status().await);
    let each = resident().saturating_sub(before) / COUNT;
    assert!(each < 1_200, "{each} bytes for each idle connection");
    for wire in &mut wires {
        wire.get("/health").await.unwrap().is(200, "Healthy!");
    }
    drop(wires);
    assert!(eventually(async || parked(0).await).await.is_some(), "{:?}", solo.status().await);
}
