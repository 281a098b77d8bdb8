//! A small account for unit tests: target groups that take targets, and faults that are scripted.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use instance_contract::TargetHealthState;
use tokio::time::Instant;

use super::api::Api;
use crate::aws::{Action, CallError, CallErrorKind};
use crate::target_group::{Target, TargetGroup, TargetGroupRef, TargetHealth, TargetType};
pub(super) use crate::telemetry::Log;

/// What happens to a call instead of what should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// AWS refuses it, or it did not get there.
    Fails(CallErrorKind),
    /// It takes effect, and its answer is lost.
    LosesAnswer,
    /// The program has a mistake.
    Panics,
}

/// A call that was made, in the order of their making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Aws(Action, String),
    OwnHealth,
    ForgetCredentials,
}

struct Group {
    arn: String,
    delay: Option<Duration>,
    targets: Vec<(Target, TargetHealth)>,
}

struct Account {
    groups: BTreeMap<String, Group>,
    made: u32,
    /// With how often they are still to happen.
    faults: Vec<(Action, Fault, u32)>,
    own_health: bool,
    calls: Vec<(Instant, Call)>,
}

/// The account. Clones are the same one.
#[derive(Clone)]
pub(super) struct FakeApi(Arc<Mutex<Account>>);

impl FakeApi {
    /// With the given groups, empty, and a server whose health path answers 200.
    pub(super) fn new(groups: &[&str]) -> Self {
        let account = Account {
            groups: BTreeMap::new(),
            made: 0,
            faults: Vec::new(),
            own_health: true,
            calls: Vec::new(),
        };
        let api = Self(Arc::new(Mutex::new(account)));
        for group in groups {
            api.make(group);
        }
        api
    }

    fn with<T>(&self, work: impl FnOnce(&mut Account) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    /// Makes a group, in place of one of the same name; it gets another ARN.
    pub(super) fn make(&self, name: &str) {
        self.with(|account| {
            account.made += 1;
            let arn = format!(
                "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/{name}/{:016}",
                account.made
            );
            let delay = Some(Duration::from_secs(30));
            account.groups.insert(name.to_owned(), Group { arn, delay, targets: Vec::new() });
        });
    }

    pub(super) fn delete(&self, name: &str) {
        self.with(|account| account.groups.remove(name)).unwrap();
    }

    pub(super) fn forget_delay(&self, name: &str) {
        self.with(|account| account.groups.get_mut(name).unwrap().delay = None);
    }

    /// The next `times` calls of `action` go wrong.
    pub(super) fn fault(&self, action: Action, fault: Fault, times: u32) {
        self.with(|account| account.faults.push((action, fault, times)));
    }

    pub(super) fn mend(&self) {
        self.with(|account| account.faults.clear());
    }

    pub(super) fn set_own_health(&self, healthy: bool) {
        self.with(|account| account.own_health = healthy);
    }

    /// Sets the health of every target of a group.
    pub(super) fn set_health(&self, name: &str, state: TargetHealthState) {
        self.with(|account| {
            for (_, health) in &mut account.groups.get_mut(name).unwrap().targets {
                *health = TargetHealth::bare(state.clone());
            }
        });
    }

    /// Registers a target without a call of the agent.
    pub(super) fn put(&self, name: &str, target: Target) {
        let initial = TargetHealth::bare(TargetHealthState::Initial);
        self.with(|account| account.groups.get_mut(name).unwrap().targets.push((target, initial)));
    }

    /// What is registered with a group, as `id:port`.
    pub(super) fn targets(&self, name: &str) -> Vec<String> {
        self.with(|account| {
            let targets = account.groups[name].targets.iter();
            targets.map(|(target, _)| format!("{}:{}", target.id, target.port)).collect()
        })
    }

    /// The calls so far, with their times, which are then forgotten.
    pub(super) fn take_calls(&self) -> Vec<(Instant, Call)> {
        self.with(|account| std::mem::take(&mut account.calls))
    }

    /// When `action` was called, since the calls were last taken.
    pub(super) fn times_of(&self, action: Action) -> Vec<Instant> {
        let is_it = |call: &Call| matches!(call, Call::Aws(called, _) if *called == action);
        self.with(|account| account.calls.iter().filter(|(_, call)| is_it(call)).map(|(at, _)| *at).collect())
    }

    pub(super) fn count(&self, action: Action) -> usize {
        self.times_of(action).len()
    }

    /// Notes a call, and does with it what the script says. `work` is what it does when it arrives.
    async fn call<T>(
        &self,
        action: Action,
        of: String,
        work: impl FnOnce(&mut Account) -> Result<T, CallErrorKind> + Send,
    ) -> Result<T, CallError> {
        // As a call over a network would, it lets others run.
        tokio::task::yield_now().await;
        let fault = self.with(|account| {
            account.calls.push((Instant::now(), Call::Aws(action, of)));
            let scripted = account.faults.iter_mut().find(|(of, _, left)| *of == action && *left > 0);
            scripted.map(|(_, fault, left)| {
                *left -= 1;
                *fault
            })
        });
        let done = match fault {
            None => self.with(work),
            Some(Fault::Fails(kind)) => Err(kind),
            Some(Fault::LosesAnswer) => self.with(work).and(Err(CallErrorKind::Unanswered)),
            Some(Fault::Panics) => std::panic::panic_any("a test asked for it"),
        };
        done.map_err(|kind| CallError { action, kind, detail: format!("{kind:?}") })
    }
}

impl Account {
    fn group(&mut self, arn: &str) -> Result<&mut Group, CallErrorKind> {
        self.groups.values_mut().find(|group| group.arn == arn).ok_or(CallErrorKind::GroupNotFound)
    }
}

impl Api for FakeApi {
    async fn find(&self, group: &TargetGroupRef) -> Result<TargetGroup, CallError> {
        let name = group.name().to_owned();
        self.call(Action::DescribeTargetGroups, group.to_string(), move |account| {
            let found = account.groups.get(&name).ok_or(CallErrorKind::GroupNotFound)?;
            Ok(TargetGroup {
                arn: found.arn.clone(),
                target_type: TargetType::Instance,
                check_interval: None,
            })
        })
        .await
    }

