//! Target groups, their targets, and the health of each target.
//!
//! Nothing here does I/O: the prober hands in results, and what a target's state is follows from
//! them, from its instance and from whether a listener uses its group.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// A target group to create.
#[derive(Clone, Debug)]
pub struct TargetGroupSpec {
    /// Its name, at most 32 characters.
    pub name: String,
    /// The port of targets that are registered without one.
    pub port: u16,
    /// How its targets are named.
    pub target_type: TargetType,
    /// The VPC its targets must be in; `None` is the cloud's own.
    pub vpc: Option<String>,
    /// How targets are probed.
    pub health_check: HealthCheck,
    /// How long a deregistered target is shown as draining.
    pub deregistration_delay: Duration,
}

impl TargetGroupSpec {
    /// A group of instances with AWS's defaults.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self {
            name: name.into(),
            port,
            target_type: TargetType::Instance,
            vpc: None,
            health_check: HealthCheck::default(),
            deregistration_delay: Duration::from_secs(300),
        }
    }
}

/// How a group's targets are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetType {
    /// By instance id.
    Instance,
    /// By private IPv4 address.
    Ip,
}

impl TargetType {
    /// The API's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Ip => "ip",
        }
    }
}

/// How targets are probed.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// The path that must answer 200.
    pub path: String,
    /// From one probe's start to the next.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Passes in a row that make an unhealthy target healthy. A new target needs one.
    pub healthy_threshold: u32,
    /// Failures in a row that make a target unhealthy.
    pub unhealthy_threshold: u32,
}

impl Default for HealthCheck {
    /// AWS's defaults.
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            healthy_threshold: 5,
            unhealthy_threshold: 2,
        }
    }
}

/// A target's state in ELBv2's words.
// Written again on purpose: with the contract's words, a wrong word there would pass every test here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// Registered, not probed to a result yet.
    Initial,
    /// Gets traffic.
    Healthy,
    /// Failed its probes.
    Unhealthy,
    /// Not registered, or nothing uses its group, or its instance cannot serve.
    Unused,
    /// Deregistered, until the deregistration delay is over.
    Draining,
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unused => "unused",
            Self::Draining => "draining",
        })
    }
}

/// A target's state with AWS's reason code and a description.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TargetHealth {
    /// The state.
    pub state: TargetState,
    /// AWS's reason code; `None` when healthy.
    pub reason: Option<&'static str>,
    /// The reason in a sentence; `None` when healthy.
    pub description: Option<String>,
}

impl TargetHealth {
    pub(crate) fn new(state: TargetState, reason: &'static str, description: impl Into<String>) -> Self {
        Self { state, reason: Some(reason), description: Some(description.into()) }
    }

    /// The health of a target that nobody registered.
    pub(crate) fn not_registered() -> Self {
        let text = "No such target is registered with this target group";
        Self::new(TargetState::Unused, "Target.NotRegistered", text)
    }

    /// Why a target whose instance is not running cannot be used.
    pub(crate) fn invalid_state() -> Self {
        let text = "The instance is not running";
        Self::new(TargetState::Unused, "Target.InvalidState", text)
    }

    /// Why targets of a group that no listener forwards to are not used.
    pub(crate) fn group_not_in_use() -> Self {
        let text = "No listener forwards to this target group";
        Self::new(TargetState::Unused, "Target.NotInUse", text)
    }

    /// Why a target outside of the balancer's zones is not used.
    pub(crate) fn zone_not_enabled() -> Self {
        let text = "The target's availability zone is not enabled for the load balancer";
        Self::new(TargetState::Unused, "Target.NotInUse", text)
    }
}

/// A target and its health, as `DescribeTargetHealth` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStatus {
    /// The target's id.
    pub id: String,
    /// The target's port.
    pub port: u16,
    /// The health.
    pub health: TargetHealth,
}

/// How one probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeResult {
    /// 200.
    Pass,
    /// Another status.
    Status(u16),
    /// No answer within the timeout.
    Timeout,
    /// No connection, or no HTTP answer.
    Failed,
}

