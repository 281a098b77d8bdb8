//! Waits until instances are healthy, or until they cannot become so, and explains a target's state to the
//! operator.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures_util::future::try_join_all;
use instance_contract::{TargetHealthState, duration};
use tokio::time::Instant;

use crate::cloud::elbv2::TargetHealth;
use crate::cloud::pace::Pace;
use crate::cloud::{CallError, Cloud};
use crate::fleet::Desired;
use crate::plan::inventory::{Balancer, Instance};
use crate::user_data::failure_in_console;

/// The instances of a group that have to be healthy.
#[derive(Clone, Debug)]
pub(crate) struct AwaitedInstances {
    /// The group's target group's ARN.
    pub(crate) target_group: String,
    pub(crate) ids: BTreeSet<String>,
}

/// Why a fleet is not healthy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unhealthy {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It cannot become healthy by itself.
    #[error("{0}")]
    Permanent(String),
    /// It did not become healthy in time.
    #[error("not healthy within {}: {reason}", duration::format(*.timeout))]
    TimedOut {
        /// How long the command waited.
        timeout: Duration,
        /// The last reason to wait.
        reason: String,
    },
}

/// How often a console is read; EC2 renews it about as often.
const CONSOLE_EVERY: Duration = Duration::from_secs(30);
/// How many consoles are read each time.
const CONSOLES: usize = 3;
/// After this time an instance has booted and installed the agent.
const BOOT_TIME: Duration = Duration::from_secs(600);
/// Lines of a console that are shown.
const CONSOLE_LINES: usize = 8;

/// What a wait knows of the fleet.
pub(crate) struct Watch<'a> {
    pub(crate) cloud: &'a Cloud,
    pub(crate) desired: &'a Desired,
    pub(crate) awaited: &'a [AwaitedInstances],
    pub(crate) timeout: Duration,
    /// Whether a resource was just created that agents may have asked for earlier in vain.
    pub(crate) repaired: bool,
}

