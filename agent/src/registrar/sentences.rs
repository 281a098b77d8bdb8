//! Log messages about target groups.

use instance_contract::TargetHealthState;

use crate::lifecycle::{Event, Membership};
use crate::status::state_in_words;
use crate::target_group::{Target, TargetGroupRef};
use instance_server::events;

/// A failure and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) what: String,
    pub(super) cure: String,
}

/// Logs a change of membership.
pub(super) fn moved(
    target_group: &str,
    target: Option<&Target>,
    before: &Membership,
    after: &Membership,
    event: &Event,
    was_healthy: bool,
) {
    let ChangeMessage { message_id, message, reason, cure } =
        describe(target, before, after, event, was_healthy);
    let target_state = after.name();
    match cure {
        Some(cure) => tracing::warn!(
            message_id,
            target_group,
            target_state,
            reason,
            cure,
            "target group {target_group}: {message}; {cure}"
        ),
        None => tracing::info!(
            message_id,
            target_group,
            target_state,
            reason,
            "target group {target_group}: {message}"
        ),
    }
}

/// Logs a failure to register or deregister, after `earlier` other failures.
pub(super) fn fails(target_group: &str, membership: &Membership, problem: &Problem, earlier: u64) {
    let Problem { what, cure } = problem;
    let earlier = if earlier > 0 { format!(" (after {earlier} other failures)") } else { String::new() };
    tracing::warn!(
        message_id = events::REGISTRATION_FAILING,
        target_group,
        target_state = membership.name(),
        reason = what,
        cure,
        "target group {target_group}: {what}{earlier}; {cure}; retrying; logs again only if the error changes"
    );
}

/// Logs the end of the failures.
pub(super) fn works(target_group: &str, membership: &Membership, failures: u64) {
    tracing::info!(
        message_id = events::REGISTRATION_WORKS,
        target_group,
        target_state = membership.name(),
        "target group {target_group}: calls succeed again, after {failures} failures"
    );
}

