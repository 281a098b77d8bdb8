//! How many instances a launch adds to those that the user agreed to before.

use crate::fleet::{Fleet, Group};

/// A new fleet of up to this many instances is launched as it is typed.
const MANY: u32 = 20;

/// The instances beyond those of the stored definition. Finishing, repairing and replacing adds none: these were agreed
/// to before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// Whether there is a definition already.
    of_existing: bool,
    pub(super) instances: u32,
}

impl Growth {
    pub(super) fn between(stored: Option<&Fleet>, wanted: &Fleet) -> Self {
        let count = |group: &Group| {
            let known = stored.and_then(|stored| stored.groups.iter().find(|known| known.name == group.name));
            known.map_or(0, |known| known.count)
        };
        let more = wanted.groups.iter().map(|group| u32::from(group.count.saturating_sub(count(group))));
        Self { of_existing: stored.is_some(), instances: more.sum() }
    }

    /// Any in a fleet that is there, and many in a new one.
    pub(super) fn needs_consent(self) -> bool {
        self.instances > if self.of_existing { 0 } else { MANY }
    }
}
