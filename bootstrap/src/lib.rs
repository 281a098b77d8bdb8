//! The launcher, as a library for its own binary and for the tests.
//!
//! From the top floor down; a file imports only from its own floor and those below it:
//!
//! | floor | holds |
//! | --- | --- |
//! | `cli` | the command line |
//! | `commands` | the commands, a file each, named as they are typed |
//! | `engine` | from a request to a plan, and carrying it out |
//! | `cloud` | AWS |
//! | `plan`, `policy`, `user_data` | pure: what is to be done, what has to be allowed, what an instance is told |
//! | `verify`, `local` | checks through the load balancer; a fleet on this machine |
//! | `fleet`, `output`, `deb` | the fleet and its file; results and progress; the agent's package |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test a panic is the report"))]

pub mod cli;
mod cloud;
mod commands;
mod deb;
mod engine;
pub mod fleet;
mod local;
pub mod output;
mod plan;
mod policy;
pub mod user_data;
pub mod verify;

pub use local::{AgentCommand, AgentProcess};
