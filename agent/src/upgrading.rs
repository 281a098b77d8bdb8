//! The running agent as the reload sees it: the state to hand over, and the server to start again on failure.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use tokio::sync::watch;

use crate::admin::AdminSocket;
use crate::config::Role;
use crate::identity::Instance;
use crate::notices::Notices;
use crate::status::{Phase, Registration};
use crate::target_group::TargetGroupRef;
use crate::unit::Unit;
use crate::upgrade::{Predecessor, ReloadHost};
use instance_server::answers::Answers;
use instance_server::limits::Limits;
use instance_server::seed::SeedStore;
use instance_server::server::{self, HandoverSockets, Server};
use instance_server::traffic::Traffic;

/// Everything that a server needs, kept to start it again after a failed reload.
#[derive(Clone)]
pub(crate) struct ServerParts {
    pub(crate) threads: usize,
    pub(crate) limits: Limits,
    pub(crate) answers: watch::Receiver<Arc<Answers>>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) seed: SeedStore,
}

impl ServerParts {
    pub(crate) fn serve(&self, handed: HandoverSockets) -> io::Result<Server> {
        let Self { threads, limits, answers, traffic, seed } = self.clone();
        server::start(handed.listener, handed.connections, threads, limits, answers, traffic, seed)
    }
}

pub(crate) struct RunningAgent {
    pub(crate) registration: watch::Receiver<Registration>,
    pub(crate) role: watch::Receiver<(Role, Vec<TargetGroupRef>)>,
    pub(crate) instance: watch::Receiver<Option<Instance>>,
    pub(crate) notices: watch::Receiver<Option<Notices>>,
    pub(crate) stop: watch::Receiver<Option<&'static str>>,
    pub(crate) unit: Unit,
    pub(crate) admin_socket: Option<Arc<AdminSocket>>,
    pub(crate) parts: ServerParts,
}

impl ReloadHost for RunningAgent {
    fn veto(&self) -> Option<String> {
        if let Some(signal) = *self.stop.borrow() {
            return Some(format!("the agent is stopping ({signal})"));
        }
        let registration = self.registration.borrow();
        // The next program would have to start the drain over.
        (registration.phase == Phase::Draining).then(|| {
            let reason = registration.reason.as_deref().unwrap_or_default();
            // Without the advice how to undo it.
            let cause = reason.split(';').next().unwrap_or_default();
            format!("a drain is in progress ({cause}): reload once it has ended")
        })
    }

    fn as_predecessor(&self) -> Predecessor {
        let registration = self.registration.borrow();
        let mut predecessor = Predecessor {
            from: env!("CARGO_PKG_VERSION").to_owned(),
            unit: self.unit.at_start(),
            traffic: self.parts.traffic.snapshot(),
            instance: self.instance.borrow().clone(),
            notices: self.notices.borrow().clone(),
            drained: registration.phase == Phase::Drained,
            since: Some(registration.since.clone()),
            group_states: registration.target_groups.clone(),
            ..Predecessor::default()
        };
        let (role, parting) = &*self.role.borrow();
        predecessor.set_role(role, parting);
        predecessor
    }

    fn admin(&self) -> Option<BorrowedFd<'_>> {
        self.admin_socket.as_ref().map(|socket| socket.listener())
    }

    fn serve(&self, handed: HandoverSockets) -> io::Result<Server> {
        self.parts.serve(handed)
    }
}
