//! An instance's metadata service: what it tells of the instance.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::ec2::{Instance, InstanceState, SpotAction};
use crate::cloud::{Shared, State};
use crate::http::{Body, Outage, plain, serve};
use crate::imds::service::{
    Admission, Leaves, PUBLIC_KEY, admit, below_version, find, found_or_404, with_ttl,
};
use crate::model::ids::timestamp;

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
        serve(listener, outage, handler).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let tokens = {
            let state = self.shared.lock();
            state.instances.get(&self.instance).map(|instance| Arc::clone(&instance.session_tokens))
        };
        let Some(tokens) = tokens else {
            return plain(StatusCode::NOT_FOUND, "404 - Not Found\n");
        };
        let ttl = match admit(&tokens, request) {
            Admission::Admitted(ttl) => ttl,
            Admission::Answered(answer) => return answer,
        };
        let path = below_version(request.uri().path());
        if let Some(status) = path.as_deref().and_then(|path| self.refusal(path)) {
            return with_ttl(plain(status, "refused\n"), ttl);
        }
        found_or_404(path.and_then(|path| self.look_up(&path)), ttl)
    }

    fn refusal(&self, path: &str) -> Option<StatusCode> {
        let state = self.shared.lock();
        let refused = &state.instances.get(&self.instance)?.refused_metadata;
        StatusCode::from_u16(*refused.get(path)?).ok()
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
        find(&leaves(&state, instance, credentials), path)
    }
}

/// Everything the service can answer.
fn leaves(state: &State, instance: &Instance, credentials: Option<serde_json::Value>) -> Leaves {
    let spec = &instance.spec;
    let address = spec.address.to_string();
    let mut leaves = Leaves::new();
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
