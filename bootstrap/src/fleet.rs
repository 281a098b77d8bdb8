//! The fleet: what a fleet file says, validated. An error names the line, the key and, where a
//! key is unknown, the nearest one that is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::duration;

/// The fleets that are part of the program: name and file.
const BUILT_IN: [(&str, &str); 2] =
    [("clusters", include_str!("../fleets/clusters.toml")), ("seed", include_str!("../fleets/seed.toml"))];

/// A fleet as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Its name, the value of its resources' fleet tag.
    pub name: String,
    /// The AWS region; `None` leaves it to the SDK's own sources. Not part of the definition that is
    /// stored, as that is where it is.
    #[serde(skip)]
    pub region: Option<String>,
    /// The machine image: an id, or a name such as `ubuntu-22.04`.
    pub image: String,
    /// The availability zones, at least two; instances take turns in them.
    pub zones: Vec<String>,
    /// The port of the listener and of the target groups.
    pub port: u16,
    /// How long deregistered targets drain.
    pub deregistration_delay: Duration,
    /// How targets are probed.
    pub health_check: HealthCheck,
    /// Its groups of instances, at least one.
    pub groups: Vec<Group>,
    /// The key pair for SSH.
    #[serde(default)]
    pub key_pair: Option<String>,
    /// An instance profile that exists, where roles cannot be created.
    #[serde(default)]
    pub instance_profile: Option<String>,
    /// Who may connect to what.
    #[serde(default)]
    pub security: Security,
    /// How the agent gets onto the instances; `None` where the file does not say.
    #[serde(default)]
    pub package: Option<Package>,
    /// Tags for every resource, beside the fleet's own.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Who may connect to what, all TCP over IPv4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// The instances' ports that are open to `allow`.
    pub ports: Vec<u16>,
    /// From where the instances' ports can be reached, in CIDR notation.
    pub allow: Vec<String>,
    /// From where the balancer can be reached, in CIDR notation.
    pub balancer_allow: Vec<String>,
}

impl Default for Security {
    fn default() -> Self {
        let anywhere = vec!["0.0.0.0/0".to_owned()];
        Self { ports: vec![22, 80, 443], allow: anywhere.clone(), balancer_allow: anywhere }
    }
}

/// How the agent gets onto the instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Package {
    /// The image has it.
    InImage,
    /// A Debian package on this machine, handed over through a private bucket.
    Deb {
        /// Where it is on this machine; `None` where only the stored definition is known.
        #[serde(skip)]
        file: Option<PathBuf>,
        /// SHA-256 of the file in lower-case hex; empty until the file was read.
        sha256: String,
    },
    /// A Debian package at an address that the instances can reach.
    Url {
        /// `http` or `https`.
        url: String,
        /// SHA-256 in lower-case hex.
        sha256: String,
    },
    /// An apt repository.
    Apt {
        /// The line for `sources.list.d`, one-line style.
        line: String,
        /// The repository's public key, ASCII-armoured.
        key: String,
    },
}

/// How targets are probed; see AWS's own limits in [`Fleet::parse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The path that must answer 200.
    pub path: String,
    /// From one probe to the next.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Passes in a row that make an unhealthy target healthy.
    pub healthy: u32,
    /// Failures in a row that make a target unhealthy.
    pub unhealthy: u32,
}

/// Instances of one kind in one target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name; with `paths` also the cluster's.
    pub name: String,
    /// The instance type.
    pub instance_type: String,
    /// How many instances.
    pub count: u16,
    /// Its share of the requests that no path rule takes, 0 to 999.
    pub weight: u16,
    /// What `GET /` means on its instances.
    pub root: Root,
    /// Whether the group is a cluster: `/{name}` and `/{name}/*` lead to it.
    pub paths: bool,
}

impl Group {
    /// The path patterns that lead to it; none without `paths`.
    pub fn rule_paths(&self) -> Vec<String> {
        match self.paths {
            true => vec![format!("/{}", self.name), format!("/{}/*", self.name)],
            false => Vec::new(),
        }
    }
}

/// What `GET /` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// `Healthy!`
    Health,
    /// The seed.
    Seed,
}

impl Root {
    /// The tag's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Seed => "seed",
        }
    }
}

/// What is wrong with a fleet file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct FleetError {
    /// The file, or a built-in fleet's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The key and what is wrong with it.
    pub message: String,
}

