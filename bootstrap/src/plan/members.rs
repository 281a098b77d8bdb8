//! Compares a group's instances with the desired count: which stay, which go, which are missing.

use std::collections::BTreeMap;

use crate::fleet::{Desired, Group};
use crate::plan::inventory::{Instance, Inventory};

/// A group's instances, compared with the desired ones.
#[derive(Debug, Default)]
pub(crate) struct Members<'a> {
    /// The instances that stay, by slot.
    pub(crate) kept: BTreeMap<u16, &'a Instance>,
    /// The slots that nobody fills.
    pub(crate) missing: Vec<u16>,
    /// Instances beyond the count, to be terminated at once.
    pub(crate) surplus: Vec<&'a Instance>,
    /// Instances to be terminated when their replacements are healthy.
    pub(crate) replaced: Vec<&'a Instance>,
}

/// Compares a group's instances with the desired count. Which slots are filled does not matter, only how many. If there
/// are too many, instances that do not run or are unhealthy go first, then the highest slots.
pub(crate) fn members<'a>(desired: &Desired, group: &Group, have: &'a Inventory) -> Members<'a> {
    let (fleet, revision) = (&desired.fleet, desired.revision(group));
    let count = usize::from(group.count);
    let mut instances = have.of_group(fleet, group);
    // Oldest first, so that of two instances in one slot every command keeps the same one.
    instances.sort_by_key(|instance| {
        let Instance { id, launched, state, .. } = instance;
        (state != "running", have.unhealthy.contains(id), instance.slot(), *launched, id)
    });
    let mut members = Members::default();
    for instance in instances {
        let slot = instance.slot().unwrap_or_default();
        let fits = instance.revision() == Some(revision) && fleet.zones.contains(&instance.zone);
        if fits && members.kept.len() < count && !members.kept.contains_key(&slot) {
            members.kept.insert(slot, instance);
        } else if !fits && members.replaced.len() < count {
            members.replaced.push(instance);
        } else {
            members.surplus.push(instance);
        }
    }
    let free = (0..).filter(|slot| !members.kept.contains_key(slot));
    members.missing = free.take(count - members.kept.len()).collect();
    members
}
