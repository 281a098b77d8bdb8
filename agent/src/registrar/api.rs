//! What every member of a target group shares: the way to AWS, and the agent's own health path.

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

/// How long the agent's own health path may take to answer.
const OWN_HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Api {
    http_client: SharedHttpClient,
    pub(super) instance: watch::Receiver<Option<Instance>>,
    notices: watch::Receiver<Option<Notices>>,
    /// The client, with the region it was made for.
    client: tokio::sync::Mutex<Option<(Option<String>, Elbv2)>>,
    /// Where the agent itself listens.
    own: SocketAddr,
    pub(super) register_port: u16,
    pub(super) reconcile_interval: Duration,
}

impl Api {
    pub(super) fn new(settings: &Settings, listening: SocketAddr, inputs: &Inputs) -> Self {
        let host = match listening.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Self {
            http_client: inputs.http_client.clone(),
            instance: inputs.instance.clone(),
            notices: inputs.notices.clone(),
            client: tokio::sync::Mutex::new(None),
            own: SocketAddr::new(host, listening.port()),
            register_port: settings.register_port.unwrap_or(listening.port()),
            reconcile_interval: settings.reconcile_interval,
        }
    }

    pub(super) fn identity(&self) -> InstanceIdentity {
        self.instance.borrow().clone().unwrap_or_default().identity
    }

    /// The client for the region the instance is in, made anew when that becomes known. `action`
    /// is what it is wanted for.
    pub(super) async fn elbv2(&self, action: Action) -> Result<Elbv2, CallError> {
        let region = self.identity().region;
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

    /// Whether it is known that no notice keeps the instance out. Where IMDS does not tell who the
    /// instance is, it does not tell notices either.
    pub(super) fn notices_are_known(&self) -> bool {
        let read = self.notices.borrow().as_ref().is_some_and(|notices| notices.read);
        read || !self.identity().from_imds
    }

    /// Makes the next call fetch credentials anew: the SDK keeps what it has until it expires, also
    /// after AWS has stopped accepting it.
    pub(super) async fn forget_credentials(&self) {
        *self.client.lock().await = None;
    }

    /// Whether the agent's own health path answers 200; else why not, in one line.
    pub(super) async fn probe_own_health(&self) -> Result<(), String> {
        let own = self.own;
        let (connect, host) = (TcpStream::connect(own), own.to_string());
        match local_http::request(connect, Method::GET, &host, "/health", OWN_HEALTH_LIMIT).await {
            Ok(answer) if answer.status == StatusCode::OK => Ok(()),
            Ok(answer) => Err(format!("own health path http://{own}/health answered {}", answer.status)),
            Err(error) => Err(format!("own health path http://{own}/health: {error}")),
        }
    }
}
