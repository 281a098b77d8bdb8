//! The protocol of a metadata service: version 2 only, as `HttpTokens=required` makes it. What it
//! tells is someone else's business.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::http::{Body, Outage, plain, serve};
use crate::model::tokens::SessionTokens;

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";

/// What a path may begin with. Tokens are given by `latest` alone.
const VERSIONS: [&str; 2] = ["/latest/", "/2021-03-23/"];

/// Where the public key is.
pub(crate) const PUBLIC_KEY: &str = "meta-data/public-keys/0/openssh-key";

/// Everything that a metadata service can answer, by the path below its version. Folders follow from
/// the paths.
pub type Leaves = BTreeMap<String, String>;

/// Whether a request may see the metadata.
pub(crate) enum Admission {
    /// It shows a session token that has this many seconds left.
    Admitted(u64),
    /// It sees nothing: this is its answer.
    Answered(Response<Body>),
}

/// Gives out session tokens, and admits requests that show one of them.
pub(crate) fn admit(tokens: &SessionTokens, request: &Request<Incoming>) -> Admission {
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
pub(crate) fn found_or_404(found: Option<String>, ttl: u64) -> Response<Body> {
    let answer = match found {
        Some(text) => plain(StatusCode::OK, text),
        None => plain(StatusCode::NOT_FOUND, "404 - Not Found\n"),
    };
    with_ttl(answer, ttl)
}

/// Says how long the request's token is still accepted.
pub(crate) fn with_ttl(mut response: Response<Body>, ttl: u64) -> Response<Body> {
    response.headers_mut().insert(TTL_HEADER, HeaderValue::from(ttl));
    response
}

/// A request's path without its version; `None` if there is no such version.
pub(crate) fn below_version(path: &str) -> Option<String> {
    let path = VERSIONS.iter().find_map(|version| path.strip_prefix(version))?;
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    Some(path.into_owned())
}

/// The value at a path, or the listing if the path is a folder, with or without a slash at its end.
pub(crate) fn find(leaves: &Leaves, path: &str) -> Option<String> {
    if let Some(value) = leaves.get(path) {
        return Some(value.clone());
    }
    // The one folder whose listing also names what its entries stand for.
    if path.trim_end_matches('/') == "meta-data/public-keys" {
        return leaves.contains_key(PUBLIC_KEY).then(|| "0=key".to_owned());
    }
    let folder = match path.trim_end_matches('/') {
        "" => String::new(),
        name => format!("{name}/"),
    };
    let below = leaves.keys().filter_map(|leaf| leaf.strip_prefix(folder.as_str()));
    let children: BTreeSet<String> = below
        .map(|rest| match rest.split_once('/') {
            Some((child, _)) => format!("{child}/"),
            None => rest.to_owned(),
        })
        .collect();
    let listing: Vec<String> = children.into_iter().collect();
    (!listing.is_empty()).then(|| listing.join("\n"))
}

/// Serves many instances' metadata on one address, as a region does: to each its own, told apart by
/// where it asks from. `leaves` says what there is for an address; for one without, there is nothing.
/// Ends when the returned future is dropped.
pub async fn serve_metadata<F, A>(listener: TcpListener, leaves: F)
where
    F: Fn(IpAddr) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Option<Leaves>> + Send + 'static,
{
    let tokens: Arc<Mutex<HashMap<IpAddr, Arc<SessionTokens>>>> = Arc::default();
    let (_up, outage) = watch::channel(Outage::Up);
    let handler = move |request: Request<Incoming>, peer: std::net::SocketAddr| {
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
    serve(listener, outage, handler).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_follow_from_the_leaves() {
        let leaves: BTreeMap<String, String> = ["meta-data/a", "meta-data/p/x", "meta-data/p/y"]
            .map(|path| (path.to_owned(), "v".to_owned()))
            .into();
        assert_eq!(find(&leaves, "meta-data/a").as_deref(), Some("v"));
        assert_eq!(find(&leaves, "meta-data/a/"), None, "a leaf is no folder");
        assert_eq!(find(&leaves, "meta-data/").as_deref(), Some("a\np/"));
        assert_eq!(find(&leaves, "meta-data/p").as_deref(), Some("x\ny"));
        assert_eq!(find(&leaves, "meta-data/q"), None);
        assert_eq!(find(&leaves, "").as_deref(), Some("meta-data/"));
    }
}
