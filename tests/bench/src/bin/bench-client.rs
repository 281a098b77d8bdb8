//! The client of `make bench`: one thread, one epoll loop, the same for HTTP and for Redis, so that neither side
//! has a faster client. Each result is one line of JSON.
//!
//! usage: `bench-client load KIND ADDRESS:PORT PATH CONNECTIONS SECONDS WARM-UP [PID...]`
//!        `bench-client idle ADDRESS:PORT PATH CONNECTIONS`
//!        `bench-client start ADDRESS:PORT PATH CORE PROGRAM [ARGUMENT...]`
//!
//! `load` keeps one request on each connection for the warm-up and then for the seconds. KIND is `get`, `fresh` (a
//! connection for each request), `post` (a number to the path) or `set` (Redis; PATH is the key). It counts the
//! processors' time that the processes took meanwhile, and the time of all programs. `idle` opens connections, sends
//! a request on each, prints a line and keeps them until its standard input ends. `start` runs a program on a
//! processor, and prints the time until the first answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::thread::{CpuSet, sched_setaffinity};

/// How long a program may take until its first answer.
const START: Duration = Duration::from_secs(60);
/// How long the first answer of a load may take.
const FIRST: Duration = Duration::from_secs(60);
/// How long connections that only wait may take to open.
const OPEN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Get,
    Fresh,
    Post,
    Set,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["load", kind, address, path, connections, seconds, warm, ref pids @ ..] => {
            load(kind, address, path, connections, seconds, warm, pids)
        }
        ["idle", address, path, connections] => idle(address, path, connections),
        ["start", address, path, core, program, ref arguments @ ..] => {
            start(address, path, core, program, arguments)
        }
        _ => Err(io::Error::other("usage: bench-client load|idle|start ...")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed, there is nowhere to report it.
            _ = writeln!(io::stderr(), "bench-client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| io::Error::other(format!("not a number or an address: {word}")))
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

/// What came on a connection so far, as far as one answer needs it.
enum Answer {
    Part,
    /// A good answer of this length; whether the server closes the connection after it.
    Whole(usize, bool),
    Bad,
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn http(bytes: &[u8]) -> Answer {
    let Some(head) = find(bytes, b"\r\n\r\n") else { return Answer::Part };
    if bytes.len() < 12 || !bytes.starts_with(b"HTTP/1.") || &bytes[9..12] != b"200" {
        return Answer::Bad;
    }
    let mut closes = bytes[7] == b'0';
    let mut length = None;
    for line in bytes[..head].split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Answer::Bad };
        let value = line[colon + 1..].trim_ascii();
        if line[..colon].eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value).ok().and_then(|value| value.parse::<usize>().ok());
        } else if line[..colon].eq_ignore_ascii_case(b"connection") {
            closes = value.eq_ignore_ascii_case(b"close");
        }
    }
    match length {
        Some(length) if bytes.len() >= head + 4 + length => Answer::Whole(head + 4 + length, closes),
        Some(_) => Answer::Part,
        None => Answer::Bad,
    }
}

fn redis(bytes: &[u8]) -> Answer {
    match bytes {
        b"+OK\r\n" => Answer::Whole(5, false),
        _ if b"+OK\r\n".starts_with(bytes) => Answer::Part,
        _ => Answer::Bad,
    }
}

/// A connection with one request at a time.
struct Connection {
    stream: TcpStream,
    /// The socket is open and a request is on its way.
    asked: bool,
    /// The answer is whole, and the end of the connection follows.
    answered: bool,
    got: Vec<u8>,
}

/// What a run counts.
#[derive(Default)]
struct Counts {
    done: u64,
    /// Requests without an answer: the connection ended first.
    lost: u64,
    /// Answers that are not 200, or not what the protocol allows.
    bad: u64,
    /// Connections that could not be opened.
    refused: u64,
    /// Connections that the server ended, announced or not, where the client would have kept them.
    ended: u64,
}

struct Client {
    kind: Kind,
    address: SocketAddrV4,
    path: String,
    poll: OwnedFd,
    connections: Vec<Option<Connection>>,
    counts: Counts,
    /// A number that is different in each store.
    number: u64,
    request: Vec<u8>,
}

