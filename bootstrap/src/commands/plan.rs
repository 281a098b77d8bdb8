//! `plan`: show what a launch or a destroy would do, and change nothing.

use anyhow::Result;

use super::fleet_request::{ExistingFleet, FleetRequest};
use super::{plan_text, prepare_failed};
use crate::cloud::look::look;
use crate::cloud::{Cloud, NoRegion};
use crate::engine::prepare::{OTHER_REGION_HINT, PrepareError, Request, place, prepare};
use crate::engine::prepare_destroy::prepare_destroy;
use crate::output::{Outcome, Output, print, remark};

/// Shows what a launch would do.
///
/// # Errors
/// A call failed, or the launch would.
pub(crate) async fn plan_launch(request: FleetRequest, output: Output) -> Result<Outcome> {
    let word = request.fleet.clone();
    let (fleet, deb) = request.read_with_package().await?;
    let cloud = Cloud::connect(fleet.region.clone()).await.map_err(|_| NoRegion::WithFile)?;
    let name = fleet.name.clone();
    let prepared = look(prepare(&cloud, &name, Request::Fleet(Box::new(fleet)), deb)).await?;
    let prepared = prepared.map_err(|error| {
        if matches!(&error, PrepareError::Call(call) if call.lacks_credentials()) {
            remark(&format!("`bootstrap fleets check {word}` shows the fleet without AWS"));
        }
        prepare_failed(error, &cloud.region)
    })?;
    plan_text::show(&prepared, output);
    Ok(Outcome::Done)
}

/// Shows what a destroy would do.
///
/// # Errors
/// A call failed.
pub(crate) async fn plan_destroy(fleet: ExistingFleet, output: Output) -> Result<Outcome> {
    let (cloud, name) = fleet.connect().await?;
    let prepared = look(prepare_destroy(&cloud, &name, None, false)).await??;
    prepared.notes.iter().for_each(|note| remark(note));
    if prepared.plan.is_empty() && output == Output::Text {
        let place = place(&prepared.desired.names.region, &prepared.around.account);
        print(&format!("no resource of fleet {name} in {place}: nothing to do; {OTHER_REGION_HINT}\n"));
        return Ok(Outcome::Done);
    }
    plan_text::show(&prepared, output);
    Ok(Outcome::Done)
}