impl ProbeResult {
    fn unhealthy(&self) -> TargetHealth {
        let (reason, text) = match self {
            Self::Status(code) => {
                ("Target.ResponseCodeMismatch", format!("Health checks failed with these codes: [{code}]"))
            }
            Self::Timeout => {
                ("Target.Timeout", "The target did not answer its health checks in time".to_owned())
            }
            Self::Pass | Self::Failed => (
                "Target.FailedHealthChecks",
                "The target cannot be connected to, or does not answer in HTTP".to_owned(),
            ),
        };
        TargetHealth::new(TargetState::Unhealthy, reason, text)
    }
}

/// Where a target is in its life, apart from what its instance and group do to it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Until the balancer's nodes know of it.
    Registering { until: Instant },
    /// Probed, without a result so far.
    Checking,
    /// Its probes pass.
    Healthy,
    /// Its probes fail, lastly like this.
    Unhealthy(ProbeResult),
    /// Deregistered. Until `late_until` the balancer may still pick it.
    Draining { until: Instant, late_until: Instant },
}

/// A target of a group.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Instance id or address, as registered.
    pub(crate) id: String,
    /// The port it was registered with.
    pub(crate) port: u16,
    /// Where it is reached.
    pub(crate) address: SocketAddr,
    /// What was last shown; `None` before the first time.
    pub(crate) shown: Option<TargetHealth>,
    /// When the next probe is due.
    pub(crate) next_probe: Instant,
    /// Tells it from an earlier target with the same id and port.
    pub(crate) serial: u64,
    stage: Stage,
    passes: u32,
    failures: u32,
}

impl Target {
    /// A target that was registered just now.
    pub(crate) fn new(id: &str, address: SocketAddr, now: Instant, registering: Duration) -> Self {
        Self {
            id: id.to_owned(),
            port: address.port(),
            address,
            shown: None,
            next_probe: now,
            serial: 0,
            stage: Stage::Registering { until: now + registering },
            passes: 0,
            failures: 0,
        }
    }

    /// Registered again: brings a draining target back to its beginning, else changes nothing.
    pub(crate) fn register_again(&mut self, now: Instant, registering: Duration) {
        if self.is_draining() {
            let fresh = Self::new(&self.id, self.address, now, registering);
            *self = Self { shown: self.shown.take(), serial: self.serial, ..fresh };
        }
    }

    /// Deregistered: begins to drain, or goes on draining.
    pub(crate) fn deregister(&mut self, now: Instant, delay: Duration, late: Duration) {
        if !self.is_draining() {
            self.stage = Stage::Draining { until: now + delay, late_until: now + late.min(delay) };
        }
    }

