//! The channels between the registrar and the other parts of the agent.

use std::sync::Arc;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Role;
use crate::identity::Instance;
use crate::notices::Notices;
use crate::status::Registration;
use crate::target_group::TargetGroupRef;
use instance_server::answers::Answers;
use instance_server::traffic::Traffic;

/// A request through the admin socket.
#[derive(Debug)]
pub(crate) enum OperatorRequest {
    /// Stay out of every target group until `Resume`.
    Drain(oneshot::Sender<Result<String, String>>),
    Resume(oneshot::Sender<Result<String, String>>),
    /// Panic, for a test.
    #[cfg(test)]
    Panic,
}

pub(crate) struct Inputs {
    /// Identity and tags; `None` until the first attempt to read them.
    pub(crate) instance: watch::Receiver<Option<Instance>>,
    /// Notices in force; `None` until the first attempt to read them.
    pub(crate) notices: watch::Receiver<Option<Notices>>,
    pub(crate) requests: mpsc::Receiver<OperatorRequest>,
    pub(crate) stop: watch::Receiver<Option<&'static str>>,
    pub(crate) traffic: Arc<Traffic>,
    /// Changes when an operator asks for the current target health.
    pub(crate) questions: watch::Receiver<()>,
    pub(crate) http_client: SharedHttpClient,
}

pub(crate) struct Outputs {
    pub(crate) answers: watch::Sender<Arc<Answers>>,
    /// For `status` and systemd.
    pub(crate) registration: watch::Sender<Registration>,
    /// The role, and the target groups that the instance is still leaving.
    pub(crate) role: watch::Sender<(Role, Vec<TargetGroupRef>)>,
}
