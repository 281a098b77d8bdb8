//! A fleet file, key by key. Where AWS has a limit, it is the limit here.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use instance_contract::{Root, duration};
use toml::de::DeTable;

use super::mistakes::{FleetError, Reading, Reported};
use super::model::{Fleet, Group, HealthCheck, Package, Security};
use super::toml_syntax::{self, Repaired};
use super::toml_table::{self, Located, Section};
use super::values;

/// The built-in fleets: name and file.
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

/// All keys, by the table's name and a dot.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("", &FLEET_KEYS),
    ("health-check.", &HEALTH_KEYS),
    ("security.", &SECURITY_KEYS),
    ("package.", &PACKAGE_KEYS),
    ("tags.", &[]),
    ("group.", &GROUP_KEYS),
];

/// Rules that a security group takes in an account without a raised quota.
const RULES: usize = 60;
/// A resource takes fifty tags; bootstrap itself needs the rest.
const TAGS: usize = 40;
/// Target groups that AWS takes in one forward action.
const GROUPS: usize = 5;

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

    /// Reads a fleet file. Paths in it start from the file's folder. The key of an apt repository is read here, a
    /// Debian package later.
    ///
    /// # Errors
    /// All mistakes of the file.
    pub fn parse(file: &str, text: &str) -> Result<Self, FleetError> {
        Self::parse_with(file, text, &|path| std::fs::read_to_string(path))
    }

    /// Reads a fleet file, and the files that it names with `read`.
    ///
    /// # Errors
    /// All mistakes of the file.
    pub fn parse_with(
        file: &str,
        text: &str,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, FleetError> {
        let Repaired { text, slips, unreadable, is_toml } = toml_syntax::repair(text, &["group"]);
        let reading = Reading::new(file, &text, unreadable);
        let has_slips = !slips.is_empty();
        for slip in slips {
            reading.report(slip.line, slip.message);
        }
        let (root, errors) = DeTable::parse_recoverable(&text);
        let fleet = if !is_toml {
            let last = text.lines().count();
            Err(reading.report(last, "too many mistakes: is this a fleet file?"))
        } else if root.get_ref().is_empty() && !has_slips {
            Err(reading.report(1, EMPTY))
        } else {
            report_doubled(root.get_ref(), &errors, &reading, &text);
            fleet(&Section::root(&reading, root.get_ref()), read)
        };
        // Doubled keys and slips are mistakes although the rest makes a fleet.
        match fleet {
            Ok(fleet) if !reading.has_mistakes() => Ok(fleet),
            _ => Err(reading.into_error()),
        }
    }
}

/// The message about a file without keys.
const EMPTY: &str = "the file sets no key; a fleet needs at least name, image, zones (two or more), and one [[group]] \
                     with name and type; `bootstrap fleets show clusters` prints an example";

/// Reports keys and tables that are set twice; the parser kept the first value, and joined the tables.
fn report_doubled(root: &DeTable<'_>, errors: &[toml::de::Error], reading: &Reading<'_>, text: &str) {
    for span in toml_syntax::doubled(errors) {
        let name = text.get(span.clone()).unwrap_or_default();
        let line = reading.line(span.start);
        let of_key = || toml_table::key_before(root, name, span.start).map(|start| reading.line(start));
        let first = toml_syntax::first_header(text, name, line).or_else(of_key);
        let first = first.map_or(String::new(), |first| format!(" (first in line {first})"));
        let key = toml_syntax::whole_key(text, name, line);
        let cure = if key.starts_with('[') { "write its keys below one header" } else { "delete one" };
        reading.report(line, format!("{key} is given twice{first}: {cure}"));
    }
}

