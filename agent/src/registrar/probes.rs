//! News from the load balancer's health checks: they stop, come again, or get refused.

use std::time::Duration;

use tokio::time::Instant;

use instance_server::traffic::{Traffic, TrafficSnapshot};

/// AWS's default health check interval, used while the group's own is unknown.
const USUAL_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeNews {
    /// No health check for three intervals.
    Overdue,
    /// Health checks come again.
    Resumed,
    /// This agent answered a health check with a status other than 200, for the first time in three intervals.
    Refused,
}

/// Watches the counters of health checks. These count all groups together, so checks of one group can hide that those
/// of another are missing.
#[derive(Default)]
pub(super) struct ProbeWatch {
    /// The group's check interval; `None` where checks are off.
    pub(super) interval: Option<Duration>,
    seen: u64,
    /// When the count last changed; `None` once `Overdue` was reported.
    moved: Option<Instant>,
    refused: u64,
    refused_at: Option<Instant>,
}

impl ProbeWatch {
    pub(super) fn restart(&mut self, traffic: &Traffic) {
        let TrafficSnapshot { probes, refused_probes, .. } = traffic.snapshot();
        let moved = Some(Instant::now());
        *self =
            Self { interval: self.interval, seen: probes, moved, refused: refused_probes, refused_at: None };
    }

    /// Reports each change once.
    pub(super) fn news(&mut self, traffic: &Traffic) -> Option<ProbeNews> {
        let TrafficSnapshot { probes, refused_probes, .. } = traffic.snapshot();
        let came = std::mem::replace(&mut self.seen, probes) != probes;
        let resumed = came && self.moved.replace(Instant::now()).is_none();
        if std::mem::replace(&mut self.refused, refused_probes) != refused_probes {
            let known = self.are_refused();
            self.refused_at = Some(Instant::now());
            if !known {
                return Some(ProbeNews::Refused);
            }
        }
        if came {
            return resumed.then_some(ProbeNews::Resumed);
        }
        let interval = self.interval?;
        self.moved.take_if(|moved| moved.elapsed() >= 3 * interval).map(|_| ProbeNews::Overdue)
    }

    /// Whether this agent refused a health check in the last three intervals.
    pub(super) fn are_refused(&self) -> bool {
        let lately = 3 * self.interval.unwrap_or(USUAL_INTERVAL);
        self.refused_at.is_some_and(|at| at.elapsed() < lately)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_and_its_end_are_told_once_each() {
        let traffic = Traffic::new(1, TrafficSnapshot::default());
        let probe = || traffic.threads()[0].probes.increment();
        let second = Duration::from_secs(1);
        let mut watch = ProbeWatch { interval: Some(10 * second), ..ProbeWatch::default() };
        watch.restart(&traffic);
        assert_eq!(watch.news(&traffic), None);
        tokio::time::advance(29 * second).await;
        assert_eq!(watch.news(&traffic), None, "three intervals are not over");
        probe();
        assert_eq!(watch.news(&traffic), None);
        tokio::time::advance(30 * second).await;
        assert_eq!(watch.news(&traffic), Some(ProbeNews::Overdue));
        tokio::time::advance(300 * second).await;
        assert_eq!(watch.news(&traffic), None, "said before");
        probe();
        assert_eq!(watch.news(&traffic), Some(ProbeNews::Resumed));
        probe();
        assert_eq!(watch.news(&traffic), None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_checks_nothing_is_overdue() {
        let traffic = Traffic::new(1, TrafficSnapshot::default());
        let mut watch = ProbeWatch::default();
        watch.restart(&traffic);
        tokio::time::advance(Duration::from_secs(100_000)).await;
        assert_eq!(watch.news(&traffic), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_told_once_until_there_was_none_for_three_intervals() {
        let traffic = Traffic::new(1, TrafficSnapshot::default());
        let probe = || traffic.threads()[0].probes.increment();
        let refuse = || {
            probe();
            traffic.threads()[0].refuse_probe();
        };
        let second = Duration::from_secs(1);
        refuse();
        let mut watch = ProbeWatch { interval: Some(10 * second), ..ProbeWatch::default() };
        watch.restart(&traffic);
        assert_eq!((watch.news(&traffic), watch.are_refused()), (None, false), "before it was there");
        refuse();
        assert_eq!((watch.news(&traffic), watch.are_refused()), (Some(ProbeNews::Refused), true));
        for _ in 0..5 {
            tokio::time::advance(10 * second).await;
            refuse();
            assert_eq!((watch.news(&traffic), watch.are_refused()), (None, true));
        }
        for _ in 0..3 {
            tokio::time::advance(10 * second).await;
            probe();
            assert_eq!(watch.news(&traffic), None);
        }
        assert!(!watch.are_refused());
        refuse();
        assert_eq!(watch.news(&traffic), Some(ProbeNews::Refused));
    }
}
