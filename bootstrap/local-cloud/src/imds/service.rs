//! The instance metadata service: version 2 only, as `HttpTokens=required` makes it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::http::{Body, Outage, plain, serve, serve_with_outages};
use crate::imds::leaves::{Leaves, find, instance_leaves};
use crate::model::imds_tokens::SessionTokens;
use crate::model::instances::{Instance, InstanceState};
use crate::model::state::Shared;

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";

/// What a path may begin with. Tokens are given by `latest` alone.
const VERSIONS: [&str; 2] = ["/latest/", "/2021-03-23/"];

/// The metadata service of one instance.
pub(crate) struct InstanceMetadata {
    shared: Arc<Shared>,
    instance: String,
}

impl InstanceMetadata {
    /// The service of the instance with this id.
    pub(crate) fn new(shared: Arc<Shared>, instance: String) -> Self {
        Self { shared, instance }
    }

    /// Serves its listener until the returned future is dropped.
    pub(crate) async fn serve(self, listener: TcpListener, outage: watch::Receiver<Outage>) {
        let service = Arc::new(self);
        let handler = move |request, _| {
            let service = Arc::clone(&service);
            async move { Ok(service.answer(&request)) }
        };
        serve_with_outages(listener, outage, handler).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let known = {
            let state = self.shared.lock();
            let known =
                |instance: &Instance| (Arc::clone(&instance.session_tokens), instance.false_token_ttl);
            state.instances.get(&self.instance).map(known)
        };
        let Some((tokens, false_ttl)) = known else {
            return plain(StatusCode::NOT_FOUND, "404 - Not Found\n");
        };
        let ttl = match (admit(&tokens, request), false_ttl) {
            (Admission::Admitted(ttl), None) | (Admission::Admitted(_), Some(ttl)) => ttl,
            (Admission::Answered(answer), Some(ttl)) if answer.status() == StatusCode::OK => {
                return with_ttl(answer, ttl);
            }
            (Admission::Answered(answer), _) => return answer,
        };
        let path = below_version(request.uri().path());
        if let Some((status, body)) = path.as_deref().and_then(|path| self.falsehood(path)) {
            return with_ttl(plain(status, body), ttl);
        }
        found_or_404(path.and_then(|path| self.look_up(&path)), ttl)
    }

    fn falsehood(&self, path: &str) -> Option<(StatusCode, String)> {
        let state = self.shared.lock();
        let (status, body) = state.instances.get(&self.instance)?.false_metadata.get(path)?;
        Some((StatusCode::from_u16(*status).ok()?, body.clone()))
    }

    fn look_up(&self, path: &str) -> Option<String> {
        let mut state = self.shared.lock();
        let lifetime = state.options.credentials_lifetime;
        let instance = state.instances.get_mut(&self.instance)?;
        if instance.state != InstanceState::Running {
            return None;
        }
        let is_credentials = path.starts_with("meta-data/iam/security-credentials/");
        let credentials = is_credentials.then(|| instance.current_credentials(lifetime));
        let instance = state.instances.get(&self.instance)?;
        find(&instance_leaves(&state, instance, credentials.as_ref()), path)
    }
}

/// Whether a request may see the metadata.
enum Admission {
    /// It shows a session token that has this many seconds left.
    Admitted(u64),
    /// It sees nothing: this is its answer.
    Answered(Response<Body>),
}

/// Gives out session tokens, and admits requests that show one of them.
fn admit(tokens: &SessionTokens, request: &Request<Incoming>) -> Admission {
    let answer = match (request.method(), request.uri().path()) {
        (&Method::PUT, "/latest/api/token") => issue_token(tokens, request.headers()),
        (&Method::GET | &Method::HEAD, _) => {
            let token = request.headers().get(TOKEN_HEADER).and_then(|value| value.to_str().ok());
            match token.and_then(|token| tokens.remaining(token)) {
                Some(ttl) => return Admission::Admitted(ttl),
                None => plain(StatusCode::UNAUTHORIZED, "401 - Unauthorized\n"),
            }
        }
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "405 - Method Not Allowed\n"),
    };
    Admission::Answered(answer)
}

fn issue_token(tokens: &SessionTokens, headers: &HeaderMap) -> Response<Body> {
    // A proxy's header: the request may come from outside of the instance.
    if headers.contains_key("x-forwarded-for") {
        return plain(StatusCode::FORBIDDEN, "403 - Forbidden\n");
    }
    let ttl = headers.get(TTL_HEADER).and_then(|value| value.to_str().ok());
    let ttl = ttl.and_then(|text| text.trim().parse::<u64>().ok());
    let Some(ttl) = ttl.filter(|ttl| (1..=21_600).contains(ttl)) else {
        return plain(StatusCode::BAD_REQUEST, "400 - Bad Request\n");
    };
    with_ttl(plain(StatusCode::OK, tokens.issue(ttl)), ttl)
}

/// The answer to a request that was admitted: the value at its path, or 404.
fn found_or_404(found: Option<String>, ttl: u64) -> Response<Body> {
    let answer = match found {
        Some(text) => plain(StatusCode::OK, text),
        None => plain(StatusCode::NOT_FOUND, "404 - Not Found\n"),
    };
    with_ttl(answer, ttl)
}

/// Says how long the request's token is still accepted.
fn with_ttl(mut response: Response<Body>, ttl: u64) -> Response<Body> {
    response.headers_mut().insert(TTL_HEADER, HeaderValue::from(ttl));
    response
}

/// A request's path without its version; `None` if there is no such version.
fn below_version(path: &str) -> Option<String> {
    let path = VERSIONS.iter().find_map(|version| path.strip_prefix(version))?;
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    Some(path.into_owned())
}

/// Serves many instances' metadata on one address, as a region does: to each its own, told apart by
/// where it asks from. `leaves` says what there is for an address; for one without, there is nothing.
/// Ends when the returned future is dropped.
pub async fn serve_metadata<F, A>(listener: TcpListener, leaves: F)
where
    F: Fn(IpAddr) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Option<Leaves>> + Send + 'static,
{
    let tokens: Arc<Mutex<BTreeMap<IpAddr, Arc<SessionTokens>>>> = Arc::default();
    let handler = move |request: Request<Incoming>, peer: SocketAddr| {
        let (tokens, leaves) = (tokens.clone(), leaves.clone());
        async move {
            let tokens = {
                let mut all = tokens.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(all.entry(peer.ip()).or_default())
            };
            let ttl = match admit(&tokens, &request) {
                Admission::Admitted(ttl) => ttl,
                Admission::Answered(answer) => return Ok(answer),
            };
            let (leaves, path) = (leaves(peer.ip()).await, below_version(request.uri().path()));
            Ok(found_or_404(leaves.zip(path).and_then(|(leaves, path)| find(&leaves, &path)), ttl))
        }
    };
    serve(listener, handler).await;
}
