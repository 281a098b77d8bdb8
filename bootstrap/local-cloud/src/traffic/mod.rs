//! What goes between the load balancer and its targets: requests and health checks.

pub(crate) mod prober;
pub(crate) mod proxy;
