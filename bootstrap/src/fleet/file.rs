//! A fleet file, key by key. Limits are AWS's own, where it has any.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use instance_contract::Root;
use toml::Spanned;
use toml::de::DeTable;

use super::model::{Fleet, Group, HealthCheck, Package, Security};
use super::toml_table::{FleetError, Located, Section, Source};
use super::values;

/// The fleets that are part of the program: name and file.
const BUILT_IN: [(&str, &str); 2] = [
    ("clusters", include_str!("../../fleets/clusters.toml")),
    ("seed", include_str!("../../fleets/seed.toml")),
];

const FLEET_KEYS: [&str; 13] = [
    "name",
    "region",
    "image",
    "zones",
    "port",
    "deregistration-delay",
    "key-pair",
    "instance-profile",
    "health-check",
    "security",
    "package",
    "tags",
    "group",
];
const HEALTH_KEYS: [&str; 5] = ["path", "interval", "timeout", "healthy", "unhealthy"];
const SECURITY_KEYS: [&str; 3] = ["ports", "allow", "balancer-allow"];
const PACKAGE_KEYS: [&str; 6] = ["in-image", "deb", "url", "sha256", "apt", "key"];
const GROUP_KEYS: [&str; 6] = ["name", "type", "count", "weight", "root", "paths"];

/// All keys, by what is put before them.
#[cfg(test)]
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("", &FLEET_KEYS),
    ("health-check.", &HEALTH_KEYS),
    ("security.", &SECURITY_KEYS),
    ("package.", &PACKAGE_KEYS),
    ("tags.", &[]),
    ("group.", &GROUP_KEYS),
];

/// Rules that one security group takes, unless the account was given more.
const RULES: usize = 60;
/// A resource takes fifty tags; the rest is for the fleet's own.
const TAGS: usize = 40;

type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

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

    /// Reads a fleet file. Files that it names are meant from its folder; of these an apt
    /// repository's key is read, a Debian package is not yet.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, FleetError> {
        Self::parse_with(file, text, &|path| std::fs::read_to_string(path))
    }

    /// Reads a fleet file, and the files that it names with `read`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse_with(
        file: &str,
        text: &str,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, FleetError> {
        fleet(file, text, read)
    }
}

/// Reads a fleet file, and with `read` the files that it names.
fn fleet(file: &str, text: &str, read: ReadFile<'_>) -> Result<Fleet, FleetError> {
    let source = Source { file, text };
    let root = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        source.error(&span, error.message())
    })?;
    let top = Section { source, table: root.get_ref(), span: root.span(), name: String::new() };
    top.allow(&FLEET_KEYS)?;
    let name = top.required("name", |top, key| top.checked(key, values::fleet_name))?.value;
    let region = top.checked("region", values::region)?.map(|found| found.value);
    let image = top.required("image", |top, key| top.checked(key, values::image))?.value;
    let zones = zones(&top, region.as_deref())?;
    let port = top.integer("port", 1..=65_535)?.unwrap_or(80);
    let delay = top.duration("deregistration-delay", Duration::ZERO..=Duration::from_secs(3600))?;
    let profile = top.checked("instance-profile", values::instance_profile)?;
    let fleet = Fleet {
        region,
        image,
        zones,
        port: u16::try_from(port).unwrap_or(80),
        deregistration_delay: delay.unwrap_or(Duration::from_secs(300)),
        health_check: health_check(&top)?,
        groups: groups(&top, &name)?,
        key_pair: top.checked("key-pair", values::key_pair)?.map(|found| found.value),
        instance_profile: profile.map(|found| found.value),
        security: security(&top)?,
        package: package(&top, read)?,
        tags: tags(&top)?,
        name,
    };
    fleet.check_size().map_err(|message| source.error(&(0..0), message))?;
    Ok(fleet)
}

fn zones(top: &Section<'_>, region: Option<&str>) -> Result<Vec<String>, FleetError> {
    let zones = top.required("zones", |top, key| top.texts(key, values::zone))?;
    let wrong = |message: String| Err(top.wrong("zones", &zones.span, message));
    if zones.value.len() < 2 {
        return wrong("a load balancer needs two different availability zones".to_owned());
    }
    for zone in &zones.value {
        let of = values::region_of(zone);
        if region.is_some() && of != region {
            return wrong(format!("{zone} is not in the region {}", region.unwrap_or_default()));
        }
        if of != values::region_of(&zones.value[0]) {
            return wrong(format!("{zone} and {} are in different regions", zones.value[0]));
        }
    }
    Ok(zones.value)
}

