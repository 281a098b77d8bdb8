//! Failures of a member: their effect on the state, the log message, and the pause before the next attempt.

use std::time::Duration;

use super::{Member, NextTick, RETRY};
use crate::aws::{CallError, CallErrorKind};
use crate::backoff::jitter;
use crate::guard::TaskFailure;
use crate::lifecycle::{Event, Membership};
use crate::registrar::api::Api;
use crate::registrar::sentences::{self, Problem};

/// The longest pause between attempts to deregister, for as long as a drain usually takes.
pub(super) const RETRY_DRAINING: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_secs(300);
/// The longest pause after the account throttled a call. While a thousand agents wait, it keeps their calls near what
/// the account accepts; the last of them lose at most this long. decisions/0018 has the figures.
const RETRY_THROTTLED: Duration = Duration::from_secs(60);
/// How often a condition on the instance itself is checked.
const RECHECK: Duration = Duration::from_secs(2);

impl<A: Api> Member<A> {
    /// Starts over after a bug. The known state may be wrong, so the member asks AWS again.
    pub(super) fn begin_anew(&mut self, broken: &TaskFailure) -> NextTick {
        (self.resolved, self.taken_over) = (None, false);
        let problem = Problem {
            what: format!("a bug in the agent: {broken}"),
            cure: "nothing to do: the agent asks AWS again; please report the bug with the log".to_owned(),
        };
        // Not in `failures`, which end with the next successful call: the bug may come back after it.
        if let Some(earlier) = self.mistakes.news(&broken.to_string()) {
            sentences::fails(self.group.name(), &Membership::Unresolved, &problem, earlier);
        }
        self.publish.send_modify(|status| {
            status.membership = Membership::Unresolved;
            status.problem = Some(problem);
            status.tried = true;
        });
        self.changed.notify_one();
        let pause = self.mistakes.pause();
        NextTick::After(if self.is_in_a_drains_time() { pause.min(jitter(RETRY_DRAINING)) } else { pause })
    }

    pub(super) fn group_is_missing(&self) -> bool {
        matches!(self.last_refusal, Some(CallErrorKind::GroupNotFound | CallErrorKind::OtherRegion))
    }

    /// Handles a failed call: updates the state, logs, and returns when to try again.
    pub(super) async fn failed(&mut self, error: &CallError) -> NextTick {
        // The denied credentials may be those of a role that the instance no longer has.
        if matches!(error.kind, CallErrorKind::AccessDenied | CallErrorKind::Credentials) {
            self.shared.api.forget_credentials().await;
        }
        self.last_refusal = Some(error.kind);
        match error.kind {
            CallErrorKind::GroupNotFound if self.membership() != Membership::Unresolved => {
                self.advance(Event::Lost);
            }
            CallErrorKind::Unanswered if error.action.is_change() => self.advance(Event::AnswerLost),
            _ => {}
        }
        let throttled = error.kind == CallErrorKind::Throttled;
        if (throttled || error.kind == CallErrorKind::Unanswered) && !self.membership().is_present() {
            self.schedule.held_up();
        }
        let longest = if throttled { RETRY_THROTTLED } else { RETRY.1 };
        self.retry_within(
            longest,
            Problem { what: error.to_string(), cure: error.cure(self.shared.named_in) },
        )
    }

    pub(super) fn failed_with(&mut self, problem: Problem) -> NextTick {
        self.retry_within(RETRY.1, problem)
    }

    fn retry_within(&mut self, longest: Duration, problem: Problem) -> NextTick {
        let longest = if self.is_in_a_drains_time() { longest.min(RETRY_DRAINING) } else { longest };
        let pause = self.retry.next_delay_within(longest);
        let target_group = self.group.name();
        tracing::debug!(
            target_group,
            "target group {target_group}: {}; retrying in {:.1} s",
            problem.what,
            pause.as_secs_f64()
        );
        self.say(problem);
        NextTick::After(pause)
    }

    /// Retries stay frequent for as long as a drain usually takes, then slow down like all others.
    fn is_in_a_drains_time(&self) -> bool {
        self.leaving_since.is_some_and(|since| since.elapsed() < DRAIN)
    }

    /// Waits for a condition on this instance, which is cheap to check.
    pub(super) fn waits_for(&mut self, problem: Problem) -> NextTick {
        self.say(problem);
        NextTick::After(jitter(RECHECK))
    }

    fn say(&mut self, problem: Problem) {
        if let Some(earlier) = self.failures.news(&problem) {
            sentences::fails(self.group.name(), &self.membership(), &problem, earlier);
        }
        self.publish.send_modify(|status| {
            status.problem = Some(problem);
            status.tried = true;
        });
        self.changed.notify_one();
    }

    /// After a call on the way in that was throttled, and now accepted. The next call is of another kind and waits anew
    /// from the shortest pause: so agents that are nearly in overtake those that have just begun, and neither of the
    /// account's two rates lies idle.
    pub(super) fn came_through(&mut self) {
        if self.last_refusal.take_if(|kind| *kind == CallErrorKind::Throttled).is_some() {
            self.retry.reset();
        }
    }

    pub(super) fn recovered(&mut self) {
        self.retry.reset();
        self.last_refusal = None;
        if let Some(count) = self.failures.end() {
            sentences::works(self.group.name(), &self.membership(), count);
            self.publish.send_modify(|status| status.problem = None);
            self.changed.notify_one();
        }
    }
}
