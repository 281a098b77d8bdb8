//! The drain, and the operator's commands `drain` and `resume`.

use std::time::Duration;

use tokio::time::Instant;

use super::api::Api;
use super::waits_for::WaitsFor;
use super::{Registrar, State};
use crate::lifecycle::{Leaving, QuietPeriod};
use instance_server::events;

/// The deregistration delay that AWS gives a target group by default.
const DEFAULT_DEREGISTRATION_DELAY: Duration = Duration::from_secs(300);

/// A drain's time limit is at least `drain-quiet` plus this, even if the group's delay is shorter: time for
/// the deregistration and for late requests.
const LEAST_OVER_QUIET: Duration = Duration::from_secs(10);

/// How long after a deregistration the load balancer may send new requests; 17 s were measured.
const LATE_REQUESTS: Duration = Duration::from_secs(60);

impl<A: Api> Registrar<A> {
    /// A quiet period that begins now.
    pub(super) fn quiet(&self) -> QuietPeriod {
        QuietPeriod::new(
            self.settings.drain_quiet,
            &self.inputs.traffic.snapshot(),
            Instant::now().into_std(),
        )
    }

    pub(super) fn drain_with(&mut self, reason: String, quiet: QuietPeriod) {
        let timeout = self.drain_timeout();
        tracing::info!(
            message_id = events::DRAINING,
            reason,
            "draining for at most {} s: {reason}",
            timeout.as_secs()
        );
        let begun = Instant::now();
        let deadline = begun + timeout;
        self.enter(State::Draining { reason, quiet, begun, deadline, waits_for: None });
        self.members.urge_out();
    }

    fn drain_timeout(&self) -> Duration {
        self.settings.drain_timeout.unwrap_or_else(|| {
            // A short delay says how long requests take, not that none come: the quiet period still applies.
            self.members
                .deregistration_delay()
                .unwrap_or(DEFAULT_DEREGISTRATION_DELAY)
                .max(self.settings.drain_quiet + LEAST_OVER_QUIET)
        })
    }

    /// When the instance left the last target group that may still send requests, in a drain since `begun`.
    pub(super) fn left(&self, begun: Instant) -> Option<Instant> {
        self.members.last_left().filter(|at| *at + LATE_REQUESTS > begun)
    }

    /// Logs what the drain waits for, if that has changed.
    pub(super) fn say_what_is_waited_for(&mut self) {
        let State::Draining { begun, .. } = &self.state else { return };
        let now = if self.members.leaving() != Leaving::Gone {
            WaitsFor::Deregistration(self.members.still_in())
        } else if self.left(*begun).is_some() {
            WaitsFor::Silence(self.settings.drain_quiet)
        } else {
            WaitsFor::Requests
        };
        if let State::Draining { waits_for, .. } = &mut self.state
            && waits_for.as_ref() != Some(&now)
        {
            tracing::info!("draining: waiting for {now}");
            *waits_for = Some(now);
        }
    }

    pub(super) fn drain(&mut self) -> Result<String, String> {
        const UNTIL: &str = "the instance stays deregistered, across restarts, until `instance-agent resume`";
        const PROGRESS: &str =
            "`instance-agent status` shows the progress; `instance-agent drain --wait` waits for the end";
        let id = self.inputs.instance.borrow().as_ref().and_then(|instance| instance.identity.id.clone());
        self.remembered.remember(id.as_deref()).map_err(|error| {
            format!("not drained: cannot save the drain: {error}; free space in the state folder or repair it, then try again")
        })?;
        self.reasons.operator = true;
        match &self.state {
            State::Drained { .. } => return Ok(format!("already drained\n{UNTIL}")),
            State::Draining { waits_for: Some(wait), deadline, .. } => {
                let left = deadline.saturating_duration_since(Instant::now()).as_secs();
                return Ok(format!(
                    "already draining: waiting for {wait}; at most {left} s more\n{UNTIL}\n{PROGRESS}"
                ));
            }
            State::Starting | State::Serving | State::Draining { .. } => {}
        }
        let groups = self.members.still_in();
        let steps = if groups.is_empty() {
            format!("waiting for {}", WaitsFor::Requests)
        } else {
            let silence = WaitsFor::Silence(self.settings.drain_quiet);
            format!("deregistering from {}, then waiting for {silence}", groups.join(", "))
        };
        Ok(format!("draining: {steps}; at most {} s\n{UNTIL}\n{PROGRESS}", self.drain_timeout().as_secs()))
    }

    pub(super) fn resume(&mut self) -> Result<String, String> {
        self.remembered.forget().map_err(|error| {
            format!(
                "not resumed: cannot remove the saved drain: {error}; repair the state folder, then try again"
            )
        })?;
        let drained = std::mem::take(&mut self.reasons.operator);
        let other = self.reasons.to_stay_out(self.settings.on_rebalance);
        const NOTHING: &str = "nothing to resume: no drain by an operator is in force";
        Ok(match (drained, other) {
            (true, None) => "resumed: registering with the target groups again".to_owned(),
            (true, Some(reason)) => {
                format!("resumed, but another reason keeps the instance deregistered: {reason}")
            }
            (false, None) => NOTHING.to_owned(),
            (false, Some(reason)) => {
                format!("{NOTHING}; another reason keeps it deregistered: {reason}")
            }
        })
    }
}
