//! Shows a plan to people and programs: what it creates, changes and deletes, its calls, the vCPU that it needs,
//! and what AWS bills by the hour.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::engine::prepare::Prepared;
use crate::output::{Output, print, print_json};
use crate::plan::{Action, Effect, Price};

/// Writes the plan as a result.
pub(crate) fn show(prepared: &Prepared, output: Output) {
    match output {
        Output::Text => {
            let names = &prepared.desired.names;
            let end = if prepared.plan.is_empty() {
                let status = format!("`bootstrap status {} --region {}`", names.fleet, names.region);
                format!(
                    "fleet {} matches its definition: nothing to do; {status} shows whether it is healthy",
                    names.fleet
                )
            } else {
                "this is a plan: nothing was changed".to_owned()
            };
            print(&format!("{}\n{end}\n", text(prepared)));
        }
        Output::Json => print_json(&json(prepared)),
    }
}

/// The plan, for people.
pub(crate) fn text(prepared: &Prepared) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = write_text(prepared, &mut text);
    text
}

fn write_text(prepared: &Prepared, text: &mut String) -> std::fmt::Result {
    let Prepared { desired, plan, around, differences, .. } = prepared;
    let names = &desired.names;
    write!(text, "fleet {} in {}", names.fleet, names.region)?;
    match around.account.as_str() {
        "" => writeln!(text)?,
        account => writeln!(text, ", account {account}")?,
    }
    if !differences.is_empty() {
        writeln!(text, "\nchanges:")?;
        for difference in differences {
            writeln!(text, "  {difference}")?;
        }
    }
    if plan.is_empty() {
        return Ok(());
    }
    for (effect, heading) in [
        (Effect::Create, "create"),
        (Effect::Change, "change"),
        (Effect::Delete, "delete"),
        (Effect::Wait, "wait"),
    ] {
        let mut steps = plan.steps_that(effect).peekable();
        if steps.peek().is_some() {
            writeln!(text, "\n{heading}:")?;
        }
        for step in steps {
            writeln!(text, "  {}", step.title)?;
        }
    }
    let calls = calls(prepared);
    writeln!(text, "\n{} calls, without retries:", calls.values().sum::<usize>())?;
    for (call, times) in &calls {
        writeln!(text, "  {times} × {call}")?;
    }
    if let Some((needed, quota)) = vcpus(prepared) {
        let used = around.vcpus.used;
        match quota {
            Some(quota) => writeln!(text, "\nvCPU: {needed} needed; {used} of {quota} in use")?,
            None => writeln!(
                text,
                "\nvCPU: {needed} needed; {used} in use, quota unknown (servicequotas:GetServiceQuota is not allowed)"
            )?,
        }
    }
    let billed = billed(prepared);
    if !billed.is_empty() {
        writeln!(text, "billed by the hour: {}", billed.join("; "))?;
    }
    if launches(prepared) {
        let extra = "volumes, addresses, the load balancer and traffic cost extra";
        writeln!(text, "instances: {}; {extra}", price(prepared))?;
    }
    Ok(())
}

fn json(prepared: &Prepared) -> Value {
    let Prepared { desired, plan, around, differences, .. } = prepared;
    let names = &desired.names;
    let steps: Vec<_> = plan
        .steps
        .iter()
        .map(|step| {
            let effect = match step.action.effect() {
                Effect::Create => "create",
                Effect::Change => "change",
                Effect::Delete => "delete",
                Effect::Wait => "wait",
            };
            json!({ "effect": effect, "what": step.title, "calls": step.action.calls(), "after": step.after })
        })
        .collect();
    let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
    let vcpus = vcpus(prepared)
        .map(|(needed, quota)| json!({ "needed": needed, "used": around.vcpus.used, "quota": quota }));
    json!({
        "fleet": names.fleet,
        "region": names.region,
        "account": around.account,
        "differences": differences,
        "steps": steps,
        "vcpus": vcpus,
        "billed_by_the_hour": billed(prepared),
        "price_per_hour": launches(prepared).then(|| price(prepared).to_json()),
    })
}

fn calls(prepared: &Prepared) -> BTreeMap<&'static str, usize> {
    let mut calls = BTreeMap::new();
    for call in prepared.plan.steps.iter().flat_map(|step| step.action.calls()) {
        *calls.entry(*call).or_default() += 1;
    }
    calls
}

fn launches(prepared: &Prepared) -> bool {
    prepared.plan.steps.iter().any(|step| matches!(step.action, Action::RunInstances { .. }))
}

/// Processors that the plan needs, and how many the account may have.
fn vcpus(prepared: &Prepared) -> Option<(u32, Option<u32>)> {
    let Prepared { desired, plan, around, .. } = prepared;
    let needed = desired
        .fleet
        .groups
        .iter()
        .map(|group| around.standard_vcpus(&group.instance_type, plan.launched(&group.name)));
    launches(prepared).then(|| (needed.sum(), around.vcpus.quota))
}

/// What the new instances cost.
fn price(prepared: &Prepared) -> Price {
    let Prepared { desired, plan, .. } = prepared;
    let groups = desired.fleet.groups.iter();
    Price::of(groups.map(|group| (group.instance_type.as_str(), plan.launched(&group.name))))
}

/// The new resources that AWS bills by the hour.
fn billed(prepared: &Prepared) -> Vec<String> {
    let Prepared { desired, plan, .. } = prepared;
    let mut billed = Vec::new();
    if plan.steps.iter().any(|step| step.action == Action::CreateBalancer) {
        billed.push(format!(
            "1 load balancer in {} zones, with a public address in each",
            desired.fleet.zones.len()
        ));
    }
    for group in &desired.fleet.groups {
        let count = plan.launched(&group.name);
        if count > 0 {
            billed
                .push(format!("{count} × {}, each with a volume and a public address", group.instance_type));
        }
    }
    billed
}
