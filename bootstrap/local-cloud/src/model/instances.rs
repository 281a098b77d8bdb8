//! Instances, their credentials and what their metadata announces.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::http::Outage;
use crate::model::ids::random_hex;
use crate::model::imds_tokens::SessionTokens;

/// An instance to run.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// `i-0…`; `None` draws one at random.
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
    /// Its user data, which cloud-init reads at the first boot.
    pub user_data: Option<String>,
    /// The public key of its key pair, as OpenSSH writes it.
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

/// An instance's state.
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
    /// The secret access key. Signatures are not verified, see the crate's documentation.
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
    /// What its metadata service answers at paths below `/latest/` in place of what is there.
    pub(crate) false_metadata: BTreeMap<String, (u16, String)>,
    /// For how many seconds its metadata service says a session token lives, where that is not so.
    pub(crate) false_token_ttl: Option<u64>,
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
            false_metadata: BTreeMap::new(),
            false_token_ttl: None,
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
