//! The tags that bootstrap gives its resources beside the tag contract: what it knows a fleet by.
//!
//! | tag | on | says |
//! | --- | --- | --- |
//! | `instance-agent:fleet` | everything | whose it is; without it a resource is someone else's |
//! | `instance-agent:definition-N` | the instances' security group | the fleet as wanted, in pieces |
//! | `instance-agent:settled` | the instances' security group | the definition that a launch completed |
//! | `instance-agent:launched-for` | instances | the target group of the group an instance belongs to, whatever else it is told to register with |
//! | `instance-agent:slots` | instances | the slots of the batch an instance was launched in |
//! | `instance-agent:revision` | instances | what it was launched as |

use std::collections::BTreeMap;

use instance_contract::tags::{CLUSTER, FLEET, ROOT};
use sha2::{Digest, Sha256};

use super::model::{Fleet, Group};
use super::stored::PIECE;

/// Followed by the piece's number, from 1.
pub(crate) const DEFINITION: &str = "instance-agent:definition-";
/// The digest of the definition whose launch was completed.
pub(crate) const SETTLED: &str = "instance-agent:settled";
/// The name of a group's target group.
pub(crate) const LAUNCHED_FOR: &str = "instance-agent:launched-for";
/// The slots of the batch, separated by spaces, in the order of the launch.
pub(crate) const SLOTS: &str = "instance-agent:slots";
/// [`revision`].
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

/// The definition that a group's tags hold; `None` if it holds none.
pub(crate) fn read_definition(tags: &Tags) -> Option<String> {
    let pieces = (1..).map_while(|number| tags.get(&format!("{DEFINITION}{number}")));
    let text: String = pieces.map(String::as_str).collect();
    (!text.is_empty()).then_some(text)
}

/// The tags by which an instance of a group knows what to answer.
pub(crate) fn answer_tags(group: &Group) -> Tags {
    let cluster = group.paths.then(|| (CLUSTER.to_owned(), group.name.clone()));
    cluster.into_iter().chain([(ROOT.to_owned(), group.root.as_str().to_owned())]).collect()
}

/// Whether an instance with these tags answers as its group is to.
pub(crate) fn answers_match(tags: &Tags, group: &Group) -> bool {
    let wanted = answer_tags(group);
    [CLUSTER, ROOT].iter().all(|key| tags.get(*key) == wanted.get(*key))
}

/// What an instance of a group is launched as, in short. An instance of another revision is replaced.
/// The agent's package is not part of it: a new version is installed in place, and keeps the seed.
pub(super) fn revision(fleet: &Fleet, group: &Group) -> String {
    let Fleet { image, key_pair, .. } = fleet;
    let key_pair = key_pair.as_deref().unwrap_or_default();
    let profile = fleet.instance_profile.as_deref().unwrap_or_default();
    // Whether it answers a path of its group's is in its tags.
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
