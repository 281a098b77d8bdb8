//! The tags by which bootstrap knows the resources of a fleet, beside those that the agent reads.
//!
//! | tag | on | value |
//! | --- | --- | --- |
//! | `instance-agent:fleet` | every resource | the fleet's name; bootstrap changes no resource without this tag |
//! | `instance-agent:definition-N` | the instances' security group | the definition of the fleet, in pieces |
//! | `instance-agent:settled` | the instances' security group | the digest of the definition that a launch completed |
//! | `instance-agent:launched-for` | instances | the name of its group's target group; the instance may register with others too |
//! | `instance-agent:slots` | instances | the slots of the batch in which the instance was launched |
//! | `instance-agent:revision` | instances | a digest of the settings with which the instance was launched |

use std::collections::BTreeMap;

use instance_contract::tags::{CLUSTER, FLEET, ROOT};
use sha2::{Digest, Sha256};

use super::model::{Fleet, Group};
use super::stored::PIECE;

/// The number of the piece follows, from 1.
pub(crate) const DEFINITION: &str = "instance-agent:definition-";
/// The digest of the definition that a launch completed.
pub(crate) const SETTLED: &str = "instance-agent:settled";
/// The name of a group's target group.
pub(crate) const LAUNCHED_FOR: &str = "instance-agent:launched-for";
/// The slots of the batch, separated by spaces, in the order of the launch.
pub(crate) const SLOTS: &str = "instance-agent:slots";
/// The [`revision`].
pub(crate) const REVISION: &str = "instance-agent:revision";

/// Tags by key.
pub(crate) type Tags = BTreeMap<String, String>;

/// The tags that every resource of the fleet carries.
pub(super) fn common(fleet: &Fleet) -> Tags {
    let mut tags = fleet.tags.clone();
    tags.insert(FLEET.to_owned(), fleet.name.clone());
    tags
}

/// The tags that hold a definition, in pieces that fit into their values.
pub(crate) fn definition_tags(definition: &str) -> Tags {
    let text: Vec<char> = definition.chars().collect();
    let pieces = text.chunks(PIECE).enumerate();
    pieces.map(|(index, piece)| (format!("{DEFINITION}{}", index + 1), piece.iter().collect())).collect()
}

/// The definition that a security group's tags hold; `None` where they hold none.
pub(crate) fn read_definition(tags: &Tags) -> Option<String> {
    let pieces = (1..).map_while(|number| tags.get(&format!("{DEFINITION}{number}")));
    let text: String = pieces.map(String::as_str).collect();
    (!text.is_empty()).then_some(text)
}

/// The tags that tell the agent on an instance of a group how to answer.
pub(crate) fn answer_tags(group: &Group) -> Tags {
    let cluster = group.paths.then(|| (CLUSTER.to_owned(), group.name.clone()));
    cluster.into_iter().chain([(ROOT.to_owned(), group.root.as_str().to_owned())]).collect()
}

/// Whether an instance with these tags answers like its group.
pub(crate) fn answers_match(tags: &Tags, group: &Group) -> bool {
    let wanted = answer_tags(group);
    [CLUSTER, ROOT].iter().all(|key| tags.get(*key) == wanted.get(*key))
}

/// A digest of the settings with which an instance of a group is launched. An instance of another revision is replaced.
/// The agent's package does not count: a new version is installed in place, and the instance keeps its seed.
pub(super) fn revision(fleet: &Fleet, group: &Group) -> String {
    let Fleet { image, key_pair, .. } = fleet;
    let key_pair = key_pair.as_deref().unwrap_or_default();
    let profile = fleet.instance_profile.as_deref().unwrap_or_default();
    // With `paths` the instance has a tag more, and answers the group's path.
    let paths = if group.paths { "paths" } else { "" };
    let parts = [image, &group.instance_type, group.root.as_str(), paths, key_pair, profile];
    digest(&parts.join("\n"))
}

/// The first 16 hex digits of a text's SHA-256.
pub(crate) fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_survives_being_cut_into_pieces() {
        let mut fleet = Fleet::parse("clusters", Fleet::built_in("clusters").unwrap()).unwrap();
        fleet.tags.insert("note".to_owned(), "größer, 数, \"quoted\"".repeat(20));
        let tags = definition_tags(&fleet.definition());
        assert!(tags.len() > 1, "{}", tags.len());
        assert!(tags.values().all(|piece| piece.chars().count() <= 256));
        assert_eq!(read_definition(&tags), Some(fleet.definition()));
        assert_eq!(read_definition(&Tags::new()), None);
    }
}
