//! The HTTP server: one listening socket, one thread with its own runtime per core.
//!
//! A connection lives and ends on the thread that accepted it, so nothing here is locked and no
//! counter is shared. `routes` is the route table, `endpoints` what the routes answer,
//! `connection` one connection's life with `track` as its memory, `io` what hyper reads and writes
//! through, `linger` the last words on a connection, `accept` where connections come from.
//! What clients see is written down in `docs/http-api.md`.

mod accept;
mod connection;
mod endpoints;
mod io;
mod linger;
mod routes;
mod track;

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::MissedTickBehavior;

use self::endpoints::Rendered;
use crate::seed::{SeedReader, SeedStore};
use crate::serving::{Answers, Limits, ThreadTraffic, Traffic};

/// Connections that may wait in the kernel to be accepted.
const BACKLOG: i32 = 1_024;

/// Between two beats of a thread, and the grain of its coarse clock.
const BEAT: Duration = Duration::from_secs(1);

/// How long past the deadline a thread that does not answer is waited for.
const UNRESPONSIVE: Duration = Duration::from_secs(1);

/// Binds the one listening socket.
///
/// Without `SO_REUSEPORT`, so that a second start fails instead of taking half of the connections.
pub(crate) fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Serves on `listener` with `threads` threads until [`Server::shutdown`].
///
/// The threads take their counters from `traffic`, which must have been made for as many.
pub(crate) fn start(
    listener: TcpListener,
    threads: usize,
    limits: Limits,
    answers: watch::Receiver<Arc<Answers>>,
    traffic: Arc<Traffic>,
    seed: SeedStore,
) -> std::io::Result<Server> {
    let (stop, stopped) = watch::channel(None);
    let places = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let mut server = Server { stop, threads: Vec::with_capacity(threads) };
    for (number, counters) in traffic.threads().iter().take(threads).enumerate() {
        let beats = Arc::new(AtomicU64::new(0));
        let (started, ready) = std::sync::mpsc::channel();
        let (finished, cut_off) = oneshot::channel();
        let share = Share {
            places: Arc::clone(&places),
            answers: answers.clone(),
            stopped: stopped.clone(),
            beats: Arc::clone(&beats),
        };
        // Another descriptor for the same socket; the last one closed closes the port.
        let listener = listener.try_clone()?;
        let (traffic, seed) = (Arc::clone(counters), seed.clone());
        let handle = std::thread::Builder::new().name(format!("server-{number}")).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(tokio::runtime::LocalOptions::default());
            // The listener can only be registered inside the runtime it will be polled on.
            let runtime = runtime.and_then(|runtime| {
                let _inside = runtime.enter();
                let listener = tokio::net::TcpListener::from_std(listener)?;
                Ok((runtime, listener))
            });
            match runtime {
                Ok((runtime, listener)) => {
                    let worker = Worker::new(limits, traffic, seed, &share.answers.borrow());
                    let _ = started.send(Ok(()));
                    let cut_off = runtime.block_on(worker.run(listener, share));
                    let _ = finished.send(cut_off);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        ready.recv().map_err(std::io::Error::other)??;
        server.threads.push(ServerThread { handle, beats, cut_off });
    }
    Ok(server)
}

/// A running server. Dropping it stops the threads at once, without waiting for requests.
pub(crate) struct Server {
    /// The deadline, once there is one.
    stop: watch::Sender<Option<Instant>>,
    threads: Vec<ServerThread>,
}

struct ServerThread {
    handle: JoinHandle<()>,
    beats: Arc<AtomicU64>,
    cut_off: oneshot::Receiver<usize>,
}

impl Server {
    /// A figure for each thread that grows by one a second while the thread is alive.
    pub(crate) fn beats(&self) -> impl Fn() -> Vec<u64> + Send + use<> {
        let beats: Vec<_> = self.threads.iter().map(|thread| Arc::clone(&thread.beats)).collect();
        move || beats.iter().map(|beats| beats.load(Ordering::Relaxed)).collect()
    }

    /// Stops accepting, lets what was begun finish, and returns how many requests were cut off
    /// because they had not by the deadline. Needs a tokio runtime with time.
    ///
    /// The port closes when the last copy of the listener does: keep none.
    pub(crate) async fn shutdown(self, deadline: Instant) -> usize {
        self.stop.send_replace(Some(deadline));
        let mut total = 0;
        for (number, thread) in self.threads.into_iter().enumerate() {
            let patience = tokio::time::Instant::from_std(deadline + UNRESPONSIVE);
            match tokio::time::timeout_at(patience, thread.cut_off).await {
                Ok(Ok(cut_off)) => {
                    total += cut_off;
                    // It has nothing left to do but to free its memory.
                    let _ = thread.handle.join();
                }
                Ok(Err(_)) => tracing::error!(thread = number, "server thread panicked"),
                Err(_) => tracing::error!(thread = number, "server thread does not respond"),
            }
        }
        total
    }
}

/// What a thread is handed at its start.
struct Share {
    places: Arc<Semaphore>,
    answers: watch::Receiver<Arc<Answers>>,
    stopped: watch::Receiver<Option<Instant>>,
    beats: Arc<AtomicU64>,
}

/// One server thread, shared by the connections on it.
struct Worker {
    limits: Limits,
    traffic: Arc<ThreadTraffic>,
    /// This thread's copy of the answers, ready to send.
    rendered: RefCell<Rc<Rendered>>,
    seed: SeedStore,
    seed_reader: RefCell<SeedReader>,
    /// How hyper is to serve.
    http: connection::Builders,
    /// The time of the last beat. Enough for idle connections, and no clock is read per request
    /// (on Xen instance types that is a system call).
    now: Cell<Instant>,
    /// Requests being answered, probes included.
    in_flight: Cell<usize>,
    /// Open connections.
    open: Cell<usize>,
    /// Told when the last connection closes.
    all_closed: Notify,
    /// Set when connections are to end after what they are doing.
    stopping: Cell<bool>,
    /// Wakes every connection when that happens.
    stop: Notify,
}

impl Worker {
    fn new(limits: Limits, traffic: Arc<ThreadTraffic>, seed: SeedStore, answers: &Answers) -> Rc<Self> {
        Rc::new(Self {
            limits,
            traffic,
            rendered: RefCell::new(Rc::new(Rendered::new(answers))),
            seed_reader: RefCell::new(seed.reader()),
            seed,
            http: connection::Builders::new(),
            now: Cell::new(Instant::now()),
            in_flight: Cell::new(0),
            open: Cell::new(0),
            all_closed: Notify::new(),
            stopping: Cell::new(false),
            stop: Notify::new(),
        })
    }

    /// Serves until told to stop and everything has ended, or the deadline came; returns how many
    /// requests that cut off.
    async fn run(self: Rc<Self>, listener: tokio::net::TcpListener, share: Share) -> usize {
        spawn_local(Rc::clone(&self).follow(share.answers));
        spawn_local(Rc::clone(&self).beat(share.beats));
        let deadline = accept::until_stopped(&self, listener, &share.places, share.stopped).await;
        let all_closed = async {
            while self.open.get() > 0 {
                self.all_closed.notified().await;
            }
        };
        // At the deadline the runtime is dropped with everything on it.
        let _ = tokio::time::timeout_at(tokio::time::Instant::from_std(deadline), all_closed).await;
        self.in_flight.get()
    }

    /// Keeps this thread's copy of the answers up to date.
    async fn follow(self: Rc<Self>, mut answers: watch::Receiver<Arc<Answers>>) {
        loop {
            let latest = Rc::new(Rendered::new(&answers.borrow_and_update()));
            self.rendered.replace(latest);
            // Nobody left to publish: the last answers stay true.
            if answers.changed().await.is_err() {
                return;
            }
        }
    }

    /// Shows that the thread is alive, and keeps its coarse clock.
    async fn beat(self: Rc<Self>, beats: Arc<AtomicU64>) {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.now.set(ticks.tick().await.into_std());
            beats.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells every connection on this thread to end after what it is doing.
    fn begin_stopping(&self) {
        self.stopping.set(true);
        self.stop.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
