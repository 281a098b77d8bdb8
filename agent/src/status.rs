//! The agent's status: what `instance-agent status` shows, and the one line for systemd.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use instance_contract::{TargetHealthState, one_line};
use serde::{Deserialize, Serialize};

use instance_server::traffic::TrafficSnapshot;

/// The longest value in the table, in characters.
const LONGEST_ROW: usize = 1_000;

/// The phase of the instance as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// Serving; the agent asks for identity, tags and notices for the first time.
    #[default]
    Starting,
    /// Serving; the instance belongs in its target groups.
    Serving,
    /// Leaving its target groups; serving until traffic has stopped.
    Draining,
    /// Out of its target groups until the reason is over.
    Drained,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Drained => "drained",
        })
    }
}

/// What the registrar knows. Unknown values are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) instance_id: Option<String>,
    pub(crate) instance_type: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) availability_zone: Option<String>,
    pub(crate) cluster: Option<String>,
    /// `health` or `seed`.
    pub(crate) root: String,
    pub(crate) phase: Phase,
    pub(crate) reason: Option<String>,
    #[serde(default)]
    pub(crate) waiting_for: Option<String>,
    /// Whether the agent exits once it is drained.
    pub(crate) stopping: bool,
    /// Start of the phase, RFC 3339 in UTC.
    pub(crate) since: String,
    /// Each target group that the instance is in or should be in.
    pub(crate) target_groups: Vec<GroupStatus>,
    /// The spot interruption notice in force.
    pub(crate) spot: Option<String>,
    /// The time of a rebalance recommendation.
    pub(crate) rebalance: Option<String>,
    /// The Auto Scaling target lifecycle state.
    pub(crate) auto_scaling: Option<String>,
}

/// The state of this instance in one target group. It is also part of the handover record: later versions may add
/// fields with a default and must not remove any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GroupStatus {
    pub(crate) name: String,
    /// `None` until the group was found.
    pub(crate) arn: Option<String>,
    /// The registered target: id or address, and port.
    pub(crate) target: Option<String>,
    /// ELBv2's state while registered; else `unresolved`, `unknown`, `unregistered` or `deregistered`.
    pub(crate) state: String,
    /// The target was healthy at some time since it was registered.
    pub(crate) was_healthy: bool,
    /// ELBv2's reason code.
    pub(crate) reason: Option<String>,
    /// ELBv2's sentence about the reason.
    pub(crate) description: Option<String>,
    /// Start of the state, RFC 3339 in UTC.
    pub(crate) since: String,
    /// Time of AWS's last answer, RFC 3339 in UTC.
    pub(crate) as_of: Option<String>,
    /// Age of that answer, in seconds.
    pub(crate) age_seconds: Option<u64>,
    #[serde(skip)]
    pub(crate) freshness: Freshness,
    /// Why the instance is not where it should be.
    pub(crate) problem: Option<String>,
    /// What to do about the reason or the problem.
    pub(crate) cure: Option<String>,
}

/// The age of AWS's last answer about a target group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// Time of the last answer, on the monotonic clock.
    pub(crate) asked: Option<Instant>,
    /// Whether the member can ask again now.
    pub(crate) can_be_asked: bool,
}

/// The latest reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReloadStatus {
    /// The number of requests since the process started, including this one.
    pub(crate) attempt: u64,
    pub(crate) outcome: ReloadOutcome,
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReloadOutcome {
    /// No reload was requested.
    #[default]
    None,
    Running,
    /// The running program came from this reload.
    Done,
    /// The previous program keeps running.
    Refused,
}

/// Everything `instance-agent status --output json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentStatus {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) listen: String,
    #[serde(default)]
    pub(crate) reload: ReloadStatus,
    /// Set if the unit has changed since the process started, which needs a restart.
    #[serde(default)]
    pub(crate) restart_needed: Option<String>,
    #[serde(flatten)]
    pub(crate) registration: Registration,
    pub(crate) traffic: TrafficSnapshot,
    /// Why the seed cannot be read; `None` when it can.
    pub(crate) seed_problem: Option<String>,
    /// Why AWS cannot be called over HTTPS; `None` when it can.
    #[serde(default)]
    pub(crate) certificates_problem: Option<String>,
    /// The values of settings that have no effect, since a stronger source overrides them.
    #[serde(default)]
    pub(crate) overridden: Vec<String>,
}

impl Registration {
    /// One line: phase and address, and the state of each target group with its reason.
    pub(crate) fn summary(&self, listen: &str) -> String {
        let mut line = match (&self.reason, &self.waiting_for) {
            (Some(reason), Some(wait)) => {
                format!("{} ({reason}; waiting for {wait}), still serving on {listen}", self.phase)
            }
            (Some(reason), None) => format!("{} ({reason}), still serving on {listen}", self.phase),
            (None, _) => format!("{} on {listen}", self.phase),
        };
        if self.target_groups.is_empty() {
            line.push_str("; no target group");
        }
        for group in &self.target_groups {
            // Writing into a String cannot fail.
            _ = write!(line, "; {}", group.in_words());
        }
        line
    }
}

