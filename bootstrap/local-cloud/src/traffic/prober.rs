//! The prober: one task for each target, from its registration until it is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::header::{ACCEPT_ENCODING, CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::model::state::{Shared, State, TargetKey};
use crate::model::target_groups::{HealthCheck, ProbeResult, TargetState};
use crate::tasks::Tasks;

/// What AWS's prober calls itself.
const PROBER: &str = "ELB-HealthChecker/2.0";

/// Probes every target, those that are registered later too. Ends when the returned future is dropped.
pub(crate) async fn probe_targets(shared: Arc<Shared>) {
    let tasks = Tasks::default();
    let mut changes = shared.changes();
    loop {
        changes.borrow_and_update();
        // Every registration is a change, so none is missed.
        let unprobed = shared.lock().take_unprobed();
        for key in unprobed {
            tasks.spawn(probe_target(Arc::clone(&shared), key));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What a target's task has to do now.
enum Step {
    /// Nothing any more.
    Gone,
    /// Nothing until then, or until something changes.
    Wait(Option<Instant>),
    /// To probe.
    Probe(SocketAddr, HealthCheck),
}

/// Probes a target while it is used, and sees to the end of its draining.
async fn probe_target(shared: Arc<Shared>, key: TargetKey) {
    let mut changes = shared.changes();
    loop {
        changes.borrow_and_update();
        match shared.update_quietly(|state, now| next_step(state, &key, now)) {
            Step::Gone => return,
            Step::Wait(until) => {
                let due = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = due => {}
                    heard = changes.changed() => if heard.is_err() { return },
                }
            }
            Step::Probe(address, check) => {
                let result = health_check(address, &check.path, check.timeout).await;
                shared.update_quietly(|state, _| {
                    if let Some((check, target)) = state.target(&key) {
                        target.probed(result, check);
                    }
                });
            }
        }
    }
}

fn next_step(state: &mut State, key: &TargetKey, now: Instant) -> Step {
    let Some((check, target)) = state.target(key) else {
        return Step::Gone;
    };
    let is_used = target.shown.as_ref().is_some_and(|shown| shown.state != TargetState::Unused);
    if !is_used {
        return Step::Wait(target.drained_at());
    }
    if let Some(until) = target.registering_until(now) {
        return Step::Wait(Some(until));
    }
    if now < target.next_probe {
        let probe = target.next_probe;
        return Step::Wait(Some(target.drained_at().map_or(probe, |end| end.min(probe))));
    }
    // Draining targets are probed too, so that an agent which takes probes for traffic shows.
    target.next_probe = now + check.interval;
    Step::Probe(target.address, check.clone())
}

/// One health check on a fresh connection.
async fn health_check(address: SocketAddr, path: &str, timeout: Duration) -> ProbeResult {
    let exchange = async {
        let Ok(stream) = TcpStream::connect(address).await else {
            return ProbeResult::Failed;
        };
        let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await
        else {
            return ProbeResult::Failed;
        };
        let request = Request::get(path)
            .header(HOST, address.to_string())
            .header(CONNECTION, "close")
            .header(USER_AGENT, PROBER)
            .header(ACCEPT_ENCODING, "gzip, compressed")
            .body(Empty::<Bytes>::new());
        let Ok(request) = request else {
            return ProbeResult::Failed;
        };
        let exchange = async {
            let response = sender.send_request(request).await.ok()?;
            let status = response.status().as_u16();
            let mut body = response.into_body();
            // The body does not count, but leaving it unread would reset the target's connection.
            while let Some(Ok(_)) = body.frame().await {}
            drop(sender);
            Some(status)
        };
        match tokio::join!(exchange, connection).0 {
            None => ProbeResult::Failed,
            Some(200) => ProbeResult::Pass,
            Some(status) => ProbeResult::Status(status),
        }
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or(ProbeResult::Timeout)
}
