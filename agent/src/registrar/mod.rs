//! Decides whether the instance belongs in its target groups, and when a drain is over.
//!
//! One [`member`] task per target group makes the AWS calls; [`members`] owns these tasks. This file drives the phases,
//! publishes the server's answers, and ends a drain when traffic has stopped.

mod api;
mod drain;
mod drained;
#[cfg(test)]
mod fake;
mod inputs;
mod member;
mod members;
mod probes;
mod reports;
mod rfc3339;
mod sentences;
#[cfg(test)]
mod tests;
mod waits_for;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub(crate) use self::inputs::{Inputs, OperatorRequest, Outputs};
use crate::config::{Role, Settings};
use crate::guard::{TaskFailures, guard};
use crate::identity::Instance;
use crate::lifecycle::{KeptOut, Leaving, PhaseFacts, QuietPeriod, StayOutReasons, Transition};
use crate::status::{GroupStatus, Phase};
use crate::target_group::TargetGroupRef;
use api::{Api, LiveApi, MemberContext};
use drained::RememberedDrain;
use instance_server::answers::{Answers, InstanceAnswer};
use instance_server::events;
use member::Wish;
use members::Members;
use waits_for::WaitsFor;

/// The longest time between two turns.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Time limit of a turn, which waits for [`LONGEST_WAIT`] at most.
const TURN_LIMIT: Duration = Duration::from_secs(180);
/// How often a drain checks whether traffic has stopped.
const DRAIN_TICK: Duration = Duration::from_millis(250);

/// The state before a reload.
#[derive(Debug, Default)]
pub(crate) struct ResumedState {
    pub(crate) role: Role,
    /// Target groups that the instance was still leaving.
    pub(crate) parting: Vec<TargetGroupRef>,
    pub(crate) drained: bool,
    /// Start of the phase, RFC 3339 in UTC.
    pub(crate) since: Option<String>,
    pub(crate) groups: Vec<GroupStatus>,
}

/// The phase, with the values that it needs.
#[derive(Debug)]
enum State {
    Starting,
    Serving,
    Draining {
        reason: String,
        quiet: QuietPeriod,
        begun: Instant,
        deadline: Instant,
        waits_for: Option<WaitsFor>,
    },
    Drained {
        reason: String,
        quiet: QuietPeriod,
    },
}

impl State {
    fn phase(&self) -> Phase {
        match self {
            Self::Starting => Phase::Starting,
            Self::Serving => Phase::Serving,
            Self::Draining { .. } => Phase::Draining,
            Self::Drained { .. } => Phase::Drained,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Starting | Self::Serving => None,
            Self::Draining { reason, .. } | Self::Drained { reason, .. } => Some(reason),
        }
    }

    fn waits_for(&self) -> Option<&WaitsFor> {
        match self {
            Self::Draining { waits_for, .. } => waits_for.as_ref(),
            Self::Starting | Self::Serving | Self::Drained { .. } => None,
        }
    }

    fn quiet(&self) -> Option<&QuietPeriod> {
        match self {
            Self::Starting | Self::Serving => None,
            Self::Draining { quiet, .. } | Self::Drained { quiet, .. } => Some(quiet),
        }
    }
}

/// The first part of a reason, without the advice after it.
fn cause(reason: Option<&str>) -> &str {
    reason.and_then(|reason| reason.split(';').next()).unwrap_or_default()
}

/// Keeps the instance in its target groups, and drains it before it leaves.
pub(crate) struct Registrar<A = LiveApi> {
    settings: Settings,
    inputs: Inputs,
    outputs: Outputs,
    members: Members<A>,
    state: State,
    since: SystemTime,
    reasons: StayOutReasons,
    role: Role,
    resumed: Option<ResumedState>,
    ignored_tags: Vec<String>,
    remembered: RememberedDrain,
    /// The instance id for which the remembered drain was checked.
    decided_for: Option<Option<String>>,
}

