//! A strict little cloud on one machine: what a fleet needs of AWS and no more.
//!
//! | file | holds |
//! | --- | --- |
//! | `cloud.rs` | the state, and the handle [`Cloud`] on it |
//! | `tasks.rs` | tasks that end with their owner |
//! | `ec2.rs` | instances, their credentials and tags, `DescribeTags` |
//! | `metadata.rs`, `tokens.rs` | the protocol of a metadata service, its session tokens |
//! | `imds.rs` | what each instance's tells |
//! | `api.rs` | the query protocol: authentication, throttle, faults, errors |
//! | `elbv2.rs` | the load balancing actions |
//! | `groups.rs` | target groups, a target's states |
//! | `health.rs` | the prober |
//! | `routing.rs`, `balancer.rs` | which target a request goes to, and taking it there |
//! | `instances.rs` | the agents' processes |
//! | `fleet.rs` | a whole fleet: cloud, balancer, agents |
//!
//! It is strict where a mistake would show only on AWS; docs/local-fleet.md says in what, and what
//! it does not check (the bytes of a signature, above all).

mod api;
mod balancer;
mod cloud;
mod ec2;
mod elbv2;
mod fleet;
mod groups;
mod health;
mod http;
mod ids;
mod imds;
mod instances;
mod metadata;
mod routing;
mod tasks;
mod throttle;
mod tokens;
mod xml;

pub use balancer::{BalancerHandle, BalancerSpec};
pub use cloud::{Call, Cloud, CloudOptions, Fault, HealthChange};
pub use ec2::{Credentials, InstanceHandle, InstanceSpec, InstanceState, SpotAction};
pub use fleet::{LocalError, LocalFleet, LocalOptions, Member};
pub use groups::{HealthCheck, TargetGroupSpec, TargetHealth, TargetState, TargetStatus, TargetType};
pub use http::Outage;
pub(crate) use ids::stable_hex;
pub use ids::timestamp;
pub use instances::{AgentCommand, AgentProcess};
pub use metadata::{Leaves, serve_metadata};
pub use routing::{Forward, Rule};
pub use throttle::{Rate, Throttle};