    /// Whether the target was deregistered.
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. })
    }

    /// When a draining target is gone.
    pub(crate) fn drained_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Draining { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Whether the balancer may pick it as a good target, `now` being in the first moments of its
    /// draining included: a real balancer's nodes hear of a deregistration late.
    pub(crate) fn gets_traffic(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Healthy => true,
            Stage::Draining { late_until, .. } => now < late_until,
            _ => false,
        }
    }

    /// Not used for now: when it is used again, everything is found out anew.
    pub(crate) fn forget_checks(&mut self, now: Instant) {
        if !self.is_draining() {
            self.stage = Stage::Checking;
            self.next_probe = now;
            (self.passes, self.failures) = (0, 0);
        }
    }

    /// Until when the target must not be probed because its registration is in progress.
    pub(crate) fn registering_until(&mut self, now: Instant) -> Option<Instant> {
        match self.stage {
            Stage::Registering { until } if now < until => Some(until),
            Stage::Registering { .. } => {
                self.stage = Stage::Checking;
                None
            }
            _ => None,
        }
    }

    /// Counts a probe. One pass makes a new target healthy; after that the thresholds rule.
    pub(crate) fn probed(&mut self, result: ProbeResult, check: &HealthCheck) {
        if result == ProbeResult::Pass {
            (self.passes, self.failures) = (self.passes + 1, 0);
        } else {
            (self.passes, self.failures) = (0, self.failures + 1);
        }
        let next = match (&self.stage, result) {
            (Stage::Checking, ProbeResult::Pass) => Stage::Healthy,
            (Stage::Unhealthy(_), ProbeResult::Pass) if self.passes >= check.healthy_threshold => {
                Stage::Healthy
            }
            (_, ProbeResult::Pass) => return,
            (Stage::Unhealthy(_), failed) => Stage::Unhealthy(failed),
            (Stage::Checking | Stage::Healthy, failed) if self.failures >= check.unhealthy_threshold => {
                Stage::Unhealthy(failed)
            }
            _ => return,
        };
        self.stage = next;
    }

    /// What is shown of the target while its group is used and its instance runs.
    pub(crate) fn health(&self) -> TargetHealth {
        use TargetState::{Draining, Healthy, Initial};
        match &self.stage {
            Stage::Registering { .. } => TargetHealth::new(
                Initial,
                "Elb.RegistrationInProgress",
                "The load balancer is being told of the target",
            ),
            Stage::Checking => TargetHealth::new(
                Initial,
                "Elb.InitialHealthChecking",
                "No health check has come to a result yet",
            ),
            Stage::Healthy => TargetHealth { state: Healthy, reason: None, description: None },
            Stage::Unhealthy(result) => result.unhealthy(),
            Stage::Draining { .. } => TargetHealth::new(
                Draining,
                "Target.DeregistrationInProgress",
                "Deregistered; the deregistration delay is not over",
            ),
        }
    }
}

/// A target group and what is registered with it.
#[derive(Debug)]
pub(crate) struct TargetGroup {
    /// As it was created.
    pub(crate) spec: TargetGroupSpec,
    /// Its ARN.
    pub(crate) arn: String,
    /// Its VPC.
    pub(crate) vpc: String,
    /// In order of registration.
    pub(crate) targets: Vec<Target>,
    turn: usize,
}

impl TargetGroup {
    /// A group without targets.
    pub(crate) fn new(spec: TargetGroupSpec, arn: String, vpc: String) -> Self {
        Self { spec, arn, vpc, targets: Vec::new(), turn: 0 }
    }

    /// The target with this id and port: another port is another target.
    pub(crate) fn target(&mut self, id: &str, port: u16) -> Option<&mut Target> {
        self.targets.iter_mut().find(|target| target.id == id && target.port == port)
    }

    /// Each target with the health that is shown of it.
    pub(crate) fn statuses(&self) -> Vec<TargetStatus> {
        let status = |target: &Target| TargetStatus {
            id: target.id.clone(),
            port: target.port,
            health: target.shown.clone().unwrap_or_else(|| target.health()),
        };
        self.targets.iter().map(status).collect()
    }