impl Registrar {
    pub(crate) fn new(
        settings: Settings,
        listening: SocketAddr,
        inputs: Inputs,
        outputs: Outputs,
        resumed: Option<ResumedState>,
    ) -> Self {
        let api = LiveApi::new(listening, &inputs);
        Self::with_api(api, settings, listening, inputs, outputs, resumed)
    }
}

impl<A: Api> Registrar<A> {
    fn with_api(
        api: A,
        settings: Settings,
        listening: SocketAddr,
        inputs: Inputs,
        outputs: Outputs,
        resumed: Option<ResumedState>,
    ) -> Self {
        let known = resumed.as_ref().map(|resumed| resumed.groups.clone()).unwrap_or_default();
        let shared = Arc::new(MemberContext::new(api, &settings, listening, &inputs));
        let role = match &resumed {
            Some(resumed) => resumed.role.clone(),
            // Until the tags are known. The answers before this already follow the settings.
            None => settings.role(&BTreeMap::new(), &Role::default()).0,
        };
        Self {
            members: Members::new(shared, inputs.traffic.clone(), known),
            remembered: RememberedDrain::in_folder(&settings.state_dir),
            settings,
            inputs,
            outputs,
            state: State::Starting,
            since: SystemTime::now(),
            reasons: StayOutReasons::default(),
            role,
            resumed,
            ignored_tags: Vec::new(),
            decided_for: None,
        }
    }

    /// Runs until a signal has asked the agent to stop and the instance is drained. A turn that panics or
    /// hangs is a bug: the registrar then starts over with new members.
    pub(crate) async fn run(mut self) {
        let mut mistakes = TaskFailures::default();
        loop {
            match guard(TURN_LIMIT, self.turn()).await {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return,
                Err(broken) => {
                    mistakes.say("the registrar", &broken);
                    self.begin_anew();
                    tokio::time::sleep(mistakes.pause()).await;
                }
            }
        }
    }

