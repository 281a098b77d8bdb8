//! Instances: what they are, their credentials and tags, and `ec2:DescribeTags`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::api::endpoint::{ApiError, Params};
use crate::api::xml::Xml;
use crate::cloud::{Shared, State};
use crate::http::Outage;
use crate::model::ids::{random_hex, request_id};
use crate::model::tokens::SessionTokens;

/// EC2's version of the query protocol.
pub(crate) const VERSION: &str = "2016-11-15";

/// An instance to run.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// `i-0…`; `None` makes one up.
    pub id: Option<String>,
    /// Such as `t3.micro`.
    pub instance_type: String,
    /// Such as `us-east-1a`.
    pub zone: String,
    /// The image it pretends to run.
    pub image: String,
    /// Its private IPv4 address: where the balancer and the prober reach it.
    pub address: Ipv4Addr,
    /// Its VPC; `None` is the cloud's own.
    pub vpc: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Whether its metadata shows the tags.
    pub publishes_tags: bool,
    /// The role whose credentials its metadata hands out; `None` for none.
    pub role: Option<String>,
    /// Where its metadata service listens; port 0 picks a free one.
    pub imds: SocketAddr,
    /// What it is told to do at its first boot.
    pub user_data: Option<String>,
    /// Who may log in: the public half of a key pair, as OpenSSH writes it.
    pub public_key: Option<String>,
}

impl InstanceSpec {
    /// A `t3.micro` without tags at this address, its metadata on the same address.
    pub fn new(address: Ipv4Addr) -> Self {
        Self {
            id: None,
            instance_type: "t3.micro".to_owned(),
            zone: "us-east-1a".to_owned(),
            image: "ami-08c40ec9ead489470".to_owned(),
            address,
            vpc: None,
            tags: BTreeMap::new(),
            publishes_tags: true,
            role: Some("instance-agent".to_owned()),
            imds: SocketAddr::from((address, 0)),
            user_data: None,
            public_key: None,
        }
    }

    /// The hardware address of its one network interface. It follows from the address.
    pub fn mac(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// The same with one tag more.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// It runs.
    Running,
    /// It was stopped and can be started.
    Stopped,
    /// It is gone for good.
    Terminated,
}

/// What a spot interruption does to the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpotAction {
    /// It is terminated.
    Terminate,
    /// It is stopped.
    Stop,
    /// It is hibernated.
    Hibernate,
}

impl SpotAction {
    /// The metadata's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "terminate",
            Self::Stop => "stop",
            Self::Hibernate => "hibernate",
        }
    }
}

/// Credentials that the cloud issued.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The access key id.
    pub access_key: String,
    /// The secret access key. Signatures are not verified, see the module's documentation.
    pub secret_key: String,
    /// The session token; long-term credentials have none.
    pub session_token: Option<String>,
    /// When they were issued.
    pub issued: SystemTime,
    /// When they stop working; long-term ones do not.
    pub expires: Option<SystemTime>,
}

impl Credentials {
    fn random(prefix: &str) -> Self {
        Self {
            access_key: format!("{prefix}{}", random_hex(16).to_uppercase()),
            secret_key: random_hex(40),
            session_token: None,
            issued: SystemTime::now(),
            expires: None,
        }
    }

    /// Credentials of a person, without session token.
    pub(crate) fn long_term() -> Self {
        Self::random("AKIA")
    }

    /// An instance's credentials.
    pub(crate) fn temporary(lifetime: Duration) -> Self {
        let issued = SystemTime::now();
        Self {
            session_token: Some(format!("IQoJb3JpZ2luX2Vj{}", random_hex(64))),
            issued,
            expires: Some(issued + lifetime),
            ..Self::random("ASIA")
        }
    }

    /// Whether they still work.
    pub(crate) fn are_valid(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// An instance as the cloud knows it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) spec: InstanceSpec,
    pub(crate) vpc: String,
    pub(crate) state: InstanceState,
    pub(crate) launched: SystemTime,
    /// The newest last; those that expired are dropped when new ones are issued.
    pub(crate) credentials: Vec<Credentials>,
    pub(crate) session_tokens: Arc<SessionTokens>,
    pub(crate) spot: Option<(SpotAction, SystemTime)>,
    pub(crate) rebalance: Option<SystemTime>,
    pub(crate) lifecycle: Option<String>,
    pub(crate) imds_outage: watch::Sender<Outage>,
    /// Paths below `/latest/` that its metadata service refuses, with the status.
    pub(crate) refused_metadata: BTreeMap<String, u16>,
}

impl Instance {
    /// A running instance; of `spec` the VPC may be left open, the id not.
    pub(crate) fn new(id: String, vpc: String, spec: InstanceSpec) -> Self {
        Self {
            id,
            spec,
            vpc,
            state: InstanceState::Running,
            launched: SystemTime::now(),
            credentials: Vec::new(),
            session_tokens: Arc::default(),
            spot: None,
            rebalance: None,
            lifecycle: None,
            imds_outage: watch::Sender::new(Outage::Up),
            refused_metadata: BTreeMap::new(),
        }
    }

