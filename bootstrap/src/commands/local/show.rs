//! What a local launch prints: the fleet once it is healthy, or why it is not.

use std::io;
use std::path::Path;

use instance_contract::duration;
use local_cloud::TargetState;
use serde_json::json;

use super::events::end_of_log;
use super::options::LaunchOptions;
use super::program::find_on_path;
use crate::commands::suggestions;
use crate::commands::typed_command::quoted;
use crate::fleet::Fleet;
use crate::local::{LocalFleet, Member};
use crate::output::{Output, Table, print, print_error, print_json, remark, terminal_size};

/// Says why the fleet is not healthy.
pub(super) fn report(fleet: &LocalFleet, options: &LaunchOptions) {
    let timeout = duration::format(options.timeout);
    remark(&format!("not healthy within {timeout}:"));
    let mut reasons = Vec::new();
    for member in &fleet.members {
        let health = fleet.health(member);
        if health.state == TargetState::Healthy {
            continue;
        }
        let (id, address) = (member.instance.id(), member.address);
        let reason = health.reason.unwrap_or_default();
        let description = health.description.unwrap_or_default();
        let reason = format!("{id} {address}: {} ({reason}: {description})", health.state);
        remark(&reason);
        reasons.push(reason);
        for line in end_of_log(member) {
            remark(&format!("    {line}"));
        }
    }
    print_error(options.output, &format!("not healthy within {timeout}: {}", reasons.join("; ")));
}

/// Shows a fleet that is healthy, and what to do with it.
pub(super) fn show(fleet: &LocalFleet, definition: &Fleet, options: &LaunchOptions, folder: &Path) {
    match options.output {
        Output::Json => print_json(&to_json(fleet, definition)),
        Output::Text => {
            print(&table(fleet));
            print(&advice(fleet, definition, options, folder));
        }
    }
}

fn to_json(fleet: &LocalFleet, definition: &Fleet) -> serde_json::Value {
    let instances: Vec<_> = fleet
        .members
        .iter()
        .map(|member| {
            json!({
                "id": member.instance.id(),
                "group": member.group,
                "cluster": member.cluster,
                "target_group": member.target_group,
                "address": member.address,
                "pid": member.agent.pid(),
                "state_dir": member.command.state_dir(),
                "runtime_dir": member.command.runtime_dir(),
                "log": member.command.log(),
                "imds": member.instance.imds_url(),
                "target": fleet.health(member),
            })
        })
        .collect();
    json!({
        "fleet": definition.name,
        "url": fleet.balancer.url(),
        "endpoint": fleet.cloud.endpoint_url(),
        "instances": instances,
    })
}

fn table(fleet: &LocalFleet) -> String {
    let mut table = Table::new(&["INSTANCE", "GROUP", "ADDRESS", "TARGET STATE", "REASON"]);
    for member in &fleet.members {
        let health = fleet.health(member);
        table.add_row([
            member.instance.id().to_owned(),
            member.group.clone(),
            member.address.to_string(),
            health.state.to_string(),
            health.reason.unwrap_or("-").to_owned(),
        ]);
    }
    table.render(terminal_size(io::stdout()).map(|(width, _)| width))
}

/// What to try, and how to stop.
fn advice(fleet: &LocalFleet, definition: &Fleet, options: &LaunchOptions, folder: &Path) -> String {
    let url = fleet.balancer.url();
    let mut lines = vec![String::new(), format!("load balancer: {url}"), String::new()];
    let members = fleet.members.iter().map(|member| (member.group.as_str(), member.address.to_string()));
    lines.extend(suggestions::requests(definition, &url, &members.collect::<Vec<_>>()));
    if options.exit_when_healthy {
        return format!("{}\n", lines.join("\n"));
    }
    lines.extend([String::new(), "state of one instance, from its agent:".to_owned()]);
    lines.extend(fleet.members.first().map(|member| format!("  {}", status_command(member))));
    let stop = match options.duration {
        Some(duration) => format!("The fleet stops after {duration:?} or on Ctrl-C"),
        None => "Ctrl-C stops the fleet".to_owned(),
    };
    lines.push(match (&options.dir, options.duration) {
        (Some(_), _) => format!("\n{stop}; seeds and logs stay in {}.", folder.display()),
        (None, None) => format!("\n{stop} and deletes its folders, with stored numbers and logs."),
        (None, Some(_)) => format!("\n{stop}; its folders, with stored numbers and logs, are then deleted."),
    });
    lines.push(String::new());
    lines.join("\n")
}

/// The command that shows the status of a member's agent, as a shell takes it.
fn status_command(member: &Member) -> String {
    let binary = &member.command.binary;
    // Its name is enough where a shell finds the same program.
    let is_on_path = binary.file_name().and_then(find_on_path).is_some_and(|found| found == *binary);
    let program = binary.file_name().filter(|_| is_on_path).unwrap_or(binary.as_os_str());
    let folder = member.command.runtime_dir();
    format!(
        "{} status --runtime-dir {}",
        quoted(&program.to_string_lossy()),
        quoted(&folder.to_string_lossy())
    )
}