impl Client {
    fn new(kind: Kind, address: SocketAddrV4, path: &str) -> io::Result<Self> {
        let close = if kind == Kind::Fresh { "Connection: close\r\n" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{close}\r\n").into_bytes();
        Ok(Self {
            kind,
            address,
            path: path.to_owned(),
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            counts: Counts::default(),
            number: 1_000_000_000,
            request,
        })
    }

    fn request(&mut self) -> &[u8] {
        if matches!(self.kind, Kind::Post | Kind::Set) {
            self.number += 1;
            let (number, path) = (self.number, &self.path);
            self.request.clear();
            // Writing to memory cannot fail.
            _ = if self.kind == Kind::Set {
                let length = path.len();
                write!(self.request, "*3\r\n$3\r\nSET\r\n${length}\r\n{path}\r\n$10\r\n{number}\r\n")
            } else {
                let address = self.address;
                write!(
                    self.request,
                    "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{{\"num\": {number}}}"
                )
            };
        }
        &self.request
    }

    fn open(&mut self, place: usize) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match connect(&socket, &self.address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        epoll::add(&self.poll, &stream, EventData::new_u64(place as u64), EventFlags::OUT)?;
        let connection = Connection { stream, asked: false, answered: false, got: Vec::new() };
        if place == self.connections.len() {
            self.connections.push(Some(connection));
        } else {
            self.connections[place] = Some(connection);
        }
        Ok(())
    }

    fn ask(&mut self, place: usize) -> io::Result<()> {
        self.request();
        let Some(connection) = &mut self.connections[place] else { return Ok(()) };
        connection.asked = true;
        connection.stream.write_all(&self.request)
    }

    /// Sends on a new connection, or reads; opens the connection again when it has ended.
    fn event(&mut self, place: usize, buffer: &mut [u8], refill: bool) -> io::Result<()> {
        let Some(connection) = &mut self.connections[place] else { return Ok(()) };
        if !connection.asked {
            if connection.stream.take_error()?.is_some() {
                self.counts.refused += 1;
                return self.open(place);
            }
            epoll::modify(
                &self.poll,
                &connection.stream,
                EventData::new_u64(place as u64),
                EventFlags::IN | EventFlags::RDHUP,
            )?;
            if self.ask(place).is_err() {
                self.counts.lost += 1;
                return self.open(place);
            }
            return Ok(());
        }
        let length = match connection.stream.read(buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // A reset: what was asked is lost.
            Err(_) => 0,
        };
        if length == 0 {
            if !connection.answered {
                self.counts.lost += 1;
            }
            if self.kind != Kind::Fresh {
                self.counts.ended += 1;
            }
            return self.open(place);
        }
        let whole = if connection.got.is_empty() {
            &buffer[..length]
        } else {
            connection.got.extend_from_slice(&buffer[..length]);
            &connection.got[..]
        };
        match if self.kind == Kind::Set { redis(whole) } else { http(whole) } {
            Answer::Part => {
                if connection.got.is_empty() {
                    connection.got.extend_from_slice(&buffer[..length]);
                }
            }
            Answer::Whole(end, closes) if end == whole.len() => {
                connection.got.clear();
                self.counts.done += 1;
                if closes {
                    connection.answered = true;
                } else if refill && self.ask(place).is_err() {
                    self.counts.lost += 1;
                    self.counts.ended += 1;
                    return self.open(place);
                }
            }
            Answer::Whole(..) | Answer::Bad => {
                self.counts.bad += 1;
                return self.open(place);
            }
        }
        Ok(())
    }

    /// Serves events until a time, or until this many answers have arrived.
    fn run(&mut self, until: Instant, answers: u64, refill: bool) -> io::Result<()> {
        let mut events = Vec::with_capacity(1024);
        let mut buffer = [0; 16 * 1024];
        while self.counts.done < answers {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            events.clear();
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                self.event(event.data.u64() as usize, &mut buffer, refill)?;
            }
        }
        Ok(())
    }
}

