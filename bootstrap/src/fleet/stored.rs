//! The definition of a fleet, as its tags keep it, and what differs between two.

use std::fmt;

use instance_contract::{duration, one_line};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::model::{Fleet, Group, Package, public_address};
use super::values;

/// Characters of a definition in one tag, whose value takes 256.
pub(super) const PIECE: usize = 250;
/// Tags that a resource takes.
const TAGS: usize = 50;
/// A value is shown to this length, in characters.
const LONGEST_VALUE: usize = 500;
/// Tags beside definition and user's own: fleet, settled and name, and room for two more.
const OWN_TAGS: usize = 5;

/// A stored definition that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It is not what this version writes.
    #[error(
        "the fleet's stored definition cannot be read ({0}): another version of bootstrap wrote it, or its tags were \
         changed by hand; use the version that launched it, or a newer one"
    )]
    Unreadable(#[from] serde_json::Error),
    /// It can be read, but is not a fleet's.
    #[error("the fleet's stored definition is wrong ({0}): its tags were changed by hand")]
    Wrong(String),
}

/// Something that is wanted otherwise than it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key as a fleet file has it, such as `group.cluster1.count`.
    pub key: String,
    /// What was stored; `None` if nothing was.
    pub stored: Option<String>,
    /// What is wanted; `None` if nothing is.
    pub wanted: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |value: &Option<String>| match value.as_deref() {
            None | Some("") => "none".to_owned(),
            Some(value) => one_line(value, LONGEST_VALUE),
        };
        write!(f, "{}: {} → {}", self.key, side(&self.stored), side(&self.wanted))
    }
}

impl Fleet {
    /// What is stored of the fleet: the same text for equal fleets, whatever region they are in.
    pub fn definition(&self) -> String {
        // Texts, numbers and lists of them have no way to fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The fleet for programs: its definition, and its region if it names one. Its keys are written as in all JSON of
    /// both programs, and not as in a fleet file.
    pub(crate) fn to_json(&self) -> Value {
        let mut definition = serde_json::to_value(self).unwrap_or_default();
        if let Some(region) = &self.region {
            definition["region"] = region.as_str().into();
        }
        if let Some(Value::String(url)) = definition.pointer_mut("/package/url/url") {
            *url = public_address(url).to_owned();
        }
        snake_case(definition)
    }

    /// Reads what [`Fleet::definition`] wrote.
    ///
    /// # Errors
    /// It was not this version, or not this program, that wrote it.
    pub fn from_definition(text: &str) -> Result<Self, DefinitionError> {
        let fleet: Self = serde_json::from_str(text)?;
        fleet.check().map_err(DefinitionError::Wrong)?;
        Ok(fleet)
    }

    /// What other code relies on, in a definition that somebody may have changed.
    fn check(&self) -> Result<(), String> {
        values::fleet_name(&self.name)?;
        if self.zones.len() < 2 || self.groups.is_empty() {
            return Err("there are no two zones, or no group".to_owned());
        }
        for (number, group) in self.groups.iter().enumerate() {
            values::group_name(&group.name, group.paths)?;
            values::target_group(&self.name, &group.name)?;
            if self.groups[..number].iter().any(|other| other.name == group.name) {
                return Err(format!("two groups have the name {}", group.name));
            }
        }
        Ok(())
    }

    /// Whether the definition fits beside the tags, also under the longest name and with the
    /// package's checksum.
    pub(super) fn check_size(&self) -> Result<(), String> {
        let longest = self.definition().chars().count() + 20 + 64;
        let tags = longest.div_ceil(PIECE) + self.tags.len() + OWN_TAGS;
        if tags <= TAGS {
            Ok(())
        } else {
            Err(format!(
                "the fleet needs {tags} tags, and AWS takes {TAGS}: its definition has {longest} characters, and [tags] has \
                 {} tags; delete tags, or shorten the key of [package]",
                self.tags.len()
            ))
        }
    }

    /// What is wanted otherwise than stored, in the order of a fleet file. That no package is wanted
    /// is no difference: the stored one is used. A Debian package must have been read before.
    pub fn differences(&self, stored: &Self) -> Vec<Difference> {
        let mut wanted = self.settings();
        if self.package.is_none() {
            wanted.extend(stored.package.iter().map(|package| ("package".to_owned(), describe(package))));
        }
        let mut differences = compare(&wanted, &stored.settings());
        let group_in = |fleet: &Self, name: &str| fleet.groups.iter().find(|g| g.name == name).cloned();
        for group in &self.groups {
            match group_in(stored, &group.name) {
                Some(old) => differences.extend(compare(&of_group(group), &of_group(&old))),
                None => differences.push(added_or_removed(None, Some(group))),
            }
        }
        let gone = stored.groups.iter().filter(|group| group_in(self, &group.name).is_none());
        differences.extend(gone.map(|group| added_or_removed(Some(group), None)));
        // The order of the groups is the order of the rules: only of interest where the groups are equal.
        let names = |fleet: &Self| fleet.groups.iter().map(|g| g.name.clone()).collect::<Vec<_>>();
        let (mine, theirs) = (names(self), names(stored));
        if mine != theirs && mine.len() == theirs.len() && mine.iter().all(|name| theirs.contains(name)) {
            differences.push(Difference {
                key: "group".to_owned(),
                stored: Some(theirs.join(", ")),
                wanted: Some(mine.join(", ")),
            });
        }
        differences
    }

    /// Every key outside the groups, as a fleet file has it, that is not nothing.
    fn settings(&self) -> Vec<(String, String)> {
        let health = &self.health_check;
        let security = &self.security;
        let ports: Vec<_> = security.ports.iter().map(u16::to_string).collect();
        let mut settings = vec![
            ("name", self.name.clone()),
            ("image", self.image.clone()),
            ("zones", self.zones.join(", ")),
            ("port", self.port.to_string()),
            ("deregistration-delay", duration::format(self.deregistration_delay)),
            ("health-check.path", health.path.clone()),
            ("health-check.interval", duration::format(health.interval)),
            ("health-check.timeout", duration::format(health.timeout)),
            ("health-check.healthy", health.healthy.to_string()),
            ("health-check.unhealthy", health.unhealthy.to_string()),
            ("security.ports", ports.join(", ")),
            ("security.allow", security.allow.join(", ")),
            ("security.balancer-allow", security.balancer_allow.join(", ")),
        ];
        let named = [("key-pair", &self.key_pair), ("instance-profile", &self.instance_profile)];
        settings.extend(named.into_iter().filter_map(|(key, name)| Some((key, name.clone()?))));
        settings.extend(self.package.iter().map(|package| ("package", describe(package))));
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value));
        let tags = self.tags.iter().map(|(key, value)| (format!("tags.{key}"), value.clone()));
        settings.chain(tags).collect()
    }
}

