//! The pure part of the agent's life on an instance: no I/O, and no clock of its own.
//!
//! [`Membership`] is the state machine of one target group, and [`Phase`] that of the instance;
//! [`StayOutReasons`] decides whether the instance wants to be in its groups at all; [`QuietPeriod`] decides
//! when traffic has really stopped. The registrar drives them all.

use std::fmt;
use std::time::{Duration, Instant};

use instance_contract::TargetHealthState;

use crate::status::Phase;
use crate::target_group::TargetHealth;
use instance_server::traffic::TrafficSnapshot;

/// This instance's membership of one target group.
///
/// ```text
/// Unresolved ──resolved──▶ Unknown ──observed──▶ Absent ──registered──▶ Present
///     ▲                     ▲   ╲                  ▲                    │   │
///     └─────── lost ────────┤    ╲── observed ─────┼────────▶ Present   │   │
///          (from any)       │                      └──── observed ──────┘   │
///                           └─────── rejoin ─────── Left ◀── deregistered ──┘
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// The group was not found, or no longer exists.
    Unresolved,
    /// The group is known, but not whether this target is in it: AWS was not asked yet, or a call that
    /// may have taken effect got no answer.
    Unknown,
    /// Not in the group, or draining out of it.
    Absent,
    /// In the group, with the health last seen.
    Present(TargetHealth),
    /// Deregistered by this agent.
    Left,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The group was found.
    Resolved,
    /// The group no longer exists.
    Lost,
    /// `DescribeTargetHealth` answered.
    Observed(TargetHealth),
    /// `RegisterTargets` was accepted.
    Registered,
    /// `DeregisterTargets` was accepted.
    Deregistered,
    /// A call got no answer and may have taken effect.
    AnswerLost,
    /// The instance left and should be in the group again.
    Rejoin,
}

/// An event that cannot happen in a state: a bug in the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal transition: {event:?} while {state}")]
pub(crate) struct IllegalTransition {
    state: Membership,
    /// Boxed, to keep the result of [`Membership::after`] small.
    event: Box<Event>,
}

impl Membership {
    /// The state after `event`.
    pub(crate) fn after(&self, event: Event) -> Result<Self, IllegalTransition> {
        use Membership::{Absent, Left, Present, Unknown, Unresolved};
        Ok(match (self, event) {
            (Unresolved, Event::Resolved) => Unknown,
            (_, Event::Lost) => Unresolved,
            (Unknown | Absent | Present(_), Event::Observed(health)) if health.is_registered() => {
                Present(health)
            }
            (Unknown | Absent | Present(_), Event::Observed(_)) => Absent,
            (Absent, Event::Registered) => Present(TargetHealth::bare(TargetHealthState::Initial)),
            (Unknown | Present(_), Event::Deregistered) => Left,
            (Unknown | Absent | Present(_), Event::AnswerLost) => Unknown,
            (Left, Event::Rejoin) => Unknown,
            (state, event) => {
                return Err(IllegalTransition { state: state.clone(), event: Box::new(event) });
            }
        })
    }

    /// In the group, as far as known, so that leaving needs a call.
    pub(crate) fn is_present(&self) -> bool {
        matches!(self, Self::Present(_))
    }

    pub(crate) fn is_healthy(&self) -> bool {
        matches!(self, Self::Present(health) if health.is_healthy())
    }

    /// Known to be out of the group.
    pub(crate) fn is_out(&self) -> bool {
        matches!(self, Self::Absent | Self::Left)
    }

    /// One word, stable, for logs and status.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Unresolved => "unresolved".to_owned(),
            Self::Unknown => "unknown".to_owned(),
            Self::Absent => "unregistered".to_owned(),
            Self::Present(health) => health.state.to_string(),
            Self::Left => "deregistered".to_owned(),
        }
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(health) => health.fmt(f),
            other => f.write_str(&other.name()),
        }
    }
}

/// A step from one [`Phase`] of the instance to another.
///
/// ```text
///                 ┌──────────── Return ───────────────┐
///                 ▼                                   │
/// Starting ─Serve─▶ Serving ─Drain─▶ Draining ─End─▶ Drained
///   │  │              ▲              ▲   │ ▲ │          │  ▲
///   │  └───── Drain ──┼──────────────┘   │ │ └ End: exit│  │
///   │                 └──── CallOff ─────┘ └ DrainAgain ┘  │
///   └────────────────────── ResumeDrained ─────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// Nothing keeps the instance out.
    Serve,
    /// A reason keeps it out.
    Drain,
    /// A reason keeps it out, and it was drained before a reload.
    ResumeDrained,
    /// The reason is over before the drain.
    CallOff,
    /// The drain is over; after a signal, the process exits.
    End { timed_out: bool, exit: bool },
    /// A signal came while drained: a request may be in flight, or a deregistration may have failed.
    DrainAgain,
    /// The reason is over.
    Return,
}

