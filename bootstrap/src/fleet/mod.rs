//! The fleet: what is wanted, as a fleet file or the definition that is stored in AWS says it.
//!
//! | file | holds |
//! | --- | --- |
//! | `model.rs` | what a fleet is |
//! | `file.rs` | a fleet file, key by key; the built-in fleets |
//! | `toml_table.rs` | the tables of a TOML file; errors that name the line, the key, the nearest known key |
//! | `values.rs` | what AWS takes as a name, an address range, a tag, …: the same for files and flags |
//! | `stored.rs` | the definition that is stored, and the difference between two |
//! | `desired.rs` | a fleet as wanted, with its definition, tags and revisions: made once and handed down |
//! | `names.rs` | what the fleet's resources are called |
//! | `tagging.rs` | the tags that bootstrap gives them |

pub(crate) use desired::Desired;

pub use instance_contract::Root;
pub(crate) use model::public_address;
pub use model::{Fleet, Group, HealthCheck, Package, Security};
pub use stored::{DefinitionError, Difference};
pub use toml_table::FleetError;

mod desired;
mod file;
mod model;
pub(crate) mod names;
mod stored;
pub(crate) mod tagging;
mod toml_table;
pub mod values;

#[cfg(test)]
mod tests;
