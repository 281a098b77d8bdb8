//! The launcher, as a library for its own binary and for the tests.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test a panic is the report"))]

pub mod cli;
mod cloud;
pub mod duration;
pub mod fleet;
pub mod local;
mod names;
mod output;
mod inventory;
mod pace;
mod plan;
mod policy;
mod surroundings;
mod tagging;
pub mod user_data;
