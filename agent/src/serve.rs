//! `serve`: starts the parts of the agent in the order of an instance's life, and connects them.
//!
//! The listening socket opens first and the server stops last; nothing in between can keep it from
//! answering.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, watch};

use crate::admin::{self, Admin, AdminSocket, BindError};
use crate::cli::SettingArgs;
use crate::config::{ConfigError, Layers, Role, Settings};
use crate::guard::{self, keep};
use crate::identity::Identifier;
use crate::imds::Imds;
use crate::registrar::{Inputs, Outputs, Registrar, ResumedState};
use crate::signals::Signals;
use crate::status::{AgentStatus, Registration};
use crate::unit::Unit;
use crate::upgrade::{InheritedState, Predecessor, Program, Reloader, Reloads};
use crate::upgrading::{RunningAgent, ServerParts};
use crate::{aws, notices, notify, telemetry, upgrade};
use instance_server::answers::{Answers, InstanceAnswer};
use instance_server::seed::{SeedInUse, SeedStore};
use instance_server::server::{HandoverSockets, Server};
use instance_server::traffic::Traffic;
use instance_server::{events, server};

/// Time limit for requests that begin after the end of the drain. There are few, and the stop continues
/// as soon as they are answered.
const LAST_REQUESTS: Duration = Duration::from_secs(30);

/// The longest deregistration delay of a target group.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
/// A drain ends at its own deadline. This long after it, the drain is stuck.
const DRAIN_MARGIN: Duration = Duration::from_secs(300);

/// How long a second agent may hold the locks before it notices this one and exits.
const LOCKS_FREE: Duration = Duration::from_secs(1);

/// Why the agent could not start serving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {address}: {}", reason_and_cure(.error))]
    Listen { address: SocketAddr, error: io::Error },
    #[error("cannot use the socket from systemd: {0}: correct the .socket unit")]
    Activation(io::Error),
    #[error("cannot restore the state of the previous process: {0}; restart the service")]
    Inherited(io::Error),
    #[error("cannot take over: {0}")]
    CannotTakeOver(String),
    /// Another agent runs with the same folders.
    #[error(transparent)]
    Admin(#[from] BindError),
    /// Another process owns the seed.
    #[error(transparent)]
    Seed(#[from] SeedInUse),
    /// The kernel refuses something that every program needs.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

fn reason_and_cure(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "address in use: stop the other program or choose another --listen".into()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied: run as root or with CAP_NET_BIND_SERVICE, or choose a --listen port from 1024"
                .into()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address: choose another --listen".into()
        }
        _ => format!("{error}: choose another --listen"),
    }
}

/// Checks the settings and, with `handover`, whether this program can take over from the running one.
pub(crate) fn check(args: SettingArgs) -> Result<String, ServeError> {
    let (handover, show) = (args.handover, args.show);
    let layers = Layers::read(args.flags, std::env::vars_os(), args.config.as_deref());
    if show {
        return Ok(layers.effective()?.trim_end().to_owned());
    }
    let settings = layers.settings()?;
    let file = layers.file().display();
    let overridden: String =
        layers.overridden().iter().map(|sentence| format!("\nnote: {sentence}")).collect();
    match handover {
        None if layers.has_file() => Ok(format!("the settings are valid, read from {file}{overridden}")),
        None => Ok(format!("the settings are valid; there is no settings file {file}{overridden}")),
        Some(version) => upgrade::check::answer(version, &settings).map_err(ServeError::CannotTakeOver),
    }
}

