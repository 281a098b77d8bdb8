//! The values that the registrar publishes for the server's answers; neither imports the other.
//!
//! A watch channel holds the latest [`Answers`]; each server thread keeps its own copy.

use instance_contract::{ClusterName, Root};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answers {
    /// The meaning of `GET /`.
    pub(crate) root: Root,
    /// `None` until the first attempt to read identity and tags.
    pub(crate) instance: Option<InstanceAnswer>,
    /// The reason for 503 to probes, in one line; `None` while the instance takes traffic.
    pub(crate) draining: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstanceAnswer {
    /// The id in `Instance {id} is responding now!`; `unknown` without identity.
    pub(crate) id: String,
    /// The cluster whose path is answered; `None`: both `/cluster1` and `/cluster2`.
    pub(crate) cluster: Option<ClusterName>,
}
