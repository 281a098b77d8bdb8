//! An instance's metadata service: version 2 only, as `HttpTokens=required` makes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::cloud::{Shared, State};
use super::ec2::{Instance, InstanceState, SpotAction};
use super::http::{Body, plain};
use super::ids::{random_hex, timestamp};

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";

/// What a path may begin with. Tokens are given by `latest` alone.
const VERSIONS: [&str; 2] = ["/latest/", "/2021-03-23/"];

/// Where the public key is.
const PUBLIC_KEY: &str = "meta-data/public-keys/0/openssh-key";

/// Session tokens that are kept; a client that fetches more loses its oldest.
const MAX_TOKENS: usize = 1024;

/// The session tokens of one instance that are still accepted, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Tokens(VecDeque<(String, Instant)>);

impl Tokens {
    /// A new token that is accepted for `ttl` seconds.
    fn give(&mut self, ttl: u64) -> String {
        let token = format!("AQAEA{}==", random_hex(48));
        let now = Instant::now();
        self.0.retain(|(_, expires)| *expires > now);
        if self.0.len() == MAX_TOKENS {
            self.0.pop_front();
        }
        self.0.push_back((token.clone(), now + Duration::from_secs(ttl)));
        token
    }

    /// The seconds that a token has left; `None` if it is not accepted.
    fn remaining(&self, token: &str) -> Option<u64> {
        let (_, expires) = self.0.iter().find(|(known, _)| known == token)?;
        let left = expires.checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some(left.as_secs())
    }
}

/// The metadata service of one instance.
pub(super) struct Service {
    shared: Arc<Shared>,
    instance: String,
}

impl Service {
    /// The service of the instance with this id.
    pub(super) fn new(shared: Arc<Shared>, instance: String) -> Self {
        Self { shared, instance }
    }

    /// Answers a request.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let headers = request.headers();
        match (request.method(), path) {
            (&Method::PUT, "/latest/api/token") => self.give_token(headers),
            (&Method::GET | &Method::HEAD, _) => match self.remaining(headers) {
                None => plain(StatusCode::UNAUTHORIZED, "401 - Unauthorized\n"),
                Some(ttl) => {
                    let mut response = match (self.refusal(path), self.look_up(path)) {
                        (Some(status), _) => plain(status, "refused\n"),
                        (None, None) => plain(StatusCode::NOT_FOUND, "404 - Not Found\n"),
                        (None, Some(text)) => plain(StatusCode::OK, text),
                    };
                    set_ttl(&mut response, ttl);
                    response
                }
            },
            _ => plain(StatusCode::METHOD_NOT_ALLOWED, "405 - Method Not Allowed\n"),
        }
    }

    fn give_token(&self, headers: &HeaderMap) -> Response<Body> {
        // A proxy's header: the request may come from outside of the instance.
        if headers.contains_key("x-forwarded-for") {
            return plain(StatusCode::FORBIDDEN, "403 - Forbidden\n");
        }
        let ttl = headers.get(TTL_HEADER).and_then(|value| value.to_str().ok());
        let ttl = ttl.and_then(|text| text.trim().parse::<u64>().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=21_600).contains(ttl)) else {
            return plain(StatusCode::BAD_REQUEST, "400 - Bad Request\n");
        };
        let token = {
            let mut state = self.shared.lock();
            state.instances.get_mut(&self.instance).map(|instance| instance.session_tokens.give(ttl))
        };
        let Some(token) = token else {
            return plain(StatusCode::NOT_FOUND, "404 - Not Found\n");
        };
        let mut response = plain(StatusCode::OK, token);
        set_ttl(&mut response, ttl);
        response
    }

    /// The seconds that the request's token has left; `None` if it has no valid one.
    fn remaining(&self, headers: &HeaderMap) -> Option<u64> {
        let shown = headers.get(TOKEN_HEADER)?.to_str().ok()?;
        let state = self.shared.lock();
        state.instances.get(&self.instance)?.session_tokens.remaining(shown)
    }

    fn refusal(&self, path: &str) -> Option<StatusCode> {
        let state = self.shared.lock();
        let refused = &state.instances.get(&self.instance)?.refused_metadata;
        StatusCode::from_u16(*refused.get(below_version(path)?)?).ok()
    }

    fn look_up(&self, path: &str) -> Option<String> {
        let path = percent_encoding::percent_decode_str(below_version(path)?);
        let path = path.decode_utf8().ok()?;
        let mut state = self.shared.lock();
        let lifetime = state.options.credentials_lifetime;
        let instance = state.instances.get_mut(&self.instance)?;
        if instance.state != InstanceState::Running {
            return None;
        }
        let is_credentials = path.starts_with("meta-data/iam/security-credentials/");
        let credentials = is_credentials.then(|| instance.current_credentials(lifetime));
        let credentials = credentials.map(|issued| {
            json!({
                "Code": "Success",
                "LastUpdated": timestamp(issued.issued),
                "Type": "AWS-HMAC",
                "AccessKeyId": issued.access_key,
                "SecretAccessKey": issued.secret_key,
                "Token": issued.session_token,
                "Expiration": issued.expires.map(timestamp),
            })
        });
        let instance = state.instances.get(&self.instance)?;
        find(&leaves(&state, instance, credentials), &path)
    }
}

