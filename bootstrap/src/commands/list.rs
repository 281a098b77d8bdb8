//! `list`: the fleets in a region, and what is left of some.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use instance_contract::one_line;
use serde_json::json;

use super::fleet_request::built_in_names;
use crate::cloud::Cloud;
use crate::cloud::search::{ResourceKind, TaggedResource, search};
use crate::fleet::Fleet;
use crate::fleet::names::Names;
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
    for found in search(&cloud, None).await?.into_iter().filter(TaggedResource::still_exists) {
        fleets.entry(found.fleet.clone()).or_default().push(found);
    }
    if output == Output::Json {
        let fleets: Vec<_> = fleets
            .iter()
            .map(|(name, found)| json!({ "fleet": name, "complete": is_whole(found), "resources": found }))
            .collect();
        print_json(&json!({ "region": cloud.region, "fleets": fleets }));
        return Ok(Outcome::Done);
    }
    if fleets.is_empty() {
        print(&format!("no fleets in {}\n", cloud.region));
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&["FLEET", "INSTANCES", "LOAD BALANCER", "REMARK"]);
    for (name, found) in &fleets {
        let of = |kind| found.iter().filter(move |found| found.kind == kind);
        let balancer = of(ResourceKind::LoadBalancer).next().and_then(|found| found.state.clone());
        let remark = if is_whole(found) {
            "-".to_owned()
        } else {
            let (name, region) = (one_line(name, LONGEST_NAME), &cloud.region);
            let launch = Names::new(&name, region).launch_command();
            format!(
                "orphans: `bootstrap destroy {name} --region {region}` removes them, {launch} completes the fleet"
            )
        };
        table.add_row([
            one_line(name, LONGEST_NAME),
            of(ResourceKind::Instance).count().to_string(),
            balancer.unwrap_or_else(|| "-".to_owned()),
            remark,
        ]);
    }
    print(&table.render(terminal_size(std::io::stdout()).map(|(width, _)| width)));
    for (name, found) in fleets.iter().filter(|(_, found)| !is_whole(found)) {
        for found in found {
            print(&format!("{}: {found}\n", one_line(name, LONGEST_NAME)));
        }
    }
    Ok(Outcome::Done)
}

/// Where the built-in fleets are launched.
fn built_in_region() -> Option<String> {
    let name = Fleet::built_in_names().next()?;
    Fleet::parse(name, Fleet::built_in(name)?).ok()?.region
}

/// Whether what a fleet cannot be without is there. What is left of others are orphans.
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
