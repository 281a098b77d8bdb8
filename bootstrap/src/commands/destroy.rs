//! `destroy`: take a fleet down, and look whether anything is left.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::fleet_request::ExistingFleet;
use super::typed_command::typed_command;
use super::{ChangeOptions, consent, plan_text};
use crate::cloud::look::waiting;
use crate::cloud::pace::Pace;
use crate::cloud::search::{TaggedResource, search};
use crate::engine::actions::{ActionError, Executor};
use crate::engine::execute::{Halt, execute};
use crate::engine::interrupt::Interrupt;
use crate::engine::prepare::{OTHER_REGION_HINT, Prepared, place, stored};
use crate::engine::prepare_destroy::prepare_destroy;
use crate::local::running_local;
use crate::output::{Board, Outcome, Output, print, print_json, remark};

/// How long what is gone may go on being shown.
const LISTED_FOR: Duration = Duration::from_secs(10);

/// Takes the fleet down and looks whether anything is left.
///
/// # Errors
/// What failed, or what is left. Running it again goes on.
pub(crate) async fn destroy(fleet: ExistingFleet, options: ChangeOptions, force: bool) -> Result<Outcome> {
    let ChangeOptions { yes, timeout, output } = options;
    let (cloud, name) = fleet.connect().await?;
    let (cloud, name) = (&cloud, name.as_str());
    let mut interrupt = Interrupt::new().context("cannot listen for signals")?;
    let mut pace = Pace::new(timeout);
    let (mut rounds, mut settling, mut known) = (0, None, None);
    let mut told = BTreeSet::new();
    // Until there is nothing to do: a launch that was on its way may go on making things for a while.
    let (prepared, left) = loop {
        let looking = async {
            // What is gone may be shown for a while.
            if rounds > 1 && settling.is_none() && !pace.next().await {
                bail!(
                    "new resources of fleet {name} keep appearing: stop the running launch, then destroy again"
                );
            }
            let prepared = waiting(prepare_destroy(cloud, name, known.clone(), force)).await?;
            let mut left =
                if prepared.plan.is_empty() { waiting(search(cloud, Some(name))).await? } else { Vec::new() };
            left.retain(TaggedResource::still_exists);
            Ok((prepared, left))
        };
        let (prepared, left) = tokio::select! {
            found = looking => found?,
            () = interrupt.received() => bail!(interrupted(&cloud.region, rounds)),
        };
        for note in prepared.notes.iter().filter(|note| !told.contains(*note)) {
            remark(note);
        }
        told.extend(prepared.notes.iter().cloned());
        let Prepared { desired, plan, .. } = &prepared;
        let names = &desired.names;
        known = known.or_else(|| stored(&prepared.have).ok().flatten());
        if plan.is_empty() {
            // What a launch has made meanwhile the next look finds; what else is shown may be gone in a moment, but for
            // what somebody else uses.
            let settling = settling.get_or_insert_with(|| Pace::new(LISTED_FOR));
            let stays =
                |found: &TaggedResource| prepared.have.is_used_elsewhere(&found.id, &names.balancer());
            if left.iter().all(stays) || !settling.next().await {
                break (prepared, left);
            }
            continue;
        }
        settling = None;
        if rounds == 0 && !yes {
            remark(plan_text::text(&prepared).trim_end());
            let question = format!("Destroy fleet {} in {}?", names.fleet, names.region);
            consent::ask(&question, &mut interrupt).await?;
        }
        if rounds > 0 {
            remark("found more resources of the fleet; deleting these too");
        }
        rounds += 1;
        let board = Board::new();
        let executor = Executor::new(cloud, &prepared, timeout);
        let ended = execute(plan, &board, &mut interrupt, async |action, waiting| {
            executor.perform(action, waiting).await
        });
        match ended.await {
            Ok(()) | Err(Halt::Failed(ActionError::NewResource(_))) => {}
            Err(Halt::Interrupted) => bail!(interrupted(&cloud.region, rounds)),
            Err(Halt::Failed(error @ ActionError::Protected { .. })) => return Err(error.into()),
            Err(Halt::Failed(error)) => bail!("{error}\n{}", to_finish(&cloud.region)),
        }
    };
    let names = &prepared.desired.names;
    if output == Output::Json {
        let result = json!({
            "fleet": name,
            "region": names.region,
            "account": prepared.around.account,
            "found": rounds > 0 || !left.is_empty(),
            "left": left,
        });
        print_json(&result);
    }
    if !left.is_empty() {
        let lines: Vec<_> = left.iter().map(|found| format!("\n  {found}")).collect();
        let lines = lines.concat();
        remark(&format!(
            "bootstrap: these resources in {} still carry the tag of fleet {name}:{lines}",
            names.region
        ));
        if rounds > 0 {
            // Said at the beginning too, above all that was done since.
            prepared.notes.iter().for_each(|note| remark(note));
        }
        return Ok(Outcome::Failed);
    }
    let text = match rounds {
        0 => {
            let place = place(&names.region, &prepared.around.account);
            let local = running_local(name);
            format!("no resource of fleet {name} in {place}: nothing to do; {OTHER_REGION_HINT}{local}")
        }
        _ => format!("fleet {name} is deleted: no resource in {} carries its tag", names.region),
    };
    if output == Output::Text {
        print(&format!("{text}\n"));
    }
    Ok(Outcome::Done)
}

fn to_finish(region: &str) -> String {
    format!("run `{}` again to finish", typed_command(region))
}

fn interrupted(region: &str, rounds: usize) -> String {
    match rounds {
        0 => "interrupted; nothing was changed".to_owned(),
        _ => format!("interrupted; {}", to_finish(region)),
    }
}
