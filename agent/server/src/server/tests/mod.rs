//! A real server, spoken to in raw bytes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::cell::Cell;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use bytes::Bytes;
use instance_contract::Root;

use super::buffers::{RECEIVE_BUFFER, SEND_BUFFER};
use super::*;
use crate::answers::InstanceAnswer;
use crate::traffic::TrafficSnapshot;

mod parking;

/// Long enough that only a hang takes it.
const HANG: Duration = Duration::from_secs(20);

const LIMITS: Limits = Limits {
    max_body: 64 * 1024,
    max_buffered: 64 * 1024 * 1024,
    max_connections: 100,
    header_timeout: HANG,
    body_timeout: HANG,
    keep_alive: HANG,
    write_timeout: HANG,
    park_after: HANG,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

thread_local! {
    /// After which time this thread's test parks an idle connection.
    static PARK_AFTER: Cell<Duration> = const { Cell::new(HANG) };
}

/// The tests again, while every connection is parked as soon as it is idle.
macro_rules! parked_at_once {
    ($($name:ident)*) => {
        mod parked_at_once {
            $(
                #[test]
                fn $name() {
                    super::PARK_AFTER.set(std::time::Duration::ZERO);
                    super::$name();
                    super::PARK_AFTER.set(super::HANG);
                }
            )*
        }
    };
}

parked_at_once! {
    the_route_table
    head_answers_as_get_without_a_body
    draining_turns_probes_away_and_serves_clients
    pipelined_requests_are_answered_in_turn
    chunked_bodies
    expect_100_continue
    a_client_that_sends_too_much_before_it_reads_sees_why
    heads_as_large_as_the_load_balancer_sends
    heads_that_hyper_refuses_are_answered_in_our_words
    old_and_closing_clients
    a_body_nobody_reads_does_not_cost_the_answer
    a_slow_head_and_a_slow_body_are_told_so
    idling_longer_than_a_head_may_take_is_fine_and_longer_than_keep_alive_is_not
    a_peer_that_takes_no_answers_is_dropped
    the_kernel_keeps_little_for_each_connection_also_on_a_socket_of_systemd
    past_the_connection_limit_an_idle_one_makes_room_and_one_with_a_request_never
    a_read_on_any_thread_shows_what_was_stored_on_another
    shutdown_finishes_what_was_begun_and_closes_the_rest
    shutdown_loses_no_request
    a_panic_ends_its_own_connection_alone
    what_is_handed_over_goes_on_where_it_was
    what_is_kept_for_peers_that_read_nothing_does_not_grow_from_reload_to_reload
    who_connects_while_nobody_accepts_is_served_afterwards
    large_requests_that_do_not_end_are_refused_when_they_take_too_much_together
    the_beginning_of_a_head_that_came_with_a_request_is_kept
    a_reload_under_load_loses_no_request_and_no_idle_connection
}

struct TestServer {
    addr: SocketAddr,
    server: Server,
    publish: watch::Sender<Arc<Answers>>,
    traffic: Arc<Traffic>,
    seed: SeedStore,
    _state: tempfile::TempDir,
}

fn answers() -> Answers {
    let instance = InstanceAnswer { id: "i-0123".to_owned(), cluster: Some("cluster1".parse().unwrap()) };
    Answers { root: Root::Health, instance: Some(instance), draining: None }
}

fn serve_with(limits: Limits, threads: usize, answers: Answers) -> TestServer {
    let limits = Limits { park_after: PARK_AFTER.get(), ..limits };
    let state = tempfile::tempdir().unwrap();
    let seed = SeedStore::open(state.path()).unwrap();
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (publish, answers) = watch::channel(Arc::new(answers));
    let traffic = Arc::new(Traffic::new(threads, TrafficSnapshot::default()));
    let server =
        start(listener, Vec::new(), threads, limits, answers, Arc::clone(&traffic), seed.clone()).unwrap();
    TestServer { addr, server, publish, traffic, seed, _state: state }
}

fn serve(answers: Answers) -> TestServer {
    serve_with(LIMITS, 2, answers)
}

impl TestServer {
    fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.addr).unwrap())
    }

    /// One request on a connection of its own.
    fn ask(&self, request: &str) -> Answer {
        self.connect().ask(request)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    fn probe(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nuser-agent: ELB-HealthChecker/2.0\r\n\r\n"))
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    /// Publishes answers and waits until every thread gives them.
    fn publish(&self, answers: Answers) {
        self.publish.send_replace(Arc::new(answers));
        // Each thread takes them over when it next runs; a connection to each makes sure of it.
        let beats = self.traffic.beats();
        until(|| self.traffic.beats().iter().zip(&beats).all(|(now, before)| now > before));
    }

    /// Waits until so many connections are open and nothing is being answered. A client may read
    /// its answer before the server has counted it.
    fn is_quiet_with(&self, connections: u64) {
        until(|| {
            let counted = self.traffic.snapshot();
            (counted.connections, counted.in_flight) == (connections, 0)
        });
    }

    /// Waits until so many connections are open, all of them parked.
    fn has_parked(&self, connections: u64) {
        until(|| {
            let counted = self.traffic.snapshot();
            (counted.connections, counted.parked, counted.in_flight) == (connections, connections, 0)
        });
    }

    fn stop(self, deadline: Duration) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(self.server.shutdown(Instant::now() + deadline))
    }
}

