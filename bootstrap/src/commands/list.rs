//! `list`: the fleets in a region, and what is left of some.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::StreamExt;
use futures_util::stream;
use instance_contract::one_line;
use serde_json::{Value, json};

use super::fleet_request::built_in_names;
use super::status::{format_age, healthy, rows, snapshot};
use crate::cloud::look::look;
use crate::cloud::search::{ResourceKind, TaggedResource, search};
use crate::cloud::{CallError, Cloud};
use crate::fleet::names::Names;
use crate::fleet::{Fleet, values};
use crate::output::{Outcome, Output, Table, print, print_json, remark, terminal_size};

/// The tag that names a fleet may be anybody's; it is shown to this length, in characters.
const LONGEST_NAME: usize = 128;

/// How many regions are asked at a time.
const REGIONS_AT_ONCE: usize = 6;

/// Shows those in a region.
///
/// # Errors
/// A call failed.
pub(crate) async fn list(region: Option<String>, output: Output) -> Result<Outcome> {
    let connected = Cloud::connect(region).await;
    let cloud = connected.map_err(|error| match built_in_region() {
        Some(region) => anyhow!(
            "{error}; the built-in fleets {} are in {region}: `bootstrap list --region {region}`",
            built_in_names()
        ),
        None => anyhow!(error),
    })?;
    let found = look(look_around(&cloud)).await??;
    if output == Output::Json {
        print_json(&to_json(&cloud.region, &found));
    } else if found.is_empty() {
        print(&format!("no fleets in {}\n", cloud.region));
    } else {
        show(&[(cloud.region, found)], false);
    }
    Ok(Outcome::Done)
}

/// Shows those in all regions that the account has enabled.
///
/// # Errors
/// The regions cannot be listed. One that does not answer is named, and the others are shown.
pub(crate) async fn list_everywhere(output: Output) -> Result<Outcome> {
    let cloud = match Cloud::connect(None).await {
        Ok(cloud) => cloud,
        // Any region knows all of them.
        Err(error) => Cloud::connect(Some(built_in_region().ok_or(error)?)).await?,
    };
    let regions = look(cloud.regions()).await??;
    let asked = stream::iter(regions).map(|region| async {
        let cloud = Cloud::connect(Some(region.clone())).await?;
        let found = look(look_around(&cloud)).await.map_err(anyhow::Error::from).and_then(|found| Ok(found?));
        Ok::<_, anyhow::Error>((region, found))
    });
    let mut answers = asked.buffered(REGIONS_AT_ONCE);
    let (mut all, mut silent) = (Vec::new(), Vec::new());
    while let Some(answer) = answers.next().await {
        match answer? {
            (region, Ok(found)) => all.push((region, found)),
            (region, Err(error)) => silent.push((region, format!("{error:#}"))),
        }
    }
    for (region, error) in &silent {
        remark(&format!("{region}: {error}"));
    }
    if output == Output::Json {
        let shown: Vec<_> = all.iter().map(|(region, found)| to_json(region, found)).collect();
        let silent: Vec<_> =
            silent.iter().map(|(region, error)| json!({ "region": region, "error": error })).collect();
        print_json(&json!({ "regions": shown, "errors": silent }));
    } else if all.iter().all(|(_, found)| found.is_empty()) {
        print(&format!("no fleets in {} regions\n", all.len()));
    } else {
        show(&all, true);
    }
    Ok(if silent.is_empty() { Outcome::Done } else { Outcome::Failed })
}

/// A fleet's name, its resources, and how it is.
type Found = (String, Vec<TaggedResource>, Look);

/// The fleets in a region.
async fn look_around(cloud: &Cloud) -> Result<Vec<Found>, CallError> {
    let mut fleets: BTreeMap<String, Vec<TaggedResource>> = BTreeMap::new();
    for found in search(cloud, None).await?.into_iter().filter(TaggedResource::still_exists) {
        fleets.entry(found.fleet.clone()).or_default().push(found);
    }
    // A few at a time: each takes some calls, which AWS counts for the whole account.
    let looked = stream::iter(&fleets).map(|(name, found)| look_at(cloud, name, found)).buffered(4);
    let looks: Vec<Look> = looked.collect().await;
    Ok(fleets.into_iter().zip(looks).map(|((name, found), look)| (name, found, look)).collect())
}

fn to_json(region: &str, found: &[Found]) -> Value {
    let fleets: Vec<_> = found
        .iter()
        .map(|(name, found, look)| {
            json!({
                "fleet": name,
                "complete": is_whole(found),
                "state": look.state,
                "wanted": look.wanted,
                "healthy": look.healthy,
                "launched": look.launched,
                "resources": found,
            })
        })
        .collect();
    json!({ "region": region, "fleets": fleets })
}

