//! The commands, a file each, named as they are typed.
//!
//! | file | holds |
//! | --- | --- |
//! | `request.rs` | which fleet a command is about |
//! | `consent.rs` | asking before something that is there is changed or deleted |
//! | `plan_text.rs` | a plan for people and for programs |
//!
//! Only here, and in the command line above, errors become [`anyhow::Error`]s.

pub(crate) mod consent;
pub(crate) mod destroy;
pub(crate) mod fleets;
pub(crate) mod launch;
pub(crate) mod list;
pub(crate) mod local;
pub(crate) mod plan;
mod plan_text;
pub(crate) mod policy;
pub(crate) mod request;
pub(crate) mod scale;
pub(crate) mod status;
pub(crate) mod verify;
