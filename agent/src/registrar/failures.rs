//! What goes wrong with a target group, said once and then counted.

use crate::aws::CallErrorKind;

/// A failure and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// What happened, in one line.
    pub(super) what: String,
    /// What to do, in one line.
    pub(super) cure: String,
}

/// Repeated failures are said once and then counted.
#[derive(Default)]
pub(super) struct Failures {
    said: Option<Problem>,
    count: u64,
    pub(super) last: Option<CallErrorKind>,
}

impl Failures {
    /// Counts a failure; when it is not the one said last, how many came before it.
    pub(super) fn news(&mut self, problem: &Problem) -> Option<u64> {
        let earlier = self.count;
        self.count += 1;
        let news = self.said.as_ref() != Some(problem);
        if news {
            self.said = Some(problem.clone());
        }
        news.then_some(earlier)
    }

    /// The number of failures that are over now, if there were any.
    pub(super) fn end(&mut self) -> Option<u64> {
        let count = std::mem::take(self).count;
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_until_it_is_another_or_over() {
        let problem = |what: &str| Problem { what: what.to_owned(), cure: String::new() };
        let mut failures = Failures::default();
        assert_eq!(failures.news(&problem("denied")), Some(0));
        assert_eq!(failures.news(&problem("denied")), None);
        assert_eq!(failures.news(&problem("denied")), None);
        assert_eq!(failures.news(&problem("throttled")), Some(3), "another, after three");
        assert_eq!(failures.end(), Some(4));
        assert_eq!(failures.end(), None);
        assert_eq!(failures.news(&problem("denied")), Some(0), "again, after it was over");
    }
}