impl Fleet {
    /// The names of the built-in fleets.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.into_iter().map(|(name, _)| name)
    }

    /// The file of a built-in fleet.
    pub fn built_in(name: &str) -> Option<&'static str> {
        let found = BUILT_IN.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| text)
    }

    /// Reads a fleet file. Limits are AWS's own, where it has any.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, FleetError> {
        let source = Source { file, text };
        let root = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            source.error(&span, error.message())
        })?;
        let whole = root.span();
        source.fleet(&Section { source, table: root.get_ref(), span: whole, name: String::new() })
    }

    /// How many instances it has.
    pub fn instances(&self) -> usize {
        self.groups.iter().map(|group| usize::from(group.count)).sum()
    }

    /// Overrides a group's count.
    ///
    /// # Errors
    /// There is no such group; the message names those there are.
    pub fn set_count(&mut self, group: &str, count: u16) -> Result<(), String> {
        let names: Vec<String> = self.groups.iter().map(|g| g.name.clone()).collect();
        match self.groups.iter_mut().find(|g| g.name == group) {
            Some(found) => {
                found.count = count;
                Ok(())
            }
            None => Err(format!("fleet {} has no group {group}, only {}", self.name, names.join(", "))),
        }
    }

    /// The definition that is stored with the fleet: compact JSON, always the same for the same fleet.
    pub fn definition(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The name of a group's target group.
    pub fn target_group(&self, group: &Group) -> String {
        format!("{}-{}", self.name, group.name)
    }
}

const FLEET_KEYS: [&str; 8] =
    ["name", "region", "image", "zones", "port", "deregistration-delay", "health-check", "group"];
const HEALTH_KEYS: [&str; 5] = ["path", "interval", "timeout", "healthy", "unhealthy"];
const GROUP_KEYS: [&str; 6] = ["name", "type", "count", "weight", "root", "paths"];

/// A file and its text, to make errors from.
#[derive(Clone, Copy)]
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, span: &Range<usize>, message: impl fmt::Display) -> FleetError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        FleetError {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            message: message.to_string(),
        }
    }

    fn fleet(&self, top: &Section<'_>) -> Result<Fleet, FleetError> {
        top.allow(&FLEET_KEYS)?;
        let name = top.required("name", Section::text)?;
        let (name, at) = (name.value, name.span);
        if !is_name(&name, 20) {
            return Err(self.error(&at, NAME_RULE.replace("KEY", "name")));
        }
        let zones = top.required("zones", Section::texts)?;
        if zones.value.iter().collect::<BTreeSet<_>>().len() < 2 {
            let text = "zones: a load balancer needs two different availability zones";
            return Err(self.error(&zones.span, text));
        }
        let port = top.integer("port", 1..=65_535)?.unwrap_or(80);
        let delay = Duration::ZERO..=Duration::from_secs(3600);
        let delay = top.duration("deregistration-delay", delay)?;
        let groups = top.groups(&name)?;
        Ok(Fleet {
            region: top.text("region")?.map(|found| found.value),
            image: top.required("image", Section::text)?.value,
            zones: zones.value,
            port: u16::try_from(port).unwrap_or(80),
            deregistration_delay: delay.unwrap_or(Duration::from_secs(300)),
            health_check: top.health_check()?,
            groups,
            name,
            key_pair: None,
            instance_profile: None,
            security: Security::default(),
            package: None,
            tags: BTreeMap::new(),
        })
    }
}

const NAME_RULE: &str =
    "KEY: expected a lower-case letter, then up to 19 lower-case letters, digits and hyphens";

/// The agent's own paths, which a cluster's would hide.
const RESERVED: [&str; 4] = ["health", "seed", "status", "metrics"];

fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A value and where it stands.
struct Found<T> {
    value: T,
    span: Range<usize>,
}

/// A table of the file.
struct Section<'a> {
    source: Source<'a>,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    /// What is put before its keys in messages: empty, or ends with a dot.
    name: String,
}

impl<'a> Section<'a> {
    fn allow(&self, known: &[&str]) -> Result<(), FleetError> {
        // In the order of the file: the first mistake is the one to be told of.
        let mut keys: Vec<_> = self.table.keys().collect();
        keys.sort_by_key(|key| key.span().start);
        for key in keys {
            let text = key.get_ref().as_ref();
            if known.contains(&text) {
                continue;
            }
            let distance = |known: &&&str| strsim::damerau_levenshtein(known, text);
            let nearest = known.iter().min_by_key(distance).filter(|near| distance(near) <= 3);
            let advice = match nearest {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("known are {}", known.join(", ")),
            };
            let text = format!("{}{text}: unknown key; {advice}", self.name);
            return Err(self.source.error(&key.span(), text));
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    fn wrong(&self, key: &str, span: &Range<usize>, expected: impl fmt::Display) -> FleetError {
        let text = format!("{}{key}: expected {expected}", self.name);
        self.source.error(span, text)
    }

    fn required<T>(
        &self,
        key: &str,
        read: impl Fn(&Self, &str) -> Result<Option<Found<T>>, FleetError>,
    ) -> Result<Found<T>, FleetError> {
        read(self, key)?.ok_or_else(|| {
            let text = format!("{}{key}: missing", self.name);
            self.source.error(&self.span, text)
        })
    }

    fn text(&self, key: &str) -> Result<Option<Found<String>>, FleetError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.get_ref().as_str() {
            Some(text) if !text.is_empty() => Ok(Some(Found { value: text.to_owned(), span: value.span() })),
            _ => Err(self.wrong(key, &value.span(), "a text in quotes")),
        }
    }

    fn texts(&self, key: &str) -> Result<Option<Found<Vec<String>>>, FleetError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let texts = value.get_ref().as_array().and_then(|array| {
            let texts = array.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        let span = value.span();
        match texts {
            Some(value) => Ok(Some(Found { value, span })),
            None => Err(self.wrong(key, &span, "a list of texts in quotes")),
        }
    }

    fn integer(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, FleetError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|integer| u32::from_str_radix(integer.as_str(), integer.radix()).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let expected = format!("a number from {} to {}", range.start(), range.end());
                Err(self.wrong(key, &value.span(), expected))
            }
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, FleetError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.get_ref().as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => Err(self.wrong(key, &value.span(), "true or false")),
        }
    }

    fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Result<Option<Duration>, FleetError> {
        let Some(found) = self.text(key)? else {
            return Ok(None);
        };
        match duration::parse(&found.value).ok().filter(|duration| range.contains(duration)) {
            Some(duration) => Ok(Some(duration)),
            None => {
                let (low, high) = (range.start().as_secs(), range.end().as_secs());
                let expected = format!("a duration from \"{low}s\" to \"{high}s\"");
                Err(self.wrong(key, &found.span, expected))
            }
        }
    }

    fn health_check(&self) -> Result<HealthCheck, FleetError> {
        let empty = DeTable::new();
        let (table, span) = match self.get("health-check") {
            None => (&empty, self.span.clone()),
            Some(value) => match value.get_ref().as_table() {
                Some(table) => (table, value.span()),
                None => return Err(self.wrong("health-check", &value.span(), "a table")),
            },
        };
        let section = Section { source: self.source, table, span, name: "health-check.".to_owned() };
        section.allow(&HEALTH_KEYS)?;
        let path = section.text("path")?;
        if let Some(path) = &path
            && (!path.value.starts_with('/') || path.value.contains(char::is_whitespace))
        {
            return Err(section.wrong("path", &path.span, "a path that begins with /"));
        }
        let seconds = |low, high| Duration::from_secs(low)..=Duration::from_secs(high);
        let interval = section.duration("interval", seconds(5, 300))?;
        let interval = interval.unwrap_or(Duration::from_secs(30));
        let timeout = section.duration("timeout", seconds(2, 120))?;
        let timeout = timeout.unwrap_or(Duration::from_secs(5));
        if timeout >= interval {
            let span = section.get("timeout").map_or(section.span.clone(), Spanned::span);
            return Err(section.wrong("timeout", &span, "less than health-check.interval"));
        }
        Ok(HealthCheck {
            path: path.map_or_else(|| "/".to_owned(), |path| path.value),
            interval,
            timeout,
            healthy: section.integer("healthy", 2..=10)?.unwrap_or(5),
            unhealthy: section.integer("unhealthy", 2..=10)?.unwrap_or(2),
        })
    }

    fn groups(&self, fleet: &str) -> Result<Vec<Group>, FleetError> {
        let tables = self.get("group");
        let span = tables.map_or(self.span.clone(), Spanned::span);
        let tables = tables.and_then(|value| value.get_ref().as_array());
        let mut groups: Vec<Group> = Vec::new();
        for value in tables.into_iter().flat_map(|array| array.iter()) {
            let Some(table) = value.get_ref().as_table() else {
                return Err(self.wrong("group", &value.span(), "tables: [[group]]"));
            };
            let section =
                Section { source: self.source, table, span: value.span(), name: "group.".to_owned() };
            let group = section.group(fleet)?;
            if groups.iter().any(|other| other.name == group.name) {
                let span = section.get("name").map_or(value.span(), Spanned::span);
                let text = format!("group.name: there are two groups {}", group.name);
                return Err(self.source.error(&span, text));
            }
            groups.push(group);
        }
        // Five target groups in one forward action is AWS's limit.
        if !(1..=5).contains(&groups.len()) {
            return Err(self.wrong("group", &span, "one to five [[group]] tables"));
        }
        if groups.iter().all(|group| group.weight == 0) {
            let text = "group.weight: at least one group needs a weight above 0";
            return Err(self.source.error(&span, text));
        }
        Ok(groups)
    }

