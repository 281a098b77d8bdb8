//! The API's throttle: one token bucket for each class of actions, account-wide as on AWS.

use tokio::time::Instant;

/// A bucket's size and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Calls that may come at once.
    pub burst: u32,
    /// Calls per second in the long run.
    pub per_second: f64,
}

/// The rates of the classes of actions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// All `Describe*` actions of ELBv2 together, and separately those of EC2.
    pub describe: Rate,
    /// `RegisterTargets` and `DeregisterTargets` together.
    pub change: Rate,
}

impl Default for Throttle {
    /// AWS's figures where known: Describe 40 and 10/s; register and deregister are not published,
    /// 4/s is assumed.
    fn default() -> Self {
        Self { describe: Rate { burst: 40, per_second: 10.0 }, change: Rate { burst: 10, per_second: 4.0 } }
    }
}

/// The actions that share a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionClass {
    /// ELBv2's `Describe*`.
    Describe,
    /// `RegisterTargets`, `DeregisterTargets`.
    Change,
    /// EC2's `Describe*`.
    Ec2Describe,
}

/// A token bucket; it starts full.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: f64::from(rate.burst), filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = (now - self.filled).as_secs_f64() * self.rate.per_second;
        self.tokens = (self.tokens + gained).min(f64::from(self.rate.burst));
        self.filled = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

/// The buckets of all classes.
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    describe: Bucket,
    change: Bucket,
    ec2_describe: Bucket,
}

impl Buckets {
    /// Full buckets.
    pub fn new(throttle: Throttle, now: Instant) -> Self {
        Self {
            describe: Bucket::new(throttle.describe, now),
            change: Bucket::new(throttle.change, now),
            ec2_describe: Bucket::new(throttle.describe, now),
        }
    }

    /// Takes one call from the class's bucket; `false` means "Rate exceeded".
    pub fn take(&mut self, class: ActionClass, now: Instant) -> bool {
        match class {
            ActionClass::Describe => &mut self.describe,
            ActionClass::Change => &mut self.change,
            ActionClass::Ec2Describe => &mut self.ec2_describe,
        }
        .take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_allows_its_burst_then_its_rate() {
        let start = Instant::now();
        let rate = Rate { burst: 2, per_second: 4.0 };
        let mut buckets = Buckets::new(Throttle { describe: rate, change: rate }, start);
        let mut take = |class, ms| buckets.take(class, start + Duration::from_millis(ms));
        assert!(take(ActionClass::Change, 0) && take(ActionClass::Change, 0));
        assert!(!take(ActionClass::Change, 0));
        assert!(take(ActionClass::Describe, 0), "each class has its own bucket");
        assert!(!take(ActionClass::Change, 200));
        assert!(take(ActionClass::Change, 250));
        assert!(!take(ActionClass::Change, 260));
        assert!(take(ActionClass::Change, 60_000) && take(ActionClass::Change, 60_000));
        assert!(!take(ActionClass::Change, 60_000), "never more than the burst");
    }
}
