//! What the coming and going of the balancer's health checks tells.

use std::time::Duration;

use tokio::time::Instant;

use crate::traffic::Traffic;

/// What the balancer's health checks tell by coming or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeNews {
    /// None has come for three intervals.
    Overdue,
    /// They come again.
    Resumed,
}

/// Notices when the balancer's health checks stop coming, and when they come again. They are
/// counted for all groups together: those of one can hide that another's are missing.
#[derive(Default)]
pub(super) struct ProbeWatch {
    /// The group's check interval; `None` where checks are off.
    pub(super) interval: Option<Duration>,
    seen: u64,
    /// When the count last moved; `None` after that was too long ago.
    moved: Option<Instant>,
}

impl ProbeWatch {
    pub(super) fn restart(&mut self, traffic: &Traffic) {
        self.seen = traffic.snapshot().probes;
        self.moved = Some(Instant::now());
    }

    /// Each change is told once.
    pub(super) fn news(&mut self, traffic: &Traffic) -> Option<ProbeNews> {
        let probes = traffic.snapshot().probes;
        if std::mem::replace(&mut self.seen, probes) != probes {
            return self.moved.replace(Instant::now()).is_none().then_some(ProbeNews::Resumed);
        }
        let interval = self.interval?;
        self.moved.take_if(|moved| moved.elapsed() >= 3 * interval).map(|_| ProbeNews::Overdue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::TrafficSnapshot;

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
}