    fn group(&self, fleet: &str) -> Result<Group, FleetError> {
        self.allow(&GROUP_KEYS)?;
        let name = self.required("name", Self::text)?;
        let paths = self.flag("paths")?.unwrap_or(true);
        if !is_name(&name.value, 20) {
            let text = NAME_RULE.replace("KEY", "group.name");
            return Err(self.source.error(&name.span, text));
        }
        if paths && RESERVED.contains(&name.value.as_str()) {
            let text = format!(
                "group.name: /{} is the agent's own path; choose another name or set paths = false",
                name.value
            );
            return Err(self.source.error(&name.span, text));
        }
        if fleet.len() + 1 + name.value.len() > 32 {
            let text = format!(
                "group.name: the target group would be {fleet}-{}, longer than 32 characters",
                name.value
            );
            return Err(self.source.error(&name.span, text));
        }
        let root = match self.text("root")? {
            None => Root::Health,
            Some(found) => match found.value.as_str() {
                "health" => Root::Health,
                "seed" => Root::Seed,
                _ => return Err(self.wrong("root", &found.span, "\"health\" or \"seed\"")),
            },
        };
        let small = |number: Option<u32>| number.and_then(|number| u16::try_from(number).ok());
        let count = small(self.integer("count", 1..=1000)?);
        Ok(Group {
            instance_type: self.required("type", Self::text)?.value,
            count: count.unwrap_or(1),
            weight: small(self.integer("weight", 0..=999)?).unwrap_or(1),
            root,
            paths,
            name: name.value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters() -> &'static str {
        Fleet::built_in("clusters").unwrap()
    }

    #[test]
    fn the_built_in_fleets_are_the_two_set_ups() {
        let fleet = Fleet::parse("clusters", clusters()).unwrap();
        let groups: Vec<_> = fleet
            .groups
            .iter()
            .map(|g| (g.name.as_str(), g.instance_type.as_str(), g.count, g.weight, g.paths))
            .collect();
        assert_eq!(groups, [("cluster1", "m4.large", 5, 1, true), ("cluster2", "t2.large", 4, 1, true)]);
        assert_eq!(fleet.image, "ami-08c40ec9ead489470");
        assert_eq!(fleet.zones, ["us-east-1a", "us-east-1b"]);
        assert_eq!(fleet.deregistration_delay, Duration::from_secs(300));
        assert_eq!(fleet.target_group(&fleet.groups[0]), "clusters-cluster1");

        let seed = Fleet::parse("seed", Fleet::built_in("seed").unwrap()).unwrap();
        assert_eq!(seed.instances(), 2);
        assert_eq!(seed.groups[0].root, Root::Seed);
        assert!(!seed.groups[0].paths);
        assert_eq!(seed.health_check.path, "/");
    }

    #[test]
    fn counts_can_be_set_for_groups_that_exist() {
        let mut fleet = Fleet::parse("clusters", clusters()).unwrap();
        fleet.set_count("cluster1", 3).unwrap();
        assert_eq!(fleet.instances(), 7);
        let error = fleet.set_count("cluster3", 1).unwrap_err();
        assert_eq!(error, "fleet clusters has no group cluster3, only cluster1, cluster2");
    }

    #[test]
    fn errors_name_line_key_and_the_nearest_known_key() {
        let cases = [
            ("region = ", "regoin = ", "f:4: regoin: unknown key; did you mean region?"),
            ("type = \"m4", "typ = \"m4", "f:19: group.typ: unknown key; did you mean type?"),
            (
                "timeout = \"5s\"",
                "zzzzzzzzzz = 1",
                "f:13: health-check.zzzzzzzzzz: unknown key; known are path, interval, timeout, healthy, unhealthy",
            ),
            ("count = 5", "count = 0", "f:20: group.count: expected a number from 1 to 1000"),
            ("count = 5", "count = \"5\"", "f:20: group.count: expected a number from 1 to 1000"),
            ("\"5s\"", "\"5\"", "f:13: health-check.timeout: expected a duration from \"2s\" to \"120s\""),
            ("\"5s\"", "\"30s\"", "f:13: health-check.timeout: expected less than health-check.interval"),
            (", \"us-east-1b\"", "", "f:6: zones: a load balancer needs two different availability zones"),
            ("\"cluster2\"", "\"cluster1\"", "f:24: group.name: there are two groups cluster1"),
            (
                "\"cluster2\"",
                "\"seed\"",
                "f:24: group.name: /seed is the agent's own path; choose another name or set paths = false",
            ),
            ("port = 80", "port = 80\nport = 81", "f:8: duplicate key"),
            ("image = \"ami-08c40ec9ead489470\"\n", "", "f:1: image: missing"),
        ];
        for (from, to, expected) in cases {
            let text = clusters().replacen(from, to, 1);
            assert_ne!(text, clusters(), "{from}");
            let error = Fleet::parse("f", &text).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
