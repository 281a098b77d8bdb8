//! `serve`: puts the rooms together, in the order in which an instance comes to life.
//!
//! The listening socket comes first and the server goes last; nothing in between can keep it from
//! answering.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin::{self, Admin, AdminSocket, BindError};
use crate::cli::SettingArgs;
use crate::config::{ConfigError, Layers, Settings};
use crate::identity::{Identifier, Imds};
use crate::registrar::{Inputs, Outputs, Registrar};
use crate::seed::{OpenError, SeedStore};
use crate::serving::{Answers, Traffic};
use crate::status::{AgentStatus, Registration};
use crate::{aws, notices, notify, server, telemetry};

/// How long requests that began after the drain had ended may take to finish. They seldom exist,
/// and the stop goes on as soon as they are answered.
const LAST_REQUESTS: Duration = Duration::from_secs(30);

/// Why the agent could not start serving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; {cure}", cure = listen_cure(.error))]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// Another agent runs with the same folders.
    #[error(transparent)]
    Admin(#[from] BindError),
    /// Another process owns the seed.
    #[error(transparent)]
    Seed(#[from] OpenError),
    /// The kernel refuses what every program needs.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

fn listen_cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there; stop it, or choose another --listen",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE; or choose another --listen"
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address; choose another --listen",
        _ => "choose another --listen",
    }
}

/// Serves until a signal asks to stop and the instance is drained.
pub(crate) fn run(args: SettingArgs) -> Result<(), ServeError> {
    let settings = Layers::read(args.flags, std::env::vars_os(), args.config.as_deref())?.settings()?;
    telemetry::start(settings.log_level);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _inside = runtime.enter();
        // Before anything is answered: until there are handlers, a signal ends the process at once.
        Signals::new()?
    };
    let mut settings = settings;
    limit_connections(&mut settings);
    let listener = server::bind(settings.listen)
        .map_err(|error| ServeError::Listen { address: settings.listen, error })?;
    let listening = listener.local_addr()?;
    let admin_socket = match admin::bind(&settings.runtime_dir) {
        Ok(socket) => Some(socket),
        Err(error @ BindError::Live(_)) => return Err(error.into()),
        // Being a web server does not depend on being administered.
        Err(error) => {
            tracing::warn!(%error, "no admin socket: status, drain and resume will not work");
            None
        }
    };
    let seed = SeedStore::open(&settings.state_dir)?;
    let (answers, answers_seen) = watch::channel(Arc::new(Answers {
        root: settings.root.unwrap_or_default(),
        instance: None,
        draining: None,
    }));
    let traffic = Arc::new(Traffic::new(settings.threads));
    let server = server::start(
        listener,
        settings.threads,
        settings.limits,
        answers_seen,
        traffic.clone(),
        seed.clone(),
    )?;
    tracing::info!(listen = %listening, version = env!("CARGO_PKG_VERSION"), "serving");
    notify::ready();
    runtime.block_on(async {
        tokio::spawn(notify::feed_watchdog(server.beats()));
        let control = Control { settings, listening, admin_socket, seed, answers, traffic };
        control.run(signals).await;
        tracing::info!("stopping: finishing what has begun, then closing the port");
        notify::extend_stop(2 * LAST_REQUESTS);
        let cut_off = server.shutdown(Instant::now() + LAST_REQUESTS).await;
        if cut_off > 0 {
            tracing::warn!(requests = cut_off, "requests cut off: they did not end in time");
        }
        Ok::<_, ServeError>(())
    })?;
    tracing::info!("stopped");
    Ok(())
}

/// Everything but the web server: identity, notices, registration, administration.
struct Control {
    settings: Settings,
    listening: SocketAddr,
    admin_socket: Option<AdminSocket>,
    seed: SeedStore,
    answers: watch::Sender<Arc<Answers>>,
    traffic: Arc<Traffic>,
}

impl Control {
    /// Ends when the instance is drained for good, or when a second signal asks to hurry.
    async fn run(self, mut signals: Signals) {
        let http_client = aws::http_client();
        let imds = Imds::new(&http_client).map(Arc::new);
        let (publish_instance, instance) = watch::channel(None);
        let identifier =
            Identifier::new(imds.clone(), http_client.clone(), self.settings.instance_id.clone());
        tokio::spawn(identifier.run(publish_instance));
        let (publish_notices, notices) = watch::channel(None);
        tokio::spawn(notices::watch(imds, publish_notices));
        let (publish_registration, registration) = watch::channel(Registration::default());
        tokio::spawn(notify::follow(registration.clone(), self.listening.to_string()));
        let (requests, requested) = mpsc::channel(4);
        if let Some(socket) = self.admin_socket {
            let (traffic, seed, listening) = (self.traffic.clone(), self.seed, self.listening);
            let status = Box::new(move || AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                listen: listening.to_string(),
                registration: registration.borrow().clone(),
                traffic: traffic.snapshot(),
                seed_problem: seed.read().err().map(|problem| problem.to_string()),
            });
            let admin = Admin { status, requests: requests.clone() };
            tokio::spawn(async move {
                if let Err(error) = admin::serve(&socket, admin).await {
                    tracing::warn!(%error, "the admin socket does not work");
                }
            });
        }
        let (ask_to_stop, stop) = watch::channel(None);
        let inputs =
            Inputs { instance, notices, requests: requested, stop, traffic: self.traffic, http_client };
        let outputs = Outputs { answers: self.answers, registration: publish_registration };
        let registrar = Registrar::new(self.settings, self.listening, inputs, outputs);
        let hurry = async {
            ask_to_stop.send_replace(Some(signals.next().await));
            let signal = signals.next().await;
            tracing::warn!(signal, "second signal: not waiting for the drain to end");
        };
        tokio::select! {
            () = registrar.run() => {}
            () = hurry => {}
        }
        // Kept until here, so that the registrar never sees its requests end.
        drop(requests);
    }
}

/// SIGTERM and SIGINT, which stop the agent, and SIGHUP, which must not.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal that asks to stop. A terminal that closes, or a habit of sending SIGHUP to
    /// daemons, must not end a server without a drain.
    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => tracing::warn!("SIGHUP is ignored; SIGTERM drains and stops"),
            }
        }
    }
}

/// Descriptors that clients cannot take, half of all at most: for AWS, the seed, the admin socket
/// and logging.
const RESERVED_FILES: u64 = 64;

/// Raises the limit of open files, whose soft value is often 1024, as far as it goes. Where that is
/// not enough for every connection that the settings allow, fewer are served at a time.
fn limit_connections(settings: &mut Settings) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return };
    let room = usize::try_from(files - RESERVED_FILES.min(files / 2)).unwrap_or(usize::MAX).max(1);
    let wanted = &mut settings.limits.max_connections;
    if *wanted > room {
        tracing::warn!(
            max_connections = *wanted,
            serving = room,
            open_files = files,
            "the limit of open files allows fewer connections than max-connections; raise LimitNOFILE"
        );
        *wanted = room;
    }
}
