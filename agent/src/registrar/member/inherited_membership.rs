//! The membership from before a reload. It applies and is shown until AWS has answered again.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::lifecycle::Membership;
use crate::registrar::rfc3339;
use crate::status::GroupStatus;
use crate::target_group::{Target, TargetGroupRef, TargetHealth};

/// See the module's description.
#[derive(Clone, Debug)]
pub(crate) struct InheritedMembership {
    pub(super) arn: String,
    pub(super) target: Target,
    pub(super) membership: Membership,
    pub(super) was_healthy: bool,
    pub(super) since: SystemTime,
    pub(super) as_of: Option<(SystemTime, Instant)>,
}

impl InheritedMembership {
    /// The state of this group in `groups`; `None` if the previous program did not know it.
    pub(crate) fn of(group: &TargetGroupRef, groups: &[GroupStatus]) -> Option<Self> {
        let known = groups.iter().find(|known| known.name == group.name())?;
        let arn = known.arn.clone()?;
        if matches!(group, TargetGroupRef::Arn(named) if *named != arn) {
            return None;
        }
        let (id, port) = known.target.as_deref()?.rsplit_once(':')?;
        let membership = match known.state.as_str() {
            // The member asks AWS before it does anything.
            "" | "unresolved" | "unknown" | "unregistered" => return None,
            "deregistered" => Membership::Left,
            state => Membership::Present(TargetHealth {
                state: state.into(),
                reason: known.reason.clone(),
                description: known.description.clone(),
            }),
        };
        let now = SystemTime::now();
        let asked = known.as_of.as_deref().and_then(rfc3339::time).filter(|asked| *asked <= now);
        let as_of = asked.and_then(|asked| {
            let age = now.duration_since(asked).ok()?;
            Some((asked, Instant::now().checked_sub(age)?))
        });
        Some(Self {
            arn,
            target: Target { id: id.to_owned(), port: port.parse().ok()? },
            membership,
            was_healthy: known.was_healthy,
            since: rfc3339::time(&known.since).unwrap_or(now),
            as_of,
        })
    }
}

#[cfg(test)]
mod tests {
    use instance_contract::TargetHealthState;

    use super::*;

    const ARN: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/a/73e2d6bc24d8a067";

    fn status(state: &str) -> GroupStatus {
        GroupStatus {
            name: "a".to_owned(),
            arn: Some(ARN.to_owned()),
            target: Some("fd00::1:8081".to_owned()),
            state: state.to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            as_of: Some("2026-01-02T00:00:00Z".to_owned()),
            ..GroupStatus::default()
        }
    }

    #[test]
    fn what_is_known_is_taken_over_and_what_is_not_is_asked() {
        let by_name = TargetGroupRef::Name("a".to_owned());
        let of = |group: &TargetGroupRef, state: &str| InheritedMembership::of(group, &[status(state)]);
        let Some(known) = of(&by_name, "healthy") else { panic!("it is known") };
        assert_eq!(known.target, Target { id: "fd00::1".to_owned(), port: 8081 });
        assert_eq!(known.membership, Membership::Present(TargetHealth::bare(TargetHealthState::Healthy)));
        assert_eq!(rfc3339::text(known.since), "2026-01-01T00:00:00Z");
        assert_eq!(of(&by_name, "deregistered").map(|known| known.membership), Some(Membership::Left));
        for state in ["", "unresolved", "unknown", "unregistered"] {
            assert!(of(&by_name, state).is_none(), "{state}");
        }
        assert!(of(&TargetGroupRef::Name("b".to_owned()), "healthy").is_none());
        assert!(of(&TargetGroupRef::Arn(ARN.to_owned()), "healthy").is_some());
        assert!(of(&TargetGroupRef::Arn(format!("{ARN}0")), "healthy").is_none(), "another one of that name");
    }
}