/// Whether anything keeps the instance out of its target groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptOut {
    No,
    /// Until the reason is over.
    Yes,
    /// Until the process exits.
    BySignal,
}

/// How far the slowest target group is with the deregistration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaving {
    /// No call to deregister has returned since the drain began.
    Untried,
    Tried,
    /// Nothing is left to deregister.
    Gone,
}

/// The facts that decide the next phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PhaseFacts {
    /// The agent has tried to read identity, tags and notices.
    pub(crate) known: bool,
    pub(crate) kept_out: KeptOut,
    /// The instance was drained before a reload.
    pub(crate) was_drained: bool,
    pub(crate) leaving: Leaving,
    /// Traffic has stopped, see [`QuietPeriod`].
    pub(crate) quiet: bool,
    /// The drain's deadline has passed.
    pub(crate) late: bool,
}

impl Phase {
    /// The next transition; `None` keeps the phase.
    pub(crate) fn next(self, facts: &PhaseFacts) -> Option<Transition> {
        let PhaseFacts { known, kept_out, was_drained, leaving, quiet, late } = *facts;
        let exit = kept_out == KeptOut::BySignal;
        match (self, kept_out) {
            // An agent that starts during a spot interruption, or that an operator drained, must not
            // register first.
            (Self::Starting, _) if !known => None,
            (Self::Starting, KeptOut::No) => Some(Transition::Serve),
            (Self::Starting, _) if was_drained => Some(Transition::ResumeDrained),
            (Self::Starting | Self::Serving, KeptOut::Yes | KeptOut::BySignal) => Some(Transition::Drain),
            (Self::Serving, KeptOut::No) => None,
            (Self::Draining, KeptOut::No) => Some(Transition::CallOff),
            (Self::Draining, _) if leaving == Leaving::Gone && quiet => {
                Some(Transition::End { timed_out: false, exit })
            }
            (Self::Draining, _) if late && leaving != Leaving::Untried => {
                Some(Transition::End { timed_out: true, exit })
            }
            (Self::Draining, _) => None,
            (Self::Drained, KeptOut::No) => Some(Transition::Return),
            (Self::Drained, KeptOut::Yes) => None,
            (Self::Drained, KeptOut::BySignal) => Some(Transition::DrainAgain),
        }
    }
}

/// Whether a rebalance recommendation drains the instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnRebalance {
    /// Log and show the recommendation, nothing else.
    #[default]
    Ignore,
    /// Drain as on a spot interruption notice.
    Drain,
}

impl fmt::Display for OnRebalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ignore => "ignore",
            Self::Drain => "drain",
        })
    }
}

/// The reasons that can keep the instance out of its target groups, strongest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StayOutReasons {
    /// SIGTERM or SIGINT: drain, then exit.
    pub(crate) signal: Option<&'static str>,
    /// A spot interruption notice, such as `terminate at 2026-01-01T00:00:00Z`.
    pub(crate) spot: Option<String>,
    /// A rebalance recommendation's notice time.
    pub(crate) rebalance: Option<String>,
    /// The Auto Scaling target lifecycle state; `None` outside Auto Scaling.
    pub(crate) auto_scaling: Option<String>,
    /// `instance-agent drain`, until `resume`.
    pub(crate) operator: bool,
}

impl StayOutReasons {
    /// The strongest reason to stay out of the target groups, in one line; `None` if there is none.
    pub(crate) fn to_stay_out(&self, on_rebalance: OnRebalance) -> Option<String> {
        if let Some(signal) = self.signal {
            return Some(format!("{signal} received"));
        }
        if let Some(notice) = &self.spot {
            return Some(format!("spot interruption notice: {notice}"));
        }
        if let Some(state) = &self.auto_scaling
            && state != "InService"
        {
            return Some(format!("Auto Scaling state {state}"));
        }
        if self.operator {
            return Some("requested by an operator; undo it with `instance-agent resume`".to_owned());
        }
        if let (Some(time), OnRebalance::Drain) = (&self.rebalance, on_rebalance) {
            return Some(format!("rebalance recommendation of {time}"));
        }
        None
    }
}

/// Decides when the traffic of a draining instance has stopped.
///
/// An accepted `DeregisterTargets` does not end traffic: the load balancer can send new requests for some
/// seconds. So the quiet period counts from the deregistration or from the last request that was not a
/// probe, whichever is later.
#[derive(Clone, Debug)]
pub(crate) struct QuietPeriod {
    quiet: Duration,
    requests: u64,
    since: Instant,
}

