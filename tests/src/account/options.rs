//! How strict the account is, and how it is doing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::policy::Document;

/// What the account does beyond moto. Where AWS takes its time, that is counted in calls, so that
/// no test has to wait, and none can pass by waiting.
#[derive(Clone, Debug)]
pub struct Options {
    /// Items in a page where the caller does not want fewer; `None`: AWS's own pages.
    pub page: Option<usize>,
    /// Calls, of any kind, for which a new instance is `pending`.
    pub pending: u32,
    /// Looks at instances that do not show a new one yet.
    pub unseen_instances: u32,
    /// A launch that is asked for again is answered as the first time, whatever became of its instances.
    pub old_answers: bool,
    /// Looks at a terminated instance, or tries to delete its group, that find it `shutting-down`.
    pub shutting_down: u32,
    /// Looks at a new balancer that find it `provisioning`.
    pub provisioning: u32,
    /// Launches with a new instance profile that do not see it yet.
    pub invisible_profiles: u32,
    /// Uses of a new security group, of each kind, that do not see it yet.
    pub invisible_groups: u32,
    /// Uses of a new role, of each kind, that do not see it yet.
    pub invisible_roles: u32,
    /// Tries to delete a deleted balancer's group that find its network interfaces.
    pub lingering_interfaces: u32,
    /// Tries to delete a target group that find the listener that was just deleted.
    pub lingering_use: u32,
    /// Looks at a target after its deregistration that find it `draining`.
    pub draining: u32,
    /// How much longer ago instances say that they were launched.
    pub age: Duration,
    /// What becomes of the agents on new instances.
    pub agents: Agents,
    /// Looks at a target that find it `initial`.
    pub initial: u32,
    /// How many vCPUs the account may run.
    pub vcpu_quota: u32,
    /// How many more instances a zone has room for, where that is bounded.
    pub capacity: BTreeMap<String, u32>,
    /// Added to each call.
    pub latency: Duration,
    /// Every second call is throttled.
    pub throttle: bool,
    /// What the caller may do; `None`: everything.
    pub policy: Option<Document>,
    /// Whether the account had a balancer before, and with it the service's own role.
    pub had_balancers: bool,
    /// Passes each request to moto as it was signed, so that moto can check whose it is.
    pub transparent: bool,
}

/// What becomes of the agents on new instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agents {
    /// They register, and the balancer's checks pass.
    Healthy,
    /// They never register.
    Never,
    /// The instances are machines with agents of their own, behind balancers that check them: their
    /// health is what [`super::Account::tell_health`] says.
    Real,
    /// They register, and the checks fail with this reason and description.
    Unhealthy(String, String),
}

impl Options {
    /// As AWS can be on any day.
    pub fn strict() -> Self {
        Self {
            page: Some(2),
            pending: 3,
            unseen_instances: 1,
            old_answers: true,
            shutting_down: 2,
            provisioning: 2,
            invisible_profiles: 2,
            invisible_groups: 1,
            invisible_roles: 1,
            lingering_interfaces: 2,
            lingering_use: 1,
            draining: 1,
            age: Duration::ZERO,
            agents: Agents::Healthy,
            initial: 1,
            vcpu_quota: 64,
            capacity: BTreeMap::new(),
            latency: Duration::ZERO,
            throttle: false,
            policy: None,
            had_balancers: true,
            transparent: false,
        }
    }

    /// As AWS is at its best: it refuses what it refuses, but takes no time for anything.
    pub fn prompt() -> Self {
        Self {
            page: None,
            pending: 0,
            unseen_instances: 0,
            shutting_down: 0,
            provisioning: 0,
            invisible_profiles: 0,
            invisible_groups: 0,
            invisible_roles: 0,
            lingering_interfaces: 0,
            lingering_use: 0,
            draining: 0,
            initial: 0,
            ..Self::strict()
        }
    }

    /// Takes over what a call that found the options as `before`, and left them as `after`, has used up.
    pub(super) fn take_over_use(&mut self, before: &Self, after: &Self) {
        for (zone, room) in &mut self.capacity {
            let room_of = |options: &Self| options.capacity.get(zone).copied().unwrap_or_default();
            *room = room.saturating_sub(room_of(before).saturating_sub(room_of(after)));
        }
        self.had_balancers |= after.had_balancers && !before.had_balancers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_sets_while_a_call_is_answered_holds_but_for_what_the_call_used_up() {
        let with_room = |room: &[(&str, u32)]| Options {
            capacity: room.iter().map(|(zone, room)| ((*zone).to_owned(), *room)).collect(),
            ..Options::strict()
        };
        let (before, after) = (with_room(&[("a", 3), ("b", 0)]), with_room(&[("a", 1), ("b", 0)]));
        for (set, found) in [
            (with_room(&[("a", 3), ("b", 0)]), with_room(&[("a", 1), ("b", 0)])),
            (with_room(&[]), with_room(&[])),
            (with_room(&[("a", 9), ("b", 5)]), with_room(&[("a", 7), ("b", 5)])),
            (with_room(&[("a", 1)]), with_room(&[("a", 0)])),
        ] {
            let mut options = set;
            options.take_over_use(&before, &after);
            assert_eq!(options.capacity, found.capacity);
        }
    }
}
