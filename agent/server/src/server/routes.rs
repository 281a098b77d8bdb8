//! The route table: from method and path to an action. Pure.
//!
//! | path | methods |
//! | --- | --- |
//! | `/` | GET, HEAD, POST |
//! | `/health` | GET, HEAD |
//! | `/seed` | GET, HEAD, POST, PUT |
//! | `/{cluster}` and below it | GET, HEAD |

use std::borrow::Cow;

use hyper::{Method, Uri};
use instance_contract::ClusterName;
use percent_encoding::percent_decode;

use crate::answers::Answers;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/`
    Root,
    /// `/health`
    Health,
    /// `/seed`
    Seed,
    /// The cluster's path.
    Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteAction {
    /// GET and HEAD; hyper leaves a HEAD's body out itself.
    Read(Endpoint),
    /// POST and PUT of the seed.
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The path is not percent-encoded properly: 400.
    MalformedPath,
    /// No such path: 404.
    NotFound,
    /// The path accepts only these methods: 405.
    Method(Allowed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Paths that can only be read.
    Read,
    /// `/`
    Root,
    /// `/seed`, and requests without a path: all methods of the server.
    Seed,
}

impl Allowed {
    /// The value of the `Allow` header.
    pub(super) fn header(self) -> &'static str {
        match self {
            Self::Read => "GET, HEAD",
            Self::Root => "GET, HEAD, POST",
            Self::Seed => "GET, HEAD, POST, PUT",
        }
    }
}

/// The clusters whose paths are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Clusters {
    /// Not known yet: every valid cluster name may be this instance's.
    Unknown,
    /// The instance has no cluster.
    Both,
    /// The instance's own.
    Own(ClusterName),
}

impl Clusters {
    pub(super) fn of(answers: &Answers) -> Self {
        match &answers.instance {
            None => Self::Unknown,
            Some(instance) => instance.cluster.clone().map_or(Self::Both, Self::Own),
        }
    }

    fn answer(&self, segment: &[u8]) -> bool {
        match self {
            Self::Unknown => {
                std::str::from_utf8(segment).is_ok_and(|name| name.parse::<ClusterName>().is_ok())
            }
            Self::Both => matches!(segment, b"cluster1" | b"cluster2"),
            Self::Own(name) => segment == name.as_str().as_bytes(),
        }
    }
}

/// Finds the action of a request. Ignores scheme, host and query.
pub(super) fn route(method: &Method, target: &Uri, clusters: &Clusters) -> Result<RouteAction, Refusal> {
    let endpoint = match target.path() {
        "/" => Endpoint::Root,
        "/health" => Endpoint::Health,
        "/seed" => Endpoint::Seed,
        // `OPTIONS *`, and CONNECT, whose target is a host and port.
        "*" | "" => return Err(Refusal::Method(Allowed::Seed)),
        path => by_segments(path.as_bytes(), clusters)?,
    };
    let allowed = match endpoint {
        Endpoint::Root => Allowed::Root,
        Endpoint::Seed => Allowed::Seed,
        Endpoint::Health | Endpoint::Cluster => Allowed::Read,
    };
    match (method, allowed) {
        (&Method::GET | &Method::HEAD, _) => Ok(RouteAction::Read(endpoint)),
        (&Method::POST, Allowed::Root | Allowed::Seed) | (&Method::PUT, Allowed::Seed) => {
            Ok(RouteAction::Store)
        }
        _ => Err(Refusal::Method(allowed)),
    }
}

/// The paths that need parsing: those of clusters, and percent-encoded ones.
fn by_segments(path: &[u8], clusters: &Clusters) -> Result<Endpoint, Refusal> {
    let is_encoded = path.contains(&b'%');
    if is_encoded && !is_well_encoded(path) {
        return Err(Refusal::MalformedPath);
    }
    let path = path.strip_prefix(b"/").ok_or(Refusal::NotFound)?;
    // Split before decoding: an encoded slash belongs to its segment.
    let mut segments = path.split(|b| *b == b'/');
    let first = segments.next().ok_or(Refusal::NotFound)?;
    let first = if is_encoded { percent_decode(first).into() } else { Cow::Borrowed(first) };
    match (first.as_ref(), segments.next()) {
        (b"health", None) => Ok(Endpoint::Health),
        (b"seed", None) => Ok(Endpoint::Seed),
        (name, _) if clusters.answer(name) => Ok(Endpoint::Cluster),
        _ => Err(Refusal::NotFound),
    }
}

/// Whether every `%` is followed by two hexadecimal digits.
fn is_well_encoded(path: &[u8]) -> bool {
    let mut after_percent = path.split(|b| *b == b'%').skip(1);
    after_percent.all(|rest| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const READ: fn(Endpoint) -> Result<RouteAction, Refusal> = |endpoint| Ok(RouteAction::Read(endpoint));
    const NOT_FOUND: Result<RouteAction, Refusal> = Err(Refusal::NotFound);

    fn own() -> Clusters {
        Clusters::Own("cluster1".parse().unwrap())
    }

    fn get(target: &str, clusters: &Clusters) -> Result<RouteAction, Refusal> {
        route(&Method::GET, &target.parse().unwrap(), clusters)
    }

    #[test]
    fn each_path_and_method() {
        use Endpoint::{Cluster, Health, Root, Seed};
        let store = Ok(RouteAction::Store);
        let rows = [
            ("/", Root, "GET, HEAD, POST", store, Err(Refusal::Method(Allowed::Root))),
            ("/seed", Seed, "GET, HEAD, POST, PUT", store, store),
            (
                "/health",
                Health,
                "GET, HEAD",
                Err(Refusal::Method(Allowed::Read)),
                Err(Refusal::Method(Allowed::Read)),
            ),
            (
                "/cluster1",
                Cluster,
                "GET, HEAD",
                Err(Refusal::Method(Allowed::Read)),
                Err(Refusal::Method(Allowed::Read)),
            ),
        ];
        for (path, endpoint, allow, post, put) in rows {
            let uri: Uri = path.parse().unwrap();
            assert_eq!(route(&Method::GET, &uri, &own()), READ(endpoint), "{path}");
            assert_eq!(route(&Method::HEAD, &uri, &own()), READ(endpoint), "{path}");
            assert_eq!(route(&Method::POST, &uri, &own()), post, "{path}");
            assert_eq!(route(&Method::PUT, &uri, &own()), put, "{path}");
            for method in
                [Method::DELETE, Method::OPTIONS, Method::PATCH, Method::TRACE, "BREW".parse().unwrap()]
            {
                let Err(Refusal::Method(allowed)) = route(&method, &uri, &own()) else {
                    panic!("{method} {path}")
                };
                assert_eq!(allowed.header(), allow, "{method} {path}");
            }
        }
    }

    #[test]
    fn below_is_by_segment() {
        for path in
            ["/cluster1", "/cluster1/", "/cluster1/x", "/cluster1/x/y?z", "/cluster1?q=1", "/cluster1//"]
        {
            assert_eq!(get(path, &own()), READ(Endpoint::Cluster), "{path}");
        }
        for path in [
            "/cluster1x",
            "/cluster2",
            "/Cluster1",
            "//cluster1",
            "/x/cluster1",
            "/health/",
            "/seed/1",
            "//",
            "/status",
        ] {
            assert_eq!(get(path, &own()), NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn without_a_cluster_both_are_answered() {
        assert_eq!(get("/cluster1/x", &Clusters::Both), READ(Endpoint::Cluster));
        assert_eq!(get("/cluster2", &Clusters::Both), READ(Endpoint::Cluster));
        assert_eq!(get("/cluster3", &Clusters::Both), NOT_FOUND);
    }

    #[test]
    fn before_identity_any_possible_cluster_may_be_this_one() {
        assert_eq!(get("/cluster1/x", &Clusters::Unknown), READ(Endpoint::Cluster));
        assert_eq!(get("/web-2", &Clusters::Unknown), READ(Endpoint::Cluster));
        for path in ["/status", "/metrics", "/Web", "/2web", "/a-name-that-is-longer-than-twenty"] {
            assert_eq!(get(path, &Clusters::Unknown), NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn segments_are_percent_decoded() {
        assert_eq!(get("/%68ealth", &own()), READ(Endpoint::Health));
        assert_eq!(get("/se%65d?x=%zz", &own()), READ(Endpoint::Seed));
        assert_eq!(get("/cluster%31/x", &own()), READ(Endpoint::Cluster));
        assert_eq!(get("/cluster1/%2e%2F", &own()), READ(Endpoint::Cluster));
        // An encoded slash does not end the segment.
        assert_eq!(get("/cluster1%2fx", &own()), NOT_FOUND);
        assert_eq!(get("/%2Fhealth", &own()), NOT_FOUND);
        assert_eq!(get("/%ff", &own()), NOT_FOUND);
    }

    #[test]
    fn malformed_encoding_is_told() {
        for path in ["/%", "/%6", "/%zz", "/cluster1/%", "/cluster1/%4g/x", "/nowhere/100%"] {
            assert_eq!(get(path, &own()), Err(Refusal::MalformedPath), "{path}");
        }
    }

    #[test]
    fn other_forms_of_target() {
        assert_eq!(get("http://example.com/seed?x", &own()), READ(Endpoint::Seed));
        assert_eq!(get("http://example.com", &own()), READ(Endpoint::Root));
        assert_eq!(get("/?a/b", &own()), READ(Endpoint::Root));
        let whole_server = Err(Refusal::Method(Allowed::Seed));
        assert_eq!(route(&Method::OPTIONS, &"*".parse().unwrap(), &own()), whole_server);
        assert_eq!(route(&Method::CONNECT, &"example.com:443".parse().unwrap(), &own()), whole_server);
    }
}
