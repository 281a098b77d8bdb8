//! What systemd is told: ready, status, stopping, and that a drain takes its time.
//!
//! Outside systemd (`NOTIFY_SOCKET` unset) nothing is sent and nothing is missing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use instance_contract::one_line;
use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::status::Registration;
use crate::traffic::Traffic;

/// How far ahead a drain pushes systemd's stop timeout, again and again.
const EXTENSION: Duration = Duration::from_secs(30);

/// What `systemctl status` is shown, in characters.
const LONGEST_STATUS: usize = 400;

/// Says that the agent serves.
pub(crate) fn ready() {
    send(&[NotifyState::Ready]);
}

/// Asks systemd for this much more time to stop.
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
            // A line break would begin a message of its own to systemd.
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

/// Feeds systemd's watchdog, where there is one, as long as every server thread is alive: each of
/// them has to have moved its beat since the last feeding.
///
/// On a thread of its own: whatever holds up the main one, a web server that works is not restarted.
pub(crate) fn feed_watchdog(traffic: Arc<Traffic>) -> io::Result<()> {
    let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(()) };
    // The server has just started. After a reload the time since the last feeding counts on.
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
