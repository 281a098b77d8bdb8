//! Logs repeated events once and counts the rest.

/// Counts equal events in a row. The caller logs them.
#[derive(Debug)]
pub struct RepeatFilter<T> {
    said: Option<T>,
    count: u64,
}

// Not derived: that would require `T: Default`.
impl<T> Default for RepeatFilter<T> {
    fn default() -> Self {
        Self { said: None, count: 0 }
    }
}

impl<T: Clone + PartialEq> RepeatFilter<T> {
    /// Starts in the middle of a series that the previous program has logged.
    pub fn already_said(what: T) -> Self {
        Self { said: Some(what), count: 1 }
    }

    /// Counts an event. If it differs from the last one, returns how many came before it.
    pub fn news(&mut self, what: &T) -> Option<u64> {
        let earlier = self.count;
        self.count += 1;
        if self.said.as_ref() == Some(what) {
            return None;
        }
        self.said = Some(what.clone());
        Some(earlier)
    }

    /// Ends the series. Returns its length, if there was one.
    pub fn end(&mut self) -> Option<u64> {
        let count = std::mem::take(self).count;
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_news_once_until_it_is_another_or_over() {
        let mut failures = RepeatFilter::default();
        assert_eq!(failures.news(&"denied"), Some(0));
        assert_eq!(failures.news(&"denied"), None);
        assert_eq!(failures.news(&"denied"), None);
        assert_eq!(failures.news(&"throttled"), Some(3), "another, after three");
        assert_eq!(failures.end(), Some(4));
        assert_eq!(failures.end(), None);
        assert_eq!(failures.news(&"denied"), Some(0), "again, after it was over");
    }

    #[test]
    fn what_was_said_before_is_no_news_and_ends_all_the_same() {
        let mut failures = RepeatFilter::already_said("denied");
        assert_eq!(failures.news(&"denied"), None);
        assert_eq!(failures.end(), Some(2));
    }
}
