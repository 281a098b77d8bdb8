//! Bringing a running server to a point at which another process, or a new set of threads, can go on
//! with its socket and its connections.

use std::time::{Duration, Instant};

use super::Server;
use super::handover_sockets::HandoverSockets;
use super::orders::{Bodies, Order};
use super::thread::ServerThread;

/// How long everyone is kept waiting for those requests that had begun, at a time.
const GRACE: Duration = Duration::from_millis(60);

/// Between two looks whether a body is still being waited for. Nobody is kept waiting meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// How much longer, once everyone waits, the bodies have that began since.
const LAST_BODIES: Duration = Duration::from_millis(500);

/// How long requests whose body is refused may take to be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How a server came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuiesceReport {
    /// Since when no request has begun.
    pub(crate) since: Instant,
    /// Requests that were refused (408) because their body had not come in time.
    pub(crate) refused_bodies: usize,
}

/// Why a server did not come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("requests in flight were not answered in time; try again")]
pub(crate) struct QuiesceTimeout;

impl Server {
    /// Brings every thread to a point at which no request is being answered. Requests whose body has
    /// not come by `deadline` are refused (408), at once those that had begun before this call.
    ///
    /// Until then clients are served as always, but for moments of [`GRACE`] in which no request
    /// begins. Afterwards none begins until [`Self::thaw`] or [`Self::hand_over`].
    pub(crate) async fn quiesce(&self, deadline: Instant) -> Result<QuiesceReport, QuiesceTimeout> {
        let begun = Instant::now();
        let refused_before = self.refused_bodies();
        let rest = |since| QuiesceReport { since, refused_bodies: self.refused_bodies() - refused_before };
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
            return Err(QuiesceTimeout);
        }
    }

    /// Goes on as if nothing had been.
    pub(crate) fn thaw(&self) {
        self.orders.give(Order::Serve);
    }

    /// Whether every thread has come to rest within `patience`.
    async fn freeze(&self, bodies: Bodies, patience: Duration) -> bool {
        let number = self.orders.give(Order::Freeze { bodies });
        let until = Instant::now() + patience;
        for thread in &self.threads {
            if !thread.has_obeyed(number, until).await {
                return false;
            }
        }
        true
    }

    /// Takes the server apart. Every request that had begun should be answered: see
    /// [`Self::quiesce`].
    pub(crate) async fn hand_over(self) -> HandoverSockets {
        self.orders.give(Order::HandOver);
        let deadline = Instant::now() + LAST_ANSWERS;
        let mut handed = HandoverSockets { listener: self.listener, connections: Vec::new(), lost: 0 };
        for thread in self.threads {
            let ending = thread.ended(deadline).await;
            handed.connections.extend(ending.connections);
            handed.lost += ending.lost;
        }
        handed
    }

    fn refused_bodies(&self) -> usize {
        self.threads.iter().map(ServerThread::refused_bodies).sum()
    }
}
