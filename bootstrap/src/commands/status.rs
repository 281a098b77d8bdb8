//! `status`: how a fleet is, as the balancer and EC2 see it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use instance_contract::TargetHealthState;
use serde::Serialize;
use serde_json::{Value, json};

use super::fleet_request::ExistingFleet;
use super::suggestions;
use crate::cloud::Cloud;
use crate::cloud::elbv2::TargetHealth;
use crate::cloud::look::look;
use crate::engine::health::{age, cure, not_registered};
use crate::engine::interrupt::Interrupt;
use crate::engine::prepare;
use crate::fleet::Desired;
use crate::fleet::names::Names;
use crate::output::{
    Outcome, Output, Screen, Table, print, print_json, reader_is_gone, remark, terminal_size,
};
use crate::plan::inventory::{Balancer, Instance, Inventory};
use crate::plan::{Members, members};

/// From one look to the next with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// A fleet at one moment.
pub(super) struct Snapshot {
    pub(super) desired: Desired,
    pub(super) have: Inventory,
    /// Target health by target group's name, then instance.
    pub(super) health: BTreeMap<String, Vec<TargetHealth>>,
}

/// Shows how the fleet is; with `watch` again and again until interrupted.
///
/// # Errors
/// A call failed, or there is no such fleet.
pub(crate) async fn status(fleet: ExistingFleet, watch: bool, output: Output) -> Result<Outcome> {
    let (cloud, name) = fleet.connect().await?;
    // A single look is ended by any signal; who watches does so until they have seen enough.
    let mut interrupt = watch.then(Interrupt::new).transpose().context("cannot listen for signals")?;
    let mut interrupted = async || match &mut interrupt {
        Some(interrupt) => interrupt.received().await,
        None => std::future::pending().await,
    };
    let mut screen = Screen::default();
    loop {
        let found = tokio::select! {
            found = look(snapshot(&cloud, &name)) => found??,
            () = interrupted() => return Ok(Outcome::Done),
        };
        let rows = rows(&found.desired, &found.have, Some(&found.health));
        let (desired, balancer) = (&found.desired, found.have.balancer.as_ref());
        if !watch {
            show(desired, &rows, balancer, output);
            let is_healthy = healthy(&rows) >= desired.fleet.instances();
            return Ok(if is_healthy { Outcome::Done } else { Outcome::NotHealthy });
        }
        match output {
            Output::Json => print_json(&to_json(desired, &rows, balancer)),
            Output::Text => {
                let cures: String = cures(&rows).iter().map(|cure| format!("{cure}\n")).collect();
                screen.show(&table(&rows), &format!("{cures}{}", summary(desired, &rows, balancer)));
            }
        }
        if reader_is_gone() {
            return Ok(Outcome::Done);
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
            () = interrupted() => return Ok(Outcome::Done),
        }
    }
}

pub(super) async fn snapshot(cloud: &Cloud, name: &str) -> Result<Snapshot> {
    let names = Names::new(name, &cloud.region);
    let mut survey = cloud.survey(&names).await?;
    if !survey.ownership_is_certain() {
        cloud.retain_tagged(&names, &mut survey).await?;
    }
    let mut have = survey.inventory;
    let Some(fleet) = prepare::stored(&have)? else {
        if have.is_empty() {
            bail!("{}", prepare::not_found_message(cloud, name).await);
        }
        bail!(
            "found only parts of fleet {name} in {}; {} completes it, `bootstrap destroy {name} --region {}` \
             deletes them",
            cloud.region,
            names.launch_command(),
            cloud.region
        );
    };
    let asked = have.target_groups.iter().map(|group| cloud.target_health(&group.arn));
    let healths = try_join_all(asked).await?;
    let healthy: BTreeSet<_> = healths.iter().flatten().filter(|h| h.is_healthy()).map(|h| &h.id).collect();
    let unhealthy = have.instances.iter().map(|instance| &instance.id).filter(|id| !healthy.contains(id));
    have.unhealthy = unhealthy.cloned().collect();
    let groups = have.target_groups.iter().map(|group| group.name.clone());
    let health = groups.zip(healths).collect();
    Ok(Snapshot { desired: Desired::new(fleet, names), have, health })
}

/// An instance, as it is shown.
#[derive(Serialize)]
pub(super) struct InstanceRow {
    pub(super) id: String,
    pub(super) group: String,
    pub(super) state: String,
    /// The target's health in ELBv2's words, or that there is none.
    pub(super) target_state: String,
    #[serde(skip)]
    pub(super) is_healthy: bool,
    pub(super) reason: Option<String>,
    pub(super) cure: Option<&'static str>,
    pub(super) zone: String,
    pub(super) address: Option<String>,
    pub(super) launched: i64,
    #[serde(skip)]
    pub(super) age: Duration,
    /// Whether it is one of those that the fleet is to have.
    #[serde(skip)]
    pub(super) counts: bool,
}

/// Those of the fleet's own instances that are healthy.
pub(super) fn healthy(rows: &[InstanceRow]) -> usize {
    rows.iter().filter(|row| row.counts && row.is_healthy).count()
}