    /// The role's credentials, new ones when a quarter of the lifetime is left, as IMDS gives new
    /// ones out some time before the old ones end.
    pub(crate) fn current_credentials(&mut self, lifetime: Duration) -> Credentials {
        let now = SystemTime::now();
        if let Some(current) = self.credentials.last()
            && current.are_valid(now + lifetime / 4)
        {
            return current.clone();
        }
        self.credentials.retain(|old| old.are_valid(now));
        let fresh = Credentials::temporary(lifetime);
        self.credentials.push(fresh.clone());
        fresh
    }
}

/// A handle on a running instance: everything that can happen to it, and what its agent is told.
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

    /// Announces a spot interruption, or takes the announcement back.
    pub fn set_spot(&self, notice: Option<(SpotAction, SystemTime)>) {
        self.change(|instance| instance.spot = notice);
    }

    /// Recommends a rebalance since this time, or takes the recommendation back.
    pub fn set_rebalance(&self, noticed: Option<SystemTime>) {
        self.change(|instance| instance.rebalance = noticed);
    }

    /// Its Auto Scaling target lifecycle state (`InService`, `Terminated`, `Standby`, …); `None`:
    /// it is in no Auto Scaling group.
    pub fn set_lifecycle(&self, state: Option<&str>) {
        self.change(|instance| instance.lifecycle = state.map(str::to_owned));
    }

    /// Has its metadata service refuse one path below `/latest/` with this status, as a filter
    /// between agent and service might; `None` ends that.
    pub fn refuse_metadata(&self, path: &str, status: Option<u16>) {
        self.change(|instance| match status {
            Some(status) => _ = instance.refused_metadata.insert(path.to_owned(), status),
            None => _ = instance.refused_metadata.remove(path),
        });
    }

    /// Puts its metadata service out of order, or back.
    pub fn set_imds_outage(&self, outage: Outage) {
        self.change(|instance| {
            instance.imds_outage.send_replace(outage);
        });
    }

    /// Withdraws the credentials it has: calls signed with them fail, its metadata has new ones.
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

/// Answers an EC2 action.
pub(crate) fn perform(state: &State, action: &str, params: &Params) -> Result<String, ApiError> {
    match action {
        "DescribeTags" => describe_tags(state, params),
        _ => Err(ApiError::invalid_action(action)),
    }
}

const TAGS_IN_A_PAGE: usize = 2;

fn describe_tags(state: &State, params: &Params) -> Result<String, ApiError> {
    params.allow(&["Filter.N.Name", "Filter.N.Value.N", "NextToken"])?;
    let mut filters = Vec::new();
    for n in params.indices("Filter") {
        let name = params.require(&format!("Filter.{n}.Name"))?;
        if !["resource-id", "resource-type", "key", "value"].contains(&name) {
            let text = format!("The filter '{name}' is invalid");
            return Err(ApiError::bad("InvalidParameterValue", text));
        }
        filters.push((name, params.list(&format!("Filter.{n}.Value"))));
    }
    let mut found = Vec::new();
    for instance in state.instances.values() {
        for (key, value) in &instance.spec.tags {
            let field = |name: &str| match name {
                "resource-id" => instance.id.as_str(),
                "resource-type" => "instance",
                "key" => key.as_str(),
                _ => value.as_str(),
            };
            if filters.iter().all(|(name, any)| any.contains(&field(name))) {
                found.push((&instance.id, key, value));
            }
        }
    }
    // As EC2 may do whenever it likes, a page at a time; the token is where the next one begins.
    let begin = match params.get("NextToken") {
        None => 0,
        Some(token) => token.parse().map_err(|_| {
            ApiError::bad("InvalidPaginationToken", format!("The pagination token '{token}' is invalid"))
        })?,
    };
    let next = (begin + TAGS_IN_A_PAGE < found.len()).then(|| begin + TAGS_IN_A_PAGE);
    let page = found.into_iter().skip(begin).take(TAGS_IN_A_PAGE);
    Ok(Xml::document("DescribeTagsResponse", &format!("http://ec2.amazonaws.com/doc/{VERSION}/"), |xml| {
        xml.text("requestId", request_id());
        if let Some(next) = next {
            xml.text("nextToken", next.to_string());
        }
        xml.list("tagSet", "item", page, |xml, (id, key, value)| {
            xml.text("resourceId", id);
            xml.text("resourceType", "instance");
            xml.text("key", key);
            xml.text("value", value);
        });
    }))
}
