//! What the server answers, as the registrar publishes it: neither imports the other.
//!
//! A watch channel holds the latest [`Answers`]; each server thread keeps a copy for itself.

use instance_contract::{ClusterName, Root};

/// What the routes answer from. A new value replaces the old one as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answers {
    /// What `GET /` means.
    pub(crate) root: Root,
    /// Who the instance is; `None` until identity and tags were first tried.
    pub(crate) instance: Option<InstanceAnswer>,
    /// Why probes are answered 503, in one line; `None` while the instance wants traffic.
    pub(crate) draining: Option<String>,
}

/// The part of the instance's identity that the routes show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstanceAnswer {
    /// The id in `Instance {id} is responding now!`; `unknown` where nothing told it.
    pub(crate) id: String,
    /// The cluster whose path is answered; `None` answers on both `/cluster1` and `/cluster2`.
    pub(crate) cluster: Option<ClusterName>,
}
