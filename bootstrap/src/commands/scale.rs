//! `scale`: change how many instances groups have.

use anyhow::Result;

use super::ChangeOptions;
use super::fleet_request::ExistingFleet;
use super::launch::bring_up;
use crate::engine::prepare::Request;
use crate::output::Outcome;

/// Brings the groups to these numbers of instances, and waits until the fleet is healthy.
///
/// # Errors
/// As a launch; there is no such fleet or group.
pub(crate) async fn scale(
    fleet: ExistingFleet,
    counts: Vec<(String, u16)>,
    options: ChangeOptions,
) -> Result<Outcome> {
    let (cloud, name) = fleet.connect().await?;
    bring_up(&cloud, &name, Request::Counts(counts), None, options).await
}
