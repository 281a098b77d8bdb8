//! Notifies systemd: ready, status, stopping, more time for a drain, watchdog.
//!
//! Outside systemd (`NOTIFY_SOCKET` unset) nothing is sent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use instance_contract::one_line;
use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::status::Registration;
use instance_server::traffic::Traffic;

/// By how much a drain extends systemd's stop timeout each time.
const EXTENSION: Duration = Duration::from_secs(30);

/// In characters.
const LONGEST_STATUS: usize = 400;

pub(crate) fn ready() {
    send(&[NotifyState::Ready]);
}

pub(crate) fn extend_stop(more: Duration) {
    send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(more.as_micros()).unwrap_or(u32::MAX))]);
}

/// Keeps `STATUS=` current, and extends the stop timeout while a stop drains.
pub(crate) async fn follow(mut registration: watch::Receiver<Registration>, listen: String) {
    let mut stopping = false;
    loop {
        let line = {
            let registration = registration.borrow_and_update();
            if registration.stopping && !stopping {
                stopping = true;
                send(&[NotifyState::Stopping]);
            }
            // After a line break systemd would read another message.
            one_line(&registration.summary(&listen), LONGEST_STATUS)
        };
        send(&[NotifyState::Status(&line)]);
        let changed = if stopping {
            extend_stop(EXTENSION);
            tokio::time::timeout(EXTENSION / 3, registration.changed()).await.unwrap_or(Ok(()))
        } else {
            registration.changed().await
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Feeds systemd's watchdog, if there is one, while every server thread is alive: each thread must have
/// increased its beat since the last time.
///
/// On its own thread, so that a blocked main thread does not restart a working web server.
pub(crate) fn feed_watchdog(traffic: Arc<Traffic>) -> io::Result<()> {
    let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(()) };
    // After a reload, systemd still counts from the previous program's last message.
    send(&[NotifyState::Watchdog]);
    let feed = move || {
        let mut seen = traffic.beats();
        loop {
            #[expect(clippy::disallowed_methods, reason = "a thread of its own, which does nothing else")]
            std::thread::sleep(limit / 4);
            let latest = traffic.beats();
            if latest.iter().zip(&seen).all(|(latest, seen)| latest != seen) {
                send(&[NotifyState::Watchdog]);
                seen = latest;
            }
        }
    };
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(feed).map(drop)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("cannot notify systemd: {error}");
    }
}
