//! `list`: the fleets in a region, and what is left of some.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::StreamExt;
use futures_util::stream;
use instance_contract::one_line;
use serde_json::json;

use super::fleet_request::built_in_names;
use super::status::{format_age, healthy, rows, snapshot};
use crate::cloud::Cloud;
use crate::cloud::look::look;
use crate::cloud::search::{ResourceKind, TaggedResource, search};
use crate::fleet::names::Names;
use crate::fleet::{Fleet, values};
use crate::output::{Outcome, Output, Table, print, print_json, terminal_size};

/// The tag that names a fleet may be anybody's; it is shown to this length, in characters.
const LONGEST_NAME: usize = 128;

/// Shows them.
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
    let mut fleets: BTreeMap<String, Vec<TaggedResource>> = BTreeMap::new();
    for found in look(search(&cloud, None)).await??.into_iter().filter(TaggedResource::still_exists) {
        fleets.entry(found.fleet.clone()).or_default().push(found);
    }
    // A few at a time: each takes some calls, which AWS counts for the whole account.
    let looked = stream::iter(&fleets).map(|(name, found)| look_at(&cloud, name, found)).buffered(4);
    let looks: Vec<Look> = look(looked.collect()).await?;
    if output == Output::Json {
        let fleets: Vec<_> = fleets
            .iter()
            .zip(&looks)
            .map(|((name, found), look)| {
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
        print_json(&json!({ "region": cloud.region, "fleets": fleets }));
        return Ok(Outcome::Done);
    }
    if fleets.is_empty() {
        print(&format!("no fleets in {}\n", cloud.region));
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&["FLEET", "STATE", "HEALTHY", "AGE", "INSTANCES", "LOAD BALANCER"]);
    for ((name, found), look) in fleets.iter().zip(&looks) {
        let of = |kind| found.iter().filter(move |found| found.kind == kind);
        let balancer = of(ResourceKind::LoadBalancer).next().and_then(|found| found.state.clone());
        let dash = || "-".to_owned();
        table.add_row([
            one_line(name, LONGEST_NAME),
            look.state.to_owned(),
            look.healthy
                .map_or_else(dash, |healthy| format!("{healthy} of {}", look.wanted.unwrap_or_default())),
            look.age.map_or_else(dash, format_age),
            of(ResourceKind::Instance).count().to_string(),
            balancer.unwrap_or_else(dash),
        ]);
    }
    print(&table.render(terminal_size(std::io::stdout()).map(|(width, _)| width)));
    for ((name, found), look) in fleets.iter().zip(&looks) {
        let (name, region) = (one_line(name, LONGEST_NAME), &cloud.region);
        if let Some(cure) = look.cure(&name, region) {
            print(&format!("{name}: {cure}\n"));
        }
        if look.state == ORPHANS {
            for found in found {
                print(&format!("{name}: {found}\n"));
            }
        }
    }
    Ok(Outcome::Done)
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
