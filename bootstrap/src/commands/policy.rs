//! `policy`: the policy documents, to be attached by whoever administers the account.

use anyhow::Result;
use clap::ValueEnum;

use super::fleet_request::FleetRequest;
use crate::output::{Outcome, print_json};
use crate::policy::{self, Scope};

/// Whose policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Audience {
    /// Everyone who runs bootstrap for this fleet
    Operator,
    /// The instances' role
    Agent,
}

/// Prints one, for this region and account; for any where none is known.
///
/// # Errors
/// There is no such fleet, or it cannot have that name.
pub(crate) fn policy(
    whose: Audience,
    request: &FleetRequest,
    region: Option<&str>,
    account: Option<&str>,
) -> Result<Outcome> {
    let fleet = request.read()?;
    let scope = Scope::of(&fleet, region.or(fleet.region.as_deref()), account);
    let document = match whose {
        Audience::Operator => policy::operator(&scope),
        Audience::Agent => policy::agent(&scope),
    };
    print_json(&document);
    Ok(Outcome::Done)
}