impl Watch<'_> {
    /// Waits until all instances are healthy and the balancer, last seen as `balancer`, is active.
    ///
    /// Each round asks for the target health of the groups that are not healthy yet, and for the instances themselves.
    /// Most problems pass by themselves, so the wait goes to its deadline unless one of four cannot: the balancer failed,
    /// an instance does not run, its first boot could not install the agent (its console says so), or a target failed its
    /// checks for twice the time that a working target needs. An instance that is in no target group is a special case:
    /// its agent may still boot, or may have to notice that someone deregistered it. Such instances end the wait only when
    /// all of them had both times, and nothing else is left to get better.
    ///
    /// # Errors
    /// They do not become healthy: the reason and the cure.
    pub(crate) async fn until_healthy(
        &self,
        balancer: Option<&Balancer>,
        waiting: &dyn Fn(&str),
    ) -> Result<(), Unhealthy> {
        let mut pace = Pace::new(self.timeout);
        // An impaired one serves, though it could not get all the capacity it wanted.
        let serves = |found: &Balancer| matches!(found.state.as_str(), "active" | "active_impaired");
        let mut active = balancer.is_some_and(serves);
        let mut pending: Vec<&AwaitedInstances> = self.awaited.iter().collect();
        let mut unhealthy_since: BTreeMap<String, Instant> = BTreeMap::new();
        // An instance older than the launch's own timeout had the time to boot.
        let mut absence = AbsenceTracker {
            boot_time: BOOT_TIME.max(self.timeout),
            time_to_notice: self.time_to_notice(),
            since: BTreeMap::new(),
        };
        let mut consoles_read = Instant::now();
        loop {
            let asked = pending.iter().map(|awaited| self.cloud.target_health(&awaited.target_group));
            let (healths, seen) = tokio::try_join!(try_join_all(asked), async {
                if active { Ok(None) } else { self.cloud.balancer(&self.desired.names).await }
            })?;
            active |= seen.as_ref().is_some_and(serves);
            let mut problems = Vec::new();
            if let Some(found) = seen.filter(|_| !active) {
                if found.state == "failed" {
                    let reason = found.reason.unwrap_or_else(|| "no reason given".to_owned());
                    let text =
                        format!("the load balancer failed: {reason}; destroy the fleet and launch it again");
                    return Err(Unhealthy::Permanent(text));
                }
                problems.push(format!("the load balancer is {}", found.state));
            }
            let mut absent = Vec::new();
            let mut unhealthy = 0;
            let mut left = Vec::new();
            for (awaited, healths) in pending.iter().zip(healths) {
                let not_healthy = not_healthy(awaited, &healths);
                unhealthy += not_healthy.len();
                for (id, health) in &not_healthy {
                    problems.push(describe(id, health.as_ref()));
                    if health.is_none() {
                        absent.push(id.clone());
                    }
                    self.check_not_stuck(id, health.as_ref(), &mut unhealthy_since)?;
                }
                if !not_healthy.is_empty() {
                    left.push(*awaited);
                }
            }
            pending = left;
            if pending.is_empty() && active {
                return Ok(());
            }
            let reason = self.summary(&problems, unhealthy);
            waiting(&reason);
            let instances = self.check_running(&pending).await?;
            // As long as anything else gets better, that is worth waiting for.
            let permanent = absence.is_permanent(&absent, &instances, Instant::now());
            if permanent && absent.len() == problems.len() {
                return Err(Unhealthy::Permanent(format!(
                    "launched more than {} min ago, but not registered with its target group for {} s: {}; {NOT_REGISTERED}",
                    absence.boot_time.as_secs() / 60,
                    absence.time_to_notice.as_secs(),
                    absent.join(", ")
                )));
            }
            if consoles_read.elapsed() >= CONSOLE_EVERY {
                consoles_read = Instant::now();
                self.check_consoles(&absent).await?;
            }
            if !pace.next().await {
                // After a wait this long, the console may tell the reason.
                self.check_consoles(&absent).await?;
                let is_absent = |found: &&Instance| absent.contains(&found.id);
                let oldest = instances.iter().filter(is_absent).map(age).max();
                let cure = oldest.map_or_else(String::new, |age| format!("; {}", not_registered(age)));
                return Err(Unhealthy::TimedOut { timeout: self.timeout, reason: reason + &cure });
            }
        }
    }

    /// After this time an agent has noticed that it is in no target group, and tried to register again. It looks when it
    /// has got no probes for three intervals. After a long series of failed calls it retries every five minutes.
    fn time_to_notice(&self) -> Duration {
        let retry = if self.repaired { Duration::from_secs(300) } else { Duration::ZERO };
        self.desired.fleet.health_check.interval * 5 + Duration::from_secs(60) + retry
    }

    fn summary(&self, problems: &[String], unhealthy: usize) -> String {
        let all: usize = self.awaited.iter().map(|awaited| awaited.ids.len()).sum();
        let shown: Vec<_> = problems.iter().take(3).map(String::as_str).collect();
        let more = problems.len().saturating_sub(shown.len());
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        format!("{} of {all} healthy; {}{more}", all - unhealthy, shown.join("; "))
    }

    /// # Errors
    /// A target has failed its checks for so long that it will not pass them by itself.
    fn check_not_stuck(
        &self,
        id: &str,
        health: Option<&TargetHealth>,
        unhealthy_since: &mut BTreeMap<String, Instant>,
    ) -> Result<(), Unhealthy> {
        let Some(health) = health.filter(|health| health.state == TargetHealthState::Unhealthy) else {
            unhealthy_since.remove(id);
            return Ok(());
        };
        let since = unhealthy_since.entry(id.to_owned()).or_insert_with(Instant::now);
        let check = &self.desired.fleet.health_check;
        // Twice what a target that works again needs to be called healthy, and a minute for the agent.
        let enough = check.interval * check.healthy * 2 + Duration::from_secs(60);
        if since.elapsed() > enough { Err(Unhealthy::Permanent(describe(id, Some(health)))) } else { Ok(()) }
    }

    /// The fleet's instances, if any of them is still waited for.
    ///
    /// # Errors
    /// An instance that should become healthy does not run.
    async fn check_running(&self, pending: &[&AwaitedInstances]) -> Result<Vec<Instance>, Unhealthy> {
        let awaited: BTreeSet<_> = pending.iter().flat_map(|awaited| &awaited.ids).collect();
        if awaited.is_empty() {
            return Ok(Vec::new());
        }
        let instances = self.cloud.instances(&self.desired.names).await?;
        let stuck = |instance: &&Instance| {
            awaited.contains(&instance.id) && !matches!(instance.state.as_str(), "pending" | "running")
        };
        let Some(stuck) = instances.iter().find(stuck) else {
            return Ok(instances);
        };
        let reason = stuck.reason.as_deref().unwrap_or("EC2 gives no reason");
        let cure = if stuck.is_dead() {
            "launch again to replace it"
        } else {
            "start it, or terminate it and launch again"
        };
        Err(Unhealthy::Permanent(format!("{} is {}: {reason}; {cure}", stuck.id, stuck.state)))
    }

    /// # Errors
    /// The first boot of one of these instances has failed, as its console says.
    async fn check_consoles(&self, ids: &[String]) -> Result<(), Unhealthy> {
        let asked = ids.iter().take(CONSOLES).map(async |id| (id, self.cloud.console(id).await));
        for (id, console) in futures_util::future::join_all(asked).await {
            // Not being allowed to read a console is no reason to give up.
            let Ok(Some(console)) = console else {
                continue;
            };
            if let Some(failure) = failure_in_console(&console) {
                let lines: Vec<_> = console.lines().filter(|line| !line.trim().is_empty()).collect();
                let excerpt = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n  ");
                return Err(Unhealthy::Permanent(format!(
                    "{id} could not install the agent: {failure}; correct the package's source, terminate the \
                     instance and launch again. The end of its console output:\n  {excerpt}"
                )));
            }
        }
        Ok(())
    }
}

