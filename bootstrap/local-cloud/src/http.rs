//! The HTTP server that all listeners of the local cloud share, and the ways in which it can fail.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How a listener of the local cloud fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outage {
    /// It does not: requests are answered.
    #[default]
    Up,
    /// Requests are read and never answered, until the outage ends.
    Hang,
    /// Every request is answered with this status and no useful body.
    Status(u16),
    /// Connections are reset as soon as they are accepted, open ones at their next request.
    Refuse,
}

/// Any error of a body that is passed on.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any origin.
pub type Body = BoxBody<Bytes, BoxError>;

/// Connections served at once by one listener; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;

/// How long a client connection may be idle, or take to send a request's head.
const CLIENT_IDLE: Duration = Duration::from_secs(60);

/// A whole body from memory.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A plain-text answer.
pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain"));
    response
}

/// Serves `listener` until the returned future is dropped; then every connection is dropped too.
/// Where the handler gives an error, the connection is closed without an answer.
pub async fn serve<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<Response<Body>>> + Send + 'static,
{
    let (_up, outage) = watch::channel(Outage::Up);
    serve_with_outages(listener, outage, handler).await;
}

/// As [`serve`], and fails as the outage says.
pub(crate) async fn serve_with_outages<H, F>(
    listener: TcpListener,
    outage: watch::Receiver<Outage>,
    handler: H,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<Response<Body>>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) if *outage.borrow() == Outage::Refuse => reset(stream),
            Ok((stream, peer)) => {
                connections.spawn(connection(stream, peer, outage.clone(), handler.clone()));
            }
            // Out of descriptors or memory: some must be freed first. Spinning would not help.
            Err(_) => {
                let pause = Duration::from_millis(fastrand::u64(20..80));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Closes a connection with RST instead of FIN, as a host without a listener would answer.
fn reset(stream: TcpStream) {
    // Failing to set the option means the peer is gone already.
    let _ = stream.set_zero_linger();
}

async fn connection<H, F>(stream: TcpStream, peer: SocketAddr, outage: watch::Receiver<Outage>, handler: H)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<Response<Body>>> + Send + 'static,
{
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (handler, outage) = (handler.clone(), outage.clone());
        async move { answer(request, peer, outage, handler).await }
    });
    // The peer's connection errors are the peer's; there is nobody to tell.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer<H, F>(
    request: Request<Incoming>,
    peer: SocketAddr,
    mut outage: watch::Receiver<Outage>,
    handler: H,
) -> io::Result<Response<Body>>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = io::Result<Response<Body>>>,
{
    let now = *outage.borrow();
    match now {
        Outage::Up => handler(request, peer).await,
        Outage::Status(code) => {
            Ok(plain(StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), "out of order\n"))
        }
        Outage::Hang => {
            // Ends with the outage or with the listener, which drops this future.
            let _ = outage.wait_for(|now| *now != Outage::Hang).await;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Outage::Refuse => Err(io::ErrorKind::ConnectionReset.into()),
    }
}
