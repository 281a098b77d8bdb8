//! Answers requests.
//!
//! Each thread renders its answers when they change, not for each request: a request takes a reference
//! to finished text, and reuses its own header map for the response.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING,
    USER_AGENT,
};
use hyper::{Request, Response, StatusCode, Version};
use instance_contract::Root;

use super::routes::{Clusters, Endpoint, Refusal, RouteAction, route};
use super::track::{InFlight, LateBody, Track};
use super::worker::RequestSource;
use crate::answers::Answers;
use crate::seed::{Seed, SeedReader, SeedStore, SetError};
use crate::traffic::{Counter, ThreadTraffic};

/// The user agent of the load balancer's health checks begins with this.
const PROBE: &[u8] = b"ELB-HealthChecker/";

/// The answer when `max-buffered` is used up.
pub(super) const CROWDED: &str = "too many large requests are arriving at once: try again later";

const HEALTHY: Bytes = Bytes::from_static(b"Healthy!");
const STARTING: Bytes = Bytes::from_static(b"starting: instance id not known yet");
const MALFORMED_PATH: Bytes =
    Bytes::from_static(b"the path's percent-encoding is malformed: write a percent sign as %25");
const BROKEN_BODY: Bytes =
    Bytes::from_static(b"the body ended early or its chunks are malformed: send it whole");
const REPLACED: Bytes = Bytes::from_static(
    b"the server is being replaced and the request's body is incomplete: send the request again",
);
const HOST_WANTED: Bytes = Bytes::from_static(b"an HTTP/1.1 request needs exactly one Host header: send one");
const HOST_INVALID: Bytes =
    Bytes::from_static(b"the Host header is not valid: send a name or an address, with an optional port");
const ENCODING_UNKNOWN: Bytes = Bytes::from_static(
    b"the transfer encoding is not supported: send the body chunked or with a Content-Length",
);
// As constants, since each call of `from_static` looks at every character.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Every answer, errors too, can change at any time.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// A user agent that makes the service panic, for a test.
#[cfg(test)]
pub(super) const PANIC_FOR: &str = "panic, please";

pub(super) struct ServiceState {
    rendered: RefCell<Rc<RenderedAnswers>>,
    seed: SeedStore,
    seed_reader: RefCell<SeedReader>,
}

impl ServiceState {
    pub(super) fn new(answers: &Answers, seed: SeedStore) -> Self {
        Self {
            rendered: RefCell::new(Rc::new(RenderedAnswers::new(answers))),
            seed_reader: RefCell::new(seed.reader()),
            seed,
        }
    }

    /// Replaces the answers for all later requests.
    pub(super) fn set_answers(&self, answers: &Answers) {
        self.rendered.replace(Rc::new(RenderedAnswers::new(answers)));
    }
}

/// Finished texts.
struct RenderedAnswers {
    root: Root,
    clusters: Clusters,
    draining: Option<Bytes>,
    instance: Option<Bytes>,
    not_found: Bytes,
}

impl RenderedAnswers {
    fn new(answers: &Answers) -> Self {
        let clusters = Clusters::of(answers);
        let known = match &clusters {
            Clusters::Unknown => "/, /health or /seed".to_owned(),
            Clusters::Both => "/, /health, /seed, /cluster1 or /cluster2".to_owned(),
            Clusters::Own(name) => format!("/, /health, /seed or /{name}"),
        };
        let instance = answers.instance.as_ref();
        Self {
            root: answers.root,
            clusters,
            draining: answers.draining.clone().map(Bytes::from),
            instance: instance.map(|known| format!("Instance {} is responding now!", known.id).into()),
            not_found: format!("no such path: use one of {known}").into(),
        }
    }
}

pub(super) struct Service {
    track: Rc<Track>,
    state: Rc<ServiceState>,
}

