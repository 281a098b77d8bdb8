//! How the server is used: the server threads count, everyone else reads totals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Makes the counters that people see from one table: for each its help text, its name and its metric. A
/// new counter is a new row: status, metrics and the record of a reload then have it too.
macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident: $metric:literal $labels:literal,)+) => {
        /// One server thread's counters. Only its own thread writes them.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct ThreadTraffic {
            $($(#[doc = $help])+ pub(crate) $name: Counter,)+
            /// Requests begun that were not probes: from the head's last byte.
            pub(crate) started: Counter,
            /// Requests ended that were not probes: answer written, or connection lost.
            pub(crate) finished: Counter,
            /// Connections accepted.
            pub(crate) opened: Counter,
            /// Connections closed.
            pub(crate) closed: Counter,
            /// Grows by one a second while the thread is alive.
            pub(crate) beats: Counter,
            refusals: watch::Sender<()>,
        }

        /// Totals of [`Traffic`] at about one moment. What an older program did not count is zero.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub(crate) struct TrafficSnapshot {
            $($(#[doc = $help])+ pub(crate) $name: u64,)+
            /// Requests by clients that are being answered now.
            pub(crate) in_flight: u64,
            /// Open connections.
            pub(crate) connections: u64,
        }

        impl TrafficSnapshot {
            /// Metric, labels and value of each counter.
            pub(crate) fn counters(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$(($metric, $labels, self.$name)),+].into_iter()
            }

            fn add(&mut self, thread: &ThreadTraffic) {
                $(self.$name += thread.$name.get();)+
                self.in_flight += thread.started.get().wrapping_sub(thread.finished.get());
                self.connections += thread.opened.get().wrapping_sub(thread.closed.get());
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
    /// Idle connections closed because others needed their place.
    made_room: "made_room_total" "",
    /// Connections dropped because they left more unread than is kept for them, or for all like them.
    unread_dropped: "unread_dropped_total" "",
    /// Health checks answered with anything but 200.
    refused_probes: "refused_probes_total" "",
}

impl TrafficSnapshot {
    /// A figure that changes with every request that is not a probe.
    pub(crate) fn requests(&self) -> u64 {
        self.root + self.health + self.cluster + self.seed_read + self.seed_write + self.refused
    }
}

impl ThreadTraffic {
    /// A health check was answered with anything but 200: the balancer is about to think less of this instance.
    pub(crate) fn refuse_probe(&self) {
        self.refused_probes.increment();
        self.refusals.send_replace(());
    }
}

/// A counter with one thread that writes it; any thread may read it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Since one thread alone writes, no locked instruction is needed.
    pub(crate) fn increment(&self) {
        self.0.store(self.get().wrapping_add(1), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How the server is used, counted by each server thread on its own cache lines.
#[derive(Debug)]
pub(crate) struct Traffic {
    threads: Box<[Arc<ThreadTraffic>]>,
    /// What earlier programs in this process had counted.
    before: TrafficSnapshot,
    refusals: watch::Sender<()>,
}

impl Traffic {
    /// Counters for `threads` server threads that go on from what was counted `before`; what is going
    /// on at a moment (in flight, connections) starts at zero.
    pub(crate) fn new(threads: usize, before: TrafficSnapshot) -> Self {
        let before = TrafficSnapshot { in_flight: 0, connections: 0, ..before };
        let refusals = watch::Sender::new(());
        let thread = |_| Arc::new(ThreadTraffic { refusals: refusals.clone(), ..ThreadTraffic::default() });
        Self { threads: (0..threads).map(thread).collect(), before, refusals }
    }

    /// Changes with each health check that is answered with anything but 200.
    pub(crate) fn refusals(&self) -> watch::Receiver<()> {
        self.refusals.subscribe()
    }

    /// The counters of each server thread, one for every thread to keep.
    pub(crate) fn threads(&self) -> &[Arc<ThreadTraffic>] {
        &self.threads
    }

    /// A figure for each thread that grows by one a second while the thread is alive.
    pub(crate) fn beats(&self) -> Vec<u64> {
        self.threads.iter().map(|thread| thread.beats.get()).collect()
    }

    /// Totals over all threads. Each figure is exact, but they are not read at one instant.
    pub(crate) fn snapshot(&self) -> TrafficSnapshot {
        let mut total = self.before;
        for thread in &self.threads {
            total.add(thread);
        }
        total
    }
}
