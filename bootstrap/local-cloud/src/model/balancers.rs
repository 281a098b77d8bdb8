//! Load balancers as the API shows them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::model::ids::stable_hex;
use crate::model::routing::{Forward, Rule};

/// A load balancer to create.
#[derive(Clone, Debug)]
pub struct BalancerSpec {
    /// Its name.
    pub name: String,
    /// Where its listener listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The availability zones it is enabled in; targets elsewhere are unused.
    pub zones: Vec<String>,
    /// Where requests go that no rule matches.
    pub default: Forward,
    /// The rules; the lowest priority is tried first.
    pub rules: Vec<Rule>,
    /// How long connecting to a target may take.
    pub connect_timeout: Duration,
    /// How long a target may be silent in an exchange, and how long a connection to it is kept.
    pub idle_timeout: Duration,
}

impl BalancerSpec {
    /// A balancer in zones a and b of us-east-1 on a free loopback port, without rules, with
    /// AWS's timeouts.
    pub fn new(name: impl Into<String>, default: Forward) -> Self {
        Self {
            name: name.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            zones: vec!["us-east-1a".to_owned(), "us-east-1b".to_owned()],
            default,
            rules: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// A load balancer as the API shows it.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) spec: BalancerSpec,
    pub(crate) arn: String,
    pub(crate) listener_arn: String,
    pub(crate) address: SocketAddr,
    pub(crate) counts: Arc<RequestCounts>,
}

/// The requests that a balancer took, and the errors it made itself.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts {
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl Balancer {
    /// The zones it is enabled in.
    pub(crate) fn zones(&self) -> impl Iterator<Item = &str> {
        self.spec.zones.iter().map(String::as_str)
    }

    /// Whether its listener forwards to a group.
    pub(crate) fn uses(&self, arn: &str) -> bool {
        let rules = self.spec.rules.iter().map(|rule| &rule.forward);
        rules.chain([&self.spec.default]).any(|forward| forward.groups().any(|(group, _)| group == arn))
    }

    /// The forward action of a request's path.
    pub(crate) fn forward(&mut self, path: &str) -> &mut Forward {
        let rule = self.spec.rules.iter_mut().find(|rule| rule.matches(path));
        rule.map_or(&mut self.spec.default, |rule| &mut rule.forward)
    }

    /// The ARN of one of the listener's rules.
    pub(crate) fn rule_arn(&self, priority: &str) -> String {
        let listener = self.listener_arn.replacen(":listener/", ":listener-rule/", 1);
        format!("{listener}/{}", stable_hex(priority))
    }
}