impl Service {
    pub(super) fn new(track: Rc<Track>, state: Rc<ServiceState>) -> Self {
        Self { track, state }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, request: Request<Incoming>) -> ResponseFuture {
        let (head, body) = request.into_parts();
        let RequestHeaders { sender, mistake } = RequestHeaders::of(head.version, &head.headers);
        let draft = ResponseDraft { sender, headers: head.headers, guard: self.track.begin(sender) };
        #[cfg(test)]
        assert!(draft.headers.get(USER_AGENT).is_none_or(|agent| agent != PANIC_FOR), "a test asked for it");
        if let Some(text) = mistake {
            self.track.leaves_body_unread();
            return ResponseFuture::Now(Some(draft.refuse_and_close(StatusCode::BAD_REQUEST, text)));
        }
        let rendered = Rc::clone(&self.state.rendered.borrow());
        let action = route(&head.method, &head.uri, &rendered.clusters);
        let acceptable = body.size_hint().lower() <= self.track.worker().limits().max_body as u64;
        if action == Ok(RouteAction::Store) && acceptable {
            return ResponseFuture::Later(Box::pin(store(Rc::clone(&self.state), draft, body)));
        }
        // Nobody reads the body: hyper skips the bytes that have arrived, and closes if more are missing.
        if !body.is_end_stream() {
            self.track.leaves_body_unread();
        }
        ResponseFuture::Now(Some(match action {
            Ok(RouteAction::Read(endpoint)) => draft.read(endpoint, &rendered, &self.state.seed_reader),
            Ok(RouteAction::Store) => draft.refuse_too_large(),
            Err(Refusal::NotFound) => draft.refuse(StatusCode::NOT_FOUND, rendered.not_found.clone()),
            Err(Refusal::MalformedPath) => draft.refuse(StatusCode::BAD_REQUEST, MALFORMED_PATH),
            Err(Refusal::Method(allowed)) => {
                let allow = allowed.header();
                let text = format!("wrong method: this path accepts {allow}");
                let mut response = draft.refuse(StatusCode::METHOD_NOT_ALLOWED, text.into());
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
                response
            }
        }))
    }
}

/// What the header fields of a request say about it, found in one pass: each lookup in the map would hash its name.
struct RequestHeaders {
    sender: RequestSource,
    /// An error that RFC 9112 makes a server refuse but hyper accepts: an HTTP/1.1 request without exactly one valid `Host`,
    /// or a body in an unsupported transfer encoding.
    mistake: Option<Bytes>,
}

impl RequestHeaders {
    fn of(version: Version, headers: &HeaderMap) -> Self {
        let (mut host, mut hosts) = (None, 0_u32);
        let (mut encoding, mut encodings) = (None, 0_u32);
        let mut agent = None;
        for (name, value) in headers {
            if name == HOST {
                (host, hosts) = (Some(value), hosts + 1);
            } else if name == USER_AGENT {
                agent.get_or_insert(value);
            } else if name == TRANSFER_ENCODING {
                (encoding, encodings) = (Some(value), encodings + 1);
            }
        }
        let is_probe = agent.is_some_and(|agent| agent.as_bytes().starts_with(PROBE));
        let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
        let mistake = match (host, hosts) {
            (None, _) if version == Version::HTTP_11 => Some(HOST_WANTED),
            (_, 2..) => Some(HOST_WANTED),
            (Some(host), _) if !is_host(host.as_bytes()) => Some(HOST_INVALID),
            _ if encodings > 1 || encoding.is_some_and(|value| !is_chunked(value)) => Some(ENCODING_UNKNOWN),
            _ => None,
        };
        Self { sender: if is_probe { RequestSource::Probe } else { RequestSource::Client }, mistake }
    }
}

/// Whether a `Host` has only characters of a URI's host and port. It may be empty.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(b))
}

/// Reads the body, stores its seed and answers the stored value.
async fn store(state: Rc<ServiceState>, draft: ResponseDraft, body: Incoming) -> Response<ResponseBody> {
    let body = match read_body(&draft.guard, body).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => return draft.refuse_too_large(),
        Err(BodyError::Late(late)) => {
            let limit = draft.guard.track().worker().limits().body_timeout;
            let text = match late {
                LateBody::Timeout => {
                    format!("the request's body took longer than {limit:?}: send it faster").into()
                }
                LateBody::Reload => REPLACED,
            };
            return draft.refuse_and_close(StatusCode::REQUEST_TIMEOUT, text);
        }
        Err(BodyError::Crowded) => {
            return draft
                .refuse_and_close(StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(CROWDED.as_bytes()));
        }
        Err(BodyError::Broken) => return draft.refuse_and_close(StatusCode::BAD_REQUEST, BROKEN_BODY),
    };
    let seed = match Seed::from_json_body(&body) {
        Ok(seed) => seed,
        Err(error) => return draft.refuse(StatusCode::BAD_REQUEST, error.to_string().into()),
    };
    match state.seed.set(seed).await {
        Ok(stored) => {
            draft.count(|traffic| &traffic.seed_write);
            draft.answer(StatusCode::OK, stored)
        }
        Err(error) => {
            let status = match error {
                SetError::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
                SetError::Failed { .. } | SetError::Busy => StatusCode::SERVICE_UNAVAILABLE,
            };
            draft.refuse(status, error.to_string().into())
        }
    }
}

enum BodyError {
    TooLarge,
    Late(LateBody),
    /// `max-buffered` is used up.
    Crowded,
    /// It ended early, or its chunks are malformed.
    Broken,
}

