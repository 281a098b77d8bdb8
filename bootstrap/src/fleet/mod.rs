//! The fleet that a fleet file or the definition stored in AWS describes.
//!
//! | file | holds |
//! | --- | --- |
//! | `model.rs` | a fleet and its parts |
//! | `file.rs` | a fleet file, key by key; the built-in fleets |
//! | `file_text.rs` | a fleet as the text of a fleet file, with every default |
//! | `toml_table.rs` | the tables of a TOML file, read key by key |
//! | `toml_syntax.rs` | violations of TOML's grammar, and a text without them |
//! | `mistakes.rs` | the list of a file's mistakes, and the error made of it |
//! | `values.rs` | the form of names, address ranges, tags, …: the same for files and flags |
//! | `stored.rs` | the definition that is stored, and the differences between two |
//! | `desired.rs` | a desired fleet with its definition, tags and revisions: computed once and passed on |
//! | `names.rs` | the names of a fleet's resources |
//! | `tagging.rs` | the tags that bootstrap gives to resources |

pub(crate) use desired::Desired;

pub use instance_contract::Root;
pub use mistakes::FleetError;
pub(crate) use model::public_address;
pub use model::{Fleet, Group, HealthCheck, Package, Security};
pub use stored::{DefinitionError, Difference};

mod desired;
mod file;
mod file_text;
mod mistakes;
mod model;
pub(crate) mod names;
mod stored;
pub(crate) mod tagging;
mod toml_syntax;
mod toml_table;
pub mod values;

#[cfg(test)]
mod tests;
