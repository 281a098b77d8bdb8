//! `fleets`: show the built-in fleets, and check a fleet file.

use anyhow::{Context, Result};
use serde_json::json;

use super::fleet_request::{FleetRequest, built_in_names};
use crate::fleet::{Fleet, Group};
use crate::output::{Outcome, Output, print, print_json, print_verbatim, remark};

/// Shows all, one a line.
///
/// # Errors
/// None, unless one of them is wrong.
pub(crate) fn list(output: Output) -> Result<Outcome> {
    let fleets: Vec<_> = Fleet::built_in_names().map(built_in).collect::<Result<_>>()?;
    if output == Output::Json {
        let fleets: Vec<_> = fleets.iter().map(|(fleet, _)| fleet.to_json()).collect();
        print_json(&json!({ "fleets": fleets }));
        return Ok(Outcome::Done);
    }
    for (fleet, _) in fleets {
        let of_group = |group: &Group| format!("{} x {} {}", group.count, group.instance_type, group.name);
        let groups: Vec<_> = fleet.groups.iter().map(of_group).collect();
        print(&format!("{:10} {}\n", fleet.name, groups.join(", ")));
    }
    Ok(Outcome::Done)
}

/// Prints one's file.
///
/// # Errors
/// There is none of this name.
pub(crate) fn show(name: &str, output: Output) -> Result<Outcome> {
    let (fleet, text) = built_in(name)?;
    match output {
        Output::Text => print_verbatim(text),
        Output::Json => print_json(&fleet.to_json()),
    }
    Ok(Outcome::Done)
}

/// Reads a fleet without AWS, and prints it as a file with every default.
///
/// # Errors
/// All mistakes of the file; its package cannot be read.
pub(crate) async fn check(file: &str, output: Output) -> Result<Outcome> {
    let request = FleetRequest { fleet: file.to_owned(), ..FleetRequest::default() };
    let (fleet, _) = request.read_with_package().await?;
    match output {
        Output::Text => {
            print_verbatim(&fleet.to_file());
            remark(&format!("{file} is valid"));
        }
        Output::Json => print_json(&fleet.to_json()),
    }
    Ok(Outcome::Done)
}

fn built_in(name: &str) -> Result<(Fleet, &'static str)> {
    let text = Fleet::built_in(name);
    let text = text.with_context(|| {
        format!("there is no built-in fleet {name}; the built-in fleets are {}", built_in_names())
    })?;
    Ok((Fleet::parse(name, text)?, text))
}