    async fn turn(&mut self) -> ControlFlow<()> {
        self.read_inputs();
        let wanted = self.reasons.to_stay_out(self.settings.on_rebalance);
        let facts = self.facts(wanted.is_some());
        let tick = match self.state.phase().next(&facts) {
            Some(transition) => self.go(transition, wanted.unwrap_or_default()),
            None => self.stay(wanted),
        };
        self.publish();
        match tick {
            TurnOutcome::Again => {}
            TurnOutcome::Wait(longest) => self.wait(longest.unwrap_or(LONGEST_WAIT)).await,
            TurnOutcome::Finished => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Starts all members again. They ask AWS for the state before they change anything.
    fn begin_anew(&mut self) {
        let parting = self.members.end();
        if !matches!(self.state, State::Starting) {
            self.follow_role();
            self.members.part_from(parting, self.wish());
        }
    }

    /// Reads the news of the other parts of the agent.
    fn read_inputs(&mut self) {
        self.reasons.signal = *self.inputs.stop.borrow_and_update();
        if let Some(notices) = self.inputs.notices.borrow_and_update().clone() {
            if self.reasons.rebalance != notices.rebalance
                && let Some(time) = &notices.rebalance
                // A changed time alone is no news.
                && self.reasons.rebalance.is_none()
            {
                let action = self.settings.on_rebalance;
                tracing::warn!(reason = time, "rebalance recommendation of {time}; on-rebalance = {action}");
            }
            self.reasons.spot = notices.spot;
            self.reasons.rebalance = notices.rebalance;
            self.reasons.auto_scaling = notices.auto_scaling;
        }
        if self.inputs.instance.has_changed().unwrap_or(false) || matches!(self.state, State::Starting) {
            let instance = self.inputs.instance.borrow_and_update().clone();
            if let Some(instance) = instance {
                self.take_instance(&instance);
            }
        }
    }

    fn take_instance(&mut self, instance: &Instance) {
        let id = instance.identity.id.as_deref();
        if self.decided_for.as_ref().is_none_or(|decided| decided.as_deref() != id) {
            self.reasons.operator = self.remembered.applies_to(id);
            self.decided_for = Some(id.map(str::to_owned));
        }
        let (role, ignored) = self.settings.role(&instance.tags, &self.role);
        let ignored: Vec<String> = ignored.iter().map(ToString::to_string).collect();
        for tag in &ignored {
            if !self.ignored_tags.contains(tag) {
                tracing::warn!("{tag}");
            }
        }
        self.ignored_tags = ignored;
        if role != self.role {
            let cluster = role.cluster.as_ref().map_or("none", |cluster| cluster.as_str());
            let groups = sentences::names(&role.target_groups);
            tracing::info!(
                "settings and tags: target groups {groups}; cluster {cluster}; GET / answers {}",
                role.root
            );
            self.role = role;
        }
        if !matches!(self.state, State::Starting) {
            self.follow_role();
        }
    }

    fn follow_role(&mut self) {
        self.members.follow(&self.role.target_groups, self.wish());
    }

    fn wish(&self) -> Wish {
        match self.state {
            State::Serving => Wish::In,
            _ => Wish::Out,
        }
    }

    fn facts(&mut self, kept_out: bool) -> PhaseFacts {
        // Both become `Some` within seconds, even without an answer. An agent that should stop at once waits
        // too: an earlier process may have left the instance registered.
        let known = self.inputs.instance.borrow().is_some() && self.inputs.notices.borrow().is_some();
        let kept_out = match (kept_out, self.reasons.signal) {
            (false, _) => KeptOut::No,
            (true, None) => KeptOut::Yes,
            (true, Some(_)) => KeptOut::BySignal,
        };
        let was_drained = self.resumed.as_ref().is_some_and(|resumed| resumed.drained);
        let left = match &self.state {
            // A group that was left long before the drain sends no more requests.
            State::Draining { begun, .. } => self.left(*begun),
            _ => None,
        };
        let (now, traffic) = (Instant::now(), self.inputs.traffic.snapshot());
        let (mut over, mut late) = (false, false);
        if let State::Draining { quiet, deadline, .. } = &mut self.state {
            over = quiet.is_over(&traffic, left.map(Instant::into_std), now.into_std());
            late = now >= *deadline;
        }
        PhaseFacts { known, kept_out, was_drained, leaving: self.members.leaving(), quiet: over, late }
    }

    fn go(&mut self, transition: Transition, wanted: String) -> TurnOutcome {
        tracing::debug!(
            "phase {}: {transition:?}, {}",
            self.state.phase(),
            if wanted.is_empty() { "nothing keeps the instance out" } else { &wanted }
        );
        self.say(transition, &wanted);
        let quiet = self.state.quiet().cloned().unwrap_or_else(|| self.quiet());
        let starting = self.state.phase() == Phase::Starting;
        match transition {
            Transition::Serve | Transition::CallOff | Transition::Return => self.enter(State::Serving),
            // Probes get 503 before the first deregistration is sent.
            Transition::Drain | Transition::DrainAgain => self.drain_with(wanted, quiet),
            Transition::ResumeDrained | Transition::End { exit: false, .. } => {
                self.enter(State::Drained { reason: wanted, quiet });
            }
            Transition::End { exit: true, .. } => return TurnOutcome::Finished,
        }
        if starting {
            self.follow_role();
            if let Some(ResumedState { role, parting, drained, since, .. }) = self.resumed.take() {
                // If the phase is the same after a reload, its start stays.
                if drained == (transition == Transition::ResumeDrained) && transition != Transition::Drain {
                    self.since = since.as_deref().and_then(rfc3339::time).unwrap_or(self.since);
                }
                self.members.part_from([role.target_groups, parting].concat(), self.wish());
            }
        }
        TurnOutcome::Again
    }

    fn say(&self, transition: Transition, wanted: &str) {
        let before = self.state.reason();
        match transition {
            Transition::CallOff => {
                let before = cause(before);
                tracing::info!(reason = before, "the drain ({before}) is cancelled");
            }
            Transition::Return => {
                let before = cause(before);
                tracing::info!(reason = before, "registering again: the drain ({before}) is over");
            }
            Transition::End { timed_out: false, .. } => {
                let State::Draining { begun, .. } = &self.state else { return };
                let seconds = begun.elapsed().as_secs();
                let left = self.left(*begun).is_some() || self.members.iter().next().is_none();
                let how = if left { "" } else { ", without a deregistration" };
                tracing::info!(
                    message_id = events::DRAINED,
                    reason = wanted,
                    "drained after {seconds} s{how}: {wanted}"
                );
            }
            Transition::End { timed_out: true, .. } => {
                let gone = self.members.leaving() == Leaving::Gone;
                let left = if gone { "deregistered" } else { "may still be registered" };
                let in_flight = self.inputs.traffic.snapshot().in_flight;
                tracing::warn!(
                    message_id = events::DRAIN_TIMED_OUT,
                    reason = wanted,
                    "drain timeout reached with {in_flight} requests in flight, {left}; treating the instance as drained: {wanted}"
                );
            }
            // `drain_with` logs it, with the time limit.
            Transition::Drain | Transition::DrainAgain => {}
            Transition::Serve | Transition::ResumeDrained => {}
        }
    }

    fn stay(&mut self, wanted: Option<String>) -> TurnOutcome {
        match &mut self.state {
            State::Starting => {}
            State::Serving => self.members.part(),
            State::Draining { reason, .. } | State::Drained { reason, .. } => {
                // The reason may have changed.
                if let Some(wanted) = wanted {
                    *reason = wanted;
                }
            }
        }
        self.say_what_is_waited_for();
        let draining = self.state.phase() == Phase::Draining;
        TurnOutcome::Wait(draining.then_some(DRAIN_TICK))
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.since = SystemTime::now();
        self.publish();
        self.members.wish(self.wish());
    }

    /// Waits until something changes, at most `longest`.
    async fn wait(&mut self, longest: Duration) {
        let starting = matches!(self.state, State::Starting);
        let request = tokio::select! {
            // Also ends the wait if all channels are closed.
            () = tokio::time::sleep(longest) => None,
            () = self.members.changed() => None,
            Ok(()) = self.inputs.instance.changed() => {
                // `read_inputs` checks for changes itself.
                self.inputs.instance.mark_changed();
                None
            }
            Ok(()) = self.inputs.notices.changed() => None,
            Ok(()) = self.inputs.stop.changed() => None,
            // While starting, the id with which to remember a drain is unknown.
            Some(request) = self.inputs.requests.recv(), if !starting => Some(request),
        };
        // A caller that has disconnected needs no answer.
        match request {
            Some(OperatorRequest::Drain(reply)) => _ = reply.send(self.drain()),
            Some(OperatorRequest::Resume(reply)) => _ = reply.send(self.resume()),
            #[cfg(test)]
            Some(OperatorRequest::Panic) => std::panic::panic_any("a test asked for it"),
            None => {}
        }
    }

    fn publish(&self) {
        let instance = self.inputs.instance.borrow();
        let phase = self.state.phase();
        let draining = self.state.reason().map(|reason| format!("{phase}: {reason}"));
        let answers = Answers {
            root: self.role.root,
            instance: instance.as_ref().map(|instance| InstanceAnswer {
                id: instance.identity.id.clone().unwrap_or_else(|| "unknown".to_owned()),
                cluster: self.role.cluster.clone(),
            }),
            draining,
        };
        self.outputs.answers.send_if_modified(|current| {
            let changed = **current != answers;
            if changed {
                *current = Arc::new(answers);
            }
            changed
        });
        let parting = self.members.parting_groups();
        self.outputs.role.send_if_modified(|current| {
            let changed = current.0 != self.role || current.1 != parting;
            if changed {
                *current = (self.role.clone(), parting);
            }
            changed
        });
        let registration = self.report(instance.as_ref());
        self.outputs.registration.send_if_modified(|current| {
            let changed = *current != registration;
            if changed {
                *current = registration;
            }
            changed
        });
    }
}

enum TurnOutcome {
    Again,
    Wait(Option<Duration>),
    Finished,
}