/// The instances that are not healthy, and how they are; `None` if not registered.
fn not_healthy(awaited: &AwaitedInstances, healths: &[TargetHealth]) -> Vec<(String, Option<TargetHealth>)> {
    let of = |id: &String| healths.iter().find(|health| health.id == *id).cloned();
    let all = awaited.ids.iter().map(|id| (id.clone(), of(id)));
    all.filter(|(_, health)| !health.as_ref().is_some_and(TargetHealth::is_healthy)).collect()
}

/// An instance's target health in one sentence, with the cure where there is one.
fn describe(id: &str, health: Option<&TargetHealth>) -> String {
    let Some(health) = health else {
        return format!("{id} has not registered yet");
    };
    let reason = health.reason.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let cure = cure(health).map_or_else(String::new, |cure| format!(": {cure}"));
    format!("{id} is {}{reason}{cure}", health.state)
}

/// What to do about an instance that has run for long and is in no target group.
const NOT_REGISTERED: &str =
    "run `instance-agent status` on it, and `instance-agent resume` if someone has drained it";

/// What to do about a running instance of this age that is in no target group.
pub(crate) fn not_registered(age: Duration) -> &'static str {
    if age < BOOT_TIME {
        "it may still boot; if not, run `instance-agent status` on it, and `instance-agent resume` if someone \
         has drained it"
    } else {
        NOT_REGISTERED
    }
}

/// The time since an instance was launched, or started again.
pub(crate) fn age(instance: &Instance) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(instance.launched.try_into().unwrap_or_default()))
}

/// Instances that have been seen to be in no target group.
#[derive(Debug)]
struct AbsenceTracker {
    /// After this time an instance has booted.
    boot_time: Duration,
    /// After this time an agent has noticed.
    time_to_notice: Duration,
    /// Since when, by instance.
    since: BTreeMap<String, Instant>,
}

impl AbsenceTracker {
    /// Whether all that are `absent` at this time will not register by themselves: they had the time to boot,
    /// and their agents to notice.
    fn is_permanent(&mut self, absent: &[String], instances: &[Instance], at: Instant) -> bool {
        self.since.retain(|id, _| absent.contains(id));
        let is_old =
            |id: &String| instances.iter().any(|found| found.id == *id && age(found) >= self.boot_time);
        absent.iter().fold(!absent.is_empty(), |permanent, id| {
            let since = *self.since.entry(id.clone()).or_insert(at);
            permanent && is_old(id) && at.duration_since(since) >= self.time_to_notice
        })
    }
}

/// What to do about a target's state.
pub(crate) fn cure(health: &TargetHealth) -> Option<&'static str> {
    Some(match health.reason.as_deref()? {
        "Target.ResponseCodeMismatch" => {
            "request the health check's path on the instance and look at the answer"
        }
        "Target.Timeout" | "Target.FailedHealthChecks" => {
            "check that the agent runs (`systemctl status instance-agent`) and that the security group admits \
             the load balancer"
        }
        "Target.NotInUse" => {
            "run launch again: no listener uses the target group, or the load balancer is not in this zone"
        }
        "Target.InvalidState" => "start the instance, or terminate it and launch again",
        "Target.DeregistrationInProgress" => "it is draining; nothing to do",
        "Target.HealthCheckDisabled" => "enable health checks on the target group",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, age: Duration) -> Instance {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Instance {
            id: id.to_owned(),
            state: "running".to_owned(),
            reason: None,
            zone: "us-east-1a".to_owned(),
            public_address: None,
            private_address: None,
            launched: (now - age).as_secs().try_into().unwrap(),
            index: 0,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn only_instances_that_had_the_time_to_register_are_given_up() {
        let instances = [instance("i-old", BOOT_TIME), instance("i-new", BOOT_TIME / 2)];
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let begun = Instant::now();
        let time_to_notice = Duration::from_secs(210);
        let mut absence = AbsenceTracker { boot_time: BOOT_TIME, time_to_notice, since: BTreeMap::new() };
        let mut is_permanent =
            |absent: &[&str], after: Duration| absence.is_permanent(&ids(absent), &instances, begun + after);
        let later = |times: u32| time_to_notice * times;
        assert!(!is_permanent(&[], later(0)));
        assert!(!is_permanent(&["i-old"], later(0)));
        assert!(is_permanent(&["i-old"], later(1)));
        // Others may still become healthy, or have not been seen by EC2's own list yet.
        assert!(!is_permanent(&["i-old", "i-new"], later(2)));
        assert!(!is_permanent(&["i-old", "i-unknown"], later(4)));
        // One that was registered in between has its time again.
        assert!(!is_permanent(&[], later(5)));
        assert!(!is_permanent(&["i-old"], later(6)));
        assert!(is_permanent(&["i-old"], later(7)));
    }
}