async fn read_body(guard: &InFlight, mut body: Incoming) -> Result<Bytes, BodyError> {
    guard.reads_body();
    let track = guard.track();
    // Nearly always the body arrives in one piece, which then needs no copy.
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            // The connection's timer sets this and then polls hyper again.
            Poll::Pending => {
                track.late_body().map_or(Poll::Pending, |late| Poll::Ready(Err(BodyError::Late(late))))
            }
            Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(|_| BodyError::Broken)),
        });
        let Some(frame) = frame.await.inspect_err(|_| track.leaves_body_unread())? else { break };
        let Ok(data) = frame.into_data() else { continue };
        if first.len().max(all.len()) + data.len() > track.worker().limits().max_body {
            track.leaves_body_unread();
            return Err(BodyError::TooLarge);
        }
        if !track.receive(data.len()) {
            track.leaves_body_unread();
            return Err(BodyError::Crowded);
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
    }
    guard.has_body();
    Ok(if all.is_empty() { first } else { all.freeze() })
}

struct ResponseDraft {
    sender: RequestSource,
    /// The request's header map, reused for the response to save an allocation.
    headers: HeaderMap,
    guard: InFlight,
}

impl ResponseDraft {
    fn read(
        self,
        endpoint: Endpoint,
        rendered: &RenderedAnswers,
        seed_reader: &RefCell<SeedReader>,
    ) -> Response<ResponseBody> {
        self.count(|traffic| match endpoint {
            Endpoint::Root => &traffic.root,
            Endpoint::Health => &traffic.health,
            Endpoint::Cluster => &traffic.cluster,
            Endpoint::Seed => &traffic.seed_read,
        });
        if let Some(reason) = &rendered.draining
            && (self.sender == RequestSource::Probe || endpoint == Endpoint::Health)
        {
            return self.answer(StatusCode::SERVICE_UNAVAILABLE, reason.clone());
        }
        match (endpoint, rendered.root) {
            (Endpoint::Health, _) | (Endpoint::Root, Root::Health) => self.answer(StatusCode::OK, HEALTHY),
            (Endpoint::Seed, _) | (Endpoint::Root, Root::Seed) => {
                let seed = seed_reader.borrow_mut().read();
                match seed {
                    Ok(seed) => self.answer(StatusCode::OK, seed),
                    Err(error) => self.answer(StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into()),
                }
            }
            (Endpoint::Cluster, _) => match &rendered.instance {
                Some(instance) => self.answer(StatusCode::OK, instance.clone()),
                None => self.answer(StatusCode::SERVICE_UNAVAILABLE, STARTING),
            },
        }
    }

    /// Counts the request: as a probe, or with `counter`.
    fn count(&self, counter: impl FnOnce(&ThreadTraffic) -> &Counter) {
        let traffic = self.guard.track().worker().traffic();
        let counter = match self.sender {
            RequestSource::Probe => &traffic.probes,
            RequestSource::Client => counter(traffic),
        };
        counter.increment();
    }

    fn refuse(self, status: StatusCode, text: Bytes) -> Response<ResponseBody> {
        self.count(|traffic| &traffic.refused);
        self.answer(status, text)
    }

    /// For a request that is not read completely.
    fn refuse_and_close(self, status: StatusCode, text: Bytes) -> Response<ResponseBody> {
        let mut response = self.refuse(status, text);
        response.headers_mut().insert(CONNECTION, CLOSE);
        response
    }

    fn refuse_too_large(self) -> Response<ResponseBody> {
        let limit = self.guard.track().worker().limits().max_body;
        let text = format!("the body is larger than {limit} bytes: send a smaller one");
        self.refuse_and_close(StatusCode::PAYLOAD_TOO_LARGE, text.into())
    }

    fn answer(self, status: StatusCode, text: Bytes) -> Response<ResponseBody> {
        if self.sender == RequestSource::Probe && status != StatusCode::OK {
            self.guard.track().worker().traffic().refuse_probe();
        }
        let mut headers = self.headers;
        headers.clear();
        headers.insert(CONTENT_TYPE, TEXT);
        headers.insert(CACHE_CONTROL, NO_STORE);
        if self.guard.track().worker().order().is_stopping() {
            headers.insert(CONNECTION, CLOSE);
        }
        let mut response = Response::new(ResponseBody { text, _guard: self.guard });
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

pub(super) enum ResponseFuture {
    Now(Option<Response<ResponseBody>>),
    /// A write of the seed.
    Later(Pin<Box<dyn Future<Output = Response<ResponseBody>>>>),
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(response) => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
            }
            Self::Later(response) => response.as_mut().poll(cx).map(Ok),
        }
    }
}

/// One piece of text.
pub(super) struct ResponseBody {
    text: Bytes,
    /// hyper drops it with the body, once it has encoded the answer.
    _guard: InFlight,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let text = std::mem::take(&mut self.text);
        Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.len() as u64)
    }
}
