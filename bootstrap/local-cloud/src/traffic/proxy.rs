//! The load balancer's data path: one listener, rules, and connections to the targets.
//!
//! What goes wrong is answered as an Application Load Balancer answers it: 503 without a target,
//! 502 when the target refuses, resets or answers nonsense, 504 when it does not answer in time.
//! A request that was sent is never sent again, whatever its method.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SERVER};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::http::{Body, BoxError, Outage, full, serve};
use crate::model::balancers::{Balancer, RequestCounts};
use crate::model::state::Shared;
use crate::tasks::Tasks;

/// Why the balancer answers in the target's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    NoTarget,
    BadGateway,
    Timeout,
}

impl Failure {
    fn response(self) -> Response<Body> {
        let status = match self {
            Self::NoTarget => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        };
        let mut response = Response::new(full(format!("<html><h1>{status}</h1></html>\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static("awselb/2.0"));
        headers.insert("content-type", HeaderValue::from_static("text/html"));
        response
    }
}

/// Takes a balancer's requests to the targets.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    arn: String,
    port: u16,
    connect_timeout: Duration,
    pool: Arc<Pool>,
    counts: Arc<RequestCounts>,
    /// The connections to the targets.
    tasks: Tasks,
}

impl Proxy {
    /// The proxy of this balancer.
    pub(crate) fn new(shared: Arc<Shared>, balancer: &Balancer) -> Self {
        Self {
            shared,
            arn: balancer.arn.clone(),
            port: balancer.address.port(),
            connect_timeout: balancer.spec.connect_timeout,
            pool: Arc::new(Pool::new(balancer.spec.idle_timeout)),
            counts: Arc::clone(&balancer.counts),
            tasks: Tasks::default(),
        }
    }

    /// Serves the balancer's listener until the returned future is dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let proxy = Arc::new(self);
        let handler = move |request, peer| {
            let proxy = Arc::clone(&proxy);
            async move { Ok(proxy.answer(request, peer).await) }
        };
        let (_up, outage) = watch::channel(Outage::Up);
        serve(listener, outage, handler).await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        self.counts.requests.fetch_add(1, Relaxed);
        self.forward(request, peer).await.unwrap_or_else(|failure| {
            self.counts.errors.fetch_add(1, Relaxed);
            failure.response()
        })
    }

    async fn forward(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Response<Body>, Failure> {
        let target = {
            let mut state = self.shared.lock();
            state.route(&self.arn, request.uri().path(), Instant::now())
        };
        let target = target.ok_or(Failure::NoTarget)?;
        let mut request = self.rewrite(request, peer);
        let idle = self.pool.idle_timeout;

        let (mut sender, response) = loop {
            let pooled = self.pool.take(target);
            let was_pooled = pooled.is_some();
            let mut sender = match pooled {
                Some(sender) => sender,
                None => self.connect(target).await?,
            };
            match tokio::time::timeout(idle, sender.try_send_request(request)).await {
                Err(_) => return Err(Failure::Timeout),
                Ok(Ok(response)) => break (sender, response),
                // Not a byte of it was written: the target had closed the idle connection before.
                // A balancer that had noticed would not have chosen it. One that was written on
                // is lost, as on AWS.
                Ok(Err(mut error)) => match error.take_message() {
                    Some(unsent) if was_pooled => request = unsent,
                    _ => return Err(Failure::BadGateway),
                },
            }
        };

        let (mut head, body) = response.into_parts();
        strip_hop_by_hop(&mut head.headers);
        head.version = Version::HTTP_11;
        let pool = Arc::clone(&self.pool);
        // Ready again once the body was read to its end; an error if it never was.
        self.tasks.spawn(async move {
            if sender.ready().await.is_ok() {
                pool.give_back(target, sender);
            }
        });
        Ok(Response::from_parts(head, TimedBody::new(body, idle).boxed()))
    }

    /// The request as the target gets it.
    fn rewrite(&self, request: Request<Incoming>, peer: SocketAddr) -> Request<Body> {
        let (mut head, body) = request.into_parts();
        strip_hop_by_hop(&mut head.headers);
        if !head.headers.contains_key(HOST)
            && let Some(authority) = head.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            head.headers.insert(HOST, host);
        }
        let path = head.uri.path_and_query().cloned();
        head.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        head.version = Version::HTTP_11;

        let earlier = head.headers.get_all("x-forwarded-for").iter();
        let mut chain: Vec<String> =
            earlier.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
        chain.push(peer.ip().to_string());
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                head.headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-forwarded-for", &chain.join(", "));
        set("x-forwarded-proto", "http");
        set("x-forwarded-port", &self.port.to_string());
        Request::from_parts(head, TimedBody::new(body, self.pool.idle_timeout).boxed())
    }

    async fn connect(&self, target: SocketAddr) -> Result<SendRequest<Body>, Failure> {
        let connecting = TcpStream::connect(target);
        let stream = match tokio::time::timeout(self.connect_timeout, connecting).await {
            Err(_) => return Err(Failure::Timeout),
            Ok(Err(_)) => return Err(Failure::BadGateway),
            Ok(Ok(stream)) => stream,
        };
        let _ = stream.set_nodelay(true);
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(32 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Failure::BadGateway)?;
        self.tasks.spawn(async move {
            // How it ends shows in the exchange it carries.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// Removes what is between two neighbours only, what `Connection` names included.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let fixed = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    for name in named.iter().map(String::as_str).chain(fixed) {
        headers.remove(name);
    }
}

/// Connections kept for one target; more than that are closed after use.
const MAX_IDLE: usize = 256;

/// One target's idle connections, the last used at the end.
#[derive(Default)]
struct Idle {
    kept: Vec<(SendRequest<Body>, Instant)>,
    /// Whether a task will close what becomes too old.
    watched: bool,
}

/// Idle connections to the targets.
struct Pool {
    idle: Mutex<BTreeMap<SocketAddr, Idle>>,
    idle_timeout: Duration,
}

impl Pool {
    fn new(idle_timeout: Duration) -> Self {
        Self { idle: Mutex::default(), idle_timeout }
    }

    /// The connection that was used last and is still good.
    fn take(&self, target: SocketAddr) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut idle.get_mut(&target)?.kept;
        let now = Instant::now();
        while let Some((sender, since)) = kept.pop() {
            if sender.is_ready() && now - since < self.idle_timeout {
                return Some(sender);
            }
        }
        None
    }

    fn give_back(self: &Arc<Self>, target: SocketAddr, sender: SendRequest<Body>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = idle.entry(target).or_default();
        if entry.kept.len() == MAX_IDLE {
            return;
        }
        entry.kept.push((sender, Instant::now()));
        if !entry.watched {
            entry.watched = true;
            tokio::spawn(Self::close_idle(Arc::downgrade(self), target));
        }
    }

    /// Closes a target's connections when their time is over, so that an idle balancer does not
    /// hold them for ever. Ends when none is left.
    async fn close_idle(pool: Weak<Self>, target: SocketAddr) {
        loop {
            let Some(next) = pool.upgrade().and_then(|pool| pool.expire(target)) else {
                return;
            };
            tokio::time::sleep_until(next).await;
        }
    }

    /// Drops what is over; when to look again, if anything is left.
    fn expire(&self, target: SocketAddr) -> Option<Instant> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = idle.get_mut(&target)?;
        let now = Instant::now();
        let limit = self.idle_timeout;
        entry.kept.retain(|(sender, since)| !sender.is_closed() && now - *since < limit);
        let next = entry.kept.iter().map(|(_, since)| *since + limit).min();
        entry.watched = next.is_some();
        next
    }
}

/// A body that fails when no byte of it comes for some time.
struct TimedBody {
    inner: Incoming,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    fn new(inner: Incoming, limit: Duration) -> Self {
        Self { inner, limit, timer: None }
    }
}

impl hyper::body::Body for TimedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // Made only when there is something to wait for: most bodies come at once.
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        let silent = io::Error::new(io::ErrorKind::TimedOut, "the body stopped coming");
        Poll::Ready(Some(Err(silent.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