/// Without `health`, those that the fleet is to have are healthy: a launch has waited for them.
pub(super) fn rows(
    desired: &Desired,
    have: &Inventory,
    health: Option<&BTreeMap<String, Vec<TargetHealth>>>,
) -> Vec<InstanceRow> {
    let fleet = &desired.fleet;
    // One for each that is wanted, so that no other can stand in for it: what is there already, and what
    // it replaces as long as it is not.
    let counted: BTreeSet<_> = fleet
        .groups
        .iter()
        .flat_map(|group| {
            let Members { kept, missing, replaced, .. } = members(desired, group, have);
            kept.into_values().chain(replaced.into_iter().take(missing.len()))
        })
        .map(|instance| &instance.id)
        .collect();
    let row = |instance: &Instance| {
        let target_group = instance.target_group().unwrap_or_default();
        let group = fleet.groups.iter().find(|group| fleet.target_group(group) == target_group);
        let found = health.and_then(|all| all.get(target_group));
        let found = found.and_then(|all| all.iter().find(|health| health.id == instance.id));
        let (state, absent) = match health {
            None => (counted.contains(&instance.id).then_some(&TargetHealthState::Healthy), "-"),
            Some(_) => (found.map(|found| &found.state), "not registered"),
        };
        let reason = found.and_then(|found| found.reason.clone());
        // An instance that does not run explains all that its target shows.
        let own = match (health.is_some(), instance.state.as_str()) {
            (true, "stopped" | "stopping") => {
                Some("start the instance (`aws ec2 start-instances`), or terminate it and launch again")
            }
            (true, "running") if found.is_none() => Some(not_registered(age(instance))),
            _ => None,
        };
        InstanceRow {
            id: instance.id.clone(),
            group: group.map_or_else(|| target_group.to_owned(), |group| group.name.clone()),
            state: instance.state.clone(),
            target_state: state.map_or(absent, TargetHealthState::as_str).to_owned(),
            is_healthy: state == Some(&TargetHealthState::Healthy),
            reason: reason.or_else(|| instance.reason.clone().filter(|_| instance.state != "running")),
            cure: own.or(found.and_then(cure)),
            zone: instance.zone.clone(),
            address: instance.public_address.clone().or_else(|| instance.private_address.clone()),
            launched: instance.launched,
            age: age(instance),
            counts: counted.contains(&instance.id),
        }
    };
    let mut rows: Vec<_> = have.instances.iter().filter(|instance| !instance.is_gone()).map(row).collect();
    rows.sort_by(|a, b| (&a.group, &a.zone, &a.id).cmp(&(&b.group, &b.zone, &b.id)));
    rows
}

/// Shows a fleet that a launch has seen healthy.
pub(super) fn show_launched(
    desired: &Desired,
    have: &Inventory,
    balancer: Option<&Balancer>,
    output: Output,
) {
    let rows = rows(desired, have, None);
    let balancer = have.balancer.as_ref().or(balancer);
    show(desired, &rows, balancer, output);
    if let Some(row) = rows.first().filter(|_| output == Output::Text) {
        for line in suggestions::login(desired, &row.id) {
            print(&format!("{line}\n"));
        }
    }
}

fn show(desired: &Desired, rows: &[InstanceRow], balancer: Option<&Balancer>, output: Output) {
    if output == Output::Json {
        return print_json(&to_json(desired, rows, balancer));
    }
    print(&table(rows));
    cures(rows).iter().for_each(|cure| remark(cure));
    print(&summary(desired, rows, balancer));
}

fn table(rows: &[InstanceRow]) -> String {
    let mut table =
        Table::new(&["INSTANCE", "GROUP", "STATE", "TARGET STATE", "REASON", "ZONE", "ADDRESS", "AGE"]);
    for row in rows {
        let dash = || "-".to_owned();
        table.add_row([
            row.id.clone(),
            row.group.clone(),
            row.state.clone(),
            row.target_state.clone(),
            row.reason.clone().unwrap_or_else(dash),
            row.zone.clone(),
            row.address.clone().unwrap_or_else(dash),
            format_age(row.age),
        ]);
    }
    table.render(terminal_size(std::io::stdout()).map(|(width, _)| width))
}

/// What to do, each once, with the first instance that it is about.
fn cures(rows: &[InstanceRow]) -> Vec<String> {
    let (mut told, mut lines): (Vec<&str>, _) = (Vec::new(), Vec::new());
    for row in rows {
        if let Some(cure) = row.cure.filter(|cure| !told.contains(cure)) {
            told.push(cure);
            lines.push(format!("{}: {cure}", row.id));
        }
    }
    lines
}

/// How many are healthy, and what to try.
fn summary(desired: &Desired, rows: &[InstanceRow], balancer: Option<&Balancer>) -> String {
    let fleet = &desired.fleet;
    let mut lines =
        vec![String::new(), format!("{} of {} instances are healthy", healthy(rows), fleet.instances())];
    match balancer {
        Some(found) => {
            let port = if fleet.port == 80 { String::new() } else { format!(":{}", fleet.port) };
            let state = if found.state == "active" { String::new() } else { format!(" ({})", found.state) };
            let url = format!("http://{}{port}", found.dns_name);
            lines.push(format!("load balancer: {url}/{state}"));
            let serving = rows.iter().filter(|row| row.is_healthy);
            let addresses = serving.filter_map(|row| {
                let address = row.address.as_ref()?;
                Some((row.group.as_str(), format!("{address}{port}")))
            });
            lines.extend(suggestions::requests(fleet, &url, &addresses.collect::<Vec<_>>()));
        }
        None => {
            lines.push(format!("no load balancer; {} finishes the fleet", desired.names.launch_command()))
        }
    }
    lines.join("\n") + "\n"
}

fn to_json(desired: &Desired, rows: &[InstanceRow], balancer: Option<&Balancer>) -> Value {
    let Desired { fleet, names, .. } = desired;
    json!({
        "fleet": fleet.name,
        "region": names.region,
        "wanted": fleet.instances(),
        "healthy": healthy(rows),
        "balancer": balancer.map(|found| json!({ "dns_name": found.dns_name, "state": found.state })),
        "instances": rows,
    })
}

/// In the largest unit that says something.
pub(super) fn format_age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
