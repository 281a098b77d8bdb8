//! How a cloud is set up.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::model::throttle::Throttle;

/// How a cloud is set up.
#[derive(Clone, Debug)]
pub struct LocalCloudOptions {
    /// The cloud's only region.
    pub region: String,
    /// The account that owns everything.
    pub account: String,
    /// The VPC of everything whose spec names none.
    pub vpc: String,
    /// Where the ELBv2 and EC2 endpoint listens; port 0 picks a free one.
    pub endpoint: SocketAddr,
    /// The API's throttle at the start.
    pub throttle: Throttle,
    /// How long a new target is shown as `Elb.RegistrationInProgress`.
    pub registration_time: Duration,
    /// How long a balancer keeps sending new requests to a deregistered target. Two seconds by
    /// default; users of AWS have seen up to 17.
    pub late_requests: Duration,
    /// How long an instance's credentials last.
    pub credentials_lifetime: Duration,
}

impl Default for LocalCloudOptions {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            account: "123456789012".to_owned(),
            vpc: "vpc-0a1b2c3d4e5f60718".to_owned(),
            endpoint: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            throttle: Throttle::default(),
            registration_time: Duration::from_millis(200),
            late_requests: Duration::from_secs(2),
            credentials_lifetime: Duration::from_secs(6 * 3600),
        }
    }
}
