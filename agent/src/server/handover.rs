//! Bringing a running server to a point at which another process, or a new set of threads, can go on
//! with its socket and its connections.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout_at;

use super::orders::{Bodies, Order};
use super::{Ending, Server, UNRESPONSIVE};

/// How long everyone is kept waiting for those requests that had begun, at a time.
const GRACE: Duration = Duration::from_millis(60);

/// Between two looks whether a body is still being waited for. Nobody is kept waiting meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// How much longer, once everyone waits, the bodies have that began since.
const LAST_BODIES: Duration = Duration::from_millis(500);

/// How long requests whose body is refused may take to be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The port and the connections of a server that has come to rest.
pub(crate) struct Handed {
    /// The listening socket, with whoever waits in its queue.
    pub(crate) listener: TcpListener,
    /// Every open connection.
    pub(crate) connections: Vec<HandedConnection>,
    /// Connections that could not be given back, and are lost.
    pub(crate) lost: usize,
}

/// A connection between two requests.
#[derive(Debug)]
pub(crate) struct HandedConnection {
    /// Its socket, non-blocking.
    pub(crate) socket: TcpStream,
    /// What was read from it and not yet understood: perhaps part of a head.
    pub(crate) read: Bytes,
    /// What is still to be written to it.
    pub(crate) unwritten: Bytes,
    /// What is to become of it.
    pub(crate) stage: Stage,
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// It may send its first request.
    New,
    /// It may send another one.
    Used,
    /// It is closed once everything is written.
    Ending,
    /// As `Ending`, but what the peer still sends is read and discarded first, for a while.
    Lingering,
}

/// How a server came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Since when no request has begun.
    pub(crate) since: Instant,
    /// Requests that were refused (408) because their body had not come in time.
    pub(crate) refused_bodies: usize,
}

/// Why a server did not come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("requests that had begun were not answered in time; try again")]
pub(crate) struct Busy;

impl Server {
    /// Brings every thread to a point at which no request is being answered. Requests whose body has
    /// not come by `deadline` are refused (408), at once those that had begun before this call.
    ///
    /// Until then clients are served as always, but for moments of [`GRACE`] in which no request
    /// begins. Afterwards none begins until [`Self::thaw`] or [`Self::hand_over`].
    pub(crate) async fn quiesce(&self, deadline: Instant) -> Result<Rest, Busy> {
        let begun = Instant::now();
        let refused_before = self.refused_bodies();
        let rest = |since| Rest { since, refused_bodies: self.refused_bodies() - refused_before };
        loop {
            // A body that takes its time must not keep everyone else waiting: wait for it first.
            while self.awaited.count() > 0 && Instant::now() < deadline {
                tokio::time::sleep(LOOK.min(deadline.saturating_duration_since(Instant::now()))).await;
            }
            let since = Instant::now();
            if since < deadline {
                if self.freeze(Bodies::Wait, GRACE).await {
                    return Ok(rest(since));
                }
                self.thaw();
                tokio::time::sleep(LOOK).await;
                continue;
            }
            // Where there is always somebody's body on its way, the late ones are not all slow ones.
            for (bodies, patience) in
                [(Bodies::RefuseFrom(begun), LAST_BODIES), (Bodies::Refuse, LAST_ANSWERS)]
            {
                if self.freeze(bodies, patience).await {
                    return Ok(rest(since));
                }
            }
            self.thaw();
            return Err(Busy);
        }
    }

    /// Goes on as if nothing had been.
    pub(crate) fn thaw(&self) {
        self.orders.give(Order::Serve);
    }

    /// Whether every thread has come to rest within `patience`.
    async fn freeze(&self, bodies: Bodies, patience: Duration) -> bool {
        let number = self.orders.give(Order::Freeze { bodies });
        let until = tokio::time::Instant::now() + patience;
        for thread in &self.threads {
            let mut rests = thread.rests.clone();
            if !matches!(timeout_at(until, rests.wait_for(|rests| *rests == number)).await, Ok(Ok(_))) {
                return false;
            }
        }
        true
    }

    /// Takes the server apart. Every request that had begun should be answered: see
    /// [`Self::quiesce`].
    pub(crate) async fn hand_over(self) -> Handed {
        self.orders.give(Order::HandOver);
        let patience = tokio::time::Instant::now() + LAST_ANSWERS + UNRESPONSIVE;
        let mut handed = Handed { listener: self.listener, connections: Vec::new(), lost: 0 };
        for (number, thread) in self.threads.into_iter().enumerate() {
            match timeout_at(patience, thread.ending).await {
                Ok(Ok(Ending { connections, lost, .. })) => {
                    handed.connections.extend(connections);
                    handed.lost += lost;
                    // It has nothing left to do but to free its memory.
                    let _ = thread.handle.join();
                }
                Ok(Err(_)) => tracing::error!("server thread {number} panicked: its connections are lost"),
                Err(_) => {
                    tracing::error!("server thread {number} does not respond: its connections are lost")
                }
            }
        }
        handed
    }

    fn refused_bodies(&self) -> usize {
        self.threads
            .iter()
            .map(|thread| thread.refused_bodies.load(std::sync::atomic::Ordering::Relaxed))
            .sum()
    }
}
