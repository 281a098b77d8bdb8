//! The load balancer's data path: one listener, rules, and connections to the targets.
//!
//! What goes wrong is answered as an Application Load Balancer answers it: 503 without a target,
//! 502 when the target refuses, resets or answers nonsense, 504 when it does not answer in time.
//! A request that was sent is never sent again, whatever its method.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SERVER};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::time::{Instant, Sleep};

use crate::http::{Body, BoxError, full, serve};
use crate::model::balancers::{Balancer, RequestCounts};
use crate::model::state::Shared;
use crate::tasks::{Tasks, WeakTasks};

/// Connections kept for one target; more than that are closed after use.
const MAX_IDLE: usize = 256;

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

impl From<legacy::Error> for Failure {
    fn from(error: legacy::Error) -> Self {
        let cause =
            error.source().and_then(Error::source).and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause {
            Some(cause) if error.is_connect() && cause.kind() == io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::BadGateway,
        }
    }
}

/// Takes a balancer's requests to the targets.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    arn: String,
    port: u16,
    idle_timeout: Duration,
    counts: Arc<RequestCounts>,
    client: Client<HttpConnector, Body>,
    /// The client's connections to the targets.
    _connections: Arc<Tasks>,
}

impl Proxy {
    /// The proxy of this balancer.
    pub(crate) fn new(shared: Arc<Shared>, balancer: &Balancer) -> Self {
        let connections = Arc::new(Tasks::default());
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(balancer.spec.connect_timeout));
        connector.set_nodelay(true);
        let idle_timeout = balancer.spec.idle_timeout;
        // Its retries stay on: it sends again only where not a byte was written, as the target had closed the idle
        // connection before. A balancer that had noticed would not have chosen it.
        let client = Client::builder(WeakTasks(Arc::downgrade(&connections)))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(idle_timeout)
            .pool_max_idle_per_host(MAX_IDLE)
            .set_host(false)
            .http1_max_buf_size(32 * 1024)
            .build(connector);
        Self {
            shared,
            arn: balancer.arn.clone(),
            port: balancer.address.port(),
            idle_timeout,
            counts: Arc::clone(&balancer.counts),
            client,
            _connections: connections,
        }
    }

    /// Serves the balancer's listener until the returned future is dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let proxy = Arc::new(self);
        let handler = move |request, peer| {
            let proxy = Arc::clone(&proxy);
            async move { Ok(proxy.answer(request, peer).await) }
        };
        serve(listener, handler).await;
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
        let request = self.rewrite(request, target, peer)?;
        let response = tokio::time::timeout(self.idle_timeout, self.client.request(request))
            .await
            .map_err(|_| Failure::Timeout)??;
        let (mut head, body) = response.into_parts();
        strip_hop_by_hop(&mut head.headers);
        head.version = Version::HTTP_11;
        Ok(Response::from_parts(head, TimedBody::new(body, self.idle_timeout).boxed()))
    }

    /// The request as the target gets it.
    fn rewrite(
        &self,
        request: Request<Incoming>,
        target: SocketAddr,
        peer: SocketAddr,
    ) -> Result<Request<Body>, Failure> {
        let (mut head, body) = request.into_parts();
        strip_hop_by_hop(&mut head.headers);
        if !head.headers.contains_key(HOST)
            && let Some(authority) = head.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            head.headers.insert(HOST, host);
        }
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme("http").authority(target.to_string()).path_and_query(path);
        head.uri = uri.build().map_err(|_| Failure::BadGateway)?;
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
        Ok(Request::from_parts(head, TimedBody::new(body, self.idle_timeout).boxed()))
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