impl QuietPeriod {
    pub(crate) fn new(quiet: Duration, traffic: &TrafficSnapshot, now: Instant) -> Self {
        Self { quiet, requests: traffic.requests(), since: now }
    }

    /// Whether traffic has stopped, with the counters at `now`. `deregistered` is when the last group
    /// accepted the deregistration; `None` means that there was no group to leave.
    pub(crate) fn is_over(
        &mut self,
        traffic: &TrafficSnapshot,
        deregistered: Option<Instant>,
        now: Instant,
    ) -> bool {
        if traffic.requests() != self.requests || traffic.in_flight > 0 {
            self.requests = traffic.requests();
            self.since = now;
        }
        match deregistered {
            None => traffic.in_flight == 0,
            Some(at) => traffic.in_flight == 0 && now >= self.since.max(at) + self.quiet,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn health(state: TargetHealthState) -> TargetHealth {
        TargetHealth::bare(state)
    }

    fn not_registered() -> TargetHealth {
        TargetHealth { reason: Some("Target.NotRegistered".into()), ..health(TargetHealthState::Unused) }
    }

    fn states() -> [Membership; 5] {
        [
            Membership::Unresolved,
            Membership::Unknown,
            Membership::Absent,
            Membership::Present(health(TargetHealthState::Healthy)),
            Membership::Left,
        ]
    }

    /// The whole table: every state with every event, legal or not.
    #[test]
    fn every_transition_is_as_drawn_and_every_other_is_an_error() {
        use Membership::{Absent, Left, Present, Unknown, Unresolved};
        let seen = health(TargetHealthState::Unhealthy);
        let present = Present(seen.clone());
        let initial = Present(health(TargetHealthState::Initial));
        let table: [(Event, [Option<Membership>; 5]); 8] = [
            // from:                     Unresolved     Unknown          Absent           Present          Left
            (Event::Resolved, [Some(Unknown), None, None, None, None]),
            (
                Event::Lost,
                [Some(Unresolved), Some(Unresolved), Some(Unresolved), Some(Unresolved), Some(Unresolved)],
            ),
            (
                Event::Observed(seen),
                [None, Some(present.clone()), Some(present.clone()), Some(present), None],
            ),
            (Event::Observed(not_registered()), [None, Some(Absent), Some(Absent), Some(Absent), None]),
            (Event::Registered, [None, None, Some(initial), None, None]),
            (Event::Deregistered, [None, Some(Left), None, Some(Left), None]),
            (Event::AnswerLost, [None, Some(Unknown), Some(Unknown), Some(Unknown), None]),
            (Event::Rejoin, [None, None, None, None, Some(Unknown)]),
        ];
        for (event, expected) in table {
            for (state, expected) in states().into_iter().zip(expected) {
                let after = state.after(event.clone());
                assert_eq!(after.clone().ok(), expected, "{event:?} while {state:?}");
                if let Err(error) = after {
                    assert!(error.to_string().contains("illegal transition"), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_draining_target_is_not_taken_for_a_registered_one() {
        let after = Membership::Unknown.after(Event::Observed(health(TargetHealthState::Draining))).unwrap();
        assert_eq!(after, Membership::Absent);
    }

    /// All that a phase can be decided from.
    fn all_facts() -> Vec<PhaseFacts> {
        let mut all = Vec::new();
        for bits in 0..16_u8 {
            let bit = |place: u8| bits & (1 << place) != 0;
            let (known, was_drained, quiet, late) = (bit(0), bit(1), bit(2), bit(3));
            for kept_out in [KeptOut::No, KeptOut::Yes, KeptOut::BySignal] {
                for leaving in [Leaving::Untried, Leaving::Tried, Leaving::Gone] {
                    all.push(PhaseFacts { known, kept_out, was_drained, leaving, quiet, late });
                }
            }
        }
        all
    }

    /// The whole table: every phase with all facts is in exactly one row.
    #[test]
    fn every_phase_goes_on_as_drawn_whatever_the_facts_are() {
        use KeptOut::{BySignal, No, Yes};
        use Leaving::{Gone, Untried};
        use Phase::{Drained, Draining, Serving, Starting};
        type Row = (Phase, fn(&PhaseFacts) -> bool, Option<Transition>);
        let end = |timed_out, exit| Some(Transition::End { timed_out, exit });
        let table: [Row; 17] = [
            (Starting, |f| !f.known, None),
            (Starting, |f| f.known && f.kept_out == No, Some(Transition::Serve)),
            (Starting, |f| f.known && f.kept_out != No && !f.was_drained, Some(Transition::Drain)),
            (Starting, |f| f.known && f.kept_out != No && f.was_drained, Some(Transition::ResumeDrained)),
            (Serving, |f| f.kept_out == No, None),
            (Serving, |f| f.kept_out != No, Some(Transition::Drain)),
            (Draining, |f| f.kept_out == No, Some(Transition::CallOff)),
            (Draining, |f| f.kept_out == Yes && f.leaving == Gone && f.quiet, end(false, false)),
            (Draining, |f| f.kept_out == BySignal && f.leaving == Gone && f.quiet, end(false, true)),
            (Draining, |f| f.kept_out == Yes && f.leaving == Gone && !f.quiet && f.late, end(true, false)),
            (Draining, |f| f.kept_out == Yes && f.leaving == Leaving::Tried && f.late, end(true, false)),
            (
                Draining,
                |f| f.kept_out == BySignal && f.leaving == Gone && !f.quiet && f.late,
                end(true, true),
            ),
            (Draining, |f| f.kept_out == BySignal && f.leaving == Leaving::Tried && f.late, end(true, true)),
            (
                Draining,
                |f| f.kept_out != No && (f.leaving == Untried || !(f.late || f.leaving == Gone && f.quiet)),
                None,
            ),
            (Drained, |f| f.kept_out == No, Some(Transition::Return)),
            (Drained, |f| f.kept_out == Yes, None),
            (Drained, |f| f.kept_out == BySignal, Some(Transition::DrainAgain)),
        ];
        for phase in [Starting, Serving, Draining, Drained] {
            for facts in all_facts() {
                let rows: Vec<_> = table.iter().filter(|row| row.0 == phase && row.1(&facts)).collect();
                assert_eq!(rows.len(), 1, "{phase} with {facts:?} is in one row");
                assert_eq!(phase.next(&facts), rows[0].2, "{phase} with {facts:?}");
            }
        }
    }

    #[test]
    fn each_reason_keeps_the_instance_out_and_the_strongest_is_named() {
        let ignore = OnRebalance::Ignore;
        let mut reasons = StayOutReasons::default();
        assert_eq!(reasons.to_stay_out(ignore), None);
        reasons.auto_scaling = Some("InService".into());
        assert_eq!(reasons.to_stay_out(ignore), None);
        reasons.rebalance = Some("2026-01-01T00:00:00Z".into());
        assert_eq!(reasons.to_stay_out(ignore), None);
        assert!(reasons.to_stay_out(OnRebalance::Drain).unwrap().contains("rebalance"));
        reasons.operator = true;
        assert!(reasons.to_stay_out(ignore).unwrap().contains("resume"));
        for state in ["Terminated", "Standby", "Detached", "Warmed:Stopped"] {
            reasons.auto_scaling = Some(state.into());
            assert!(reasons.to_stay_out(ignore).unwrap().contains(state));
        }
        reasons.spot = Some("stop at noon".into());
        assert!(reasons.to_stay_out(ignore).unwrap().contains("stop at noon"));
        reasons.signal = Some("SIGTERM");
        assert!(reasons.to_stay_out(ignore).unwrap().contains("SIGTERM"));
    }

    #[test]
    fn quiet_counts_from_the_later_of_deregistration_and_last_request() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut traffic = TrafficSnapshot { root: 5, ..TrafficSnapshot::default() };
        let mut quiet = QuietPeriod::new(Duration::from_secs(20), &traffic, start);
        assert!(!quiet.is_over(&traffic, Some(at(3)), at(22)), "20 s have not passed since 3");
        assert!(quiet.is_over(&traffic, Some(at(3)), at(23)));
        traffic.root = 6;
        assert!(!quiet.is_over(&traffic, Some(at(3)), at(24)), "a request came");
        assert!(!quiet.is_over(&traffic, Some(at(3)), at(43)));
        assert!(quiet.is_over(&traffic, Some(at(3)), at(44)));
    }

    #[test]
    fn a_request_in_flight_is_never_cut_and_probes_do_not_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut traffic = TrafficSnapshot { in_flight: 1, ..TrafficSnapshot::default() };
        let mut quiet = QuietPeriod::new(Duration::from_secs(20), &traffic, start);
        assert!(!quiet.is_over(&traffic, Some(start), at(100)));
        assert!(!quiet.is_over(&traffic, None, at(100)), "registered nowhere still waits for it");
        traffic.in_flight = 0;
        traffic.probes = 50;
        assert!(quiet.is_over(&traffic, None, at(101)));
        assert!(!quiet.is_over(&traffic, Some(start), at(119)), "quiet starts when it ended");
        assert!(quiet.is_over(&traffic, Some(start), at(120)));
    }
}