    /// The next target in turn. Without a healthy one the group fails open: every registered
    /// target that is not draining and not unused gets traffic.
    pub(crate) fn pick(&mut self, now: Instant) -> Option<SocketAddr> {
        let is_usable = |target: &&Target| {
            let shown = target.shown.as_ref().map(|shown| shown.state);
            shown != Some(TargetState::Unused)
        };
        let usable = || self.targets.iter().filter(is_usable);
        let mut open: Vec<_> = usable().filter(|t| t.gets_traffic(now)).collect();
        if !open.iter().any(|target| !target.is_draining()) {
            open.extend(usable().filter(|target| !target.is_draining()));
        }
        let picked = open.get(self.turn % open.len().max(1))?.address;
        self.turn = self.turn.wrapping_add(1);
        Some(picked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_secs(2);

    fn target(host: u8, now: Instant) -> Target {
        let address = SocketAddr::from(([127, 0, 9, host], 80));
        let mut target = Target::new(&format!("i-{host}"), address, now, Duration::ZERO);
        assert_eq!(target.registering_until(now), None);
        target.shown = Some(target.health());
        target
    }

    fn state(target: &Target) -> (TargetState, Option<&'static str>) {
        let health = target.health();
        (health.state, health.reason)
    }

    #[test]
    fn a_new_target_needs_one_pass_a_failed_one_the_threshold() {
        let now = Instant::now();
        let check = HealthCheck::default();
        let mut target = target(1, now);
        target.probed(ProbeResult::Failed, &check);
        assert_eq!(target.health().reason, Some("Elb.InitialHealthChecking"));
        target.probed(ProbeResult::Pass, &check);
        assert_eq!(state(&target), (TargetState::Healthy, None));
        target.probed(ProbeResult::Status(503), &check);
        target.probed(ProbeResult::Pass, &check);
        target.probed(ProbeResult::Status(503), &check);
        assert_eq!(target.health().state, TargetState::Healthy, "two in a row");
        target.probed(ProbeResult::Status(500), &check);
        let health = target.health();
        assert_eq!(health.reason, Some("Target.ResponseCodeMismatch"));
        assert_eq!(health.description.as_deref(), Some("Health checks failed with these codes: [500]"));
        target.probed(ProbeResult::Timeout, &check);
        assert_eq!(target.health().reason, Some("Target.Timeout"));
        for _ in 0..4 {
            target.probed(ProbeResult::Pass, &check);
        }
        assert_eq!(target.health().state, TargetState::Unhealthy);
        target.probed(ProbeResult::Pass, &check);
        assert_eq!(target.health().state, TargetState::Healthy);
    }

    #[test]
    fn draining_lasts_and_ends_by_registering_again() {
        let now = Instant::now();
        let mut target = target(1, now);
        target.probed(ProbeResult::Pass, &HealthCheck::default());
        target.deregister(now, Duration::from_secs(300), LATE);
        target.deregister(now + LATE, Duration::from_secs(300), LATE);
        assert_eq!(target.drained_at(), Some(now + Duration::from_secs(300)));
        assert!(target.gets_traffic(now + Duration::from_secs(1)));
        assert!(!target.gets_traffic(now + LATE));
        target.probed(ProbeResult::Pass, &HealthCheck::default());
        assert_eq!(state(&target).1, Some("Target.DeregistrationInProgress"));
        target.register_again(now, LATE);
        assert_eq!(state(&target).1, Some("Elb.RegistrationInProgress"));
    }

    #[test]
    fn a_group_takes_turns_and_fails_open() {
        let now = Instant::now();
        let check = HealthCheck::default();
        let spec = TargetGroupSpec::new("g", 80);
        let mut group = TargetGroup::new(spec, "arn".to_owned(), "vpc".to_owned());
        assert_eq!(group.pick(now), None, "no targets");
        group.targets = (1..=3).map(|host| target(host, now)).collect();
        let picks = |group: &mut TargetGroup, now| {
            let mut counts = [0; 4];
            for _ in 0..300 {
                if let Some(SocketAddr::V4(at)) = group.pick(now) {
                    counts[usize::from(at.ip().octets()[3])] += 1;
                }
            }
            counts
        };
        assert_eq!(picks(&mut group, now), [0, 100, 100, 100], "fails open");
        group.targets[0].probed(ProbeResult::Pass, &check);
        group.targets[1].probed(ProbeResult::Pass, &check);
        assert_eq!(picks(&mut group, now), [0, 150, 150, 0]);
        group.targets[1].deregister(now, Duration::from_secs(300), LATE);
        assert_eq!(picks(&mut group, now), [0, 150, 150, 0], "it hears late");
        assert_eq!(picks(&mut group, now + LATE), [0, 300, 0, 0]);
        group.targets[0].shown = Some(TargetHealth::invalid_state());
        group.targets[2].shown = Some(TargetHealth::group_not_in_use());
        assert_eq!(group.pick(now + LATE), None, "unused or draining all");
    }
}
