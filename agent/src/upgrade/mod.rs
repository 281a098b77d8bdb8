//! Reload: replaces the running program in place with the installed one. Process id, port, connections and
//! registrations stay.
//!
//! 1. The installed program, started as a child, says whether it can take over ([`check`]).
//! 2. The server comes to rest.
//! 3. The state for the next program is written down ([`record`]).
//! 4. `execve` starts the next program.
//!
//! A failure in any step leaves everything as it was.

pub(crate) mod check;
mod record;
mod sys;

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};

pub(crate) use self::record::{InheritedState, Predecessor, inherit, monotonic_now};
pub(crate) use self::sys::{block_signals, survive_file_size_limit, take_descriptor, unblock_signals};
use crate::status::{ReloadOutcome, ReloadStatus};
use crate::telemetry;
use check::{FileStamps, PinnedSettings};
use instance_server::events;
use instance_server::server::{HandoverSockets, Server};

/// The running program, and the path of the next one.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    settings_file: PathBuf,
    pinned: PinnedSettings,
}

impl Program {
    /// The program of this process. Call it early: later another program may be installed at its path. `known`
    /// is the path from before a reload.
    pub(crate) fn running(
        known: Option<&str>,
        settings_file: PathBuf,
        pinned: PinnedSettings,
    ) -> io::Result<Self> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let path = match known {
            Some(known) => known.into(),
            None => check::installed_path(arguments.first().cloned())?,
        };
        Ok(Self { path, arguments, settings_file, pinned })
    }

    fn stamps(&self) -> FileStamps {
        FileStamps::of(&[&self.path, &self.settings_file])
    }
}

/// The latest reload.
#[derive(Clone)]
pub(crate) struct Reloads(Arc<watch::Sender<ReloadStatus>>);

impl Reloads {
    /// After `attempt` reloads, the last of which started this program.
    pub(crate) fn after(attempt: u64) -> Self {
        let outcome = if attempt == 0 { ReloadOutcome::None } else { ReloadOutcome::Done };
        Self(Arc::new(watch::Sender::new(ReloadStatus { attempt, outcome, reason: None })))
    }

    /// Requests a reload, unless one is running. Returns its number.
    pub(crate) fn ask(&self) -> Result<u64, String> {
        let mut asked = Err("a reload is already running; wait for it to finish".to_owned());
        self.0.send_if_modified(|status| {
            if status.outcome == ReloadOutcome::Running {
                return false;
            }
            let attempt = status.attempt + 1;
            *status = ReloadStatus { attempt, outcome: ReloadOutcome::Running, reason: None };
            asked = Ok(attempt);
            true
        });
        asked
    }

    pub(crate) fn status(&self) -> ReloadStatus {
        self.0.borrow().clone()
    }

    fn refused(&self, reason: String) {
        self.0.send_modify(|status| {
            status.outcome = ReloadOutcome::Refused;
            status.reason = Some(reason);
        });
    }
}

/// What a reload needs from the rest of the agent.
pub(crate) trait ReloadHost {
    /// A reason not to reload now.
    fn veto(&self) -> Option<String>;
    /// The state for the next program.
    fn as_predecessor(&self) -> Predecessor;
    fn admin(&self) -> Option<BorrowedFd<'_>>;
    /// Serves again after a failed reload.
    fn serve(&self, handed: HandoverSockets) -> io::Result<Server>;
}

pub(crate) struct Reloader<H> {
    pub(crate) program: Program,
    /// How long to wait for request bodies.
    pub(crate) wait: Duration,
    pub(crate) reloads: Reloads,
    /// A stop takes the server out, so that no reload follows.
    pub(crate) server: Arc<Mutex<Option<Server>>>,
    pub(crate) host: H,
}

impl<H: ReloadHost> Reloader<H> {
    pub(crate) async fn run(&self) {
        let mut asked = self.reloads.0.subscribe();
        loop {
            let waited = asked.wait_for(|status| status.outcome == ReloadOutcome::Running).await;
            let Ok(attempt) = waited.map(|status| status.attempt) else { return };
            let Err(reason) = self.reload(attempt).await;
            tracing::warn!(
                message_id = events::RELOAD_REFUSED,
                reason,
                "reload refused: {reason}; the running version keeps serving"
            );
            self.reloads.refused(reason);
        }
    }

    /// Returns only if the reload is refused, with the reason.
    async fn reload(&self, attempt: u64) -> Result<std::convert::Infallible, String> {
        self.vetoed()?;
        let before = self.program.stamps();
        let arguments = self.program.arguments.get(1..).unwrap_or_default();
        let candidate = check::ask(&self.program.path, arguments, &self.program.pinned).await?;
        tracing::info!("reloading: version {} can take over; finishing requests", candidate.version);
        let mut slot = self.server.lock().await;
        let server = slot.as_ref().ok_or("the agent is stopping")?;
        let rest = server.quiesce(Instant::now() + self.wait).await.map_err(|busy| busy.to_string())?;
        // From here on signals wait for the next program. The runtime handles an earlier one when this task
        // yields; `vetoed` then refuses the reload.
        block_signals();
        tokio::task::yield_now().await;
        let unchanged = || {
            let same = before == self.program.stamps();
            same.then_some(())
                .ok_or("the program or its settings changed during the reload; try again".to_owned())
        };
        if let Err(reason) = self.vetoed().and_then(|()| unchanged()) {
            server.thaw();
            unblock_signals();
            return Err(reason);
        }
        let Some(server) = slot.take() else { return Err("the agent is stopping".to_owned()) };
        let handed = server.hand_over().await;
        if handed.lost > 0 {
            tracing::warn!(
                "connections closed by the reload, since they were still busy at its deadline: {}",
                handed.lost
            );
        }
        let paused = u64::try_from(rest.since.elapsed().as_nanos()).unwrap_or(0);
        let predecessor = Predecessor {
            attempt,
            program: self.program.path.to_str().map(str::to_owned),
            paused_at: monotonic_now().saturating_sub(paused),
            refused_bodies: rest.refused_bodies,
            unlogged: telemetry::flush(),
            ..self.host.as_predecessor()
        };
        let error = match record::write(&handed, self.host.admin(), predecessor) {
            Ok(record) => {
                sys::execve(&self.program.path, self.program.arguments.clone(), record.environment())
            }
            Err(error) => error,
        };
        // `execve` failed: serve again, on new threads.
        let served = self.host.serve(handed);
        unblock_signals();
        match served {
            Ok(server) => *slot = Some(server),
            Err(error) => {
                tracing::error!(
                    "cannot serve any longer: {error}; exiting so that systemd starts the agent again"
                );
                telemetry::flush();
                #[expect(
                    clippy::disallowed_methods,
                    reason = "by returning, a drain would wait for a server that is not there"
                )]
                std::process::exit(1);
            }
        }
        Err(format!("cannot start {}: {error}", self.program.path.display()))
    }

    fn vetoed(&self) -> Result<(), String> {
        self.host.veto().map_or(Ok(()), Err)
    }
}
