//! A strict little cloud on one machine: what a fleet needs of AWS and no more.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test a panic is the report"))]

mod api;
mod cloud;
mod http;
mod imds;
mod model;
mod tasks;
mod traffic;

pub use api::ec2::{Credentials, InstanceHandle, InstanceSpec, InstanceState, SpotAction};
pub use cloud::{Call, Fault, HealthChange, LocalCloud, LocalCloudOptions};
pub use http::Outage;
pub use imds::service::{Leaves, serve_metadata};
pub use model::groups::{HealthCheck, TargetGroupSpec, TargetHealth, TargetState, TargetStatus, TargetType};
pub use model::ids::{stable_instance_id, timestamp};
pub use model::routing::{Forward, Rule};
pub use model::throttle::{Rate, Throttle};
pub use traffic::proxy::{BalancerHandle, BalancerSpec};