/// The target groups as named in the tag or the settings.
pub(super) fn names(groups: &[TargetGroupRef]) -> String {
    if groups.is_empty() {
        return "none".to_owned();
    }
    groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[derive(Debug, PartialEq, Eq)]
struct ChangeMessage {
    message_id: Option<&'static str>,
    message: String,
    /// The load balancer's reason code, or a sentence if it gives none.
    reason: String,
    cure: Option<&'static str>,
}

fn describe(
    target: Option<&Target>,
    before: &Membership,
    after: &Membership,
    event: &Event,
    was_healthy: bool,
) -> ChangeMessage {
    let (from, to) = (before.name(), after.name());
    let (from, to) = (state_in_words(&from), state_in_words(&to));
    let state = match before {
        _ if from == to => format!("still {to}"),
        // Nothing was known before.
        Membership::Unresolved | Membership::Unknown => to.to_owned(),
        _ => format!("{to} (was {from})"),
    };
    let plain = |reason: &str| ChangeMessage {
        message_id: None,
        message: format!("{state}: {reason}"),
        reason: reason.to_owned(),
        cure: None,
    };
    match event {
        Event::Resolved => ChangeMessage {
            message: "found; asking for the target's health".to_owned(),
            ..plain("found the target group")
        },
        Event::Lost => plain("the target group no longer exists"),
        Event::Deregistered => plain("DeregisterTargets accepted"),
        Event::AnswerLost => plain("a call got no answer and may have taken effect"),
        Event::Rejoin => plain("registering again"),
        Event::Registered => {
            let target = target.map_or_else(String::new, |target| format!(" {}:{}", target.id, target.port));
            ChangeMessage {
                message_id: Some(events::REGISTERED),
                message: format!("registered{target}, {state}: waiting for health checks"),
                reason: "RegisterTargets accepted".to_owned(),
                cure: None,
            }
        }
        Event::Observed(health) => {
            let cure = health.cure(was_healthy).filter(|_| after.is_present());
            let message_id = match health.state {
                _ if !after.is_present() => None,
                TargetHealthState::Healthy => Some(events::HEALTHY),
                TargetHealthState::Unhealthy => Some(events::UNHEALTHY),
                TargetHealthState::Unused => Some(events::UNUSED),
                _ => None,
            };
            let (code, description) = (health.reason.as_deref(), health.description.as_deref());
            // Before a registration this is the expected answer: AWS's words for it read like an error.
            let why = if health.is_not_registered() {
                [None, None]
            } else if health.is_draining() {
                [Some("the load balancer is still draining the target"), None]
            } else {
                [code, description]
            };
            let parts: Vec<&str> = [state.as_str()].into_iter().chain(why.into_iter().flatten()).collect();
            let reason = code.or(description).unwrap_or(match health.state {
                TargetHealthState::Healthy => "the load balancer's health checks pass",
                _ => "reported by the load balancer",
            });
            ChangeMessage { message_id, message: parts.join(": "), reason: reason.to_owned(), cure }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target_group::TargetHealth;

    fn health(state: TargetHealthState, reason: &str, description: &str) -> TargetHealth {
        TargetHealth { state, reason: Some(reason.to_owned()), description: Some(description.to_owned()) }
    }

    fn observed(before: &Membership, health: TargetHealth) -> ChangeMessage {
        let event = Event::Observed(health);
        let after = before.after(event.clone());
        assert!(after.is_ok(), "{after:?}");
        describe(None, before, &after.unwrap_or(Membership::Unknown), &event, before.is_healthy())
    }

    #[test]
    fn a_change_of_health_is_told_with_its_reason_and_cure() {
        let initial = Membership::Present(TargetHealth::bare(TargetHealthState::Initial));
        let healthy = TargetHealth::bare(TargetHealthState::Healthy);
        let said = observed(&initial, healthy.clone());
        assert_eq!(
            (said.message.as_str(), said.message_id),
            ("healthy (was initial)", Some(events::HEALTHY))
        );
        assert_eq!(said.cure, None);

        let failing = health(TargetHealthState::Unhealthy, "Target.Timeout", "Request timed out");
        let said = observed(&Membership::Present(healthy), failing.clone());
        assert_eq!(said.message, "unhealthy (was healthy): Target.Timeout: Request timed out");
        assert_eq!((said.reason.as_str(), said.message_id), ("Target.Timeout", Some(events::UNHEALTHY)));
        assert!(said.cure.is_some_and(|cure| cure.contains("healthy before")), "{said:?}");
        let said = observed(&initial, failing.clone());
        assert!(
            said.cure.is_some_and(|cure| cure.starts_with("allow the load balancer's security")),
            "{said:?}"
        );

        let otherwise =
            health(TargetHealthState::Unhealthy, "Target.FailedHealthChecks", "Health checks failed");
        let said = observed(&Membership::Present(failing), otherwise);
        assert_eq!(said.message, "still unhealthy: Target.FailedHealthChecks: Health checks failed");

        let unused = health(TargetHealthState::Unused, "Target.NotInUse", "Not in use");
        let said = observed(&initial, unused);
        assert_eq!(said.message_id, Some(events::UNUSED));
        assert!(said.cure.is_some(), "{said:?}");
    }

    #[test]
    fn a_state_that_aws_adds_later_is_shown_in_its_word_and_is_no_news() {
        let initial = Membership::Present(TargetHealth::bare(TargetHealthState::Initial));
        let said = observed(&initial, health("resting".into(), "Target.Resting", "Resting"));
        assert_eq!(said.message, "resting (was initial): Target.Resting: Resting");
        assert_eq!((said.message_id, said.cure), (None, None));
    }

    #[test]
    fn being_out_of_a_group_is_neither_health_nor_a_problem() {
        let unknown = Membership::Unknown;
        let said =
            observed(&unknown, health(TargetHealthState::Unused, "Target.NotRegistered", "Not registered"));
        assert_eq!(said.message, "not registered");
        let said = observed(
            &unknown,
            health(TargetHealthState::Draining, "Target.DeregistrationInProgress", "Deregistered"),
        );
        assert_eq!(said.message, "not registered: the load balancer is still draining the target");
        assert_eq!((said.message_id, said.cure), (None, None));
    }

    #[test]
    fn a_registration_names_what_is_registered() {
        let target = Target { id: "i-1".to_owned(), port: 80 };
        let after = Membership::Present(TargetHealth::bare(TargetHealthState::Initial));
        let said = describe(Some(&target), &Membership::Absent, &after, &Event::Registered, false);
        assert_eq!(
            said.message,
            "registered i-1:80, initial (was not registered): waiting for health checks"
        );
        assert_eq!(said.message_id, Some(events::REGISTERED));
    }
}
