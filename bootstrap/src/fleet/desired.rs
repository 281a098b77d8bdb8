//! A desired fleet, with its definition, tags and revisions.

use std::collections::BTreeMap;

use instance_contract::tags::TARGET_GROUP;

use super::model::{Fleet, Group};
use super::names::Names;
use super::tagging::{self, LAUNCHED_FOR, REVISION, SLOTS, Tags};

/// A desired fleet. It is computed once, from the file, the command line and the stored definition, and passed on: so
/// every step and every call uses the same definition, tags and revisions.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    /// The fleet, package included.
    pub(crate) fleet: Fleet,
    /// The names of its resources.
    pub(crate) names: Names,
    /// The tags on every resource of the fleet.
    pub(crate) tags: Tags,
    /// The definition to store.
    pub(crate) definition: String,
    /// The digest of the definition.
    pub(crate) digest: String,
    /// The revision of each group, by the group's name.
    revisions: BTreeMap<String, String>,
}

impl Desired {
    pub(crate) fn new(fleet: Fleet, names: Names) -> Self {
        let definition = fleet.definition();
        let groups = fleet.groups.iter();
        Self {
            tags: tagging::common(&fleet),
            digest: tagging::digest(&definition),
            definition,
            revisions: groups.map(|group| (group.name.clone(), tagging::revision(&fleet, group))).collect(),
            fleet,
            names,
        }
    }

    /// The revision of a group. An instance of another revision is replaced.
    pub(crate) fn revision(&self, group: &Group) -> &str {
        self.revisions.get(&group.name).map_or("", String::as_str)
    }

    /// The tags of the instances of a group that fill these slots.
    pub(crate) fn instance_tags(&self, group: &Group, slots: &[u16]) -> Tags {
        let mut tags = self.tags.clone();
        let name = self.fleet.target_group(group);
        tags.insert("Name".to_owned(), name.clone());
        tags.insert(LAUNCHED_FOR.to_owned(), name.clone());
        tags.insert(TARGET_GROUP.to_owned(), name);
        tags.extend(tagging::answer_tags(group));
        let slots: Vec<_> = slots.iter().map(u16::to_string).collect();
        tags.insert(SLOTS.to_owned(), slots.join(" "));
        tags.insert(REVISION.to_owned(), self.revision(group).to_owned());
        tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tags that version 0.1.0 wrote for `clusters`: a fleet that it launched must stay unchanged.
    #[test]
    fn a_fleet_has_the_tags_that_earlier_versions_gave_it() {
        let fleet = Fleet::parse("clusters", Fleet::built_in("clusters").unwrap()).unwrap();
        let desired = Desired::new(fleet, Names::new("clusters", "us-east-1"));
        assert_eq!(desired.digest, "e74c70a223d047dd");
        let tags = desired.instance_tags(&desired.fleet.groups[0], &[0, 2, 4]);
        let expected = [
            ("Name", "clusters-cluster1"),
            ("instance-agent:cluster", "cluster1"),
            ("instance-agent:fleet", "clusters"),
            ("instance-agent:launched-for", "clusters-cluster1"),
            ("instance-agent:revision", "db561ce5fd96292a"),
            ("instance-agent:root", "health"),
            ("instance-agent:slots", "0 2 4"),
            ("instance-agent:target-group", "clusters-cluster1"),
        ];
        assert_eq!(tags, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }
}
