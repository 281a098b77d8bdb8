//! Counters of the server: each server thread counts, others read the totals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Generates the public counters from one table. A new row adds a counter to the status, the metrics and the
/// handover record.
macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident: $metric:literal $labels:literal,)+) => {
        /// The counters of one server thread, which alone writes them.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct ThreadTraffic {
            $($(#[doc = $help])+ pub $name: Counter,)+
            /// Requests begun, without probes: from the last byte of the head.
            pub started: Counter,
            /// Requests ended, without probes: answer written or connection lost.
            pub finished: Counter,
            /// Connections accepted.
            pub opened: Counter,
            /// Connections closed.
            pub closed: Counter,
            /// Idle connections parked.
            pub parked: Counter,
            /// Parked connections that are served again, closed or handed over.
            pub unparked: Counter,
            /// Grows by one a second while the thread is alive.
            pub beats: Counter,
            refusals: watch::Sender<()>,
        }

        /// Totals of [`Traffic`]. Counters that an older program did not have are zero.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct TrafficSnapshot {
            $($(#[doc = $help])+ pub $name: u64,)+
            /// Requests of clients in flight.
            pub in_flight: u64,
            /// Open connections.
            pub connections: u64,
            /// Open connections that are idle and parked.
            pub parked: u64,
        }

        impl TrafficSnapshot {
            /// Metric, labels and value of each counter.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$(($metric, $labels, self.$name)),+].into_iter()
            }

            fn add(&mut self, thread: &ThreadTraffic) {
                $(self.$name += thread.$name.get();)+
                self.in_flight += thread.started.get().wrapping_sub(thread.finished.get());
                self.connections += thread.opened.get().wrapping_sub(thread.closed.get());
                self.parked += thread.parked.get().wrapping_sub(thread.unparked.get());
            }
        }
    };
}

counters! {
    /// Requests for `/` by clients, both meanings.
    root: "requests_total" r#"{route="root"}"#,
    /// Requests for `/health` by clients.
    health: "requests_total" r#"{route="health"}"#,
    /// Requests for a cluster's path by clients.
    cluster: "requests_total" r#"{route="cluster"}"#,
    /// `GET` and `HEAD` of `/seed` by clients.
    seed_read: "requests_total" r#"{route="seed_read"}"#,
    /// `POST` and `PUT` of the seed by clients, on either path.
    seed_write: "requests_total" r#"{route="seed_write"}"#,
    /// Requests answered with a 4xx, whatever their path.
    refused: "refused_total" "",
    /// The load balancer's health checks, on any path.
    probes: "probes_total" "",
    /// Idle connections closed to make room for new ones.
    made_room: "made_room_total" "",
    /// Connections dropped because their clients read no answers.
    unread_dropped: "unread_dropped_total" "",
    /// Health checks answered with a status other than 200.
    refused_probes: "refused_probes_total" "",
}

impl TrafficSnapshot {
    /// Changes with every request that is not a probe.
    pub fn requests(&self) -> u64 {
        self.root + self.health + self.cluster + self.seed_read + self.seed_write + self.refused
    }
}

impl ThreadTraffic {
    /// Counts a health check answered with a status other than 200, and wakes the members.
    pub fn refuse_probe(&self) {
        self.refused_probes.increment();
        self.refusals.send_replace(());
    }
}

/// A counter with one thread that writes it; any thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only one thread writes, so no atomic addition is needed.
    pub fn increment(&self) {
        self.0.store(self.get().wrapping_add(1), Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of all server threads, each on its own cache lines.
#[derive(Debug)]
pub struct Traffic {
    threads: Box<[Arc<ThreadTraffic>]>,
    /// The counts from before a reload.
    before: TrafficSnapshot,
    refusals: watch::Sender<()>,
}

impl Traffic {
    /// Counters for `threads` server threads that continue from `before`. Gauges (in flight, connections, parked)
    /// start at zero.
    pub fn new(threads: usize, before: TrafficSnapshot) -> Self {
        let before = TrafficSnapshot { in_flight: 0, connections: 0, parked: 0, ..before };
        let refusals = watch::Sender::new(());
        let thread = |_| Arc::new(ThreadTraffic { refusals: refusals.clone(), ..ThreadTraffic::default() });
        Self { threads: (0..threads).map(thread).collect(), before, refusals }
    }

    /// Changes with each health check that is answered with a status other than 200.
    pub fn refusals(&self) -> watch::Receiver<()> {
        self.refusals.subscribe()
    }

    /// The counters of each server thread.
    pub fn threads(&self) -> &[Arc<ThreadTraffic>] {
        &self.threads
    }

    /// For each thread, a count that grows by one a second while the thread is alive.
    pub fn beats(&self) -> Vec<u64> {
        self.threads.iter().map(|thread| thread.beats.get()).collect()
    }

    /// Totals over all threads. Each figure is exact, but they are not read at one instant.
    pub fn snapshot(&self) -> TrafficSnapshot {
        let mut total = self.before;
        for thread in &self.threads {
            total.add(thread);
        }
        total
    }
}