fn below_version(path: &str) -> Option<&str> {
    VERSIONS.iter().find_map(|version| path.strip_prefix(version))
}

fn set_ttl(response: &mut Response<Body>, ttl: u64) {
    response.headers_mut().insert(TTL_HEADER, HeaderValue::from(ttl));
}

/// The value at a path, or the listing if the path is a folder, with or without a slash at its end.
fn find(leaves: &BTreeMap<String, String>, path: &str) -> Option<String> {
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

/// Everything the service can answer, by path. Folders follow from the paths.
fn leaves(
    state: &State,
    instance: &Instance,
    credentials: Option<serde_json::Value>,
) -> BTreeMap<String, String> {
    let spec = &instance.spec;
    let address = spec.address.to_string();
    let mut leaves = BTreeMap::new();
    if let Some(user_data) = &spec.user_data {
        leaves.insert("user-data".to_owned(), user_data.clone());
    }
    if let Some(key) = &spec.public_key {
        leaves.insert(PUBLIC_KEY.to_owned(), key.clone());
    }
    let mut put = |path: &str, value: &str| {
        leaves.insert(format!("meta-data/{path}"), value.to_owned());
    };
    let (host, mac) = (format!("ip-{}.ec2.internal", address.replace('.', "-")), spec.mac());
    put("ami-id", &spec.image);
    put("hostname", &host);
    put("local-hostname", &host);
    put("mac", &mac);
    for (name, value) in
        [("device-number", "0"), ("local-ipv4s", &address), ("mac", &mac), ("vpc-id", &instance.vpc)]
    {
        put(&format!("network/interfaces/macs/{mac}/{name}"), value);
    }
    put("instance-id", &instance.id);
    put("instance-life-cycle", if instance.spot.is_some() { "spot" } else { "on-demand" });
    put("instance-type", &spec.instance_type);
    put("local-ipv4", &address);
    put("placement/availability-zone", &spec.zone);
    put("placement/region", &state.options.region);
    if spec.publishes_tags {
        for (key, value) in &spec.tags {
            put(&format!("tags/instance/{key}"), value);
        }
    }
    if let Some(role) = &spec.role {
        let account = &state.options.account;
        let info = json!({
            "Code": "Success",
            "LastUpdated": timestamp(instance.launched),
            "InstanceProfileArn": format!("arn:aws:iam::{account}:instance-profile/{role}"),
            "InstanceProfileId": "AIPALOCALCLOUD",
        });
        put("iam/info", &info.to_string());
        // Issued only when asked for; the listing needs the name alone.
        let issued = credentials.map(|value| value.to_string()).unwrap_or_default();
        put(&format!("iam/security-credentials/{role}"), &issued);
    }
    if let Some((action, time)) = instance.spot {
        let notice = json!({ "action": action.as_str(), "time": timestamp(time) });
        put("spot/instance-action", &notice.to_string());
        if action == SpotAction::Terminate {
            put("spot/termination-time", &timestamp(time));
        }
    }
    if let Some(noticed) = instance.rebalance {
        let notice = json!({ "noticeTime": timestamp(noticed) });
        put("events/recommendations/rebalance", &notice.to_string());
    }
    if let Some(lifecycle) = &instance.lifecycle {
        put("autoscaling/target-lifecycle-state", lifecycle);
    }
    let document = json!({
        "accountId": state.options.account,
        "architecture": "x86_64",
        "availabilityZone": spec.zone,
        "imageId": spec.image,
        "instanceId": instance.id,
        "instanceType": spec.instance_type,
        "pendingTime": timestamp(instance.launched.min(SystemTime::now())),
        "privateIp": address,
        "region": state.options.region,
        "version": "2017-09-30",
    });
    leaves.insert("dynamic/instance-identity/document".to_owned(), document.to_string());
    leaves
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
