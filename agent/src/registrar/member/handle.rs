//! The registrar's side of a member: its wish, its status, and its task.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::lifecycle::Membership;
use crate::registrar::sentences::Problem;
use crate::target_group::{Target, TargetGroupRef};

/// Whether the instance should be in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Register, and stay registered.
    In,
    /// Stay registered, but do not register again.
    Stay,
    /// Deregister, and stay out.
    Out,
}

/// A wish with its number: the same wish with a new number makes a waiting member act at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumberedWish {
    pub(super) wish: Wish,
    pub(super) generation: u64,
}

/// What a member publishes about itself.
#[derive(Clone, Debug)]
pub(crate) struct MemberStatus {
    /// `None` until the group was found.
    pub(crate) arn: Option<String>,
    pub(crate) target: Option<Target>,
    pub(crate) membership: Membership,
    /// Healthy at some time since the registration.
    pub(crate) was_healthy: bool,
    pub(crate) since: SystemTime,
    /// Time of AWS's last answer, on both clocks.
    pub(crate) as_of: Option<(SystemTime, Instant)>,
    pub(crate) problem: Option<Problem>,
    pub(crate) deregistration_delay: Option<Duration>,
    /// When the agent last saw the instance leave the group.
    pub(crate) deregistered: Option<Instant>,
    /// The number of the wish that `gone` and `tried` are about.
    pub(super) generation: u64,
    /// The wish is not `In`, and nothing is left to deregister.
    pub(crate) gone: bool,
    /// A call to fulfil the wish has returned.
    pub(crate) tried: bool,
}

/// The task of one target group. Dropping it stops the task.
#[derive(Debug)]
pub(crate) struct MemberHandle {
    /// The group as named in the tag or the settings.
    pub(crate) group: TargetGroupRef,
    pub(crate) status: watch::Receiver<MemberStatus>,
    pub(super) wished: watch::Sender<NumberedWish>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl MemberHandle {
    pub(crate) fn wish(&self, wish: Wish) {
        self.wished.send_if_modified(|wished| {
            let changed = wished.wish != wish;
            if changed {
                *wished = NumberedWish { wish, generation: wished.generation + 1 };
            }
            changed
        });
    }

    /// Wishes the instance out; a member that waits for its next attempt tries at once.
    pub(crate) fn urge_out(&self) {
        self.wished.send_modify(|wished| {
            *wished = NumberedWish { wish: Wish::Out, generation: wished.generation + 1 };
        });
    }

    /// Whether, by the latest wish, nothing is left to deregister.
    pub(crate) fn is_gone(&self) -> bool {
        let status = self.status.borrow();
        status.gone && status.generation == self.wished.borrow().generation
    }

    /// Whether a call to fulfil the latest wish has returned.
    pub(crate) fn has_tried(&self) -> bool {
        let status = self.status.borrow();
        status.tried && status.generation == self.wished.borrow().generation
    }

    /// Whether this is the member for `group`, even if the group is named differently than before. Not if
    /// the group was not found or has another ARN now: a new member may find it.
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
