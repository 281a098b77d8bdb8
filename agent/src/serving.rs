//! What the server and the registrar tell each other, so that neither imports the other.
//!
//! The control side publishes [`Answers`] through a watch channel; each server thread keeps the
//! latest copy for itself. The server counts into [`Traffic`]; the control side reads totals with
//! [`Traffic::snapshot`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use instance_contract::{ClusterName, Root};

/// What the routes answer from. A new value replaces the old one as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answers {
    /// What `GET /` means.
    pub(crate) root: Root,
    /// Who the instance is; `None` until identity and tags were first tried.
    pub(crate) instance: Option<InstanceAnswer>,
    /// Why probes are answered 503, in one line; `None` while the instance wants traffic.
    pub(crate) draining: Option<String>,
}

/// The part of the instance's identity that the routes show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstanceAnswer {
    /// The id in `Instance {id} is responding now!`; `unknown` where nothing told it.
    pub(crate) id: String,
    /// The cluster whose path is answered; `None` answers on both `/cluster1` and `/cluster2`.
    pub(crate) cluster: Option<ClusterName>,
}

/// How the server is used, counted by each server thread on its own cache lines.
#[derive(Debug)]
pub(crate) struct Traffic {
    threads: Box<[Arc<ThreadTraffic>]>,
    /// What earlier programs in this process had counted.
    before: TrafficSnapshot,
}

impl Traffic {
    /// Counters for `threads` server threads that go on from what was counted `before`; what is going
    /// on at a moment (in flight, connections) starts at zero.
    pub(crate) fn new(threads: usize, before: TrafficSnapshot) -> Self {
        let before = TrafficSnapshot { in_flight: 0, connections: 0, ..before };
        Self { threads: (0..threads).map(|_| Arc::default()).collect(), before }
    }

    /// The counters of each server thread, one for every thread to keep.
    pub(crate) fn threads(&self) -> &[Arc<ThreadTraffic>] {
        &self.threads
    }

    /// A figure for each thread that grows by one a second while the thread is alive.
    pub(crate) fn beats(&self) -> Vec<u64> {
        self.threads.iter().map(|thread| thread.beats.load(Relaxed)).collect()
    }

    /// Totals over all threads. Each figure is exact, but they are not read at one instant.
    pub(crate) fn snapshot(&self) -> TrafficSnapshot {
        let mut total = self.before;
        for thread in &self.threads {
            total.root += thread.root.load(Relaxed);
            total.health += thread.health.load(Relaxed);
            total.cluster += thread.cluster.load(Relaxed);
            total.seed_read += thread.seed_read.load(Relaxed);
            total.seed_write += thread.seed_write.load(Relaxed);
            total.refused += thread.refused.load(Relaxed);
            total.probes += thread.probes.load(Relaxed);
            total.in_flight += thread.started.load(Relaxed).wrapping_sub(thread.finished.load(Relaxed));
            total.connections += thread.opened.load(Relaxed).wrapping_sub(thread.closed.load(Relaxed));
        }
        total
    }
}

/// One server thread's counters. Only its own thread writes them, so a relaxed load and store do.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ThreadTraffic {
    /// Requests for `/` that were not probes, both meanings.
    pub(crate) root: AtomicU64,
    /// Requests for `/health` that were not probes.
    pub(crate) health: AtomicU64,
    /// Requests for a cluster's path that were not probes.
    pub(crate) cluster: AtomicU64,
    /// `GET` and `HEAD` of `/seed`.
    pub(crate) seed_read: AtomicU64,
    /// `POST` and `PUT` of the seed, on either path.
    pub(crate) seed_write: AtomicU64,
    /// Requests answered with a 4xx, whatever their path.
    pub(crate) refused: AtomicU64,
    /// The load balancer's health checks, on any path.
    pub(crate) probes: AtomicU64,
    /// Requests begun that were not probes: from the head's last byte.
    pub(crate) started: AtomicU64,
    /// Requests ended that were not probes: answer written, or connection lost.
    pub(crate) finished: AtomicU64,
    /// Connections accepted.
    pub(crate) opened: AtomicU64,
    /// Connections closed.
    pub(crate) closed: AtomicU64,
    /// Grows by one a second while the thread is alive.
    pub(crate) beats: AtomicU64,
}

impl ThreadTraffic {
    /// Adds one. The thread is the counter's only writer, so no locked instruction is needed.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// Totals of [`Traffic`] at about one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct TrafficSnapshot {
    /// Requests for `/` by clients.
    pub(crate) root: u64,
    /// Requests for `/health` by clients.
    pub(crate) health: u64,
    /// Requests for a cluster's path by clients.
    pub(crate) cluster: u64,
    /// Reads of `/seed` by clients.
    pub(crate) seed_read: u64,
    /// Writes of the seed by clients.
    pub(crate) seed_write: u64,
    /// Requests answered with a 4xx.
    pub(crate) refused: u64,
    /// Health checks by the load balancer.
    pub(crate) probes: u64,
    /// Requests by clients that are being answered now.
    pub(crate) in_flight: u64,
    /// Open connections.
    pub(crate) connections: u64,
}

impl TrafficSnapshot {
    /// A figure that changes with every request that is not a probe.
    pub(crate) fn requests(&self) -> u64 {
        self.root + self.health + self.cluster + self.seed_read + self.seed_write + self.refused
    }
}

/// What the server allows one client to cost. All are settings; see docs/configuration.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Largest request body, in bytes; a larger one is answered 413.
    pub(crate) max_body: usize,
    /// Bytes held for requests that have not all come yet, over all connections and beyond a few KiB
    /// for each; where that is used up, a request is answered 503.
    pub(crate) max_buffered: usize,
    /// Connections served at a time, over all threads; further ones wait in the kernel's queue.
    pub(crate) max_connections: usize,
    /// From a request's first byte to the end of its head; then 408.
    pub(crate) header_timeout: std::time::Duration,
    /// From the end of a request's head to the end of its body; then 408.
    pub(crate) body_timeout: std::time::Duration,
    /// How long a connection may stay idle after its last answer (or after being accepted).
    pub(crate) keep_alive: std::time::Duration,
    /// How long a peer may take none of an answer's bytes before the connection is dropped.
    pub(crate) write_timeout: std::time::Duration,
}
