//! What happens to a running local fleet, as lines for its user: agents that end, targets whose health changes.

use std::collections::BTreeSet;
use std::process::ExitStatus;

use local_cloud::{TargetHealth, TargetState};

use crate::local::{LocalFleet, Member};

/// Lines of an agent's log that are shown when it fails.
const LOG_LINES: usize = 8;

/// The end of a member's log: of wrong usage the error alone, without the usage after it.
pub(super) fn end_of_log(member: &Member) -> Vec<String> {
    let lines = member.agent.last_lines(LOG_LINES * 2);
    let lines = match lines.iter().rposition(|line| line.starts_with("error: ")) {
        Some(error) => {
            lines.into_iter().skip(error).take_while(|line| !line.starts_with("Usage: ")).collect()
        }
        None => lines,
    };
    let mut lines: Vec<_> = lines.into_iter().filter(|line| !line.trim().is_empty()).collect();
    lines.drain(..lines.len().saturating_sub(LOG_LINES));
    if lines.is_empty() {
        lines.push("it logged nothing".to_owned());
    }
    lines
}

/// Agents whose end was already reported.
#[derive(Default)]
pub(super) struct ChildExits(BTreeSet<String>);

/// Agents that ended with one status and the same last lines.
struct SameEnd {
    first: String,
    more: usize,
    status: ExitStatus,
    log: Vec<String>,
}

impl ChildExits {
    /// How many agents ended by themselves.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// A line for the agents that ended since the last call, with the end of their log. Agents that ended for one reason
    /// share a line: a wrong argument ends them all.
    pub(super) fn new_lines(&mut self, fleet: &mut LocalFleet) -> Vec<String> {
        let mut ends: Vec<SameEnd> = Vec::new();
        for member in &mut fleet.members {
            let Some(status) = member.agent.ended() else {
                continue;
            };
            if !self.0.insert(member.instance.id().to_owned()) {
                continue;
            }
            let log = end_of_log(member);
            match ends.iter_mut().find(|end| end.status == status && end.log == log) {
                Some(end) => end.more += 1,
                None => {
                    let first = format!("{} ({})", member.instance.id(), member.address);
                    ends.push(SameEnd { first, more: 0, status, log });
                }
            }
        }
        let mut lines = Vec::new();
        for SameEnd { first, more, status, log } in ends {
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!("{first}{more}: the agent ended ({status}); not restarted"));
            lines.extend(log.into_iter().map(|line| format!("    {line}")));
        }
        lines
    }
}

/// The state of each member's target that was shown last.
pub(super) struct TargetStates(Vec<TargetState>);

impl TargetStates {
    /// The states of a fleet that was seen healthy.
    pub(super) fn healthy(fleet: &LocalFleet) -> Self {
        Self(vec![TargetState::Healthy; fleet.members.len()])
    }

    /// A line for each target whose state has changed since the last call.
    pub(super) fn new_lines(&mut self, fleet: &LocalFleet) -> Vec<String> {
        let mut lines = Vec::new();
        for (member, shown) in fleet.members.iter().zip(&mut self.0) {
            let health = fleet.health(member);
            if health.state != *shown {
                lines.push(format!(
                    "{} in target group {}: {} (was {shown}){}",
                    member.instance.id(),
                    member.target_group,
                    health.state,
                    reason(&health)
                ));
                *shown = health.state;
            }
        }
        lines
    }
}

/// `: Target.Timeout: The target did not …`; nothing where there is no reason.
fn reason(health: &TargetHealth) -> String {
    let parts = [health.reason, health.description.as_deref()];
    parts.into_iter().flatten().map(|part| format!(": {part}")).collect()
}