/// Writes keys of a fleet file as those of JSON. The keys of tags are their owner's.
fn snake_case(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let entry = |(key, value): (String, Value)| {
                let value = if key == "tags" { value } else { snake_case(value) };
                (key.replace('-', "_"), value)
            };
            map.into_iter().map(entry).collect()
        }
        Value::Array(list) => list.into_iter().map(snake_case).collect(),
        value => value,
    }
}

/// What differs between two lists of keys and values.
fn compare(wanted: &[(String, String)], stored: &[(String, String)]) -> Vec<Difference> {
    let of = |list: &[(String, String)], key: &str| {
        list.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone())
    };
    let gone = stored.iter().filter(|(key, _)| of(wanted, key).is_none());
    let keys = wanted.iter().chain(gone).map(|(key, _)| key.clone());
    let both = keys.map(|key| Difference { stored: of(stored, &key), wanted: of(wanted, &key), key });
    both.filter(|difference| difference.stored != difference.wanted).collect()
}

/// A group that is new or goes.
fn added_or_removed(stored: Option<&Group>, wanted: Option<&Group>) -> Difference {
    let show = |group: &Group| format!("{} x {}", group.count, group.instance_type);
    let name = stored.or(wanted).map_or("", |group| group.name.as_str());
    Difference { key: format!("group.{name}"), stored: stored.map(show), wanted: wanted.map(show) }
}

fn of_group(group: &Group) -> Vec<(String, String)> {
    let settings = [
        ("type", group.instance_type.clone()),
        ("count", group.count.to_string()),
        ("weight", group.weight.to_string()),
        ("root", group.root.as_str().to_owned()),
        ("paths", group.paths.to_string()),
    ];
    settings.into_iter().map(|(key, value)| (format!("group.{}.{key}", group.name), value)).collect()
}

fn describe(package: &Package) -> String {
    match package {
        Package::InImage => "in-image".to_owned(),
        Package::Deb { sha256, .. } => format!("deb sha256 {sha256}"),
        Package::Url { url, sha256 } => format!("url {} sha256 {sha256}", public_address(url)),
        Package::Apt { line, key } => format!("apt {line:?} key sha256 {}", short_hash(key)),
    }
}

/// Enough of a checksum to see a difference by.
fn short_hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
