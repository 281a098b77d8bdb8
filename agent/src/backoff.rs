//! Jittered exponential backoff, for every retry of the agent.

use std::time::Duration;

/// Delays that double from `min` to `max`, each random in the upper half of its step, so that agents
/// that failed together do not retry together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// The first delay is at most `min`, later ones at most `max`.
    ///
    /// A `max` below `min` counts as `min`, and a `min` of zero as one millisecond, so that no wrong
    /// constant can cause a busy loop.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(Duration::from_millis(1));
        Self { min, max: max.max(min), failures: 0 }
    }

    /// The next delay, longer than the one before up to the maximum.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.next_delay_within(self.max)
    }

    /// The same, with another maximum for this delay.
    pub(crate) fn next_delay_within(&mut self, max: Duration) -> Duration {
        let step = self.step().min(max);
        self.failures = self.failures.saturating_add(1);
        jitter(step)
    }

    fn step(&self) -> Duration {
        self.min.saturating_mul(2u32.saturating_pow(self.failures)).min(self.max)
    }

    /// Skips the steps that are shorter than `pause`.
    pub(crate) fn skip_to(&mut self, pause: Duration) {
        // No step doubles more often than this.
        while self.step() < pause.min(self.max) && self.failures < u32::BITS {
            self.failures += 1;
        }
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random duration between half of `around` and all of it.
pub(crate) fn jitter(around: Duration) -> Duration {
    around.mul_f64(0.5 + 0.5 * fastrand::f64())
}

/// `interval`, randomly up to a tenth shorter or longer, for periodic calls.
pub(crate) fn spread(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_start_over() {
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max);
        for step in [1, 2, 4, 5, 5] {
            let delay = backoff.next_delay();
            let step = Duration::from_secs(step);
            assert!(step / 2 <= delay && delay <= step, "{delay:?} outside the step of {step:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= min);
    }

    #[test]
    fn short_delays_can_be_skipped() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(20));
        for (skipped, step) in [(0, 1), (5, 8), (3, 16), (1000, 20), (0, 20)] {
            backoff.skip_to(seconds(skipped));
            let delay = backoff.next_delay();
            assert!(seconds(step) / 2 <= delay && delay <= seconds(step), "{delay:?} after {skipped} s");
        }
    }

    #[test]
    fn delays_are_spread() {
        let delays: std::collections::BTreeSet<_> = (0..50)
            .map(|_| Backoff::new(Duration::from_secs(60), Duration::from_secs(60)).next_delay())
            .collect();
        assert!(delays.len() > 40, "only {} different delays of 50", delays.len());
    }

    #[test]
    fn no_bounds_make_a_busy_loop_or_overflow() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::MAX);
        for _ in 0..200 {
            assert!(backoff.next_delay() >= Duration::from_micros(500));
        }
        let mut swapped = Backoff::new(Duration::from_secs(9), Duration::from_secs(1));
        assert!(swapped.next_delay() >= Duration::from_secs(4));
    }
}
