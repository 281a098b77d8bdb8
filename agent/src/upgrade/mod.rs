//! Reload: the running program is replaced in place by the installed one, with the same process id,
//! port, connections and registrations.
//!
//! The installed program is first asked, as a child, whether it can take over ([`check`]). Then the
//! server comes to rest, what the next program needs is written down ([`record`]), and `execve`
//! starts it. Whatever goes wrong before that leaves everything as it was.

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
use crate::server::{HandoverSockets, Server};
use crate::status::{ReloadOutcome, ReloadStatus};
use crate::{events, telemetry};
use check::{FileStamps, PinnedSettings};

/// The program that runs, and where the next one is found.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    settings_file: PathBuf,
    pinned: PinnedSettings,
}

impl Program {
    /// The program of this process. To be asked for early: later, another one may have been put in
    /// its place. `known` is where the program before this one was told to look.
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

/// The latest reload, for everyone who asks for one or wants to know.
#[derive(Clone)]
pub(crate) struct Reloads(Arc<watch::Sender<ReloadStatus>>);

impl Reloads {
    /// `attempt` reloads have been asked for, and the last of them has led to this program.
    pub(crate) fn after(attempt: u64) -> Self {
        let outcome = if attempt == 0 { ReloadOutcome::None } else { ReloadOutcome::Done };
        Self(Arc::new(watch::Sender::new(ReloadStatus { attempt, outcome, reason: None })))
    }

    /// Asks for a reload, unless one is under way; returns its number.
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

    /// The latest one.
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

/// What a reload needs of the rest of the agent.
pub(crate) trait ReloadHost {
    /// Why the program must not be replaced now.
    fn veto(&self) -> Option<String>;
    /// What the next program has to know.
    fn as_predecessor(&self) -> Predecessor;
    /// The listening admin socket.
    fn admin(&self) -> Option<BorrowedFd<'_>>;
    /// Serves again with what an earlier server gave back.
    fn serve(&self, handed: HandoverSockets) -> io::Result<Server>;
}

/// Replaces the program when it is asked to.
pub(crate) struct Reloader<H> {
    pub(crate) program: Program,
    /// How long requests' bodies are waited for.
    pub(crate) wait: Duration,
    pub(crate) reloads: Reloads,
    /// The server. Whoever stops the agent takes it out, and so ends reloading.
    pub(crate) server: Arc<Mutex<Option<Server>>>,
    pub(crate) host: H,
}

impl<H: ReloadHost> Reloader<H> {
    /// Does what is asked for as long as the agent runs.
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

    /// Returns only when it is refused, with the reason.
    async fn reload(&self, attempt: u64) -> Result<std::convert::Infallible, String> {
        self.vetoed()?;
        let before = self.program.stamps();
        let arguments = self.program.arguments.get(1..).unwrap_or_default();
        let candidate = check::ask(&self.program.path, arguments, &self.program.pinned).await?;
        tracing::info!("reloading: version {} takes over", candidate.version);
        let mut slot = self.server.lock().await;
        let server = slot.as_ref().ok_or("the agent is stopping")?;
        let rest = server.quiesce(Instant::now() + self.wait).await.map_err(|busy| busy.to_string())?;
        // From here on a signal waits for the next program. One that came just before is dealt with
        // by the runtime when this task yields, and then is a reason not to go on.
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
            tracing::warn!("{} connections lost: they did not come to rest in time", handed.lost);
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
        // Still here: everything goes on as it was, on new threads.
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
