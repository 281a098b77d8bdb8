//! `launch`: bring a fleet to what its file says.

use anyhow::{Context, Result, anyhow, bail};

use super::fleet_request::FleetRequest;
use super::typed_command::typed_command;
use super::{ChangeOptions, consent, plan_text, prepare_failed, status};
use crate::cloud::look::waiting;
use crate::cloud::{Cloud, NoRegion};
use crate::deb::Deb;
use crate::engine::actions::{ActionError, Executor};
use crate::engine::execute::{Halt, execute};
use crate::engine::health::Unhealthy;
use crate::engine::interrupt::Interrupt;
use crate::engine::prepare::{Prepared, Request, prepare};
use crate::fleet::names::Names;
use crate::output::{Board, Outcome, Output, print_error, remark};
use crate::plan::inventory::Inventory;

/// Launches a fleet, finishes one, or changes one that is there.
///
/// # Errors
/// As [`bring_up`]; the fleet's file or package cannot be read.
pub(crate) async fn launch(request: FleetRequest, options: ChangeOptions) -> Result<Outcome> {
    let (fleet, deb) = request.read_with_package().await?;
    let cloud = Cloud::connect(fleet.region.clone()).await.map_err(|_| NoRegion::WithFile)?;
    let name = fleet.name.clone();
    let request = Request::Fleet(Box::new(fleet));
    bring_up(&cloud, &name, request, deb, options).await
}

/// Brings the fleet to what is asked for and waits until it is healthy.
///
/// # Errors
/// What failed. What is there by then is finished by the next launch and removed by a destroy.
pub(super) async fn bring_up(
    cloud: &Cloud,
    name: &str,
    request: Request,
    deb: Option<Deb>,
    options: ChangeOptions,
) -> Result<Outcome> {
    let ChangeOptions { yes, timeout, output } = options;
    let mut interrupt = Interrupt::new().context("cannot listen for signals")?;
    let preparing = prepare(cloud, name, request, deb);
    let prepared = tokio::select! {
        prepared = waiting(preparing) => prepared.map_err(|error| prepare_failed(error, &cloud.region))?,
        () = interrupt.received() => bail!("interrupted; nothing was changed"),
    };
    let Prepared { desired, have, plan, .. } = &prepared;
    let names = &desired.names;
    let executor = Executor::new(cloud, &prepared, timeout);
    if plan.is_empty() {
        // Nothing to do is only half the answer: the fleet is there, but is it well?
        let ended = {
            let board = Board::new();
            let line = board.begin("check that all are healthy");
            let waiting = |reason: &str| line.waits(reason);
            tokio::select! {
                ended = executor.until_healthy(false, &waiting) => ended,
                () = interrupt.received() => bail!("interrupted; nothing was changed"),
            }
        };
        if let Err(error) = ended {
            return unhealthy(error, None, output);
        }
        remark(&format!("fleet {} matches its definition: nothing to do", names.fleet));
        status::show_launched(desired, have, executor.balancer().as_ref(), output);
        return Ok(Outcome::Done);
    }
    if !yes || prepared.needs_consent() {
        remark(plan_text::text(&prepared).trim_end());
    }
    if prepared.needs_consent() && !yes {
        let question = match prepared.growth_to_confirm() {
            Some(more) => format!("Change fleet {} and add {more} instances?", names.fleet),
            None => format!("Change fleet {}?", names.fleet),
        };
        consent::ask(&question, &mut interrupt).await?;
    }
    let board = Board::new();
    let ended = execute(plan, &board, &mut interrupt, async |action, waiting| {
        executor.perform(action, waiting).await
    });
    match ended.await {
        Ok(()) => {}
        Err(Halt::Interrupted) => bail!("interrupted; {}", way_on(&executor)),
        Err(Halt::Failed(error @ ActionError::Unhealthy(_))) => {
            return unhealthy(error, Some(&executor), output);
        }
        Err(Halt::Failed(error @ (ActionError::ChangedElsewhere(_) | ActionError::Destroyed { .. }))) => {
            return Err(error.into());
        }
        Err(Halt::Failed(error)) => {
            return Err(anyhow!("{error}\n{}", way_on(&executor)));
        }
    }
    let now = Inventory { instances: executor.instances(), ..have.clone() };
    let now = Inventory { balancer: executor.balancer(), ..now };
    status::show_launched(desired, &now, None, output);
    Ok(Outcome::Done)
}

/// What stays when a launch ends early, what of it is billed, and the two commands that lead on.
fn way_on(executor: &Executor<'_>) -> String {
    let Names { fleet, region } = &executor.desired.names;
    let billed = match executor.running() {
        0 => String::new(),
        1 => ", up to 1 instance runs and is billed".to_owned(),
        many => format!(", up to {many} instances run and are billed"),
    };
    format!(
        "created resources remain{billed}: `{}` continues, `bootstrap destroy {fleet} --region {region}` deletes \
         them",
        typed_command(region)
    )
}

/// Exit status 3 where the fleet is not healthy, 1 where that could not be found out. `changed` did what this command
/// has changed by then.
fn unhealthy(error: ActionError, changed: Option<&Executor<'_>>, output: Output) -> Result<Outcome> {
    match error {
        ActionError::Unhealthy(Unhealthy::Call(error)) => Err(error.into()),
        ActionError::Unhealthy(error) => {
            remark(&format!("bootstrap: {error}"));
            if let Some(executor) = changed {
                remark(&way_on(executor));
            }
            print_error(output, &error.to_string());
            Ok(Outcome::NotHealthy)
        }
        error => Err(error.into()),
    }
}
