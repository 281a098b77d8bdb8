//! What the registrar holds of a member: its wish, its status, and its task.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::lifecycle::Membership;
use crate::registrar::sentences::Problem;
use crate::target_group::{Target, TargetGroupRef};

/// Whether the instance is wanted in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Register, and stay registered.
    In,
    /// Stay registered where it is, and do not register anew.
    Stay,
    /// Deregister, and stay out.
    Out,
}

/// A wish, and which one it is: the same wish said again is a new reason to hurry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumberedWish {
    pub(super) wish: Wish,
    pub(super) generation: u64,
}

/// What a member publishes about itself.
#[derive(Clone, Debug)]
pub(crate) struct MemberStatus {
    /// The group's ARN, once it was found.
    pub(crate) arn: Option<String>,
    /// What is registered.
    pub(crate) target: Option<Target>,
    /// Where it stands.
    pub(crate) membership: Membership,
    /// Since when.
    pub(crate) since: SystemTime,
    /// When AWS last answered a call about it, on both clocks.
    pub(crate) as_of: Option<(SystemTime, Instant)>,
    /// What keeps it from where it should be.
    pub(crate) problem: Option<Problem>,
    /// The group's deregistration delay, where it is known.
    pub(crate) deregistration_delay: Option<Duration>,
    /// When it was last seen to have left the group.
    pub(crate) deregistered: Option<Instant>,
    /// Which wish `gone` and `tried` are about.
    pub(super) generation: u64,
    /// Not wished in, and nothing is left to deregister.
    pub(crate) gone: bool,
    /// Since the wish last changed, a call to fulfil it has come back.
    pub(crate) tried: bool,
}

/// The task of one target group. Dropping it stops the task.
#[derive(Debug)]
pub(crate) struct MemberHandle {
    /// The group as it is named in the tag or the settings.
    pub(crate) group: TargetGroupRef,
    /// What the member says of itself.
    pub(crate) status: watch::Receiver<MemberStatus>,
    pub(super) wished: watch::Sender<NumberedWish>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl MemberHandle {
    /// Says whether the instance is wanted in the group.
    pub(crate) fn wish(&self, wish: Wish) {
        self.wished.send_if_modified(|wished| {
            let changed = wished.wish != wish;
            if changed {
                *wished = NumberedWish { wish, generation: wished.generation + 1 };
            }
            changed
        });
    }

    /// Wishes the instance out, now: one that is waiting to try again does so at once.
    pub(crate) fn urge_out(&self) {
        self.wished.send_modify(|wished| {
            *wished = NumberedWish { wish: Wish::Out, generation: wished.generation + 1 };
        });
    }

    /// Not wished in by the latest wish, and nothing is left to deregister.
    pub(crate) fn is_gone(&self) -> bool {
        let status = self.status.borrow();
        status.gone && status.generation == self.wished.borrow().generation
    }

    /// Since the latest wish a call to fulfil it has come back.
    pub(crate) fn has_tried(&self) -> bool {
        let status = self.status.borrow();
        status.tried && status.generation == self.wished.borrow().generation
    }

    /// Whether it is the member for `group`, also where that is named in another way than before.
    /// One whose group was not found, or is another by now, is not: a new look may find it.
    pub(crate) fn is_for(&self, group: &TargetGroupRef) -> bool {
        let status = self.status.borrow();
        self.group == *group
            || self.group.is_same_group(group)
                && match group {
                    TargetGroupRef::Arn(arn) => status.arn.as_ref() == Some(arn),
                    TargetGroupRef::Name(_) => status.membership != Membership::Unresolved,
                }
    }
}

impl Drop for MemberHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
