//! The HTTP server: one listening socket, one thread with its own runtime per core.
//!
//! A connection lives and ends on the thread that accepted it, so nothing here is locked and no
//! counter is shared. `routes` is the route table, `endpoints` what the routes answer,
//! `connection` one connection's life with `track` as its memory, `io` what hyper reads and writes
//! through and `budget` how much of it, `farewell` the last words on a connection, `accept` where
//! connections come from, `orders` what the threads are told, `handover` how all of it is given to a successor.
//! What clients see is written down in `docs/http-api.md`.

mod accept;
mod budget;
mod connection;
mod endpoints;
mod farewell;
mod handover;
mod io;
mod orders;
mod routes;
mod track;

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::MissedTickBehavior;

use self::budget::Budget;
use self::endpoints::Rendered;
pub(crate) use self::handover::{Handed, HandedConnection, Stage};
use self::orders::{Awaited, Numbered, Order, Orders};
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

/// Makes a socket that somebody else has bound ready to be served on.
pub(crate) fn adopt_listener(socket: OwnedFd) -> std::io::Result<TcpListener> {
    let unfit = |why| Err(std::io::Error::other(format!("it {why}; one TCP ListenStream= is wanted")));
    if sockopt::socket_type(&socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(&socket)? {
        return unfit("does not listen");
    }
    if !matches!(sockopt::socket_domain(&socket)?, AddressFamily::INET | AddressFamily::INET6) {
        return unfit("is not a TCP socket");
    }
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves on `listener` with `threads` threads until [`Server::shutdown`], going on with
/// `connections` that an earlier server gave back.
///
/// The threads take their counters from `traffic`, which must have been made for as many.
pub(crate) fn start(
    listener: TcpListener,
    connections: Vec<HandedConnection>,
    threads: usize,
    limits: Limits,
    answers: watch::Receiver<Arc<Answers>>,
    traffic: Arc<Traffic>,
    seed: SeedStore,
) -> std::io::Result<Server> {
    let places = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let budget = Budget::of(limits.max_buffered);
    let orders = Orders::new();
    let awaited = Awaited::default();
    let mut shares: Vec<Vec<HandedConnection>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, connection) in connections.into_iter().enumerate() {
        shares[number % threads].push(connection);
    }
    let mut server = Server { listener, orders, awaited, threads: Vec::with_capacity(threads) };
    for (number, (counters, connections)) in traffic.threads().iter().zip(shares).enumerate() {
        let (started, ready) = std::sync::mpsc::channel();
        let (ended, ending) = oneshot::channel();
        let (rest, rests) = watch::channel(0);
        let refused_bodies = Arc::new(AtomicUsize::new(0));
        let share = Share {
            connections,
            places: Arc::clone(&places),
            answers: answers.clone(),
            orders: server.orders.follow(),
            rest,
        };
        let common = Common {
            limits,
            traffic: Arc::clone(counters),
            seed: seed.clone(),
            budget: budget.clone(),
            awaited: server.awaited.clone(),
            refused_bodies: Arc::clone(&refused_bodies),
        };
        // Another descriptor for the same socket; the last one closed closes the port.
        let listener = server.listener.try_clone()?;
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
                    let worker = Worker::new(common, &share.answers.borrow());
                    let _ = started.send(Ok(()));
                    let ending = runtime.block_on(worker.run(listener, share));
                    let _ = ended.send(ending);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        ready.recv().map_err(std::io::Error::other)??;
        server.threads.push(ServerThread { handle, ending, rests, refused_bodies });
    }
    Ok(server)
}

/// A running server. Dropping it stops the threads at once, without waiting for requests.
pub(crate) struct Server {
    listener: TcpListener,
    orders: Orders,
    awaited: Awaited,
    threads: Vec<ServerThread>,
}

struct ServerThread {
    handle: JoinHandle<()>,
    ending: oneshot::Receiver<Ending>,
    /// The number of the last order to freeze that this thread has obeyed.
    rests: watch::Receiver<u64>,
    refused_bodies: Arc<AtomicUsize>,
}

/// What a thread has left when it ends.
#[derive(Default)]
struct Ending {
    /// Requests that were not answered in time.
    cut_off: usize,
    /// The connections, where they were asked for.
    connections: Vec<HandedConnection>,
    /// Connections that did not come to rest in time.
    lost: usize,
}

impl Server {
    /// Stops accepting, lets what was begun finish, and returns how many requests were cut off
    /// because they had not by the deadline. Needs a tokio runtime with time.
    pub(crate) async fn shutdown(self, deadline: Instant) -> usize {
        self.orders.give(Order::Stop(deadline));
        // The threads take what still waits in it, and close it.
        drop(self.listener);
        let mut total = 0;
        for (number, thread) in self.threads.into_iter().enumerate() {
            let patience = tokio::time::Instant::from_std(deadline + UNRESPONSIVE);
            match tokio::time::timeout_at(patience, thread.ending).await {
                Ok(Ok(ending)) => {
                    total += ending.cut_off;
                    // It has nothing left to do but to free its memory.
                    let _ = thread.handle.join();
                }
                Ok(Err(_)) => tracing::error!("server thread {number} panicked: its connections are lost"),
                Err(_) => {
                    tracing::error!("server thread {number} does not respond: its connections are lost")
                }
            }
        }
        total
    }
}

/// What a thread is handed at its start, for itself.
struct Share {
    connections: Vec<HandedConnection>,
    places: Arc<Semaphore>,
    answers: watch::Receiver<Arc<Answers>>,
    orders: watch::Receiver<Numbered>,
    rest: watch::Sender<u64>,
}

/// What a thread is handed at its start, for its connections.
struct Common {
    limits: Limits,
    traffic: Arc<ThreadTraffic>,
    seed: SeedStore,
    budget: Budget,
    awaited: Awaited,
    refused_bodies: Arc<AtomicUsize>,
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
    /// What requests may take that have not all come yet, on any thread.
    budget: Budget,
    /// Requests' bodies that are being waited for, on any thread.
    awaited: Awaited,
    /// Requests refused because their body was not there when the server had to come to rest.
    refused_bodies: Arc<AtomicUsize>,
    /// Open connections.
    open: Cell<usize>,
    /// Told when no request is being answered any more, while that is waited for.
    at_rest: Notify,
    /// Told when the last connection closes.
    all_closed: Notify,
    /// What is to be done.
    order: Cell<Order>,
    /// Changes with every order.
    order_number: Cell<u64>,
    /// Wakes every connection when there is a new order.
    ordered: Notify,
    /// Connections that were given back.
    handed: RefCell<Vec<HandedConnection>>,
}

impl Worker {
    fn new(common: Common, answers: &Answers) -> Rc<Self> {
        let Common { limits, traffic, seed, budget, awaited, refused_bodies } = common;
        Rc::new(Self {
            limits,
            traffic,
            rendered: RefCell::new(Rc::new(Rendered::new(answers))),
            seed_reader: RefCell::new(seed.reader()),
            seed,
            http: connection::Builders::new(),
            now: Cell::new(Instant::now()),
            in_flight: Cell::new(0),
            budget,
            awaited,
            refused_bodies,
            open: Cell::new(0),
            at_rest: Notify::new(),
            all_closed: Notify::new(),
            order: Cell::new(Order::Serve),
            order_number: Cell::new(0),
            ordered: Notify::new(),
            handed: RefCell::default(),
        })
    }

    /// Serves until told to end and everything has ended, or the deadline came.
    async fn run(self: Rc<Self>, listener: tokio::net::TcpListener, share: Share) -> Ending {
        spawn_local(Rc::clone(&self).follow(share.answers));
        spawn_local(Rc::clone(&self).beat());
        for connection in share.connections {
            accept::adopt(&self, connection, &share.places);
        }
        let deadline =
            accept::until_told_to_end(&self, listener, &share.places, share.orders, &share.rest).await;
        let all_closed = async {
            while self.open.get() > 0 {
                self.all_closed.notified().await;
            }
        };
        // At the deadline the runtime is dropped with everything on it.
        let _ = tokio::time::timeout_at(tokio::time::Instant::from_std(deadline), all_closed).await;
        let connections = self.handed.take();
        Ending { cut_off: self.in_flight.get(), connections, lost: self.open.get() }
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
    async fn beat(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.now.set(ticks.tick().await.into_std());
            ThreadTraffic::count(&self.traffic.beats);
        }
    }

    /// Tells every connection on this thread what is to be done now.
    fn obey(&self, (number, order): Numbered) {
        self.order.set(order);
        self.order_number.set(number);
        self.ordered.notify_waiters();
    }

    /// Returns once no request is being answered.
    async fn comes_to_rest(&self) {
        while self.in_flight.get() > 0 {
            self.at_rest.notified().await;
        }
    }
}

#[cfg(test)]
mod tests;
