//! When to ask AWS for the health of a registered target: often until it is healthy, rarely after that, at once on news
//! of its health checks, and when an operator asks.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, jitter, spread};
use crate::registrar::probes::{ProbeNews, ProbeWatch};
use instance_server::traffic::Traffic;

/// First and longest pause while the target is not healthy.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// First and longest pause while the target is healthy but this agent refuses health checks. Anyone can send requests
/// that look like health checks, so these calls slow down too.
const DOUBT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// A member that was held up on its way in waits this many times as long before it asks. Others of a large fleet are
/// still on their way and need the account's calls more. decisions/0018 has the figures.
const WAY_IN: u32 = 3;
/// Spreads the calls of a fleet whose agents all get the same news at one moment.
const AT_ONCE: Duration = Duration::from_secs(1);
/// An operator gets the known answer if it is no older.
const FRESH: Duration = Duration::from_secs(10);

/// See the module's description.
pub(super) struct HealthSchedule {
    pub(super) probes: ProbeWatch,
    poll: Backoff,
    /// Since when calls fail on the way in, until a pause has taken that into account.
    held_up: Option<Instant>,
    doubt: Backoff,
    due: Instant,
    /// When the next call was due before an operator asked.
    planned: Option<Instant>,
}

impl HealthSchedule {
    /// The first call is due now.
    pub(super) fn new() -> Self {
        Self {
            probes: ProbeWatch::default(),
            poll: Backoff::new(POLL.0, POLL.1),
            held_up: None,
            doubt: Backoff::new(DOUBT.0, DOUBT.1),
            due: Instant::now(),
            planned: None,
        }
    }

    /// Makes a call due now, and frequent calls after it until the target is healthy.
    pub(super) fn begin_anew(&mut self) {
        self.poll.reset();
        self.held_up = None;
        self.planned = None;
        self.due = Instant::now();
    }

    /// On the way in, the account throttled a call or did not answer it. Other instances are held up too.
    pub(super) fn held_up(&mut self) {
        self.held_up.get_or_insert_with(Instant::now);
    }

    pub(super) fn was_held_up(&self) -> bool {
        self.held_up.is_some()
    }

    /// The pause while the target is not healthy.
    fn poll(&mut self) -> Duration {
        if let Some(since) = self.held_up.take() {
            self.poll.skip_to(since.elapsed() * WAY_IN);
        }
        self.poll.next_delay()
    }

    /// After a registration; returns the pause before the first call.
    pub(super) fn registered(&mut self) -> Duration {
        let pause = self.poll();
        self.due = Instant::now() + pause;
        pause
    }

    /// Checks for news of the load balancer's health checks. After news a call is due until one succeeds.
    pub(super) fn take_news(&mut self, traffic: &Traffic) -> Option<ProbeNews> {
        let news = self.probes.news(traffic)?;
        let due = match news {
            ProbeNews::Refused => Instant::now() + jitter(AT_ONCE),
            ProbeNews::Overdue | ProbeNews::Resumed => Instant::now(),
        };
        self.due = self.due.min(due);
        Some(news)
    }

    /// An operator asks; `known` is the time of the last answer.
    pub(super) fn operator_asks(&mut self, known: Option<Instant>) {
        if known.is_none_or(|known| known.elapsed() >= FRESH) {
            self.planned = self.planned.or(Some(self.due));
            self.due = Instant::now();
        }
    }

    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// After a call: plans the next one and returns the pause before it.
    pub(super) fn looked(&mut self, in_service: bool, changed: bool, rarely: Duration) -> Duration {
        let planned = self.planned.take().filter(|planned| *planned > Instant::now() && !changed);
        if let Some(planned) = planned {
            self.due = planned;
            return planned - Instant::now();
        }
        let pause = match (in_service, self.probes.are_refused()) {
            (true, false) => {
                self.poll.reset();
                self.held_up = None;
                self.doubt.reset();
                spread(rarely)
            }
            (true, true) => self.doubt.next_delay().min(rarely),
            (false, _) => self.poll().min(rarely),
        };
        self.due = Instant::now() + pause;
        pause
    }

    /// The pause before the next check for news or the next call.
    pub(super) fn pause(&self) -> Duration {
        let pause = self.due.saturating_duration_since(Instant::now());
        self.probes.interval.map_or(pause, |interval| pause.min(interval))
    }
}
