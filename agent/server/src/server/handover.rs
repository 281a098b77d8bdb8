//! Brings a running server to a point where another program, or new threads, can continue with its
//! socket and its connections.

use std::time::{Duration, Instant};

use super::Server;
use super::handover_sockets::HandoverSockets;
use super::orders::{Bodies, Order};
use super::thread::ServerThread;

/// The longest time that new requests wait in one attempt, while requests in flight finish.
const GRACE: Duration = Duration::from_millis(60);

/// Between two checks for incomplete bodies. Requests are served meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// After the deadline: extra time for bodies that began since `quiesce` was called.
const LAST_BODIES: Duration = Duration::from_millis(500);

/// Time limit for the answers to requests whose body is refused.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How a server came to rest, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuiesceReport {
    /// Since when no request has begun.
    pub since: Instant,
    /// Requests that were refused (408) because their body had not come in time.
    pub refused_bodies: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("requests in flight were not answered in time; try again")]
pub struct QuiesceTimeout;

impl Server {
    /// Brings every thread to rest: no request is in flight and none begins. After `Ok` the server stays frozen until
    /// [`Self::thaw`] or [`Self::hand_over`]; after `Err` it serves again.
    ///
    /// The states, in order:
    ///
    /// 1. *Serving.* While bodies are incomplete, requests are served as usual: a freeze now would make all clients wait
    ///    for one slow sender.
    /// 2. *Short freeze.* No request begins for [`GRACE`]; those in flight finish. If a thread is not at rest by then, the
    ///    server thaws and starts over. So no request waits longer than [`GRACE`] before `deadline`.
    /// 3. *After `deadline`: frozen, old bodies refused.* Bodies that began before this call get 408 at once. Those that
    ///    began since are not slow yet: with steady uploads there are always some, so they get [`LAST_BODIES`] more.
    /// 4. *All bodies refused.* Every incomplete body gets 408, and the answers get [`LAST_ANSWERS`].
    ///
    /// If requests are still in flight then, for example because the disk hangs, the server thaws and returns `Err`: no
    /// request is ever cut off for a reload.
    pub async fn quiesce(&self, deadline: Instant) -> Result<QuiesceReport, QuiesceTimeout> {
        let begun = Instant::now();
        let refused_before = self.refused_bodies();
        let rest = |since| QuiesceReport { since, refused_bodies: self.refused_bodies() - refused_before };
        loop {
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

    /// Serves again.
    pub fn thaw(&self) {
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

    /// Ends the threads and returns the port and the connections. Call [`Self::quiesce`] first.
    pub async fn hand_over(self) -> HandoverSockets {
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