/// A row for each fleet, then what each needs. Of several regions each row has its own.
fn show(all: &[(String, Vec<Found>)], several: bool) {
    let header = ["REGION", "FLEET", "STATE", "HEALTHY", "AGE", "INSTANCES", "LOAD BALANCER"];
    let mut table = Table::new(&header[usize::from(!several)..]);
    let every = || all.iter().flat_map(|(region, found)| found.iter().map(move |found| (region, found)));
    for (region, (name, found, look)) in every() {
        let of = |kind| found.iter().filter(move |found| found.kind == kind);
        let balancer = of(ResourceKind::LoadBalancer).next().and_then(|found| found.state.clone());
        let dash = || "-".to_owned();
        let row = [
            one_line(name, LONGEST_NAME),
            look.state.to_owned(),
            look.healthy
                .map_or_else(dash, |healthy| format!("{healthy} of {}", look.wanted.unwrap_or_default())),
            look.age.map_or_else(dash, format_age),
            of(ResourceKind::Instance).count().to_string(),
            balancer.unwrap_or_else(dash),
        ];
        table.add_row(several.then(|| region.clone()).into_iter().chain(row));
    }
    print(&table.render(terminal_size(std::io::stdout()).map(|(width, _)| width)));
    for (region, (name, found, look)) in every() {
        let name = one_line(name, LONGEST_NAME);
        if let Some(cure) = look.cure(&name, region) {
            print(&format!("{name}: {cure}\n"));
        }
        if look.state == ORPHANS {
            for found in found {
                print(&format!("{name}: {found}\n"));
            }
        }
    }
}

const ORPHANS: &str = "orphans";
const UNFINISHED: &str = "unfinished";
const UNHEALTHY: &str = "unhealthy";
const HEALTHY: &str = "healthy";
const UNKNOWN: &str = "unknown";

/// How a fleet is.
struct Look {
    state: &'static str,
    wanted: Option<usize>,
    healthy: Option<usize>,
    /// When its oldest instance was launched, in seconds since 1970.
    launched: Option<i64>,
    age: Option<Duration>,
    /// Why the state is not known.
    error: Option<String>,
}

impl Look {
    /// The cure, if the fleet needs one.
    fn cure(&self, name: &str, region: &str) -> Option<String> {
        let launch = Names::new(name, region).launch_command();
        let destroy = format!("`bootstrap destroy {name} --region {region}`");
        Some(match self.state {
            ORPHANS => format!("orphans: {destroy} deletes them, {launch} completes the fleet"),
            UNFINISHED => {
                format!("unfinished launch or change: {launch} finishes it, {destroy} deletes the fleet")
            }
            UNHEALTHY => format!("`bootstrap status {name} --region {region}` shows why, and what to do"),
            UNKNOWN => format!("its state is unknown: {}", self.error.as_deref().unwrap_or_default()),
            _ => return None,
        })
    }
}

async fn look_at(cloud: &Cloud, name: &str, found: &[TaggedResource]) -> Look {
    let nothing =
        Look { state: ORPHANS, wanted: None, healthy: None, launched: None, age: None, error: None };
    if !is_whole(found) || values::fleet_name(name).is_err() {
        return nothing;
    }
    let found = match snapshot(cloud, name).await {
        Ok(found) => found,
        Err(error) => return Look { state: UNKNOWN, error: Some(format!("{error:#}")), ..nothing },
    };
    let rows = rows(&found.desired, &found.have, Some(&found.health));
    let (wanted, healthy) = (found.desired.fleet.instances(), healthy(&rows));
    let state = if !found.have.is_settled(&found.desired) {
        UNFINISHED
    } else if healthy < wanted {
        UNHEALTHY
    } else {
        HEALTHY
    };
    Look {
        state,
        wanted: Some(wanted),
        healthy: Some(healthy),
        launched: rows.iter().map(|row| row.launched).min(),
        age: rows.iter().map(|row| row.age).max(),
        error: None,
    }
}

/// Where the built-in fleets are launched.
fn built_in_region() -> Option<String> {
    let name = Fleet::built_in_names().next()?;
    Fleet::parse(name, Fleet::built_in(name)?).ok()?.region
}

/// Whether the essential resources of a fleet exist. Without them the rest are orphans.
fn is_whole(found: &[TaggedResource]) -> bool {
    [
        ResourceKind::LoadBalancer,
        ResourceKind::Instance,
        ResourceKind::SecurityGroup,
        ResourceKind::TargetGroup,
    ]
    .iter()
    .all(|kind| found.iter().any(|found| found.kind == *kind))
}