/// Reads all keys before it gives up: each reader has reported its own mistakes.
fn fleet(top: &Section<'_>, read: ReadFile<'_>) -> Result<Fleet, Reported> {
    top.allow(KEYS);
    let name = top.required("name", "\"my-fleet\"", |top, key| top.checked(key, values::fleet_name));
    let region = top.checked("region", values::region);
    let image = top.required("image", "\"ubuntu-22.04\"", |top, key| top.checked(key, values::image));
    let zones = zones(top, region.as_ref());
    let port = top.integer("port", 1..=65_535);
    let delay = top.duration("deregistration-delay", Duration::ZERO..=Duration::from_secs(3600));
    let key_pair = top.checked("key-pair", values::key_pair);
    let profile = top.checked("instance-profile", values::instance_profile);
    let health_check = health_check(top);
    let groups = groups(top, name.as_ref().ok().map(|name| name.value.as_str()));
    let security = security(top);
    let package = package(top, read);
    let tags = tags(top);
    let text = |found: Option<Located<String>>| found.map(|found| found.value);
    let fleet = Fleet {
        name: name?.value,
        region: text(region?),
        image: image?.value,
        zones: zones?,
        port: port?.and_then(|port| u16::try_from(port).ok()).unwrap_or(80),
        deregistration_delay: delay?.unwrap_or(Duration::from_secs(300)),
        health_check: health_check?,
        groups: groups?,
        key_pair: text(key_pair?),
        instance_profile: text(profile?),
        security: security?,
        package: package?,
        tags: tags?,
    };
    fleet.check_size().map_err(|message| top.reading.report(1, message))?;
    Ok(fleet)
}

fn zones(
    top: &Section<'_>,
    region: Result<&Option<Located<String>>, &Reported>,
) -> Result<Vec<String>, Reported> {
    let example = "[\"us-east-1a\", \"us-east-1b\"]";
    let zones = top.required("zones", example, |top, key| top.texts(key, values::zone))?;
    let wrong = |message: String| Err(top.wrong("zones", &zones.span, message));
    if zones.value.len() < 2 {
        return wrong("a load balancer needs two different availability zones: add one".to_owned());
    }
    let region = region.ok().and_then(Option::as_ref).map(|region| region.value.as_str());
    for zone in &zones.value {
        let of = values::region_of(zone);
        if let Some(region) = region
            && of != Some(region)
        {
            return wrong(format!("{zone} is not in the region {region}: change one of the two"));
        }
        let first = &zones.value[0];
        if of != values::region_of(first) {
            return wrong(format!("{zone} and {first} are in different regions: choose zones of one region"));
        }
    }
    Ok(zones.value)
}

fn health_check(top: &Section<'_>) -> Result<HealthCheck, Reported> {
    let empty = DeTable::new();
    let section = top.section("health-check")?;
    let section = section.unwrap_or_else(|| top.without_keys("health-check", &empty));
    section.allow(KEYS);
    let path = section.checked("path", |path| {
        let right = path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic());
        if right { Ok(()) } else { Err("expected a path that begins with /, without spaces".to_owned()) }
    });
    let seconds = |low, high| Duration::from_secs(low)..=Duration::from_secs(high);
    let interval = section.duration("interval", seconds(5, 300));
    let interval = interval.map(|found| found.unwrap_or(Duration::from_secs(30)));
    let timeout = section.duration("timeout", seconds(2, 120));
    let timeout = timeout.map(|found| found.unwrap_or(Duration::from_secs(5)));
    let healthy = section.integer("healthy", 2..=10);
    let unhealthy = section.integer("unhealthy", 2..=10);
    let (interval, timeout) = (interval?, timeout?);
    if timeout >= interval {
        let (timeout, interval) = (duration::format(timeout), duration::format(interval));
        let message = format!("{timeout} is not shorter than health-check.interval, {interval}: shorten it");
        return Err(section.wrong("timeout", &section.span_of("timeout"), message));
    }
    Ok(HealthCheck {
        path: path?.map_or_else(|| "/".to_owned(), |path| path.value),
        interval,
        timeout,
        healthy: healthy?.unwrap_or(5),
        unhealthy: unhealthy?.unwrap_or(2),
    })
}