/// Waits for what another thread is about to do.
fn until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < HANG, "it never came true");
        std::thread::yield_now();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body), "{}", self.head);
        self.has("content-type", "text/plain; charset=utf-8");
        self.has("cache-control", "no-store");
        self.has("content-length", &body.len().to_string());
        assert!(self.header("date").is_some_and(|date| date.ends_with(" GMT")), "{}", self.head);
    }

    /// An error in one plain line.
    fn refuses(&self, status: u16, part: &str) {
        assert!(self.body.contains(part) && !self.body.contains('\n'), "{:?}", self.body);
        self.is(status, &self.body.clone());
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
    }

    fn has(&self, name: &str, value: &str) {
        assert_eq!(self.header(name), Some(value), "{}", self.head);
    }
}

struct Client {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn new(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(HANG)).unwrap();
        Self { socket, read: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        self.answer_to(request.starts_with("HEAD"))
    }

    fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    fn answer_to(&mut self, head_only: bool) -> Answer {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.more(), "closed instead of answering: {:?}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let len = if head_only { 0 } else { answer.header("content-length").unwrap_or("0").parse().unwrap() };
        while self.read.len() < len {
            assert!(self.more(), "closed within a body");
        }
        answer.body = String::from_utf8(self.read.drain(..len).collect()).unwrap();
        answer
    }

    /// Reads something; false at the end of the stream.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let len = self.socket.read(&mut bytes).unwrap();
        self.read.extend_from_slice(&bytes[..len]);
        len > 0
    }

    fn has_no_answer_yet(&mut self) {
        self.socket.set_nonblocking(true).unwrap();
        assert_eq!(self.socket.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).unwrap();
    }

    fn is_closed(&mut self) {
        assert!(!self.more() && self.read.is_empty(), "{:?}", String::from_utf8_lossy(&self.read));
    }
}

