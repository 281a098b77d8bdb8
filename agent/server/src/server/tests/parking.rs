//! Idle connections without hyper.

use super::*;

/// A server that parks every connection as soon as it is idle.
fn serve_parking(limits: Limits, threads: usize) -> TestServer {
    PARK_AFTER.set(Duration::ZERO);
    let server = serve_with(limits, threads, answers());
    PARK_AFTER.set(HANG);
    server
}

#[test]
fn a_parked_connection_is_served_again_and_again_and_ends_with_its_client() {
    let server = serve_parking(LIMITS, 2);
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    server.has_parked(10);
    for _ in 0..20 {
        for client in &mut clients {
            client.ask(GET).is(200, "Healthy!");
        }
        server.has_parked(10);
    }
    // Half of them with a reset, which leaves bytes unread.
    for (number, client) in clients.into_iter().enumerate() {
        if number % 2 == 0 {
            sockopt::set_socket_linger(&client.socket, Some(Duration::ZERO)).unwrap();
        }
    }
    server.has_parked(0);
    assert_eq!(server.traffic.snapshot(), TrafficSnapshot { root: 200, ..TrafficSnapshot::default() });
}

#[test]
fn a_connection_in_use_is_not_parked() {
    let limits = Limits { park_after: Duration::from_secs(2), ..LIMITS };
    PARK_AFTER.set(limits.park_after);
    let server = serve_with(limits, 1, answers());
    PARK_AFTER.set(HANG);
    let mut idle = server.connect();
    idle.ask(GET).is(200, "Healthy!");
    let mut used = server.connect();
    until(|| {
        used.ask(GET).is(200, "Healthy!");
        server.traffic.snapshot().parked == 1
    });
    assert_eq!(server.traffic.threads()[0].parked.get(), 1);
    idle.ask(GET).is(200, "Healthy!");
}

#[test]
fn the_time_limits_hold_for_parked_connections() {
    let keep_alive = Duration::from_millis(100);
    let server = serve_parking(Limits { keep_alive, ..LIMITS }, 1);
    let (mut silent, mut used) = (server.connect(), server.connect());
    used.ask(GET).is(200, "Healthy!");
    let answered = Instant::now();
    server.has_parked(2);
    silent.is_closed();
    used.is_closed();
    assert!(answered.elapsed() >= keep_alive);
    server.has_parked(0);

    let server = serve_parking(Limits { header_timeout: keep_alive, ..LIMITS }, 1);
    let (mut silent, mut used) = (server.connect(), server.connect());
    used.ask(GET).is(200, "Healthy!");
    server.has_parked(2);
    for client in [&mut silent, &mut used] {
        client.ask("GET / HT").refuses(408, "head took longer than 100ms");
        client.is_closed();
    }
}

#[test]
fn parked_connections_make_room_in_turn_and_for_each_other() {
    let server = serve_parking(Limits { max_connections: 3, ..LIMITS }, 2);
    let mut silent = server.connect();
    let mut used = server.connect();
    used.ask(GET).is(200, "Healthy!");
    let mut busy = server.connect();
    busy.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{\"num\"");
    until(|| server.traffic.snapshot().parked == 2 && server.traffic.snapshot().in_flight == 1);
    let mut fourth = server.connect();
    fourth.ask(GET).is(200, "Healthy!");
    silent.is_closed();
    until(|| server.traffic.snapshot().parked == 2);
    // More new ones than places: each takes the place of the one that has been idle for longest.
    let mut others = Vec::from([used, fourth]);
    for number in 0..20 {
        others.push(server.connect());
        others.last_mut().unwrap().ask(GET).is(200, "Healthy!");
        others[number].is_closed();
        until(|| server.traffic.snapshot().parked == 2);
    }
    busy.ask(": 3}").is(200, "3");
    server.has_parked(3);
    assert_eq!(server.traffic.snapshot().made_room, 21);
}

#[test]
fn a_stop_closes_parked_connections_and_answers_what_has_arrived() {
    let server = serve_parking(LIMITS, 2);
    let (mut silent, mut used, mut asking) = (server.connect(), server.connect(), server.connect());
    used.ask(GET).is(200, "Healthy!");
    asking.ask(GET).is(200, "Healthy!");
    server.has_parked(3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // At rest, so that its request waits in the kernel.
    runtime.block_on(server.server.quiesce(Instant::now() + HANG)).unwrap();
    asking.send(GET);
    let stopping = std::thread::spawn(move || server.stop(HANG));
    used.is_closed();
    silent.ask(GET).is(200, "Healthy!");
    let answer = asking.answer();
    answer.is(200, "Healthy!");
    answer.has("connection", "close");
    asking.is_closed();
    drop(silent);
    assert_eq!(stopping.join().unwrap(), 0);
}

#[test]
fn a_parked_connection_with_unsent_answers_stays_open_until_they_are_sent() {
    let server = serve_parking(Limits { keep_alive: Duration::from_millis(100), ..LIMITS }, 1);
    let digits = "1".repeat(4_300);
    server.post("/seed", &format!("{{\"num\": {digits}}}")).is(200, &digits);
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
    rustix::net::connect(&socket, &server.addr).unwrap();
    let mut client = Client::new(socket.into());
    client.send("GET /seed HTTP/1.1\r\nHost: x\r\n\r\n");
    server.has_parked(1);
    // Its time is over.
    until(|| server.traffic.snapshot().parked == 0);
    assert_eq!(server.traffic.snapshot().connections, 1);
    client.answer().is(200, &digits);
    client.is_closed();
    server.has_parked(0);
}