fn health_check(top: &Section<'_>) -> Result<HealthCheck, FleetError> {
    let empty = DeTable::new();
    let section = top.section("health-check")?.unwrap_or_else(|| Section {
        source: top.source,
        table: &empty,
        span: top.span.clone(),
        name: "health-check.".to_owned(),
    });
    section.allow(&HEALTH_KEYS)?;
    let path = section.checked("path", |path| {
        let right = path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic());
        if right { Ok(()) } else { Err("expected a path that begins with /".to_owned()) }
    })?;
    let seconds = |low, high| Duration::from_secs(low)..=Duration::from_secs(high);
    let interval = section.duration("interval", seconds(5, 300))?;
    let interval = interval.unwrap_or(Duration::from_secs(30));
    let timeout = section.duration("timeout", seconds(2, 120))?;
    let timeout = timeout.unwrap_or(Duration::from_secs(5));
    if timeout >= interval {
        let span = section.get("timeout").map_or(section.span.clone(), Spanned::span);
        return Err(section.wrong("timeout", &span, "expected less than health-check.interval"));
    }
    Ok(HealthCheck {
        path: path.map_or_else(|| "/".to_owned(), |path| path.value),
        interval,
        timeout,
        healthy: section.integer("healthy", 2..=10)?.unwrap_or(5),
        unhealthy: section.integer("unhealthy", 2..=10)?.unwrap_or(2),
    })
}

fn security(top: &Section<'_>) -> Result<Security, FleetError> {
    let default = Security::default();
    let Some(section) = top.section("security")? else {
        return Ok(default);
    };
    section.allow(&SECURITY_KEYS)?;
    let ranges = |key: &str, default: Vec<String>| {
        let found = section.texts(key, values::cidr)?;
        Ok(found.map_or(default, |found| found.value))
    };
    let security = Security {
        ports: section.ports("ports")?.unwrap_or(default.ports),
        allow: ranges("allow", default.allow)?,
        balancer_allow: ranges("balancer-allow", default.balancer_allow)?,
    };
    let span = |key: &str| section.get(key).map_or(section.span.clone(), Spanned::span);
    if security.balancer_allow.is_empty() {
        let message = "expected at least one range, or nobody could reach the balancer";
        return Err(section.wrong("balancer-allow", &span("balancer-allow"), message));
    }
    // The instances' group has one rule more: the balancer's way in.
    for (key, rules) in [
        ("allow", security.ports.len() * security.allow.len() + 1),
        ("balancer-allow", security.balancer_allow.len()),
    ] {
        if rules > RULES {
            let message = format!("that makes {rules} rules, and a security group takes {RULES}");
            return Err(section.wrong(key, &span(key), message));
        }
    }
    Ok(security)
}

fn package(top: &Section<'_>, read: ReadFile<'_>) -> Result<Option<Package>, FleetError> {
    let Some(section) = top.section("package")? else {
        return Ok(None);
    };
    section.allow(&PACKAGE_KEYS)?;
    let ways = ["in-image", "deb", "url", "apt"];
    let keys = section.keys();
    let mut given = keys.iter().filter(|key| ways.contains(&key.value));
    let Some(way) = given.next() else {
        let message = "package: expected one of in-image, deb, url and apt";
        return Err(section.source.error(&section.span, message));
    };
    if let Some(second) = given.next() {
        let message = format!("there is {} already; only one of in-image, deb, url and apt", way.value);
        return Err(section.wrong(second.value, &second.span, message));
    }
    for (key, of) in [("sha256", "url"), ("key", "apt")] {
        if way.value != of
            && let Some(value) = section.get(key)
        {
            return Err(section.wrong(key, &value.span(), format!("goes with {of} only")));
        }
    }
    let beside = |path: &str| Path::new(section.source.file).parent().unwrap_or(Path::new("")).join(path);
    let required = |key: &str, check: fn(&str) -> Result<(), String>| {
        section.required(key, |section, key| section.checked(key, check))
    };
    Ok(Some(match way.value {
        "deb" => {
            let file = required("deb", |path| {
                if path.ends_with(".deb") {
                    Ok(())
                } else {
                    Err("expected the path of a .deb file".to_owned())
                }
            })?;
            Package::Deb { file: Some(beside(&file.value)), sha256: String::new() }
        }
        "url" => Package::Url {
            url: required("url", values::package_url)?.value,
            sha256: required("sha256", values::sha256)?.value,
        },
        "apt" => {
            let line = required("apt", values::apt_line)?.value;
            let Located { value, span } = required("key", |_| Ok(()))?;
            let path = beside(&value);
            let wrong =
                |message: String| section.wrong("key", &span, format!("{}: {message}", path.display()));
            let key = read(&path).map_err(|error| wrong(error.to_string()))?;
            values::armoured_key(&key).map_err(wrong)?;
            Package::Apt { line, key: format!("{}\n", key.trim()) }
        }
        _ => match section.flag("in-image")? {
            Some(flag) if !flag.value => {
                let message = "expected true; leave [package] out where the file does not say";
                return Err(section.wrong("in-image", &flag.span, message));
            }
            _ => Package::InImage,
        },
    }))
}

