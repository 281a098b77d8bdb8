//! The launcher, as a library for its own binary and for the tests.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test a panic is the report"))]

mod apply;
pub mod cli;
mod cloud;
mod deb;
pub mod duration;
mod execute;
pub mod fleet;
mod health;
mod interrupt;
mod inventory;
mod launch;
mod list;
pub mod local;
mod names;
pub mod output;
mod plan;
mod plan_text;
mod policy;
mod prepare;
mod status;
mod surroundings;
mod tagging;
pub mod user_data;
pub mod verify;