fn security(top: &Section<'_>) -> Result<Security, Reported> {
    let default = Security::default();
    let Some(section) = top.section("security")? else {
        return Ok(default);
    };
    section.allow(KEYS);
    let ranges = |key: &str, default: Vec<String>| {
        let found = section.texts(key, values::cidr)?;
        Ok(found.map_or(default, |found| found.value))
    };
    let ports = section.ports("ports").map(|ports| ports.unwrap_or(default.ports));
    let allow = ranges("allow", default.allow);
    let balancer_allow = ranges("balancer-allow", default.balancer_allow);
    let is_too_many = |key: &str, rules: usize| {
        let message =
            format!("{rules} rules, and a security group takes {RULES}: name fewer ports or ranges");
        if rules > RULES { Err(section.wrong(key, &section.span_of(key), message)) } else { Ok(()) }
    };
    let mut fits = Ok(());
    if let (Ok(ports), Ok(allow)) = (&ports, &allow) {
        // One rule more lets the load balancer reach the instances.
        fits = is_too_many("allow", ports.len() * allow.len() + 1);
    }
    let balancer_allow = balancer_allow?;
    if balancer_allow.is_empty() {
        let message = "expected at least one range: without one nobody reaches the load balancer";
        return Err(section.wrong("balancer-allow", &section.span_of("balancer-allow"), message));
    }
    is_too_many("balancer-allow", balancer_allow.len())?;
    fits?;
    Ok(Security { ports: ports?, allow: allow?, balancer_allow })
}

fn package(top: &Section<'_>, read: ReadFile<'_>) -> Result<Option<Package>, Reported> {
    let Some(section) = top.section("package")? else {
        return Ok(None);
    };
    let all_known = section.allow(KEYS);
    let ways = ["in-image", "deb", "url", "apt"];
    let keys = section.keys();
    let mut given = keys.iter().filter(|key| ways.contains(&key.value));
    let Some(way) = given.next() else {
        section.any_of(&ways)?;
        // The unknown key was probably meant to be one of them.
        if !all_known {
            return Err(Reported);
        }
        let line = section.reading.line(section.span.start);
        let message = "package: expected one of in-image, deb, url and apt: write one, or delete [package]";
        return Err(section.reading.report(line, message));
    };
    if let Some(second) = given.next() {
        let message = format!(
            "{} is set already: delete one, only one of in-image, deb, url and apt is possible",
            way.value
        );
        return Err(section.wrong(second.value, &second.span, message));
    }
    let mut misplaced = Ok(());
    for (key, of) in [("sha256", "url"), ("key", "apt")] {
        if way.value != of
            && let Some(value) = section.get(key)
        {
            misplaced = Err(section.wrong(key, &value.span(), format!("belongs to {of} only: delete it")));
        }
    }
    let beside = |path: &str| Path::new(section.reading.file).parent().unwrap_or(Path::new("")).join(path);
    let required = |key: &str, example: &str, check: fn(&str) -> Result<(), String>| {
        section.required(key, example, |section, key| section.checked(key, check))
    };
    let package = match way.value {
        "deb" => {
            let file = required("deb", "\"FILE.deb\"", |path| {
                if path.ends_with(".deb") {
                    Ok(())
                } else {
                    Err("expected the path of a .deb file".to_owned())
                }
            })?;
            Package::Deb { file: Some(beside(&file.value)), sha256: String::new() }
        }
        "url" => {
            let url = required("url", "\"https://…\"", values::package_url);
            let sha256 = required("sha256", "\"…\", as sha256sum prints for the package", values::sha256);
            Package::Url { url: url?.value, sha256: sha256?.value }
        }
        "apt" => {
            let line = required("apt", "\"deb …\"", values::apt_line);
            let key = required("key", "\"FILE.asc\", the repository's public key", |_| Ok(()));
            let Located { value, span } = key?;
            let path = beside(&value);
            let wrong =
                |message: String| section.wrong("key", &span, format!("{}: {message}", path.display()));
            let key = read(&path).map_err(|error| wrong(format!("cannot read the key: {error}")))?;
            values::armoured_key(&key).map_err(wrong)?;
            Package::Apt { line: line?.value, key: format!("{}\n", key.trim()) }
        }
        _ => match section.flag("in-image")? {
            Some(flag) if !flag.value => {
                let message = "expected true; delete [package] to use the package that comes with bootstrap";
                return Err(section.wrong("in-image", &flag.span, message));
            }
            _ => Package::InImage,
        },
    };
    misplaced?;
    Ok(Some(package))
}

