//! The channels between the registrar and the other parts of the agent.

use std::sync::Arc;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::sync::{mpsc, oneshot, watch};

use crate::answers::Answers;
use crate::config::Role;
use crate::identity::Instance;
use crate::notices::Notices;
use crate::status::Registration;
use crate::target_group::TargetGroupRef;
use crate::traffic::Traffic;

/// What an operator asks through the admin socket.
#[derive(Debug)]
pub(crate) enum OperatorRequest {
    /// Stay out of every target group until told otherwise.
    Drain(oneshot::Sender<Result<String, String>>),
    /// Come back.
    Resume(oneshot::Sender<Result<String, String>>),
    /// Break, to see what that does.
    #[cfg(test)]
    Panic,
}

/// What the registrar is handed; it makes none of it itself.
pub(crate) struct Inputs {
    /// Identity and tags; `None` until they were first tried.
    pub(crate) instance: watch::Receiver<Option<Instance>>,
    /// Notices in force; `None` until they were first asked.
    pub(crate) notices: watch::Receiver<Option<Notices>>,
    /// What operators ask.
    pub(crate) requests: mpsc::Receiver<OperatorRequest>,
    /// The signal that asks the agent to stop.
    pub(crate) stop: watch::Receiver<Option<&'static str>>,
    /// The server's counters.
    pub(crate) traffic: Arc<Traffic>,
    /// Changes when an operator wants to know what each target group thinks now.
    pub(crate) questions: watch::Receiver<()>,
    /// The client that AWS calls go through.
    pub(crate) http_client: SharedHttpClient,
}

/// Where the registrar publishes.
pub(crate) struct Outputs {
    /// What the server answers from.
    pub(crate) answers: watch::Sender<Arc<Answers>>,
    /// What `status` and systemd are shown.
    pub(crate) registration: watch::Sender<Registration>,
    /// What the instance is to be, and the groups that it is still leaving.
    pub(crate) role: watch::Sender<(Role, Vec<TargetGroupRef>)>,
}
