//! The members: one for each target group that is named, and for each that the instance is still leaving.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::api::{Api, MemberContext};
use super::member::{InheritedMembership, MemberHandle, Wish};
use super::sentences;
use crate::lifecycle::Leaving;
use crate::status::GroupStatus;
use crate::target_group::TargetGroupRef;
use instance_server::traffic::Traffic;

pub(super) struct Members<A> {
    shared: Arc<MemberContext<A>>,
    traffic: Arc<Traffic>,
    named: Vec<MemberHandle>,
    /// Members whose group is no longer named. They deregister and are then removed.
    parting: Vec<MemberHandle>,
    changed: Arc<Notify>,
    /// The states from before a reload, of target groups without a member yet.
    known: Vec<GroupStatus>,
    /// When the instance last left a group that is no longer named.
    last_left: Option<Instant>,
}

impl<A> Members<A> {
    pub(super) fn new(shared: Arc<MemberContext<A>>, traffic: Arc<Traffic>, known: Vec<GroupStatus>) -> Self {
        Self {
            shared,
            traffic,
            named: Vec::new(),
            parting: Vec::new(),
            changed: Arc::default(),
            known,
            last_left: None,
        }
    }

    /// All members; the parting ones come last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &MemberHandle> {
        self.named.iter().chain(&self.parting)
    }

    pub(super) fn parting_groups(&self) -> Vec<TargetGroupRef> {
        self.parting.iter().map(|member| member.group.clone()).collect()
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn leaving(&self) -> Leaving {
        if self.iter().all(MemberHandle::is_gone) {
            Leaving::Gone
        } else if self.iter().all(MemberHandle::has_tried) {
            Leaving::Tried
        } else {
            Leaving::Untried
        }
    }

    /// The groups in which the instance may still be registered.
    pub(super) fn still_in(&self) -> Vec<String> {
        let staying = self.iter().filter(|member| !member.is_gone());
        staying.map(|member| member.group.name().to_owned()).collect()
    }

    pub(super) fn last_left(&self) -> Option<Instant> {
        self.iter().filter_map(|member| member.status.borrow().deregistered).max().max(self.last_left)
    }

    /// The longest known deregistration delay.
    pub(super) fn deregistration_delay(&self) -> Option<Duration> {
        self.iter().filter_map(|member| member.status.borrow().deregistration_delay).max()
    }

    /// Sets the wish of all named groups.
    pub(super) fn wish(&self, wish: Wish) {
        for member in &self.named {
            member.wish(wish);
        }
    }

    pub(super) fn urge_out(&self) {
        for member in self.iter() {
            member.urge_out();
        }
    }

    /// Lets parting members deregister once all others are registered, and removes those that have left.
    pub(super) fn part(&mut self) {
        if self.named.iter().all(|member| member.status.borrow().membership.is_present()) {
            for member in &self.parting {
                member.wish(Wish::Out);
            }
        }
        let last_left = &mut self.last_left;
        self.parting.retain(|member| {
            let status = member.status.borrow();
            *last_left = (*last_left).max(status.deregistered);
            drop(status);
            !member.is_gone()
        });
    }

    /// Ends all members. Returns the groups that the instance was still leaving.
    pub(super) fn end(&mut self) -> Vec<TargetGroupRef> {
        let parting = self.parting_groups();
        self.named.clear();
        self.parting.clear();
        parting
    }
}

impl<A: Api> Members<A> {
    /// Makes the named members those of `groups`, with this wish.
    pub(super) fn follow(&mut self, groups: &[TargetGroupRef], wish: Wish) {
        let is_named = |member: &MemberHandle| groups.iter().any(|group| member.is_for(group));
        let (staying, leaving) = std::mem::take(&mut self.named).into_iter().partition(is_named);
        self.named = staying;
        for member in leaving {
            let wish = when_parting(wish);
            if wish == Wish::Stay && !groups.is_empty() {
                let (target_group, named) = (member.group.name(), sentences::names(groups));
                tracing::info!(
                    target_group,
                    "target group {target_group}: no longer named; the agent deregisters once the instance is registered with {named}"
                );
            }
            member.wish(wish);
            self.parting.push(member);
        }
        for group in groups {
            if self.named.iter().any(|member| member.is_for(group)) {
                continue;
            }
            // A parting member still knows its state.
            let returning = self.parting.iter().position(|member| member.is_for(group));
            let member = match returning {
                Some(index) => self.parting.swap_remove(index),
                None => self.start(group.clone(), wish),
            };
            member.wish(wish);
            self.named.push(member);
        }
    }

    /// Starts parting members for groups that are no longer named; `wish` is that of the named groups.
    pub(super) fn part_from(&mut self, groups: Vec<TargetGroupRef>, wish: Wish) {
        for group in groups {
            if !self.named.iter().any(|member| member.is_for(&group)) {
                let member = self.start(group, when_parting(wish));
                self.parting.push(member);
            }
        }
    }

    fn start(&mut self, group: TargetGroupRef, wish: Wish) -> MemberHandle {
        let known = InheritedMembership::of(&group, &self.known);
        // Used once: a restarted member asks AWS.
        self.known.retain(|known| known.name != group.name());
        let (shared, traffic, changed) = (self.shared.clone(), self.traffic.clone(), self.changed.clone());
        MemberHandle::start(group, shared, traffic, wish, changed, known)
    }
}

/// The wish for a group that is no longer named. The instance stays in it until it is registered with every named group,
/// so that a misspelt name takes no instance out of service.
fn when_parting(wish: Wish) -> Wish {
    match wish {
        Wish::In => Wish::Stay,
        wish => wish,
    }
}
