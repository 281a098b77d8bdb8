//! The ELBv2 and EC2 API: the query protocol and the actions.

pub(crate) mod ec2;
pub(crate) mod elbv2;
pub(crate) mod endpoint;
pub(crate) mod query;
pub(crate) mod signature;
pub(crate) mod xml;
