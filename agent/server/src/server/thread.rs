//! One server thread: its runtime and the tasks on it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, timeout_at};

use super::accept;
use super::blocked::Blocked;
use super::budget::Budget;
use super::connection::{Connections, ParkedConnection};
use super::endpoints::ServiceState;
use super::handover_sockets::{HandoverConnection, ThreadResult};
use super::orders::{AwaitedBodies, NumberedOrder};
use super::parked;
use super::parking::Parking;
use super::room::Room;
use super::worker::{BEAT, Worker};
use crate::answers::Answers;
use crate::limits::Limits;
use crate::seed::SeedStore;
use crate::traffic::ThreadTraffic;

/// How long after the deadline to wait for a thread that does not respond.
const UNRESPONSIVE: Duration = Duration::from_secs(1);

pub(super) struct ThreadInputs {
    /// Connections from an earlier server.
    pub(super) connections: Vec<HandoverConnection>,
    pub(super) room: Arc<Room>,
    pub(super) answers: watch::Receiver<Arc<Answers>>,
    pub(super) orders: watch::Receiver<NumberedOrder>,
    pub(super) limits: Limits,
    pub(super) traffic: Arc<ThreadTraffic>,
    pub(super) seed: SeedStore,
    pub(super) budget: Budget,
    pub(super) blocked: Arc<Blocked>,
    pub(super) awaited: AwaitedBodies,
}

/// A running thread, as the server sees it.
pub(super) struct ServerThread {
    number: usize,
    handle: JoinHandle<()>,
    ending: oneshot::Receiver<ThreadResult>,
    /// The number of the last freeze that this thread has obeyed.
    rests: watch::Receiver<u64>,
    refused_bodies: Arc<AtomicUsize>,
}

impl ServerThread {
    /// Returns once the thread accepts connections.
    pub(super) fn start(
        number: usize,
        listener: std::net::TcpListener,
        inputs: ThreadInputs,
    ) -> std::io::Result<Self> {
        let (started, ready) = std::sync::mpsc::channel();
        let (ended, ending) = oneshot::channel();
        let (rest, rests) = watch::channel(0);
        let refused_bodies = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&refused_bodies);
        let handle = std::thread::Builder::new().name(format!("server-{number}")).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(tokio::runtime::LocalOptions::default());
            // The listener must be registered inside the runtime that polls it.
            let runtime = runtime.and_then(|runtime| {
                let _inside = runtime.enter();
                let listener = TcpListener::from_std(listener)?;
                let parking = Parking::new(Arc::clone(&inputs.traffic))?;
                Ok((runtime, listener, parking))
            });
            match runtime {
                Ok((runtime, listener, parking)) => {
                    let _ = started.send(Ok(()));
                    let ending = runtime.block_on(run(listener, parking, inputs, rest, counted));
                    let _ = ended.send(ending);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        ready.recv().map_err(std::io::Error::other)??;
        Ok(Self { number, handle, ending, rests, refused_bodies })
    }

    /// Waits until the thread has ended, until shortly after `deadline`.
    pub(super) async fn ended(self, deadline: Instant) -> ThreadResult {
        let number = self.number;
        match timeout_at((deadline + UNRESPONSIVE).into(), self.ending).await {
            Ok(Ok(ending)) => {
                // The thread only frees its memory now.
                let _ = self.handle.join();
                return ending;
            }
            Ok(Err(_)) => tracing::error!("server thread {number} panicked: its connections are lost"),
            Err(_) => tracing::error!("server thread {number} does not respond: its connections are lost"),
        }
        ThreadResult::default()
    }

    /// Whether the thread has obeyed the order with this number by `deadline`.
    pub(super) async fn has_obeyed(&self, order_number: u64, deadline: Instant) -> bool {
        let mut rests = self.rests.clone();
        let obeyed = rests.wait_for(|rests| *rests == order_number);
        matches!(timeout_at(deadline.into(), obeyed).await, Ok(Ok(_)))
    }

    pub(super) fn refused_bodies(&self) -> usize {
        self.refused_bodies.load(Ordering::Relaxed)
    }
}

/// Serves until an order to end, then until all connections are closed or the deadline is over.
async fn run(
    listener: TcpListener,
    parking: Parking<ParkedConnection>,
    inputs: ThreadInputs,
    rest: watch::Sender<u64>,
    refused_bodies: Arc<AtomicUsize>,
) -> ThreadResult {
    let ThreadInputs { connections, room, answers, orders, limits, traffic, seed, budget, blocked, awaited } =
        inputs;
    let worker = Rc::new(Worker::new(limits, traffic, budget, blocked, awaited, refused_bodies));
    let service_state = Rc::new(ServiceState::new(&answers.borrow(), seed));
    let shared = Rc::new(Connections::new(Rc::clone(&worker), Rc::clone(&service_state), parking));
    spawn_local(follow_answers(service_state, answers));
    spawn_local(beat(Rc::clone(&shared)));
    spawn_local(parked::watch(Rc::clone(&shared)));
    for connection in connections {
        accept::adopt_connection(&shared, connection, &room);
    }
    let deadline = accept::accept_connections(&shared, listener, &room, orders, &rest).await;
    // At the deadline the runtime is dropped with everything on it.
    let _ = timeout_at(deadline.into(), worker.all_closed()).await;
    worker.ending()
}

/// Keeps this thread's copy of the answers up to date.
async fn follow_answers(service_state: Rc<ServiceState>, mut answers: watch::Receiver<Arc<Answers>>) {
    loop {
        service_state.set_answers(&answers.borrow_and_update());
        // The publisher is gone: the last answers stay in effect.
        if answers.changed().await.is_err() {
            return;
        }
    }
}

/// Counts beats for the watchdog, sets the thread's coarse clock, and closes parked connections whose time is over.
async fn beat(connections: Rc<Connections>) {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await.into_std();
        connections.worker().beat(now);
        parked::expire(&connections, now);
    }
}
