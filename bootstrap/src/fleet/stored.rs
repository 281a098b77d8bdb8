//! The definition of a fleet that its tags keep, and the differences between two.

use std::fmt;

use instance_contract::{duration, one_line};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::model::{Fleet, Group, Package, public_address};
use super::values;

/// Characters of a definition in one tag; AWS takes 256 in a tag's value.
pub(super) const PIECE: usize = 250;
/// Tags that AWS allows on a resource.
const TAGS: usize = 50;
/// Longer values are cut where a difference is shown, in characters.
const LONGEST_VALUE: usize = 500;
/// Tags of bootstrap beside the definition: fleet, settled and name, and room for two more.
const OWN_TAGS: usize = 5;

/// A stored definition that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It has a key or a word that this version does not know.
    #[error(
        "the fleet's stored definition was written by a bootstrap newer than this one, {version} ({0}): upgrade bootstrap",
        version = env!("CARGO_PKG_VERSION")
    )]
    Newer(String),
    /// It has another form.
    #[error(
        "the fleet's stored definition cannot be read ({0}): somebody changed the tags of its security group, or another \
         version of bootstrap wrote them; restore the tags, or use that version"
    )]
    Unreadable(String),
    /// It can be read, but describes no fleet.
    #[error(
        "the fleet's stored definition is wrong ({0}): somebody changed the tags of its security group; restore them"
    )]
    Wrong(String),
}

/// A setting whose desired value is not the stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key of a fleet file, such as `group.cluster1.count`.
    pub key: String,
    /// The stored value; `None` where none is stored.
    pub stored: Option<String>,
    /// The desired value; `None` where none is desired.
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
    /// The text that is stored for the fleet: equal fleets have the same text, also in different regions. A setting that
    /// an older version does not know is written only where it is set, so that the older version reads all other fleets.
    pub fn definition(&self) -> String {
        // Texts, numbers and lists of them cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The fleet for programs: its definition, and its region where it names one. The keys have underscores, as in all
    /// JSON of both programs, where a fleet file has hyphens.
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

    /// Reads the text that [`Fleet::definition`] wrote.
    ///
    /// # Errors
    /// Another version wrote the text, or somebody changed it.
    pub fn from_definition(text: &str) -> Result<Self, DefinitionError> {
        let fleet: Self = serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            // serde gives no other sign that a key, or one of several words, is unknown.
            let is_newer = ["unknown field", "unknown variant"].iter().any(|sign| message.starts_with(sign));
            if is_newer {
                // serde lists all known keys after this.
                let unknown = message.split(", expected").next().unwrap_or_default();
                DefinitionError::Newer(one_line(unknown, LONGEST_VALUE))
            } else {
                DefinitionError::Unreadable(one_line(&message, LONGEST_VALUE))
            }
        })?;
        fleet.check().map_err(DefinitionError::Wrong)?;
        Ok(fleet)
    }

    /// Checks the properties on which other code relies, since somebody may have changed the definition.
    fn check(&self) -> Result<(), String> {
        values::fleet_name(&self.name)?;
        if self.zones.len() < 2 || self.groups.is_empty() {
            return Err("it has no two zones, or no group".to_owned());
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

    /// Whether the definition fits beside the fleet's tags, with the longest name and the package's checksum.
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

    /// The settings that differ from the stored ones, in the order of a fleet file. A fleet without package uses the
    /// stored package, which is no difference. A Debian package must have been read before.
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
        // The order of the groups is that of the listener's rules; it matters only where the groups are the same.
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

    /// Every setting outside the groups that has a value, by its key in a fleet file.
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

/// Writes the keys with underscores, but not the keys of tags: they belong to the user.
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

/// The differences between two lists of keys and values.
fn compare(wanted: &[(String, String)], stored: &[(String, String)]) -> Vec<Difference> {
    let of = |list: &[(String, String)], key: &str| {
        list.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone())
    };
    let gone = stored.iter().filter(|(key, _)| of(wanted, key).is_none());
    let keys = wanted.iter().chain(gone).map(|(key, _)| key.clone());
    let both = keys.map(|key| Difference { stored: of(stored, &key), wanted: of(wanted, &key), key });
    both.filter(|difference| difference.stored != difference.wanted).collect()
}

/// The difference of a group that is new, or that is removed.
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

/// The beginning of a checksum, long enough to tell two keys apart.
fn short_hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