    async fn deregistration_delay(&self, arn: &str) -> Option<Duration> {
        let work = |account: &mut Account| account.group(arn).map(|group| group.delay);
        self.call(Action::DescribeTargetGroupAttributes, arn.to_owned(), work).await.ok()?
    }

    async fn health(&self, arn: &str, target: &Target) -> Result<TargetHealth, CallError> {
        let work = |account: &mut Account| {
            let found = account.group(arn)?.targets.iter().find(|(known, _)| known == target);
            Ok(found.map_or_else(
                || TargetHealth {
                    reason: Some("Target.NotRegistered".to_owned()),
                    ..TargetHealth::bare(TargetHealthState::Unused)
                },
                |(_, health)| health.clone(),
            ))
        };
        self.call(Action::DescribeTargetHealth, arn.to_owned(), work).await
    }

    async fn register(&self, arn: &str, target: &Target) -> Result<(), CallError> {
        let work = |account: &mut Account| {
            let group = account.group(arn)?;
            group.targets.retain(|(known, _)| known != target);
            group.targets.push((target.clone(), TargetHealth::bare(TargetHealthState::Initial)));
            Ok(())
        };
        self.call(Action::RegisterTargets, arn.to_owned(), work).await
    }

    async fn deregister(&self, arn: &str, target: &Target) -> Result<(), CallError> {
        let work = |account: &mut Account| {
            account.group(arn)?.targets.retain(|(known, _)| known != target);
            Ok(())
        };
        self.call(Action::DeregisterTargets, arn.to_owned(), work).await
    }

    async fn forget_credentials(&self) {
        self.with(|account| account.calls.push((Instant::now(), Call::ForgetCredentials)));
    }

    async fn probe_own_health(&self) -> Result<(), String> {
        tokio::task::yield_now().await;
        self.with(|account| {
            account.calls.push((Instant::now(), Call::OwnHealth));
            if account.own_health { Ok(()) } else { Err("own health path answered 503".to_owned()) }
        })
    }
}
