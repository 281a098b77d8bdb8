//! The values that the registrar publishes for the server's answers; neither imports the other.
//!
//! A watch channel holds the latest [`Answers`]; each server thread keeps its own copy.

use instance_contract::{ClusterName, Root};

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The meaning of `GET /`.
    pub root: Root,
    /// `None` until the first attempt to read identity and tags.
    pub instance: Option<InstanceAnswer>,
    /// The reason for 503 to probes, in one line; `None` while the instance takes traffic.
    pub draining: Option<String>,
}

/// What a cluster's path answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceAnswer {
    /// The id in `Instance {id} is responding now!`; `unknown` without identity.
    pub id: String,
    /// The cluster whose path is answered; `None`: both `/cluster1` and `/cluster2`.
    pub cluster: Option<ClusterName>,
}
