//! The handles on what a cloud created: an instance, a load balancer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use crate::http::Outage;
use crate::model::balancers::{Balancer, RequestCounts};
use crate::model::instances::{Instance, InstanceState, SpotAction};
use crate::model::state::Shared;

/// A handle on an instance: everything that can happen to it, and the environment of its agent.
#[derive(Clone)]
pub struct InstanceHandle {
    shared: Arc<Shared>,
    id: String,
    address: Ipv4Addr,
    imds: SocketAddr,
}

impl std::fmt::Debug for InstanceHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceHandle")
            .field("id", &self.id)
            .field("address", &self.address)
            .field("imds", &self.imds)
            .finish_non_exhaustive()
    }
}

impl InstanceHandle {
    /// A handle on an instance whose metadata service listens at `imds`.
    pub(crate) fn new(shared: Arc<Shared>, instance: &Instance, imds: SocketAddr) -> Self {
        Self { shared, id: instance.id.clone(), address: instance.spec.address, imds }
    }

    /// The instance's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its private address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The URL of its metadata service.
    pub fn imds_url(&self) -> String {
        format!("http://{}", self.imds)
    }

    /// The environment that points an agent at this cloud. Region and credentials are not in it:
    /// they come from the metadata, as on EC2. The user's own AWS files are kept out, they would
    /// win over the metadata.
    pub fn agent_environment(&self) -> Vec<(String, String)> {
        let endpoint = self.shared.endpoint_url();
        [
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.imds_url()),
            ("AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2", endpoint.clone()),
            ("AWS_ENDPOINT_URL_EC2", endpoint),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Its state; `None` once the cloud has forgotten it.
    pub fn state(&self) -> Option<InstanceState> {
        let state = self.shared.lock();
        state.instances.get(&self.id).map(|found| found.state)
    }

    /// Sets a tag.
    pub fn set_tag(&self, key: &str, value: &str) {
        self.change(|instance| {
            instance.spec.tags.insert(key.to_owned(), value.to_owned());
        });
    }

    /// Removes a tag.
    pub fn remove_tag(&self, key: &str) {
        self.change(|instance| {
            instance.spec.tags.remove(key);
        });
    }

    /// Whether the metadata shows the tags (`ec2:DescribeTags` always does).
    pub fn publish_tags(&self, publish: bool) {
        self.change(|instance| instance.spec.publishes_tags = publish);
    }

    /// Announces a spot interruption, or withdraws the notice.
    pub fn set_spot(&self, notice: Option<(SpotAction, SystemTime)>) {
        self.change(|instance| instance.spot = notice);
    }

    /// Recommends a rebalance since this time, or withdraws the recommendation.
    pub fn set_rebalance(&self, noticed: Option<SystemTime>) {
        self.change(|instance| instance.rebalance = noticed);
    }

    /// Its Auto Scaling target lifecycle state (`InService`, `Terminated`, `Standby`, …); `None`:
    /// it is in no Auto Scaling group.
    pub fn set_lifecycle(&self, state: Option<&str>) {
        self.change(|instance| instance.lifecycle = state.map(str::to_owned));
    }

    /// Makes its metadata service answer one path below `/latest/` with this status and body, as a filter or a captive
    /// portal between agent and service might; `None` ends that.
    pub fn answer_metadata(&self, path: &str, answer: Option<(u16, &str)>) {
        self.change(|instance| match answer {
            Some((status, body)) => {
                _ = instance.false_metadata.insert(path.to_owned(), (status, body.to_owned()))
            }
            None => _ = instance.false_metadata.remove(path),
        });
    }

    /// Makes its metadata service say that session tokens live for this many seconds, whatever they do.
    pub fn tell_token_ttl(&self, seconds: u64) {
        self.change(|instance| instance.false_token_ttl = Some(seconds));
    }

    /// Makes its metadata service fail, or work again.
    pub fn set_imds_outage(&self, outage: Outage) {
        self.change(|instance| {
            instance.imds_outage.send_replace(outage);
        });
    }

    /// Revokes its credentials: calls signed with them fail, and its metadata service issues new ones.
    pub fn revoke_credentials(&self) {
        self.change(|instance| instance.credentials.clear());
    }

    /// Refuses every session token that its metadata service handed out so far (401).
    pub fn forget_session_tokens(&self) {
        self.change(|instance| instance.session_tokens = Arc::default());
    }

    /// Stops the instance as the API would; its process is not touched.
    pub fn stop(&self) {
        self.change(|instance| instance.state = InstanceState::Stopped);
    }

    /// Starts a stopped instance.
    pub fn start(&self) {
        self.change(|instance| instance.state = InstanceState::Running);
    }

    /// Terminates the instance: its targets go, its process is not touched.
    pub fn terminate(&self) {
        self.change(|instance| instance.state = InstanceState::Terminated);
    }

    fn change(&self, change: impl FnOnce(&mut Instance)) {
        self.shared.update(|state, _| {
            if let Some(instance) = state.instances.get_mut(&self.id)
                && instance.state != InstanceState::Terminated
            {
                change(instance);
            }
        });
    }
}

/// A handle on a balancer.
#[derive(Clone, Debug)]
pub struct BalancerHandle {
    arn: String,
    address: SocketAddr,
    counts: Arc<RequestCounts>,
}

impl BalancerHandle {
    /// A handle on this balancer.
    pub(crate) fn new(balancer: &Balancer) -> Self {
        Self { arn: balancer.arn.clone(), address: balancer.address, counts: Arc::clone(&balancer.counts) }
    }

    /// Its ARN.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests it took so far.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Relaxed)
    }

    /// Errors it made itself so far (502, 503, 504): `HTTPCode_ELB_5XX_Count`.
    pub fn errors(&self) -> u64 {
        self.counts.errors.load(Relaxed)
    }
}
