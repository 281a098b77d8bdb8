//! `bootstrap policy`: the policy documents, to be attached by whoever administers the account.

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{Scope, agent, operator};
use crate::fleet::{Fleet, values};
use crate::output::print;

/// `policy`.
#[derive(Debug, Args)]
pub struct Policy {
    /// Whose policy
    #[arg(value_enum)]
    pub whose: Whose,
    /// A built-in fleet's name or a fleet file
    #[arg(default_value = "clusters")]
    pub fleet: String,
    /// Another name for the fleet
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The region [default: the fleet's, else any]
    #[arg(long, value_name = "REGION", value_parser = region)]
    pub region: Option<String>,
    /// The account's twelve digits [default: any]
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub account: Option<String>,
}

/// Whose policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Whose {
    /// Whoever plans, launches, watches, scales and destroys the fleet
    Operator,
    /// The instances' role
    Agent,
}

fn region(text: &str) -> Result<String, String> {
    values::region(text).map(|()| text.to_owned())
}

fn account(text: &str) -> Result<String, String> {
    let right = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    right.then(|| text.to_owned()).ok_or_else(|| "expected the account's twelve digits".to_owned())
}

impl Policy {
    /// Prints it.
    ///
    /// # Errors
    /// The fleet cannot have that name.
    pub(crate) fn run(&self, mut fleet: Fleet) -> Result<()> {
        if let Some(name) = &self.name {
            fleet.rename(name).map_err(|message| anyhow::anyhow!("--name {name}: {message}"))?;
        }
        let region = self.region.as_deref().or(fleet.region.as_deref());
        let scope = Scope::of(&fleet, region, self.account.as_deref());
        let document = match self.whose {
            Whose::Operator => operator(&scope),
            Whose::Agent => agent(&scope),
        };
        print(&format!("{document:#}\n"));
        Ok(())
    }
}