/// Serves until a signal asks to stop and the instance is drained.
pub(crate) fn run(args: SettingArgs) -> Result<(), ServeError> {
    // Signals wait until there are handlers, and during a reload.
    upgrade::block_signals();
    upgrade::survive_file_size_limit();
    let inherited = upgrade::inherit().map_err(ServeError::Inherited)?;
    let layers = Layers::read(args.flags, std::env::vars_os(), args.config.as_deref());
    let mut settings = layers.settings()?;
    let known_path = inherited.as_ref().and_then(|inherited| inherited.predecessor.program.as_deref());
    let pinned = upgrade::check::pinned(&settings);
    let program = Program::running(known_path, layers.file().to_owned(), pinned)?;
    let unlogged = inherited.as_ref().map_or(0, |inherited| inherited.predecessor.unlogged);
    let _logging = telemetry::start(settings.log_level, unlogged);
    guard::say_panics_in_one_line();
    let overridden = layers.overridden();
    for sentence in &overridden {
        tracing::info!("{sentence}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Only the main thread handles signals.
        .on_thread_start(upgrade::block_signals)
        .build()?;
    let signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let limits = &mut settings.limits;
    limits.max_connections = server::limit_connections(limits.max_connections, settings.threads);
    let (handed, inherited_admin, predecessor) = match inherited {
        Some(InheritedState { handed, admin, predecessor }) => (handed, admin, Some(predecessor)),
        None => (
            HandoverSockets { listener: listen(settings.listen)?, connections: Vec::new(), lost: 0 },
            None,
            None,
        ),
    };
    let listening = handed.listener.local_addr()?;
    let admin_socket = match inherited_admin {
        Some(socket) => {
            // The locks were free during `execve`. A second agent that started just then may hold them
            // until it notices this one.
            let adopt = || {
                socket
                    .try_clone()
                    .map_err(ServeError::System)
                    .map(|socket| admin::adopt(&settings.runtime_dir, socket))
            };
            retry_while(adopt, |adopted| matches!(adopted, Ok(Err(BindError::Live(_)))))?
        }
        None => admin::bind(&settings.runtime_dir),
    };
    let admin_socket = match admin_socket {
        Ok(socket) => Some(Arc::new(socket)),
        Err(error @ BindError::Live(_)) => return Err(error.into()),
        // The web server does not need the admin socket.
        Err(error) => {
            tracing::warn!("no admin socket: {error}; serving without status, drain, resume and reload");
            None
        }
    };
    let seed = match predecessor {
        Some(_) => retry_while(|| SeedStore::open(&settings.state_dir), Result::is_err)?,
        None => SeedStore::open(&settings.state_dir)?,
    };
    let (answers, answers_seen) = watch::channel(Arc::new(first_answers(&settings, predecessor.as_ref())));
    let counted = predecessor.as_ref().map(|predecessor| predecessor.traffic).unwrap_or_default();
    let traffic = Arc::new(Traffic::new(settings.threads, counted));
    let parts = ServerParts {
        threads: settings.threads,
        limits: settings.limits,
        answers: answers_seen,
        traffic: traffic.clone(),
        seed: seed.clone(),
    };
    let connections = handed.connections.len();
    let server = Arc::new(Mutex::new(Some(parts.serve(handed)?)));
    notify::feed_watchdog(traffic.clone())?;
    upgrade::unblock_signals();
    say_serving(listening, connections, predecessor.as_ref());
    notify::ready();
    runtime.block_on(async {
        let control = Control {
            settings,
            overridden,
            program,
            listening,
            admin_socket,
            seed,
            answers,
            traffic,
            parts,
            predecessor,
        };
        control.run(signals, server.clone()).await;
        tracing::info!("stopping: finishing the requests in flight, then closing the port");
        notify::extend_stop(2 * LAST_REQUESTS);
        // Waits for a running reload, which sees the stop and gives up.
        if let Some(server) = server.lock().await.take() {
            let cut_off = server.shutdown(Instant::now() + LAST_REQUESTS).await;
            if cut_off > 0 {
                let seconds = LAST_REQUESTS.as_secs();
                tracing::warn!("{cut_off} requests cut off: not finished {seconds} s after the drain");
            }
        }
    });
    tracing::info!(message_id = events::STOPPED, "stopped: the port is closed");
    Ok(())
}

/// Repeats `attempt` for a moment while `again` says that the outcome will soon change.
fn retry_while<T>(mut attempt: impl FnMut() -> T, again: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + LOCKS_FREE;
    loop {
        let outcome = attempt();
        if !again(&outcome) || Instant::now() >= deadline {
            return outcome;
        }
        // Clients wait meanwhile, so the pause is short.
        #[expect(clippy::disallowed_methods, reason = "nothing is served yet, and a deadline ends the loop")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The listening socket: systemd's with socket activation, else our own.
fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let mut passed = sd_notify::listen_fds().map_err(ServeError::Activation)?;
    let Some(first) = passed.next() else {
        return server::bind(address).map_err(|error| ServeError::Listen { address, error });
    };
    if passed.next().is_some() {
        return Err(ServeError::Activation(io::Error::other("more than one socket; keep one ListenStream=")));
    }
    // SAFETY: systemd opened it for this process, and it is taken here alone.
    #[expect(unsafe_code, reason = "descriptors known by number only have no safe form")]
    let socket = unsafe { upgrade::take_descriptor(first) }.map_err(ServeError::Activation)?;
    server::adopt_listener(socket).map_err(ServeError::Activation)
}

/// The answers until the registrar publishes: by the settings, else those of the previous program after a reload.
fn first_answers(settings: &Settings, predecessor: Option<&Predecessor>) -> Answers {
    let instance = predecessor.and_then(|predecessor| predecessor.instance.as_ref());
    // Without an instance it had no tags, and its role was that of its settings.
    let role = predecessor.filter(|_| instance.is_some()).map(Predecessor::role).unwrap_or_default();
    Answers {
        root: settings.root.unwrap_or(role.root),
        instance: instance.map(|instance| InstanceAnswer {
            id: instance.identity.id.clone().unwrap_or_else(|| "unknown".to_owned()),
            cluster: settings.cluster.clone().or(role.cluster),
        }),
        draining: predecessor.filter(|predecessor| predecessor.drained).map(|_| "drained".to_owned()),
    }
}

fn say_serving(listening: SocketAddr, connections: usize, predecessor: Option<&Predecessor>) {
    let version = env!("CARGO_PKG_VERSION");
    match predecessor {
        None => tracing::info!(
            message_id = events::STARTED,
            version,
            listen = %listening,
            "listening on {listening}, version {version}"
        ),
        Some(Predecessor { from, refused_bodies, paused_at, .. }) => tracing::info!(
            message_id = events::RELOADED,
            version,
            from_version = from,
            "reloaded: version {version} replaced {from}; {connections} connections kept, {refused_bodies} slow \
             request bodies refused (408), requests paused for {} ms",
            upgrade::monotonic_now().saturating_sub(*paused_at) / 1_000_000
        ),
    }
}

/// Everything except the web server: identity, notices, registration, administration.
struct Control {
    settings: Settings,
    /// Values of settings without effect, in sentences.
    overridden: Vec<String>,
    program: Program,
    listening: SocketAddr,
    admin_socket: Option<Arc<AdminSocket>>,
    seed: SeedStore,
    answers: watch::Sender<Arc<Answers>>,
    traffic: Arc<Traffic>,
    parts: ServerParts,
    predecessor: Option<Predecessor>,
}

impl Control {
    /// Returns when a signal has come and the instance is drained, or at a second signal.
    async fn run(self, mut signals: Signals, server: Arc<Mutex<Option<Server>>>) {
        let trusts = instance_aws::has_certificates();
        if !trusts {
            tracing::warn!("{}", aws::NO_CERTIFICATES);
        }
        let http_client = instance_aws::http_client(trusts);
        let imds = Imds::new(&http_client).map(Arc::new);
        let known = self.predecessor.clone().unwrap_or_default();
        let (publish_instance, instance) = watch::channel(known.instance.clone());
        let instance_id = self.settings.instance_id.clone();
        let identifier = Identifier::new(imds.clone(), http_client.clone(), instance_id, known.instance);
        tokio::spawn(identifier.run(publish_instance));
        let (publish_notices, notices) = watch::channel(known.notices.clone());
        tokio::spawn(notices::watch(imds, known.notices, publish_notices));
        let (publish_registration, registration) = watch::channel(Registration::default());
        let (followed, listening) = (registration.clone(), self.listening.to_string());
        tokio::spawn(keep("the systemd notifier", move || {
            notify::follow(followed.clone(), listening.clone())
        }));
        let (publish_role, role) = watch::channel((Role::default(), Vec::new()));
        let (ask_to_stop, stop) = watch::channel(None);
        let (ask_again, questions) = watch::channel(());
        let reloads = Reloads::after(known.attempt);
        let unit = Unit::of_this_process(known.unit);
        let (requests, requested) = mpsc::channel(4);
        if let Some(socket) = self.admin_socket.clone() {
            let (traffic, seed, listening) = (self.traffic.clone(), self.seed, self.listening);
            let (registration, reloads, unit) = (registration.clone(), reloads.clone(), unit.clone());
            let registration_seen = registration.clone();
            let (asked, overridden) = (reloads.clone(), self.overridden);
            let status = Box::new(move || AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                listen: listening.to_string(),
                reload: reloads.status(),
                restart_needed: unit.restart_needed(),
                registration: registration.borrow().clone().aged(Instant::now()),
                traffic: traffic.snapshot(),
                seed_problem: seed.read().err().map(|problem| problem.to_string()),
                certificates_problem: (!trusts).then(|| aws::NO_CERTIFICATES.to_owned()),
                overridden: overridden.clone(),
            });
            let (known, questions) = (registration_seen, ask_again.clone());
            let admin =
                Admin { status, registration: known, questions, requests: requests.clone(), reloads: asked };
            tokio::spawn(async move {
                if let Err(error) = admin::serve(&socket, admin).await {
                    tracing::warn!(
                        "the admin socket failed: {error}; no status, drain, resume or reload until a restart"
                    );
                }
            });
        }
        let host = RunningAgent {
            registration,
            role,
            instance: instance.clone(),
            notices: notices.clone(),
            stop: stop.clone(),
            unit,
            admin_socket: self.admin_socket,
            parts: self.parts,
        };
        let reloader =
            Reloader { program: self.program, wait: self.settings.reload_wait, reloads, server, host };
        tokio::spawn(async move { keep("the reloader", || reloader.run()).await });
        let inputs = Inputs {
            instance,
            notices,
            requests: requested,
            stop,
            traffic: self.traffic,
            questions,
            http_client,
        };
        let outputs =
            Outputs { answers: self.answers, registration: publish_registration, role: publish_role };
        let resumed = self.predecessor.map(|predecessor| ResumedState {
            role: predecessor.role(),
            parting: predecessor.parting(),
            drained: predecessor.drained,
            since: predecessor.since.clone(),
            groups: predecessor.group_states,
        });
        let drain = self.settings.drain_timeout;
        let drain = drain.unwrap_or_else(|| LONGEST_DELAY.max(self.settings.drain_quiet));
        let registrar = Registrar::new(self.settings, self.listening, inputs, outputs, resumed);
        let hurry = async {
            ask_to_stop.send_replace(Some(signals.next().await));
            match tokio::time::timeout(drain + DRAIN_MARGIN, signals.next()).await {
                Ok(signal) => {
                    tracing::warn!("received {signal} while draining: stopping without waiting for the drain")
                }
                Err(_) => tracing::error!(
                    "the drain did not end at its deadline: stopping; this is a bug, please report it"
                ),
            }
        };
        tokio::select! {
            () = registrar.run() => {}
            () = hurry => {}
        }
        // Kept until here: the registrar must never see these channels closed.
        drop((requests, ask_again));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Instance;

    #[test]
    fn after_a_reload_the_settings_of_now_come_before_the_answers_of_before() {
        let settings = |flags: &[(&'static str, &str)]| {
            let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned()));
            let read = Layers::read(flags, [], Some(std::path::Path::new("/dev/null"))).settings();
            read.unwrap_or_else(|error| panic!("{error}"))
        };
        let mut before = Predecessor { instance: Some(Instance::default()), ..Predecessor::default() };
        let role = Role { cluster: "cluster2".parse().ok(), ..Role::default() };
        before.set_role(&role, &[]);
        let kept = first_answers(&settings(&[]), Some(&before));
        assert_eq!((kept.root, kept.instance.and_then(|it| it.cluster)), (role.root, role.cluster));
        let set = first_answers(&settings(&[("root", "seed"), ("cluster", "cluster1")]), Some(&before));
        assert_eq!(set.root.to_string(), "seed");
        assert_eq!(set.instance.and_then(|it| it.cluster), "cluster1".parse().ok());
    }
}
