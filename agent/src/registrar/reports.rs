//! The registrar's part of the status.

use super::Registrar;
use super::member::{MemberHandle, MemberStatus};
use super::rfc3339;
use crate::identity::Instance;
use crate::lifecycle::Membership;
use crate::status::{Freshness, GroupStatus, Registration};

impl<A> Registrar<A> {
    pub(super) fn report(&self, instance: Option<&Instance>) -> Registration {
        let identity = instance.map(|instance| instance.identity.clone()).unwrap_or_default();
        Registration {
            instance_id: identity.id,
            instance_type: identity.instance_type,
            region: identity.region,
            availability_zone: identity.availability_zone,
            cluster: self.role.cluster.as_ref().map(ToString::to_string),
            root: self.role.root.to_string(),
            phase: self.state.phase(),
            reason: self.state.reason().map(str::to_owned),
            waiting_for: self.state.waits_for().map(ToString::to_string),
            stopping: self.reasons.signal.is_some(),
            since: rfc3339::text(self.since),
            target_groups: self.members.iter().map(group_status).collect(),
            spot: self.reasons.spot.clone(),
            rebalance: self.reasons.rebalance.clone(),
            auto_scaling: self.reasons.auto_scaling.clone(),
        }
    }
}

fn group_status(member: &MemberHandle) -> GroupStatus {
    let MemberStatus { arn, target, membership, was_healthy, since, as_of, problem, .. } =
        &*member.status.borrow();
    let health = match membership {
        Membership::Present(health) => Some(health),
        _ => None,
    };
    let (problem, cure) = match problem {
        Some(problem) => (Some(problem.what.clone()), Some(problem.cure.clone())),
        None => (None, health.and_then(|health| health.cure(*was_healthy)).map(str::to_owned)),
    };
    GroupStatus {
        name: member.group.name().to_owned(),
        arn: arn.clone(),
        target: target.as_ref().map(|target| format!("{}:{}", target.id, target.port)),
        state: membership.name(),
        was_healthy: *was_healthy,
        reason: health.and_then(|health| health.reason.clone()),
        description: health.and_then(|health| health.description.clone()),
        since: rfc3339::text(*since),
        as_of: as_of.map(|(time, _)| rfc3339::text(time)),
        age_seconds: None,
        freshness: Freshness {
            asked: as_of.map(|(_, at)| at.into_std()),
            // A member with a problem waits for its next attempt instead.
            can_be_asked: membership.is_present() && problem.is_none(),
        },
        problem,
        cure,
    }
}