fn tags(top: &Section<'_>) -> Result<BTreeMap<String, String>, FleetError> {
    let Some(section) = top.section("tags")? else {
        return Ok(BTreeMap::new());
    };
    let mut tags = BTreeMap::new();
    for key in section.keys() {
        let wrong = |message: String| section.wrong(key.value, &key.span, message);
        values::tag_key(key.value).map_err(wrong)?;
        // IAM takes them for one, and refuses the second.
        if tags.keys().any(|other: &String| other.eq_ignore_ascii_case(key.value)) {
            return Err(wrong("there is a tag of the same name but for upper and lower case".to_owned()));
        }
        let value = section.get(key.value).and_then(|value| value.get_ref().as_str());
        let value = value.ok_or_else(|| wrong("expected a text in quotes".to_owned()))?;
        values::tag_value(value).map_err(wrong)?;
        tags.insert(key.value.to_owned(), value.to_owned());
    }
    if tags.len() > TAGS {
        let message = format!("tags: {} tags, and at most {TAGS} fit beside the fleet's own", tags.len());
        return Err(section.source.error(&section.span, message));
    }
    Ok(tags)
}

fn groups(top: &Section<'_>, fleet: &str) -> Result<Vec<Group>, FleetError> {
    let sections = top.sections("group")?;
    let mut groups: Vec<Group> = Vec::new();
    for section in &sections.value {
        let group = group(section, fleet)?;
        if groups.iter().any(|other| other.name == group.name) {
            let span = section.get("name").map_or(section.span.clone(), Spanned::span);
            return Err(section.wrong("name", &span, format!("there are two groups {}", group.name)));
        }
        groups.push(group);
    }
    // Five target groups in one forward action is AWS's limit.
    if !(1..=5).contains(&groups.len()) {
        return Err(top.wrong("group", &sections.span, "expected one to five [[group]] tables"));
    }
    if groups.iter().all(|group| group.weight == 0) {
        return Err(top.wrong("group.weight", &sections.span, "at least one group needs a weight above 0"));
    }
    Ok(groups)
}

fn group(section: &Section<'_>, fleet: &str) -> Result<Group, FleetError> {
    section.allow(&GROUP_KEYS)?;
    let paths = section.flag("paths")?.is_none_or(|flag| flag.value);
    let name = section.required("name", |section, key| {
        section.checked(key, |name| {
            values::group_name(name, paths)?;
            values::target_group(fleet, name)
        })
    })?;
    let root = match section.text("root")? {
        None => Root::Health,
        Some(found) => {
            let wrong = |_| section.wrong("root", &found.span, "expected \"health\" or \"seed\"");
            found.value.parse().map_err(wrong)?
        }
    };
    let small = |number: Option<u32>| number.and_then(|number| u16::try_from(number).ok());
    let instance_type =
        section.required("type", |section, key| section.checked(key, values::instance_type))?;
    Ok(Group {
        instance_type: instance_type.value,
        count: small(section.integer("count", 1..=1000)?).unwrap_or(1),
        weight: small(section.integer("weight", 0..=999)?).unwrap_or(1),
        root,
        paths,
        name: name.value,
    })
}
