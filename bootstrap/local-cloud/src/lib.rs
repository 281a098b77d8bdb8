//! AWS as far as a fleet of instances needs it, on one machine, in real time.
//!
//! [`LocalCloud`] serves the EC2 and Elastic Load Balancing APIs, a metadata service for each instance,
//! and load balancers that send requests and health checks to real processes. A program that is written
//! for AWS finds it by the environment of [`InstanceHandle::agent_environment`].
//!
//! ```
//! use std::net::Ipv4Addr;
//! use local_cloud::{BalancerSpec, Forward, InstanceSpec, LocalCloud, LocalCloudOptions, TargetGroupSpec};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let cloud = LocalCloud::start(LocalCloudOptions::default()).await?;
//! let group = cloud.create_target_group(TargetGroupSpec::new("web", 8080));
//! let balancer = cloud.create_balancer(BalancerSpec::new("front", Forward::to(group))).await?;
//! let instance = cloud.run_instance(InstanceSpec::new(Ipv4Addr::LOCALHOST)).await?;
//! // A server on the instance calls RegisterTargets; the load balancer then checks its health.
//! assert_eq!(cloud.health_of("web", instance.id(), 8080).reason, Some("Target.NotRegistered"));
//! println!("{} answers 503 until then", balancer.url());
//! # Ok(())
//! # }
//! ```
//!
//! # What it is strict in
//!
//! It refuses what AWS refuses, where the mistake would show only on AWS:
//!
//! | part | insists on |
//! | --- | --- |
//! | metadata service | version 2: a session token by PUT with a TTL of 1 to 21600 seconds |
//! | API calls | Signature Version 4 with current credentials, for the right service and region, the date within five minutes |
//! | parameters | known actions and parameters only |
//! | registrations | running instances of the target group's VPC; another port is another target |
//! | target health | real health checks with AWS's thresholds; `draining` for the whole deregistration delay |
//! | call rates | AWS's token buckets: `Throttling`, `RequestLimitExceeded` |
//!
//! # What it does not check
//!
//! - the bytes of a signature, and the form of keys and tokens: that is the SDK's code;
//! - IAM policies: a call is denied only by [`Fault::Deny`].
//!
//! It has no HTTPS, HTTP/2, WebSockets, sticky sessions, slow start or paging of ELBv2's lists. It knows no
//! fleet and starts no process.
//!
//! # Files
//!
//! Each row uses only the rows below it.
//!
//! | file or folder | holds |
//! | --- | --- |
//! | `cloud.rs` | [`LocalCloud`]: creates things, injects faults, answers questions |
//! | `handles.rs` | [`InstanceHandle`], [`BalancerHandle`] |
//! | `traffic/` | `proxy.rs`: requests to the targets; `prober.rs`: health checks |
//! | `api/` | `endpoint.rs`: throttle, faults, errors; `signature.rs`: who calls; `ec2.rs`, `elbv2.rs`: the actions |
//! | `imds/` | `service.rs`: tokens and answers; `leaves.rs`: the value at each path |
//! | `model/` | all state and its clock: instances, target groups, balancers, routing, throttle. It starts nothing |
//! | `http.rs`, `tasks.rs` | the HTTP server of all listeners, and how it fails; tasks that end with their owner |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test a panic is the report"))]

mod api;
mod cloud;
mod handles;
mod http;
mod imds;
mod model;
mod tasks;
mod traffic;

pub use cloud::LocalCloud;
pub use handles::{BalancerHandle, InstanceHandle};
pub use http::{Body, Outage, full, serve};
pub use imds::leaves::{Leaves, spec_leaves};
pub use imds::service::serve_metadata;
pub use model::balancers::BalancerSpec;
pub use model::faults::{Call, Fault};
pub use model::ids::{stable_instance_id, timestamp};
pub use model::instances::{Credentials, InstanceSpec, InstanceState, SpotAction};
pub use model::options::LocalCloudOptions;
pub use model::routing::{Forward, Rule};
pub use model::state::HealthChange;
pub use model::target_groups::{
    HealthCheck, TargetGroupSpec, TargetHealth, TargetState, TargetStatus, TargetType,
};
pub use model::throttle::{ActionClass, Buckets, Rate, Throttle};