/// The processors' time of processes in user and in kernel mode, and of all programs, in ticks.
fn ticks(pids: &[&str]) -> io::Result<(u64, u64, u64)> {
    let (mut user, mut system) = (0, 0);
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_whitespace().skip(11).map(number::<u64>);
        let mut next = || fields.next().unwrap_or_else(|| Err(io::Error::other("a stat without times")));
        user += next()?;
        system += next()?;
    }
    let stat = std::fs::read_to_string("/proc/stat")?;
    // user, nice, system, idle, iowait, irq, softirq, steal
    let all: Vec<u64> =
        stat.split_whitespace().skip(1).take(8).map(number).collect::<io::Result<Vec<u64>>>()?;
    // Interrupts are left out: most are the packets of the two that are measured.
    Ok((user, system, all.iter().take(3).chain(all.last()).sum()))
}

fn load(
    kind: &str,
    address: &str,
    path: &str,
    connections: &str,
    seconds: &str,
    warm: &str,
    pids: &[&str],
) -> io::Result<()> {
    let kind = match kind {
        "get" => Kind::Get,
        "fresh" => Kind::Fresh,
        "post" => Kind::Post,
        "set" => Kind::Set,
        _ => return Err(io::Error::other(format!("not get, fresh, post or set: {kind}"))),
    };
    let mut client = Client::new(kind, number(address)?, path)?;
    for place in 0..number(connections)? {
        client.open(place)?;
    }
    let length = |word| number(word).map(Duration::from_secs_f64);
    client.run(Instant::now() + length(warm)?, u64::MAX, true)?;
    client.counts = Counts::default();
    let own = std::process::id().to_string();
    let (before, own_before, began) = (ticks(pids)?, ticks(&[&own])?, Instant::now());
    client.run(began + length(seconds)?, u64::MAX, true)?;
    if client.counts.done == 0 {
        // A slow disk: without an answer there is no figure.
        client.run(began + FIRST, 1, true)?;
    }
    let (took, after, own_after) = (began.elapsed(), ticks(pids)?, ticks(&[&own])?);
    let own = own_after.0 + own_after.1 - own_before.0 - own_before.1;
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    // The kernel counts in ticks, so the difference can be one below zero.
    let others = (after.2 - before.2).saturating_sub(user + system + own);
    let Counts { done, lost, bad, refused, ended } = client.counts;
    say(&format!(
        "{{\"done\": {done}, \"seconds\": {}, \"user\": {user}, \"system\": {system}, \"client\": {own}, \
         \"others\": {others}, \"lost\": {lost}, \"bad\": {bad}, \"refused\": {refused}, \
         \"ended\": {ended}}}",
        took.as_secs_f64()
    ))
}

fn idle(address: &str, path: &str, connections: &str) -> io::Result<()> {
    let mut client = Client::new(Kind::Get, number(address)?, path)?;
    let wanted: usize = number(connections)?;
    let until = Instant::now() + OPEN;
    // In parts, so that no server's queue of new connections overflows.
    while client.connections.len() < wanted {
        for _ in 0..64.min(wanted - client.connections.len()) {
            client.open(client.connections.len())?;
        }
        client.run(until, client.connections.len() as u64, false)?;
    }
    let Counts { done, lost, bad, refused, ended } = client.counts;
    say(&format!(
        "{{\"done\": {done}, \"lost\": {lost}, \"bad\": {bad}, \"refused\": {refused}, \"ended\": {ended}}}"
    ))?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

fn start(address: &str, path: &str, core: &str, program: &str, arguments: &[&str]) -> io::Result<()> {
    let address: SocketAddrV4 = number(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let before = rustix::thread::sched_getaffinity(None)?;
    // The program inherits the processor; the client then returns to its own.
    pin(number(core)?)?;
    let began = Instant::now();
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    sched_setaffinity(None, &before)?;
    let first = loop {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("{program} ended: {status}")));
        }
        if began.elapsed() > START {
            break None;
        }
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        if stream.write_all(request.as_bytes()).is_err() {
            continue;
        }
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        while let Answer::Part = http(&got) {
            match stream.read(&mut buffer) {
                Ok(length @ 1..) => got.extend_from_slice(&buffer[..length]),
                _ => break,
            }
        }
        if let Answer::Whole(..) = http(&got) {
            break Some(began.elapsed());
        }
    };
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    child.wait()?;
    let first = first.ok_or_else(|| io::Error::other(format!("{program} does not answer on {address}")))?;
    say(&format!("{{\"seconds\": {}}}", first.as_secs_f64()))
}
