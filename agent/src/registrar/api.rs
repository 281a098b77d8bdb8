//! Shared by all members: the AWS calls, and the facts about the instance.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use http::{Method, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::inputs::Inputs;
use crate::aws::{self, Action, CallError};
use crate::config::Settings;
use crate::elbv2::Elbv2;
use crate::identity::{Instance, InstanceIdentity};
use crate::local_http;
use crate::notices::Notices;
use crate::target_group::{Target, TargetGroup, TargetGroupRef, TargetHealth};

/// Time limit for the agent's own health path.
const OWN_HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// The calls that a member makes. Unit tests answer them from a script.
pub(crate) trait Api: Send + Sync + 'static {
    /// Finds a target group by its name or ARN.
    fn find(&self, group: &TargetGroupRef) -> impl Future<Output = Result<TargetGroup, CallError>> + Send;
    /// How long a target of the group stays `draining`; `None` if it cannot be read.
    fn deregistration_delay(&self, arn: &str) -> impl Future<Output = Option<Duration>> + Send;
    /// Asks for the health of `target` only.
    fn health(
        &self,
        arn: &str,
        target: &Target,
    ) -> impl Future<Output = Result<TargetHealth, CallError>> + Send;
    /// Registers `target` with the group.
    fn register(&self, arn: &str, target: &Target) -> impl Future<Output = Result<(), CallError>> + Send;
    /// Deregisters `target`, with the port that was registered.
    fn deregister(&self, arn: &str, target: &Target) -> impl Future<Output = Result<(), CallError>> + Send;
    /// Makes the next call fetch new credentials. The SDK keeps its credentials until they expire, even if
    /// AWS no longer accepts them or the instance no longer has their role.
    fn forget_credentials(&self) -> impl Future<Output = ()> + Send;
    /// Whether the agent's own health path answers 200; otherwise the reason.
    fn probe_own_health(&self) -> impl Future<Output = Result<(), String>> + Send;
}

pub(crate) struct MemberContext<A> {
    pub(super) api: A,
    pub(super) instance: watch::Receiver<Option<Instance>>,
    pub(super) notices: watch::Receiver<Option<Notices>>,
    pub(super) questions: watch::Receiver<()>,
    pub(super) register_port: u16,
    pub(super) reconcile_interval: Duration,
    /// Where the target groups are named, for messages.
    pub(super) named_in: &'static str,
}

impl<A> MemberContext<A> {
    pub(super) fn new(api: A, settings: &Settings, listening: SocketAddr, inputs: &Inputs) -> Self {
        Self {
            api,
            instance: inputs.instance.clone(),
            notices: inputs.notices.clone(),
            questions: inputs.questions.clone(),
            register_port: settings.register_port.unwrap_or(listening.port()),
            reconcile_interval: settings.reconcile_interval,
            named_in: match settings.target_groups {
                Some(_) => "the setting target-group",
                None => "the tag instance-agent:target-group",
            },
        }
    }

    pub(super) fn identity(&self) -> InstanceIdentity {
        identity(&self.instance)
    }

    /// Whether the notices are known. If IMDS does not give the identity, it gives no notices either, and
    /// the agent does not wait for them.
    pub(super) fn notices_are_known(&self) -> bool {
        let read = self.notices.borrow().as_ref().is_some_and(|notices| notices.read);
        read || !self.identity().from_imds
    }
}

fn identity(instance: &watch::Receiver<Option<Instance>>) -> InstanceIdentity {
    instance.borrow().clone().unwrap_or_default().identity
}

/// AWS, and the server of this agent.
pub(crate) struct LiveApi {
    http_client: SharedHttpClient,
    instance: watch::Receiver<Option<Instance>>,
    /// The client, with its region.
    client: tokio::sync::Mutex<Option<(Option<String>, Elbv2)>>,
    /// The agent's own address.
    own: SocketAddr,
}

impl LiveApi {
    pub(super) fn new(listening: SocketAddr, inputs: &Inputs) -> Self {
        let host = match listening.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Self {
            http_client: inputs.http_client.clone(),
            instance: inputs.instance.clone(),
            client: tokio::sync::Mutex::new(None),
            own: SocketAddr::new(host, listening.port()),
        }
    }

    /// The client for the instance's region; a new one when the region becomes known. `action` is for
    /// the error.
    async fn elbv2(&self, action: Action) -> Result<Elbv2, CallError> {
        let region = identity(&self.instance).region;
        let mut client = self.client.lock().await;
        match &*client {
            Some((known, elbv2)) if *known == region => Ok(elbv2.clone()),
            _ => {
                let config = aws::config(&self.http_client, region.clone()).await;
                let elbv2 = Elbv2::new(&config.ok_or_else(|| CallError::no_region(action))?);
                *client = Some((region, elbv2.clone()));
                Ok(elbv2)
            }
        }
    }
}

impl Api for LiveApi {
    async fn find(&self, group: &TargetGroupRef) -> Result<TargetGroup, CallError> {
        self.elbv2(Action::DescribeTargetGroups).await?.find(group).await
    }

    async fn deregistration_delay(&self, arn: &str) -> Option<Duration> {
        let elbv2 = self.elbv2(Action::DescribeTargetGroupAttributes).await.ok()?;
        elbv2.deregistration_delay(arn).await
    }

    async fn health(&self, arn: &str, target: &Target) -> Result<TargetHealth, CallError> {
        self.elbv2(Action::DescribeTargetHealth).await?.health(arn, target).await
    }

    async fn register(&self, arn: &str, target: &Target) -> Result<(), CallError> {
        self.elbv2(Action::RegisterTargets).await?.register(arn, target).await
    }

    async fn deregister(&self, arn: &str, target: &Target) -> Result<(), CallError> {
        self.elbv2(Action::DeregisterTargets).await?.deregister(arn, target).await
    }

    async fn forget_credentials(&self) {
        *self.client.lock().await = None;
    }

    async fn probe_own_health(&self) -> Result<(), String> {
        let own = self.own;
        let (connect, host) = (TcpStream::connect(own), own.to_string());
        let answer = local_http::request(connect, Method::GET, &host, "/health", OWN_HEALTH_LIMIT).await;
        if let Ok(answer) = &answer {
            tracing::debug!("own health path http://{own}/health: {}", answer.status);
        }
        match answer {
            Ok(answer) if answer.status == StatusCode::OK => Ok(()),
            Ok(answer) => Err(format!("own health path http://{own}/health answered {}", answer.status)),
            Err(error) => Err(format!("own health path http://{own}/health: {error}")),
        }
    }
}