#[test]
fn a_second_start_on_the_same_port_fails() {
    let first = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let error = bind(first.local_addr().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn the_route_table() {
    let server = serve(answers());
    server.get("/").is(200, "Healthy!");
    server.get("/health").is(200, "Healthy!");
    for path in
        ["/cluster1", "/cluster1/", "/cluster1/x/y", "/cluster1?q", "/cluster%31", "http://x/cluster1/z?q"]
    {
        server.get(path).is(200, "Instance i-0123 is responding now!");
    }
    server.get("/seed").is(200, "0");
    for (path, number) in [("/", "100"), ("/seed", "-5")] {
        server.post(path, &format!("{{\"num\": {number}}}")).is(200, number);
        server.get("/seed").is(200, number);
    }
    server.ask("PUT /seed HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{\"num\":7}").is(200, "7");
    for path in ["/cluster2", "/cluster1x", "/x", "/health/", "//"] {
        server.get(path).refuses(404, "use one of /, /health, /seed or /cluster1");
    }
    server.get("/100%").refuses(400, "%25");
    server.post("/health", "{}").refuses(405, "GET, HEAD");
    for (request, allow) in [
        ("DELETE /", "GET, HEAD, POST"),
        ("PUT /", "GET, HEAD, POST"),
        ("POST /cluster1", "GET, HEAD"),
        ("PATCH /seed", "GET, HEAD, POST, PUT"),
        ("OPTIONS *", "GET, HEAD, POST, PUT"),
        ("CONNECT example.com:443", "GET, HEAD, POST, PUT"),
    ] {
        let answer = server.ask(&format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n"));
        answer.refuses(405, allow);
        answer.has("allow", allow);
    }
}

#[test]
fn head_answers_as_get_without_a_body() {
    let server = serve(answers());
    server.post("/", "{\"num\": 12345}");
    let mut client = server.connect();
    for (path, status, len) in [
        ("/", 200, "8"),
        ("/health", 200, "8"),
        ("/seed", 200, "5"),
        ("/cluster1", 200, "34"),
        ("/x", 404, "55"),
    ] {
        let answer = client.ask(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer.status, status, "{path}");
        answer.has("content-length", len);
        answer.has("content-type", "text/plain; charset=utf-8");
    }
    // Had a body been sent, this would not parse.
    client.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
}

#[test]
fn root_can_be_the_seed() {
    let server = serve(Answers { root: Root::Seed, ..answers() });
    server.get("/").is(200, "0");
    server.post("/", "{\"num\": 100}").is(200, "100");
    server.get("/").is(200, "100");
    server.get("/health").is(200, "Healthy!");
}

#[test]
fn before_identity_is_known() {
    let server = serve(Answers { instance: None, ..answers() });
    for path in ["/cluster1", "/cluster2/x", "/anything"] {
        server.get(path).is(503, "starting: instance id not known yet");
    }
    server.get("/Status").refuses(404, "/health or /seed");
    server.get("/").is(200, "Healthy!");
    server.publish(Answers {
        instance: Some(InstanceAnswer { id: "i-9".to_owned(), cluster: None }),
        ..answers()
    });
    server.get("/cluster2").is(200, "Instance i-9 is responding now!");
    server.get("/anything").refuses(404, "/cluster2");
}

#[test]
fn draining_turns_probes_away_and_serves_clients() {
    let server = serve(answers());
    server.probe("/").is(200, "Healthy!");
    let reason = "draining: told to stop";
    server.publish(Answers { draining: Some(reason.to_owned()), ..answers() });
    for path in ["/", "/health", "/seed", "/cluster1"] {
        server.probe(path).is(503, reason);
    }
    server.probe("/x").refuses(404, "no such path");
    server.get("/health").is(503, reason);
    server.get("/").is(200, "Healthy!");
    server.get("/cluster1").is(200, "Instance i-0123 is responding now!");
    server.post("/seed", "{\"num\": 1}").is(200, "1");
    server.is_quiet_with(0);
    let expected = TrafficSnapshot {
        root: 1,
        health: 1,
        cluster: 1,
        seed_write: 1,
        probes: 6,
        refused_probes: 5,
        ..TrafficSnapshot::default()
    };
    assert_eq!(server.traffic.snapshot(), expected);
}

#[test]
fn bodies_that_are_no_seed() {
    let server = serve(answers());
    for body in ["", "100", "{}", "{\"num\": 1.0}", "{\"num\": 1e3}", "{\"num\": \"100\"}", "{\"num\": true}"]
    {
        server.post("/", body).refuses(400, "{\"num\": 100}");
    }
    server.post("/", &format!("{{\"num\": {}}}", "1".repeat(4_301))).refuses(400, "4301 digits");
    server.get("/seed").is(200, "0");
    assert_eq!(server.traffic.snapshot().refused, 8);
}

#[test]
fn pipelined_requests_are_answered_in_turn() {
    let server = serve(answers());
    let mut client = server.connect();
    let one = "GET / HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{\"num\":8}GET /seed HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(one.repeat(20));
    for _ in 0..20 {
        client.answer().is(200, "Healthy!");
        client.answer().is(200, "8");
        client.answer().is(200, "8");
    }
}

#[test]
fn chunked_bodies() {
    let server = serve(answers());
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in ["4\r\n{\"nu\r\n", "5;x=y\r\nm\": 4\r\n", "2\r\n2}\r\n", "0\r\nTrailer: x\r\n\r\n"] {
        client.send(part);
    }
    client.answer().is(200, "42");
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    let answer = client.answer();
    answer.refuses(400, "chunks");
    answer.has("connection", "close");
    client.is_closed();
}

#[test]
fn expect_100_continue() {
    let server = serve(answers());
    let mut client = server.connect();
    let head =
        |len| format!("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len}\r\n\r\n");
    assert_eq!(client.ask(&head(9)).status, 100);
    client.ask("{\"num\":3}").is(200, "3");
    // Told at once, without an invitation to send it.
    client.ask(&head(70_000)).refuses(413, "65536");
    client.is_closed();
}

#[test]
fn a_client_that_sends_too_much_before_it_reads_sees_why() {
    let server = serve(answers());
    let mut client = server.connect();
    let body = vec![b' '; 200_000];
    client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    let answer = client.answer();
    answer.refuses(413, "65536");
    answer.has("connection", "close");
    client.is_closed();
    // The same in chunks, whose sum nobody announced.
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    client.send(chunk.repeat(8));
    client.answer().refuses(413, "65536");
    client.is_closed();
}

#[test]
fn a_body_as_large_as_allowed_is_taken() {
    let server = serve(answers());
    let mut body = "{\"num\": 6}".to_owned();
    body.extend(std::iter::repeat_n(' ', LIMITS.max_body - body.len()));
    server.post("/", &body).is(200, "6");
}

#[test]
fn heads_as_large_as_the_load_balancer_sends() {
    let server = serve(answers());
    let line = format!("GET /cluster1/{}", "x".repeat(16 * 1024 - 24));
    let fields: String = (0..4).map(|n| format!("X-{n}: {}\r\n", "y".repeat(16 * 1024 - 8))).collect();
    server
        .ask(&format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
        .is(200, "Instance i-0123 is responding now!");
    // More fields than hyper takes by itself, and a request behind them.
    let fields: String = (0..1_000).map(|n| format!("X-{n}: y\r\n")).collect();
    let mut client = server.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").repeat(2));
    client.answer().is(200, "Healthy!");
    client.answer().is(200, "Healthy!");
}

#[test]
fn heads_that_hyper_refuses_are_answered_in_our_words() {
    let server = serve(answers());
    let fields: String = (0..1_100).map(|n| format!("X-{n}: y\r\n")).collect();
    for (request, status, part) in [
        ("GARBAGE\r\n\r\n".to_owned(), 400, "not an HTTP/1.1 request"),
        ("GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n".to_owned(), 400, "header fields"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, "not an HTTP/1.1 request"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"), 431, "1024"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(100_000)), 431, "98304"),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(70_000)), 414, "65534"),
    ] {
        // After an answered request too.
        for before in ["", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut client = server.connect();
            client.send(format!("{before}{request}"));
            if !before.is_empty() {
                client.answer().is(200, "Healthy!");
            }
            let answer = client.answer();
            answer.refuses(status, part);
            answer.has("connection", "close");
            client.is_closed();
        }
    }
    assert_eq!(server.traffic.snapshot().refused, 12);
}

#[test]
fn heads_that_rfc_9112_has_a_server_refuse() {
    let server = serve(answers());
    for (request, part) in [
        ("GET / HTTP/1.1\r\n\r\n", "one Host header"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "one Host header"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "the Host header is not valid"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "the Host header is not valid"),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", "the Host header is not valid"),
        ("GET / HTTP/1.1\r\nHost: ä\r\n\r\n", "the Host header is not valid"),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "the transfer encoding is not supported",
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "the transfer encoding is not supported",
        ),
    ] {
        let mut client = server.connect();
        client.send(request);
        let answer = client.answer();
        answer.refuses(400, part);
        answer.has("connection", "close");
        client.is_closed();
    }
    server.ask("GET / HTTP/1.0\r\n\r\n").is(200, "Healthy!");
    for host in ["", "10.0.0.7:8080", "[fd00:ec2::254]:80", "a_b.example.com"] {
        server.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).is(200, "Healthy!");
    }
}

#[test]
fn old_and_closing_clients() {
    let server = serve(answers());
    let mut client = server.connect();
    client.ask("GET / HTTP/1.0\r\n\r\n").is(200, "Healthy!");
    client.is_closed();
    let mut client = server.connect();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    answer.is(200, "Healthy!");
    answer.has("connection", "close");
    client.is_closed();
    // Done writing, still reading.
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{\"num\":4}");
    client.socket.shutdown(Shutdown::Write).unwrap();
    client.answer().is(200, "4");
    client.is_closed();
}

#[test]
fn a_body_nobody_reads_does_not_cost_the_answer() {
    let server = serve(answers());
    let mut client = server.connect();
    client.ask("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").is(200, "Healthy!");
    client.ask("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").refuses(404, "no such path");
    client.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    let mut client = server.connect();
    client.send(format!(
        "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 150000\r\n\r\n{}",
        "x".repeat(150_000)
    ));
    client.answer().refuses(404, "no such path");
    client.is_closed();
}

#[test]
fn a_slow_head_and_a_slow_body_are_told_so() {
    let short = Duration::from_millis(300);
    let server = serve_with(Limits { header_timeout: short, body_timeout: short, ..LIMITS }, 1, answers());
    for (request, part) in [
        ("GET / HTTP/1.1\r\nHost:", "head took longer than 300ms"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{\"num\"", "body took longer than 300ms"),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"n\r\n",
            "body took longer than 300ms",
        ),
    ] {
        for before in ["", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut client = server.connect();
            if !before.is_empty() {
                client.ask(before).is(200, "Healthy!");
            }
            let begun = Instant::now();
            let answer = client.ask(request);
            answer.refuses(408, part);
            answer.has("connection", "close");
            assert!(begun.elapsed() >= short);
            client.is_closed();
        }
    }
    server.is_quiet_with(0);
}

#[test]
fn idling_longer_than_a_head_may_take_is_fine_and_longer_than_keep_alive_is_not() {
    let short = Duration::from_millis(200);
    let keep_alive = Duration::from_millis(1_500);
    let server = serve_with(Limits { header_timeout: short, keep_alive, ..LIMITS }, 1, answers());
    let mut client = server.connect();
    for _ in 0..3 {
        #[expect(clippy::disallowed_methods, reason = "the passing of time is what is tested")]
        std::thread::sleep(3 * short);
        client.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    }
    let idle = Instant::now();
    client.is_closed();
    assert!(idle.elapsed() >= keep_alive - short);
    let mut client = server.connect();
    let idle = Instant::now();
    client.is_closed();
    assert!(idle.elapsed() >= keep_alive - short, "one that never sent anything");
}

#[test]
fn a_peer_that_takes_no_answers_is_dropped() {
    let server = serve_with(Limits { write_timeout: Duration::from_millis(300), ..LIMITS }, 1, answers());
    let client = server.connect();
    client.socket.set_write_timeout(Some(HANG)).unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10_000);
    // Its answers fill both buffers, then the server stops reading, then it closes.
    let error = loop {
        if let Err(error) = (&client.socket).write_all(requests.as_bytes()) {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    server.is_quiet_with(0);
}

#[test]
fn the_kernel_keeps_little_for_each_connection_also_on_a_socket_of_systemd() {
    // Bound by somebody else, as systemd does, and what an older program accepted on it.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let copy = listener.try_clone().unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let older = listener.accept().unwrap().0;
    older.set_nonblocking(true).unwrap();
    let kept = older.try_clone().unwrap();
    let older =
        HandoverConnection { socket: older, read: Bytes::new(), unwritten: Bytes::new(), stage: Stage::New };
    let server = serve(answers());
    let (traffic, seed) = (Arc::clone(&server.traffic), server.seed.clone());
    let listener = adopt_listener(listener.into()).unwrap();
    let _server = start(listener, vec![older], 2, LIMITS, server.publish.subscribe(), traffic, seed).unwrap();
    Client::new(client).ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    for socket in [copy.as_fd(), kept.as_fd()] {
        assert_eq!(sockopt::socket_send_buffer_size(socket).unwrap(), 2 * SEND_BUFFER);
        assert_eq!(sockopt::socket_recv_buffer_size(socket).unwrap(), 2 * RECEIVE_BUFFER);
    }
}

#[test]
fn past_the_connection_limit_an_idle_one_makes_room_and_one_with_a_request_never() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const BEGUN: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{\"num\"";
    let server = serve_with(Limits { max_connections: 3, ..LIMITS }, 2, answers());
    let (mut silent, mut used, mut busy) = (server.connect(), server.connect(), server.connect());
    used.ask(GET).is(200, "Healthy!");
    busy.send(BEGUN);
    until(|| server.traffic.snapshot().connections == 3 && server.traffic.snapshot().in_flight == 1);

    let mut fourth = server.connect();
    fourth.ask(GET).is(200, "Healthy!");
    // It never sent anything.
    silent.is_closed();
    fourth.send(BEGUN);
    until(|| server.traffic.snapshot().in_flight == 2);
    let mut fifth = server.connect();
    fifth.ask(GET).is(200, "Healthy!");
    // It was idle.
    used.is_closed();
    fifth.send(BEGUN);
    until(|| server.traffic.snapshot().in_flight == 3);

    // A request on each: the next one waits, and they live on.
    let mut sixth = server.connect();
    sixth.send(GET);
    sixth.has_no_answer_yet();
    fifth.ask(": 1}").is(200, "1");
    // The first that has none makes room.
    sixth.answer().is(200, "Healthy!");
    fifth.is_closed();
    fourth.ask(": 2}").is(200, "2");
    busy.ask(": 3}").is(200, "3");
    let seen = server.traffic.snapshot();
    assert_eq!((seen.connections, seen.made_room), (3, 3), "{seen:?}");
}

#[test]
fn a_read_on_any_thread_shows_what_was_stored_on_another() {
    let server = serve(answers());
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for number in 0..50 {
        let body = format!("{{\"num\": {number}}}");
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        clients[number % 8].ask(&request).is(200, &number.to_string());
        for client in &mut clients {
            client.ask("GET /seed HTTP/1.1\r\nHost: x\r\n\r\n").is(200, &number.to_string());
        }
    }
    assert_eq!(server.seed.read().unwrap(), "49");
}

#[test]
fn threads_show_that_they_live() {
    let server = serve(answers());
    until(|| server.traffic.beats().iter().all(|beats| *beats >= 2));
}

#[test]
fn shutdown_finishes_what_was_begun_and_closes_the_rest() {
    let server = serve(answers());
    let addr = server.addr;
    let mut idle = server.connect();
    idle.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    let mut in_body = server.connect();
    assert_eq!(
        in_body.ask("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n").status,
        100
    );
    let mut in_head = server.connect();
    in_head.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    in_head.send("GET / HTT");
    let mut silent = server.connect();
    until(|| server.traffic.snapshot().connections == 4 && server.traffic.snapshot().in_flight == 1);
    let stopping = std::thread::spawn(move || server.stop(HANG));
    idle.is_closed();
    let answer = in_head.ask("P/1.1\r\nHost: x\r\n\r\n");
    answer.is(200, "Healthy!");
    answer.has("connection", "close");
    in_head.is_closed();
    // Connected before the end: what it sends first is served.
    silent.ask("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    in_body.ask("{\"num\":5}").is(200, "5");
    drop((in_body, in_head, silent, idle));
    assert_eq!(stopping.join().unwrap(), 0);
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn shutdown_is_bounded_and_counts_what_it_cut_off() {
    let server = serve(answers());
    let mut stuck = server.connect();
    assert_eq!(
        stuck.ask("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n").status,
        100
    );
    assert_eq!(server.stop(Duration::from_millis(200)), 1);
}

/// Clients that connect and ask all the time: whoever was accepted is answered.
#[test]
fn shutdown_loses_no_request() {
    for _ in 0..20 {
        let server = serve(answers());
        // Never accepted by a thread before the end: they wait in the kernel's queue.
        let mut waiting: Vec<_> = (0..50).map(|_| server.connect()).collect();
        for client in &mut waiting {
            client.send("GET /cluster1 HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        let stopping = std::thread::spawn(move || server.stop(HANG));
        for client in &mut waiting {
            client.answer().is(200, "Instance i-0123 is responding now!");
        }
        drop(waiting);
        assert_eq!(stopping.join().unwrap(), 0);
    }
}

#[test]
fn a_panic_ends_its_own_connection_alone() {
    let server = serve_with(LIMITS, 1, answers());
    let mut other = server.connect();
    other.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    let mut client = server.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: {}\r\n\r\n", endpoints::PANIC_FOR));
    client.is_closed();
    other.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    server.is_quiet_with(1);
}

/// In a process of its own: the limit is the whole process's.
#[test]
fn accepting_recovers_from_running_out_of_descriptors() {
    const ALONE: &str = "INSTANCE_AGENT_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "server::tests::accepting_recovers_from_running_out_of_descriptors";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        assert!(alone.args(["--exact", name]).env(ALONE, "1").status().unwrap().success());
        return;
    }
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let server = serve_with(LIMITS, 1, answers());
    // All that the server opens at its start is open.
    until(|| server.traffic.beats().iter().all(|beats| *beats > 0));
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = std::fs::File::open("/dev/null") {
        fillers.push(filler);
    }
    // One left, for our end of the connection: there is none for the server's.
    drop(fillers.pop());
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert_eq!(client.socket.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.socket.set_read_timeout(Some(HANG)).unwrap();
    drop(fillers.pop());
    client.answer().is(200, "Healthy!");
}

/// Brings the server to rest, takes it apart and starts another one from what is left.
fn replace(server: TestServer) -> TestServer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let handed = runtime.block_on(async {
        server.server.quiesce(Instant::now() + HANG).await.unwrap();
        server.server.hand_over().await
    });
    assert_eq!(handed.lost, 0);
    let (traffic, seed) = (Arc::clone(&server.traffic), server.seed.clone());
    let answers = server.publish.subscribe();
    // As after an exec that failed: with the very same counters.
    let limits = Limits { park_after: PARK_AFTER.get(), ..LIMITS };
    let again = start(handed.listener, handed.connections, 2, limits, answers, traffic, seed).unwrap();
    TestServer { server: again, ..server }
}

#[test]
fn what_is_handed_over_goes_on_where_it_was() {
    let mut server = serve(answers());
    let mut new = server.connect();
    let mut used = server.connect();
    used.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    let mut half = server.connect();
    half.send("GET /seed HTT");
    server.is_quiet_with(3);
    for _ in 0..3 {
        server = replace(server);
        server.is_quiet_with(3);
        used.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    }
    half.send("P/1.1\r\nHost: x\r\n\r\n");
    half.answer().is(200, "0");
    new.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is(200, "Healthy!");
    assert_eq!(server.stop(HANG), 0);
}

/// Clients that each ask for a seed of the largest size `requests` times and read nothing, until the server
/// can write to none of them.
fn that_read_nothing(server: &TestServer, clients: usize, requests: usize) -> Vec<Client> {
    server.post("/seed", &format!("{{\"num\": {}}}", "1".repeat(4_300)));
    let all = "GET /seed HTTP/1.1\r\nHost: x\r\n\r\n".repeat(requests);
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let client = server.connect();
            (&client.socket).write_all(all.as_bytes()).unwrap();
            client
        })
        .collect();
    let mut before = None;
    until(|| {
        std::thread::park_timeout(Duration::from_millis(200));
        let answered = server.traffic.snapshot().seed_read;
        before.replace(answered) == Some(answered)
    });
    clients
}

#[test]
fn what_is_kept_for_peers_that_read_nothing_does_not_grow_from_reload_to_reload() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 4_000;
    let mut server = serve(answers());
    let mut clients = that_read_nothing(&server, CLIENTS, REQUESTS);
    let mut kept = Vec::new();
    for _ in 0..6 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let handed = runtime.block_on(async {
            // As when somebody else's request keeps the server from coming to rest at once.
            for _ in 0..3 {
                server.server.quiesce(Instant::now() + HANG).await.unwrap();
                server.server.thaw();
            }
            server.server.quiesce(Instant::now() + HANG).await.unwrap();
            server.server.hand_over().await
        });
        kept.push(handed.connections.iter().map(|connection| connection.unwritten.len()).sum::<usize>());
        let (traffic, seed) = (Arc::clone(&server.traffic), server.seed.clone());
        let answers = server.publish.subscribe();
        let again = start(handed.listener, handed.connections, 2, LIMITS, answers, traffic, seed).unwrap();
        server = TestServer { server: again, ..server };
    }
    assert!(kept[0] > 0, "nobody was behind: {kept:?}");
    assert!(kept.iter().all(|kept| *kept <= CLIENTS * 256 * 1024), "{kept:?}");
    assert!(kept.iter().all(|later| *later <= kept[0]), "it grows: {kept:?}");
    // And nobody has lost an answer.
    for _ in 0..REQUESTS {
        assert_eq!(clients[0].answer().body.len(), 4_300);
    }
}

#[test]
fn who_connects_while_nobody_accepts_is_served_afterwards() {
    let server = serve(answers());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(server.server.quiesce(Instant::now() + HANG)).unwrap();
    let mut waiting: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    server.server.thaw();
    for client in &mut waiting {
        client.answer().is(200, "Healthy!");
    }
    runtime.block_on(server.server.quiesce(Instant::now() + HANG)).unwrap();
    for client in &mut waiting {
        client.send("GET /seed HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    let _server = replace(server);
    for client in &mut waiting {
        client.answer().is(200, "0");
    }
}

#[test]
fn large_requests_that_do_not_end_are_refused_when_they_take_too_much_together() {
    let server = serve_with(Limits { max_buffered: 100 * 1024, ..LIMITS }, 2, answers());
    let large = "x".repeat(40 * 1024);
    let body = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{large}");
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {large}");
    let mut held: Vec<_> = [&body, &head, &body, &head, &body, &head]
        .into_iter()
        .map(|request| {
            let mut client = server.connect();
            client.send(request);
            client
        })
        .collect();
    // Two or three fit; the others are told, and nobody else is concerned.
    let refused = |held: &mut Vec<Client>| {
        held.iter_mut()
            .filter(|client| {
                client.socket.set_nonblocking(true).unwrap();
                let spoken_to = client.socket.peek(&mut [0]).is_ok_and(|len| len > 0);
                client.socket.set_nonblocking(false).unwrap();
                spoken_to
            })
            .count()
    };
    until(|| refused(&mut held) >= 3);
    server.get("/").is(200, "Healthy!");
    server.post("/", "{\"num\": 5}").is(200, "5");
    let mut kept = 0;
    for mut client in held {
        client.socket.set_nonblocking(true).unwrap();
        if client.socket.peek(&mut [0]).is_ok_and(|len| len > 0) {
            client.socket.set_nonblocking(false).unwrap();
            client.answer().refuses(503, "too many large requests");
        } else {
            kept += 1;
        }
    }
    assert!((1..=3).contains(&kept), "{kept}");
    // What they held is free again.
    let mut again = server.connect();
    until(|| server.traffic.snapshot().in_flight == 0);
    again.send(format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(60 * 1024)));
    again.answer().is(200, "Healthy!");
}

#[test]
fn the_beginning_of_a_head_that_came_with_a_request_is_kept() {
    let mut server = serve(answers());
    let mut client = server.connect();
    client.send(format!("{GET}GET /se"));
    client.answer().is(200, "Healthy!");
    server.is_quiet_with(1);
    client.send("ed HTTP/1.1\r\nHo");
    server = replace(server);
    client.send("st: x\r\n\r\n");
    client.answer().is(200, "0");
    server.is_quiet_with(1);
}

#[test]
fn a_reload_under_load_loses_no_request_and_no_idle_connection() {
    let mut server = serve(answers());
    let mut idle: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in idle.iter_mut().step_by(2) {
        client.ask(GET).is(200, "Healthy!");
    }
    let (stopping, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (mut clients, stopping) = ([server.connect(), server.connect()], Arc::clone(&stopping));
            let asked = Arc::clone(&asked);
            std::thread::spawn(move || {
                while !stopping.load(Relaxed) {
                    for client in &mut clients {
                        client.ask(GET).is(200, "Healthy!");
                        asked.fetch_add(1, Relaxed);
                    }
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let before = asked.load(Relaxed);
        until(|| asked.load(Relaxed) > before + 20);
        server = replace(server);
    }
    stopping.store(true, Relaxed);
    for thread in load {
        thread.join().unwrap();
    }
    server.is_quiet_with(50);
    for client in &mut idle {
        client.has_no_answer_yet();
        client.ask(GET).is(200, "Healthy!");
    }
}
