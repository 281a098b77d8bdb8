//! Combines the instance's tags from the metadata service and from EC2.
//!
//! An instance without tags leaves its target groups. So if all tags vanish, the agent keeps them until the other source,
//! or the same one a minute later, confirms it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) type Tags = BTreeMap<String, String>;

/// How much later a second answer of the same source counts as confirmation.
pub(crate) const SECOND_LOOK: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Imds,
    Ec2,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct BelievedTags {
    tags: Tags,
    /// The last tags from IMDS; `None` while the instance publishes none there.
    imds: Option<Tags>,
    /// The source that first reported no tags, and when.
    vanished: Option<(Source, Instant)>,
}

impl BelievedTags {
    /// Starts with the tags from before a reload.
    pub(crate) fn new(tags: Tags) -> Self {
        Self { tags, ..Self::default() }
    }

    pub(crate) fn tags(&self) -> &Tags {
        &self.tags
    }

    pub(crate) fn are_in_imds(&self) -> bool {
        self.imds.is_some()
    }

    /// Whether the tags have vanished without confirmation so far.
    pub(crate) fn may_have_vanished(&self) -> bool {
        self.vanished.is_some()
    }

    /// Applies an answer of IMDS, if it differs from the last one: IMDS may show the tags of the launch, and an unchanged
    /// answer must not undo a newer one of EC2. An answer that `is_old` is not applied.
    pub(crate) fn imds_says(&mut self, tags: Option<Tags>, is_old: bool, now: Instant) {
        if let Some(news) = tags.as_ref().filter(|_| !is_old && tags != self.imds)
            && !self.believe(Source::Imds, news, now)
        {
            return;
        }
        self.imds = tags;
    }

    pub(crate) fn ec2_says(&mut self, tags: &Tags, now: Instant) {
        if matches!(self.vanished, Some((Source::Imds, _))) && !tags.is_empty() {
            // IMDS was wrong; it counts again when its answer changes.
            self.imds = Some(Tags::new());
        }
        self.believe(Source::Ec2, tags, now);
    }

    fn believe(&mut self, source: Source, news: &Tags, now: Instant) -> bool {
        let has_vanished = news.is_empty() && !self.tags.is_empty();
        let confirmed = self.vanished.is_some_and(|(first, at)| first != source || now >= at + SECOND_LOOK);
        if has_vanished && !confirmed {
            self.vanished.get_or_insert((source, now));
            return false;
        }
        self.vanished = None;
        self.tags.clone_from(news);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(group: &str) -> Tags {
        Tags::from([("instance-agent:target-group".to_owned(), group.to_owned())])
    }

    fn after(seconds: u64) -> impl Fn(Instant) -> Instant {
        move |start| start + Duration::from_secs(seconds)
    }

    #[test]
    fn tags_that_vanish_in_imds_are_believed_after_a_second_look() {
        let start = Instant::now();
        let mut believed = BelievedTags::default();
        believed.imds_says(Some(tags("a")), false, start);
        for seconds in [15, 30, 74] {
            believed.imds_says(Some(Tags::new()), false, after(seconds)(start));
            assert_eq!((believed.tags(), believed.may_have_vanished()), (&tags("a"), true), "{seconds}");
        }
        believed.imds_says(Some(Tags::new()), false, after(75)(start));
        assert_eq!((believed.tags(), believed.may_have_vanished()), (&Tags::new(), false));
    }

    #[test]
    fn tags_that_vanish_in_imds_are_believed_when_ec2_agrees_and_not_when_it_does_not() {
        let start = Instant::now();
        let mut believed = BelievedTags::default();
        believed.imds_says(Some(tags("a")), false, start);
        believed.imds_says(Some(Tags::new()), false, start);
        believed.ec2_says(&tags("a"), start);
        assert_eq!((believed.tags(), believed.may_have_vanished()), (&tags("a"), false));
        believed.imds_says(Some(Tags::new()), false, after(600)(start));
        assert_eq!(believed.tags(), &tags("a"), "what IMDS says is no news: EC2 knows better");
        believed.imds_says(Some(tags("b")), false, after(700)(start));
        assert_eq!(believed.tags(), &tags("b"), "heard again");

        believed.imds_says(Some(Tags::new()), false, after(800)(start));
        believed.ec2_says(&Tags::new(), after(801)(start));
        assert_eq!((believed.tags(), believed.may_have_vanished()), (&Tags::new(), false));
    }

    #[test]
    fn an_empty_answer_of_ec2_is_believed_after_a_second_look() {
        let start = Instant::now();
        let mut believed = BelievedTags::new(tags("a"));
        believed.ec2_says(&Tags::new(), start);
        assert_eq!(believed.tags(), &tags("a"));
        believed.ec2_says(&Tags::new(), after(60)(start));
        assert_eq!(believed.tags(), &Tags::new());
    }

    #[test]
    fn tags_that_come_back_have_not_vanished() {
        let start = Instant::now();
        let mut believed = BelievedTags::new(tags("a"));
        believed.ec2_says(&Tags::new(), start);
        believed.ec2_says(&tags("a"), after(30)(start));
        believed.ec2_says(&Tags::new(), after(70)(start));
        assert_eq!(believed.tags(), &tags("a"), "the minute begins anew");
    }

    #[test]
    fn old_tags_of_imds_do_not_undo_what_ec2_said_since() {
        let start = Instant::now();
        let mut believed = BelievedTags::default();
        believed.imds_says(Some(tags("launch")), false, start);
        believed.ec2_says(&tags("now"), start);
        believed.imds_says(Some(tags("launch")), false, start);
        assert_eq!(believed.tags(), &tags("now"), "unchanged in IMDS");
        let mut resumed = BelievedTags::new(tags("now"));
        resumed.imds_says(Some(tags("launch")), true, start);
        assert_eq!(resumed.tags(), &tags("now"), "what the program before knew");
        resumed.imds_says(None, false, start);
        assert!(!resumed.are_in_imds());
    }
}