fn tags(top: &Section<'_>) -> Result<BTreeMap<String, String>, Reported> {
    let Some(section) = top.section("tags")? else {
        return Ok(BTreeMap::new());
    };
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    let mut all = Ok(());
    for key in section.keys() {
        let check = |text: &str| {
            values::tag_key(key.value)?;
            // IAM ignores case, and refuses the second.
            match tags.keys().find(|other| other.eq_ignore_ascii_case(key.value)) {
                Some(other) => {
                    Err(format!("differs from tag {other} in upper and lower case only: delete one"))
                }
                None => values::tag_value(text),
            }
        };
        match section.any_text(key.value, check) {
            Ok(value) => tags.extend(value.map(|value| (key.value.to_owned(), value))),
            Err(reported) => all = Err(reported),
        }
    }
    let count = section.keys().len();
    if count > TAGS {
        let message =
            format!("tags: {count} tags, and at most {TAGS} fit beside those of bootstrap: delete some");
        return Err(section.reading.report(section.reading.line(section.span.start), message));
    }
    all.map(|()| tags)
}

fn groups(top: &Section<'_>, fleet: Option<&str>) -> Result<Vec<Group>, Reported> {
    let sections = top.sections("group")?;
    let mut names: Vec<String> = Vec::new();
    let mut groups = Vec::new();
    for section in &sections.value {
        section.allow(KEYS);
        let name = group_name(section, fleet);
        if let Ok((name, _)) = &name {
            if names.contains(name) {
                let message = format!("two groups have the name {name}: rename one");
                groups.push(Err(section.wrong("name", &section.span_of("name"), message)));
            }
            names.push(name.clone());
        }
        groups.push(group(section, name));
    }
    let count = sections.value.len();
    if count == 0 {
        groups.push(Err(top.wrong("group", &sections.span, "missing; write [[group]] with name and type")));
    } else if count > GROUPS {
        let message = format!("{count} groups, and a listener takes {GROUPS}: delete some");
        groups.push(Err(top.wrong("group", &sections.span, message)));
    }
    let groups: Vec<Group> = groups.into_iter().collect::<Result<_, _>>()?;
    if groups.iter().all(|group| group.weight == 0) {
        let message = "every group has weight 0: give at least one a weight from 1 to 999";
        return Err(top.wrong("group.weight", &sections.span, message));
    }
    Ok(groups)
}

/// A group's name, and whether paths lead to it.
fn group_name(section: &Section<'_>, fleet: Option<&str>) -> Result<(String, bool), Reported> {
    let paths = section.flag("paths").map(|flag| flag.is_none_or(|flag| flag.value));
    let name = section.required("name", "\"cluster1\"", |section, key| {
        section.checked(key, |name| {
            values::group_name(name, paths.unwrap_or(false))?;
            fleet.map_or(Ok(()), |fleet| values::target_group(fleet, name))
        })
    })?;
    Ok((name.value, paths?))
}

fn group(section: &Section<'_>, name: Result<(String, bool), Reported>) -> Result<Group, Reported> {
    let root = section.checked("root", |root| {
        let wrong = |_| "expected \"health\" or \"seed\"".to_owned();
        root.parse::<Root>().map(|_| ()).map_err(wrong)
    });
    let instance_type =
        section.required("type", "\"t3.micro\"", |section, key| section.checked(key, values::instance_type));
    let small = |number: Option<u32>| number.and_then(|number| u16::try_from(number).ok());
    let count = section.integer("count", 1..=1000);
    let weight = section.integer("weight", 0..=999);
    let (name, paths) = name?;
    Ok(Group {
        instance_type: instance_type?.value,
        count: small(count?).unwrap_or(1),
        weight: small(weight?).unwrap_or(1),
        root: root?.and_then(|root| root.value.parse().ok()).unwrap_or_default(),
        paths,
        name,
    })
}
