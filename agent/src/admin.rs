//! The admin socket: status, drain, resume, reload and metrics for root and the agent's own user.
//!
//! It speaks HTTP, so that curl can too: `curl --unix-socket /run/instance-agent/admin.sock
//! http://agent/status`.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::Mode;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::local_http::{self, RequestError};
use crate::registrar;
use crate::status::{AgentStatus, Registration};
use crate::upgrade::Reloads;

/// The socket's name in the runtime folder.
const SOCKET: &str = "admin.sock";
/// Held by the agent whose socket it is, for as long as it runs.
const LOCK: &str = "admin.lock";
/// Connections to the admin socket at a time; more wait.
const CONNECTIONS: usize = 64;
/// Time limit for a request's head: silent connections must not delay a `status` for long.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);
/// `status` asks AWS again only if the last answer is older.
const FRESH: Duration = Duration::from_secs(10);
/// How long `status` waits for AWS at most.
const REFRESH_LIMIT: Duration = Duration::from_secs(2);
/// Time limit of a request on the admin socket.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET)
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("another agent is running and holds {path}: stop it or choose another --runtime-dir", path = .0.display())]
    Live(PathBuf),
    /// The folder belongs to another user, who could put anything there.
    #[error("{path} belongs to another user: choose another --runtime-dir", path = .0.display())]
    Foreign(PathBuf),
    /// Other users can open the folder and it holds other files, so the agent must not close it.
    #[error("{path} is open to other users and holds other files: choose a --runtime-dir for this agent alone", path = .0.display())]
    Shared(PathBuf),
    #[error("{path}: {error}; choose another --runtime-dir or make it writable", path = .path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// The listening admin socket, and the lock that belongs to its owner. Dropping it removes the socket.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
    _lock: File,
}

impl AdminSocket {
    /// The listening socket, for the next program of a reload.
    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // A socket that stays does no harm: the next start replaces it.
        _ = fs::remove_file(&self.path);
    }
}