impl Registration {
    /// Sets the age of each target group's answer at `now`.
    pub(crate) fn aged(mut self, now: Instant) -> Self {
        for group in &mut self.target_groups {
            group.age_seconds = group.freshness.asked.map(|asked| (now - asked).as_secs());
        }
        self
    }

    /// Whether some answer is older than `age` at `now` and can be asked for again.
    pub(crate) fn is_older_than(&self, age: Duration, now: Instant) -> bool {
        let is_old = |asked: Instant| now.saturating_duration_since(asked) > age;
        let mut groups = self.target_groups.iter().map(|group| &group.freshness);
        groups.any(|known| known.can_be_asked && known.asked.is_none_or(is_old))
    }

    /// What a drain waits for, and why the target groups make it wait.
    pub(crate) fn drain_waits_for(&self) -> String {
        let waits_for = self.waiting_for.clone().unwrap_or_default();
        let problems: Vec<_> = self.target_groups.iter().filter_map(|group| group.problem.clone()).collect();
        match &problems[..] {
            [] => waits_for,
            problems => format!("{waits_for} ({})", problems.join("; ")),
        }
    }

    /// The target groups that send the instance no traffic, each with the reason; `None` if all do.
    pub(crate) fn without_traffic(&self) -> Option<String> {
        let waiting = self.target_groups.iter().filter(|group| {
            let state = TargetHealthState::from(group.state.as_str());
            !matches!(state, TargetHealthState::Healthy | TargetHealthState::Unavailable)
        });
        let waiting: Vec<String> = waiting.map(GroupStatus::in_words).collect();
        (!waiting.is_empty()).then(|| format!("target group {}", waiting.join("; ")))
    }
}

/// [`GroupStatus::state`] for people: the agent's own words say what they mean.
pub(crate) fn state_in_words(name: &str) -> &str {
    match name {
        "unresolved" => "not found yet",
        "unknown" => "not known yet",
        "unregistered" => "not registered",
        state => state,
    }
}

impl GroupStatus {
    /// `cluster1: unhealthy (Target.Timeout)`
    pub(crate) fn in_words(&self) -> String {
        let Self { name, state, problem, reason, .. } = self;
        let state = match state.as_str() {
            "unknown" => "the target's state is not known yet",
            state => state_in_words(state),
        };
        match problem.as_ref().or(reason.as_ref()) {
            Some(why) => format!("{name}: {state} ({why})"),
            None => format!("{name}: {state}"),
        }
    }

    /// Everything about it, for `status`.
    fn block(&self) -> String {
        let mut text = String::from("\n");
        row(&mut text, "target group", &self.name);
        // A state that is not known may have been asked for all the same.
        let age = self.age_seconds.filter(|_| self.state != "unknown");
        let age = age.map_or(String::new(), |age| format!(", asked {age} s ago"));
        row(&mut text, "  state", &format!("{} since {}{age}", state_in_words(&self.state), self.since));
        let Self { target, problem, reason, description, cure, .. } = self;
        let reason = match (reason, description) {
            (Some(reason), Some(description)) => Some(format!("{reason}: {description}")),
            (reason, description) => reason.as_ref().or(description.as_ref()).cloned(),
        };
        for (name, value) in
            [("  target", target), ("  problem", problem), ("  reason", &reason), ("  what to do", cure)]
        {
            if let Some(value) = value {
                row(&mut text, name, value);
            }
        }
        text
    }
}

fn row(text: &mut String, name: &str, value: &str) {
    _ = writeln!(text, "{name:<14} {}", one_line(value, LONGEST_ROW));
}

