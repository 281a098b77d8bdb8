//! When the balancer is asked what it thinks of a registered target: often until it is healthy, rarely after that, and
//! at once when there is news, or when an operator wants to know.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, jitter, spread};
use crate::registrar::probes::{ProbeNews, ProbeWatch};
use crate::traffic::Traffic;

/// How often the health of a target that is not healthy is asked.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often that of a healthy one is asked while this agent refuses the balancer's health checks. Anyone can make
/// requests that look like such a check, so it slows down as well.
const DOUBT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// The agents of a whole fleet may have the same news in one moment.
const AT_ONCE: Duration = Duration::from_secs(1);
/// An operator is told what is known where that is no older.
const FRESH: Duration = Duration::from_secs(10);

/// See the module's description.
pub(super) struct HealthSchedule {
    pub(super) probes: ProbeWatch,
    poll: Backoff,
    doubt: Backoff,
    due: Instant,
    /// When a look was due before an operator asked for one.
    planned: Option<Instant>,
}

impl HealthSchedule {
    /// One is due now.
    pub(super) fn new() -> Self {
        Self {
            probes: ProbeWatch::default(),
            poll: Backoff::new(POLL.0, POLL.1),
            doubt: Backoff::new(DOUBT.0, DOUBT.1),
            due: Instant::now(),
            planned: None,
        }
    }

    /// One is due now, and often after it until all is well.
    pub(super) fn begin_anew(&mut self) {
        self.poll.reset();
        self.planned = None;
        self.due = Instant::now();
    }

    /// The balancer has a new target; returns the pause before it is asked for the first time.
    pub(super) fn registered(&mut self) -> Duration {
        let pause = self.poll.next_delay();
        self.due = Instant::now() + pause;
        pause
    }

    /// Checks for news of the balancer's health checks. After news a look is due until one succeeds.
    pub(super) fn take_news(&mut self, traffic: &Traffic) -> Option<ProbeNews> {
        let news = self.probes.news(traffic)?;
        let due = match news {
            ProbeNews::Refused => Instant::now() + jitter(AT_ONCE),
            ProbeNews::Overdue | ProbeNews::Resumed => Instant::now(),
        };
        self.due = self.due.min(due);
        Some(news)
    }

    /// An operator wants to know; `known` is when the balancer was last asked.
    pub(super) fn operator_asks(&mut self, known: Option<Instant>) {
        if known.is_none_or(|known| known.elapsed() >= FRESH) {
            self.planned = self.planned.or(Some(self.due));
            self.due = Instant::now();
        }
    }

    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// The balancer was asked; plans the next look, and returns in how long that is.
    pub(super) fn looked(&mut self, in_service: bool, changed: bool, rarely: Duration) -> Duration {
        let planned = self.planned.take().filter(|planned| *planned > Instant::now() && !changed);
        if let Some(planned) = planned {
            self.due = planned;
            return planned - Instant::now();
        }
        let pause = match (in_service, self.probes.are_refused()) {
            (true, false) => {
                self.poll.reset();
                self.doubt.reset();
                spread(rarely)
            }
            (true, true) => self.doubt.next_delay().min(rarely),
            (false, _) => self.poll.next_delay().min(rarely),
        };
        self.due = Instant::now() + pause;
        pause
    }

    /// How long to wait before it is seen whether there is news, or a look is due.
    pub(super) fn pause(&self) -> Duration {
        let pause = self.due.saturating_duration_since(Instant::now());
        self.probes.interval.map_or(pause, |interval| pause.min(interval))
    }
}