/// Creates the runtime folder (0700) and listens in it on a socket whose mode is 0600 from the start. The
/// holder of the folder's lock may replace a dead socket, but not a live one.
///
/// Call it before starting other threads: the umask belongs to the whole process.
pub(crate) fn bind(runtime_dir: &Path) -> Result<AdminSocket, BindError> {
    let path = socket_path(runtime_dir);
    let failed = |error| BindError::Io { path: path.clone(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(runtime_dir).map_err(failed)?;
    let folder = fs::metadata(runtime_dir).map_err(failed)?;
    if folder.uid() != rustix::process::geteuid().as_raw() {
        return Err(BindError::Foreign(runtime_dir.to_owned()));
    }
    if folder.mode() & 0o077 != 0 {
        // Closing a shared folder such as /tmp would break other programs.
        if !is_its_own(runtime_dir).map_err(failed)? {
            return Err(BindError::Shared(runtime_dir.to_owned()));
        }
        fs::set_permissions(runtime_dir, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    let lock = lock(runtime_dir)?;
    match std::os::unix::net::UnixStream::connect(&path) {
        Ok(_) => return Err(BindError::Live(path)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(&path).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = std::os::unix::net::UnixListener::bind(&path);
    rustix::process::umask(before);
    let listener = listener.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(AdminSocket { listener, path, _lock: lock })
}

/// Continues with the listening socket of the previous program in this process.
pub(crate) fn adopt(runtime_dir: &Path, listener: OwnedFd) -> Result<AdminSocket, BindError> {
    Ok(AdminSocket { listener: listener.into(), path: socket_path(runtime_dir), _lock: lock(runtime_dir)? })
}

/// Takes the lock of the socket's owner.
fn lock(runtime_dir: &Path) -> Result<File, BindError> {
    let path = socket_path(runtime_dir);
    let failed = |error| BindError::Io { path: path.clone(), error };
    let mut open = OpenOptions::new();
    // Through a link, someone else could choose the file that the agent locks or creates.
    open.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let lock = open.open(runtime_dir.join(LOCK)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BindError::Live(path)),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether the folder holds only the agent's files.
fn is_its_own(runtime_dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(runtime_dir)? {
        let name = entry?.file_name();
        if name != SOCKET && name != LOCK {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(crate) struct Admin {
    pub(crate) status: Box<dyn Fn() -> AgentStatus + Send + Sync>,
    pub(crate) registration: watch::Receiver<Registration>,
    /// Makes the members ask AWS for the target health.
    pub(crate) questions: watch::Sender<()>,
    pub(crate) requests: mpsc::Sender<registrar::OperatorRequest>,
    pub(crate) reloads: Reloads,
}

pub(crate) async fn serve(socket: &AdminSocket, admin: Admin) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    let admin = Arc::new(admin);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut failures = crate::backoff::Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                failures.reset();
                let admin = admin.clone();
                tokio::spawn(async move {
                    // A client that disconnects early needs no answer.
                    _ = tokio::time::timeout(DEADLINE, connection(stream, admin)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("cannot accept a connection on the admin socket: {error}");
                tokio::time::sleep(failures.next_delay()).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, admin: Arc<Admin>) -> hyper::Result<()> {
    let allowed = is_allowed(&stream);
    let service = service_fn(move |request| {
        let admin = admin.clone();
        async move {
            let answer = if allowed {
                answer(&request, &admin).await
            } else {
                text(
                    StatusCode::FORBIDDEN,
                    "only root and the agent's user may use the admin socket: use sudo\n".to_owned(),
                )
            };
            Ok::<_, Infallible>(answer)
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Asks the kernel for the user of the other process.
fn is_allowed(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

async fn answer(request: &Request<Incoming>, admin: &Admin) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let allow = match path {
        "/status" | "/metrics" => Method::GET,
        "/drain" | "/resume" | "/reload" => Method::POST,
        _ => {
            let known = "/status, /metrics, /drain, /resume and /reload";
            return text(StatusCode::NOT_FOUND, format!("no such path: {path}; use one of {known}\n"));
        }
    };
    if request.method() != allow {
        let mut answer =
            text(StatusCode::METHOD_NOT_ALLOWED, format!("wrong method: {path} accepts {allow}\n"));
        if let Ok(value) = allow.as_str().parse() {
            answer.headers_mut().insert(http::header::ALLOW, value);
        }
        return answer;
    }
    if path == "/status" && request.uri().query() == Some("refresh") {
        refresh(admin).await;
    }
    match path {
        "/status" => match serde_json::to_string(&(admin.status)()) {
            Ok(json) => typed(StatusCode::OK, "application/json", json),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/metrics" => typed(StatusCode::OK, "text/plain; version=0.0.4", (admin.status)().metrics()),
        // Answered at once: after the reload another program runs.
        "/reload" => match admin.reloads.ask() {
            Ok(attempt) => text(StatusCode::ACCEPTED, format!("{attempt}\n")),
            Err(refused) => text(StatusCode::CONFLICT, format!("{refused}\n")),
        },
        "/drain" => ask(admin, registrar::OperatorRequest::Drain).await,
        _ => ask(admin, registrar::OperatorRequest::Resume).await,
    }
}

/// If the last answer of AWS is old, makes the members ask again and waits a moment for the answers.
async fn refresh(admin: &Admin) {
    let mut registration = admin.registration.clone();
    let is_fresh = |known: &Registration| !known.is_older_than(FRESH, Instant::now());
    if !is_fresh(&registration.borrow()) {
        admin.questions.send_replace(());
        // Otherwise the status shows the old answer with its age.
        _ = tokio::time::timeout(REFRESH_LIMIT, registration.wait_for(is_fresh)).await;
    }
}

async fn ask(
    admin: &Admin,
    request: impl FnOnce(oneshot::Sender<Result<String, String>>) -> registrar::OperatorRequest,
) -> Response<Full<Bytes>> {
    let (reply, answer) = oneshot::channel();
    if admin.requests.try_send(request(reply)).is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "busy with an earlier request; try again\n".to_owned());
    }
    match answer.await {
        Ok(Ok(done)) => text(StatusCode::OK, format!("{done}\n")),
        Ok(Err(refused)) => text(StatusCode::CONFLICT, format!("{refused}\n")),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    answer
}

/// Why a command got no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("no agent is listening on {path}: start it (`systemctl start instance-agent`), or give --runtime-dir if it uses another folder", path = .0.display())]
    NotRunning(PathBuf),
    #[error("permission denied on {path}: only root and the agent's user may use it: use sudo", path = .0.display())]
    NotAllowed(PathBuf),
    /// The agent refused, with this reason.
    #[error("{0}")]
    Refused(String),
    #[error("the agent did not answer within {} s{}; its process hangs or is stopped: `systemctl restart instance-agent` starts it again", DEADLINE.as_secs(), .later)]
    NoAnswer {
        /// What the agent may still do, in words.
        later: String,
    },
    #[error("{path}: {detail}", path = .path.display())]
    Failed { path: PathBuf, detail: String },
}

/// Sends a request to a running agent and returns the body of the answer.
pub(crate) async fn request(runtime_dir: &Path, method: Method, what: &str) -> Result<String, AskError> {
    let path = socket_path(runtime_dir);
    let connect = UnixStream::connect(&path);
    let answer = local_http::request(connect, method.clone(), "agent", &format!("/{what}"), DEADLINE).await;
    let answer = answer.map_err(|error| match &error {
        RequestError::Connect(refused) if refused.kind() == io::ErrorKind::PermissionDenied => {
            AskError::NotAllowed(path.clone())
        }
        RequestError::Connect(refused)
            if matches!(refused.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
        {
            AskError::NotRunning(path.clone())
        }
        // The request waits in the socket: an agent that was only stopped carries it out when it continues.
        RequestError::Late(_) if method == Method::POST => {
            AskError::NoAnswer { later: format!(" and may still carry out the {what}") }
        }
        RequestError::Late(_) => AskError::NoAnswer { later: String::new() },
        _ => AskError::Failed { path: path.clone(), detail: error.to_string() },
    })?;
    if answer.status.is_success() {
        Ok(answer.body)
    } else {
        Err(AskError::Refused(answer.body.trim_end().to_owned()))
    }
}