impl AgentStatus {
    pub(crate) fn table(&self) -> String {
        let registration = &self.registration;
        let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "unknown".to_owned());
        let mut text = String::new();
        let mut row = |name: &str, value: String| row(&mut text, name, &value);
        row("instance", known(&registration.instance_id));
        if let (Some(kind), Some(zone)) = (&registration.instance_type, &registration.availability_zone) {
            row("machine", format!("{kind} in {zone}"));
        }
        row(
            "cluster",
            registration
                .cluster
                .clone()
                .unwrap_or_else(|| "not set: answers for cluster1 and cluster2".to_owned()),
        );
        row("serves", format!("{} (root = {})", self.listen, registration.root));
        let reason = registration.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        row("state", format!("{} since {}{reason}", registration.phase, registration.since));
        if let Some(wait) = &registration.waiting_for {
            row("waiting for", wait.clone());
        }
        if let Some(notice) = &registration.spot {
            row("spot", notice.clone());
        }
        if let Some(time) = &registration.rebalance {
            row("rebalance", format!("recommended at {time}"));
        }
        if let Some(state) = &registration.auto_scaling {
            row("auto scaling", state.clone());
        }
        if let Some(problem) = &self.seed_problem {
            row("seed", problem.clone());
        }
        if let Some(problem) = &self.certificates_problem {
            row("certificates", problem.clone());
        }
        for sentence in &self.overridden {
            row("settings", sentence.clone());
        }
        let traffic = &self.traffic;
        row(
            "clients",
            format!(
                "GET / {}, /health {}, the cluster's path {}, /seed {}",
                traffic.root, traffic.health, traffic.cluster, traffic.seed_read
            ),
        );
        row("", format!("numbers stored {}, requests rejected {}", traffic.seed_write, traffic.refused));
        row(
            "health checks",
            format!(
                "{} by the load balancer; another answer than 200 to {}",
                traffic.probes, traffic.refused_probes
            ),
        );
        let TrafficSnapshot { made_room, unread_dropped, .. } = *traffic;
        if made_room + unread_dropped > 0 {
            let text = format!("{made_room} idle to make room, {unread_dropped} whose clients read nothing");
            row("closed", text);
        }
        row("now", format!("{} in flight, {} connections", traffic.in_flight, traffic.connections));
        row("agent", format!("{} (pid {})", self.version, self.pid));
        let reload = &self.reload;
        match (reload.outcome, &reload.reason) {
            (ReloadOutcome::None, _) => {}
            (ReloadOutcome::Running, _) => row("reload", "under way".to_owned()),
            (ReloadOutcome::Done, _) => row("reload", "done".to_owned()),
            (ReloadOutcome::Refused, why) => row("reload", format!("refused: {}", known(why))),
        }
        if let Some(why) = &self.restart_needed {
            row("restart", why.clone());
        }
        text.push_str(&self.target_group_table());
        text
    }

    fn target_group_table(&self) -> String {
        let groups = &self.registration.target_groups;
        if groups.is_empty() {
            return "\nno target group: set the tag instance-agent:target-group, or target-group in the settings\n"
                .to_owned();
        }
        // One block for each, since a table of them is wider than a terminal.
        groups.iter().map(GroupStatus::block).collect()
    }

    /// Counters and states in the Prometheus text format.
    pub(crate) fn metrics(&self) -> String {
        let traffic = &self.traffic;
        let mut text = String::new();
        let mut typed = "";
        for (metric, labels, value) in traffic.counters() {
            if metric != typed {
                _ = writeln!(text, "# TYPE instance_agent_{metric} counter");
                typed = metric;
            }
            _ = writeln!(text, "instance_agent_{metric}{labels} {value}");
        }
        for (name, value) in [
            ("in_flight", traffic.in_flight),
            ("connections", traffic.connections),
            ("parked", traffic.parked),
            ("draining", u64::from(self.registration.phase == Phase::Draining)),
        ] {
            _ = writeln!(text, "# TYPE instance_agent_{name} gauge\ninstance_agent_{name} {value}");
        }
        text.push_str("# TYPE instance_agent_target_healthy gauge\n");
        for group in &self.registration.target_groups {
            let healthy = u8::from(group.state == TargetHealthState::Healthy.as_str());
            _ = writeln!(text, "instance_agent_target_healthy{{target_group=\"{}\"}} {healthy}", group.name);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        Registration {
            root: "health".into(),
            phase: Phase::Serving,
            since: "2026-01-01T00:00:00Z".into(),
            target_groups: vec![GroupStatus {
                name: "cluster1".into(),
                state: "unhealthy".into(),
                reason: Some("Target.Timeout".into()),
                ..GroupStatus::default()
            }],
            ..Registration::default()
        }
    }

    #[test]
    fn the_line_for_systemd_says_what_is_served_and_what_each_group_thinks_and_why() {
        let mut registration = registration();
        assert_eq!(
            registration.summary("0.0.0.0:80"),
            "serving on 0.0.0.0:80; cluster1: unhealthy (Target.Timeout)"
        );
        registration.phase = Phase::Draining;
        registration.reason = Some("SIGTERM received".into());
        registration.target_groups.clear();
        assert_eq!(
            registration.summary("0.0.0.0:80"),
            "draining (SIGTERM received), still serving on 0.0.0.0:80; no target group"
        );
    }

    #[test]
    fn metrics_hold_every_counter_and_each_group() {
        let status = AgentStatus {
            version: "1".into(),
            pid: 1,
            listen: "0.0.0.0:80".into(),
            reload: ReloadStatus::default(),
            restart_needed: None,
            registration: registration(),
            traffic: TrafficSnapshot { root: 3, probes: 4, ..TrafficSnapshot::default() },
            seed_problem: None,
            certificates_problem: None,
            overridden: vec!["agent.toml:1: listen has no effect: --listen overrides it".into()],
        };
        let metrics = status.metrics();
        assert!(metrics.contains("instance_agent_requests_total{route=\"root\"} 3\n"), "{metrics}");
        assert!(metrics.contains("instance_agent_probes_total 4\n"), "{metrics}");
        assert!(metrics.contains("target_healthy{target_group=\"cluster1\"} 0\n"), "{metrics}");
        let table = status.table();
        assert!(
            table.contains("Target.Timeout") && table.contains("settings       agent.toml:1: listen"),
            "{table}"
        );
    }
}
