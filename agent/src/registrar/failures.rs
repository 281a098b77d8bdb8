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
    pub(super) fn is_news(&mut self, problem: &Problem) -> bool {
        self.count += 1;
        let news = self.said.as_ref() != Some(problem);
        if news {
            self.said = Some(problem.clone());
        }
        news
    }

    /// The number of failures that are over now, if there were any.
    pub(super) fn end(&mut self) -> Option<u64> {
        let count = std::mem::take(self).count;
        (count > 0).then_some(count)
    }
}
